"""Rules that no reader of a change should have to remember: what the source may not contain.

Every exception is named with its reason; one that is no longer needed fails as well.
"""

from __future__ import annotations

import ast
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "renalkit"
MAX_TRACKED_BYTES = 1_000_000

UNSAFE_MODULES = frozenset(
    {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"}
)
Exceptions = dict[tuple[str, str], str]

UNSAFE_ALLOWED: Exceptions = {
    ("learn/pretrained.py", "import pickle"): "names UnpicklingError, to refuse damaged weights",
}
WRITES_ALLOWED: Exceptions = {
    ("learn/prepared.py", "open"): "fills the temporary files that store.files.write_with gives",
    ("learn/checkpoint.py", "save_file"): "fills the temporary file of store.files.write_with",
    ("learn/predictor.py", "save_file"): "fills the temporary file of store.files.write_with",
    ("store/predictions.py", "write_table"): "fills the temporary file of store.files.write_with",
    ("store/scans.py", "savez_compressed"): "fills the temporary file of store.files.write_with",
    ("store/pixels.py", "ZipFile"): "fills the temporary file of store.files.write_with",
    ("writers/dicom_phantom.py", "open"): "fills the temporary file of store.files.write_with",
    (
        "usecases/phantom_ct.py",
        "savez_compressed",
    ): "fills the temporary file of store.files.replacing",
    ("usecases/ceus.py", "savez_compressed"): "packs maps in memory; store.files writes them",
    ("writers/lesion_page.py", "savefig"): "makes pages in memory; store.files writes them",
    ("writers/readings.py", "ZipFile"): "packs a workbook in memory; store.files writes it",
    ("readers/archives.py", "open"): "takes members out into a folder of temporary files",
    ("readers/decode_child.py", "os.open"): "sends the child's standard output to /dev/null",
}
BROAD_ALLOWED: Exceptions = {
    (
        "cli/__init__.py",
        "Exception",
    ): "the entry point: shows usage errors, raises everything else again",
    ("readers/decode_worker.py", "BaseException"): "closes a pipe out of step, raises again",
    ("store/files.py", "BaseException"): "removes the temporary file, raises again",
}
PLACES_ALLOWED: Exceptions = {
    (
        "src/renalkit/writers/systems_sections.py",
        "/home" + "/someone/c",
    ): "example of a path taken off",
}


Rule = Callable[[ast.AST], Iterator[str]]


def sources() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path.relative_to(SOURCE).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or attribute; the last part alone behind anything else."""
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else f".{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


_UNSAFE_CALLS = frozenset(
    {"eval", "exec", "compile", "__import__", "torch.save", "torch.jit.load", "torch.hub.load"}
)


def unsafe(tree: ast.AST) -> Iterator[str]:
    """Ways in which data could become code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        else:
            names = []
        yield from (f"import {n}" for n in names if n.partition(".")[0] in UNSAFE_MODULES)
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        given = {k.arg: k.value for k in node.keywords}
        if name in _UNSAFE_CALLS:
            yield name
        elif name == "torch.load" and not _is(given.get("weights_only"), True):
            yield "torch.load without weights_only=True"
        elif name in ("np.load", "numpy.load") and not _is(given.get("allow_pickle"), False):
            yield "np.load without allow_pickle=False"


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


_WRITERS = frozenset(
    {
        *("write_text", "write_bytes", "save_file", "write_table", "imwrite", "savefig"),
        *(
            "mkdir",
            "makedirs",
            "to_csv",
            "to_parquet",
            "savez",
            "savez_compressed",
            "savetxt",
            "tofile",
            "memmap",
        ),
    }
)
_OURS = frozenset({"write_text", "write_bytes"})
"""Plain functions of store.files; as methods of a path they write directly."""


def writes(tree: ast.AST) -> Iterator[str]:
    """Ways in which a file could be written other than through store.files."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        last = name.rpartition(".")[2]
        parts = ast.dump(node) if name == "os.open" else ""
        if any(f in parts for f in ("O_WRONLY", "O_RDWR", "O_CREAT", "O_APPEND")):
            yield "os.open"
        elif last in ("open", "ZipFile"):
            if any(_writing_mode(a) for a in (*node.args, *(k.value for k in node.keywords))):
                yield last
        elif last in _WRITERS or name in ("np.save", "numpy.save"):
            yield from [] if isinstance(node.func, ast.Name) and last in _OURS else [last]


def _writing_mode(node: ast.expr) -> bool:
    """A mode such as 'w', 'ab' or 'rb+'; a path is no mode."""
    return (
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"[rbt]*[wax+][rwabxt+]*", node.value) is not None
    )


def broad(tree: ast.AST) -> Iterator[str]:
    """Handlers that catch what nobody foresaw."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            for kind in kinds:
                name = "everything" if kind is None else dotted(kind)
                if name in ("everything", "Exception", "BaseException"):
                    yield name
        elif isinstance(node, ast.Call) and dotted(node.func).endswith("suppress"):
            yield from (a for a in map(dotted, node.args) if a in ("Exception", "BaseException"))


@cache
def read_source() -> tuple[int, dict[Rule, set[tuple[str, str]]]]:
    """How many files there are, and what each rule finds in them."""
    found: dict[Rule, set[tuple[str, str]]] = {rule: set() for rule in (unsafe, writes, broad)}
    number = 0
    for name, tree in sources():
        number += 1
        for rule, places in found.items():
            places.update((name, what) for what in rule(tree))
    return number, found


def found_in_source(rule: Rule) -> set[tuple[str, str]]:
    return read_source()[1][rule]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (unsafe, "import pickle"),
        (unsafe, "from yaml import safe_load"),
        (unsafe, "eval('1')"),
        (unsafe, "torch.save(x, p)"),
        (unsafe, "torch.load(p)"),
        (unsafe, "torch.load(p, weights_only=False)"),
        (unsafe, "np.load(p)"),
        (writes, "open(p, 'w')"),
        (writes, "p.open(mode='ab')"),
        (writes, "p.open('r+')"),
        (writes, "p.write_text('x')"),
        (writes, "Path('a').write_bytes(b'')"),
        (writes, "np.save(p, a)"),
        (writes, "cv2.imwrite(p, a)"),
        (writes, "os.open(p, os.O_WRONLY)"),
        (writes, "zipfile.ZipFile(p, 'w')"),
        (broad, "try:\n  pass\nexcept Exception:\n  pass"),
        (broad, "try:\n  pass\nexcept:\n  pass"),
        (broad, "try:\n  pass\nexcept (OSError, Exception):\n  pass"),
        (broad, "with contextlib.suppress(Exception):\n  pass"),
    ],
)
def test_the_rules_find_what_they_forbid(rule: Rule, text: str) -> None:
    assert list(rule(ast.parse(text)))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (unsafe, "net.eval(); re.compile('x')"),
        (unsafe, "torch.load(p, weights_only=True); np.load(p, allow_pickle=False)"),
        (writes, "p.open('rb'); open(p); write_text(p, 'x'); os.open(p, os.O_RDONLY)"),
        (writes, "Image.open('way.png'); zipfile.ZipFile(p)"),
        (broad, "try:\n  pass\nexcept OSError:\n  pass"),
    ],
)
def test_the_rules_leave_the_rest_alone(rule: Rule, text: str) -> None:
    assert not list(rule(ast.parse(text)))


def agree(found: set[tuple[str, str]], allowed: Exceptions) -> None:
    assert sorted(found - set(allowed)) == []
    assert sorted(set(allowed) - found) == [], "exceptions that are no longer needed"


def test_the_whole_source_is_read() -> None:
    assert read_source()[0] >= 90


def test_no_data_becomes_code() -> None:
    agree(found_in_source(unsafe), UNSAFE_ALLOWED)


def test_pickle_is_imported_for_its_error_alone() -> None:
    tree = ast.parse((SOURCE / "learn" / "pretrained.py").read_text(encoding="utf-8"))
    used = {dotted(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    assert {u for u in used if u.startswith("pickle.")} == {"pickle.UnpicklingError"}


def test_files_are_written_in_one_place() -> None:
    elsewhere = {f for f in found_in_source(writes) if f[0] != "store/files.py"}
    agree(elsewhere, WRITES_ALLOWED)


def test_no_handler_swallows_the_unforeseen() -> None:
    agree(found_in_source(broad), BROAD_ALLOWED)


# ---- The repository ------------------------------------------------------------------------


def tracked() -> list[Path]:
    done = subprocess.run(
        ["git", "ls-files", "-z"], capture_output=True, cwd=ROOT, timeout=60, check=False
    )
    if done.returncode != 0:
        pytest.skip("not a git checkout: nothing says which files are tracked")
    names = [n for n in done.stdout.decode().split("\0") if n]
    return [ROOT / n for n in names if (ROOT / n).is_file()]


def texts() -> Iterator[tuple[str, str]]:
    for path in tracked():
        try:
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


def test_no_tracked_file_names_a_place_on_one_machine() -> None:
    """Absolute paths of a developer's machine work nowhere else."""
    places = re.compile(r"(?<![\w./-])/(?:work|root|home/\w+|Users/\w+)/\w")
    host = socket.gethostname()
    hosts = re.compile(rf"(?<![\w-]){re.escape(host)}(?![\w-])")
    generic = len(host) < 5 or host.startswith("localhost")
    named = {
        (name, found.group())
        for name, text in texts()
        for found in [*places.finditer(text), *([] if generic else hosts.finditer(text))]
    }
    agree(named, PLACES_ALLOWED)


def test_no_tracked_file_is_large() -> None:
    large = {p.name: p.stat().st_size for p in tracked() if p.stat().st_size > MAX_TRACKED_BYTES}
    assert large == {}


def test_pictures_are_tracked_in_the_documentation_alone() -> None:
    """Phantom pictures belong to docs/images; no other pixel belongs into the repository."""
    kinds = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".gif", ".dcm", ".mp4", ".avi"}
    images = ROOT / "docs" / "images"
    found = [p for p in tracked() if p.suffix.lower() in kinds]
    assert [p.name for p in found if not p.is_relative_to(images)] == []


def test_no_tracked_file_outside_the_documentation_embeds_a_picture() -> None:
    """Reports and drawings of a stored study would carry its patients' pixels."""
    embedded = re.compile(r"data:image/(?:png|jpeg|webp);base64,[A-Za-z0-9+/=\s]{200}")
    assert embedded.search("data:image/png;base64," + "A" * 200)
    found = [name for name, text in texts() if embedded.search(text)]
    assert [name for name in found if not name.startswith("docs/images/")] == []


def test_nothing_private_is_tracked() -> None:
    """Keys and link tables lie beside cohorts and must never be committed."""
    private = [p.name for p in tracked() if p.name in ("project.key", "links.csv")]
    assert private == []
