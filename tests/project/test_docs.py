"""Does the documentation still say what the program does?"""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from renalkit.ceus.layouts import Presets
from renalkit.config import parse_settings
from renalkit.errors import Reason
from renalkit.readers.annotation_files import read_box_table, read_labelme
from renalkit.readers.sampling import read_keep_list
from renalkit.readers.tables import parse_table
from renalkit.usecases.cascade_experiment import CascadeExperiment, is_cascade, read_cascade
from renalkit.usecases.ceus_settings import ceus_settings
from renalkit.usecases.compare import PRESETS
from renalkit.usecases.experiment import Experiment, jobs_of
from renalkit.usecases.ingest_layouts import (
    Layout,
    Sources,
    columns_of,
    find_layout,
    pair_layout,
    table_layout,
    unread_columns,
)

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
FENCE = re.compile(r"(<!-- run -->\n)?```(\w+)\n(.*?)```", re.DOTALL)


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("renalkit_docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name while they are made.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


generate = load_generator()
COMMANDS: dict[str, Any] = generate.commands()


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(language: str) -> list[tuple[str, bool, str]]:
    """Page, whether marked to be run, and content of each fenced block of a language."""
    return [
        (path.name, bool(found.group(1)), found.group(3))
        for path in PAGES
        for found in FENCE.finditer(text_of(path))
        if found.group(2) == language
    ]


# ---- Generated parts -----------------------------------------------------------------------


def test_generated_parts_are_fresh(capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0, capsys.readouterr().out


def test_every_generated_part_is_used() -> None:
    used = {name for page in generate.pages() for name in generate.MARK.findall(text_of(page))}
    assert used == set(generate.PARTS)


def test_a_stale_part_would_be_found() -> None:
    text = "<!-- generated: outcomes -->\nold\n<!-- end -->"
    assert "refused" in generate.render(text, "x")


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(generate.Incomplete, match="no generated part 'weather'"):
        generate.render("<!-- generated: weather -->\n<!-- end -->", "x")


def test_a_setting_without_words_is_refused() -> None:
    with pytest.raises(generate.Incomplete, match=r"no words for \['b'\]"):
        generate.matched(["a", "b"], {"a": "x"}, "T")
    with pytest.raises(generate.Incomplete, match=r"nothing known as \['c'\]"):
        generate.matched(["a"], {"a": "x", "c": "y"}, "T")


def test_every_reason_is_explained() -> None:
    page = text_of(DOCS / "guide-ingest.md")
    assert len(Reason) >= 60
    assert [r.value for r in Reason if f"| `{r.value}` |" not in page] == []


# ---- Commands ------------------------------------------------------------------------------


def test_the_commands_are_the_ones_promised() -> None:
    promised = {"info", "doctor", "phantom", "ingest", "cohort", "cohort show", "cohort check"}
    promised |= {"frames", "run", "train", "evaluate", "compare", "predict", "report"}
    promised |= {"stats", "plan", "audit", "verify", "checklist", "card"}
    assert {f"renalkit {name}" for name in promised} <= set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_and_is_documented(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    for parameter in command.params:
        assert parameter.name == "help" or parameter.help, f"{name}: {parameter.name} has no words"
    assert f"\n## {name}\n" in text_of(DOCS / "cli.md")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_results_can_be_had_as_json(name: str) -> None:
    """Groups give nothing; `version` is one word; an export is a file of its own."""
    if hasattr(COMMANDS[name], "commands") or name.endswith((" version", " export-splits")):
        return
    assert "--json" in _options(COMMANDS[name])


def _options(command: Any) -> set[str]:
    return {text for p in command.params for text in (*p.opts, *p.secondary_opts)} | {"--help"}


def shell_lines() -> Iterator[tuple[str, list[str]]]:
    """Every call of renalkit in a shell block, or in code within a sentence, of any page."""
    for page, _, content in blocks("bash"):
        for line in content.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0].endswith("renalkit"):
                yield page, words[1:]


def test_every_call_in_the_documentation_is_possible() -> None:
    calls = list(shell_lines())
    assert len(calls) >= 20
    for page, words in calls:
        name = "renalkit"
        rest = list(words)
        while rest and f"{name} {rest[0]}" in COMMANDS:
            name = f"{name} {rest.pop(0)}"
        assert name != "renalkit", f"{page}: no command in {words}"
        unknown = {w for w in rest if re.match(r"--?[a-z]", w)} - _options(COMMANDS[name])
        assert not unknown, f"{page}: {name} has no {unknown}"


def test_options_named_in_sentences_exist() -> None:
    known = {o for command in COMMANDS.values() for o in _options(command)} | {"--check"}
    for path in PAGES:
        plain = FENCE.sub("", text_of(path))
        for option in re.findall(r"`(--[a-z][a-z-]+)", plain):
            assert option in known, f"{path.name}: {option}"


def test_presets_named_in_the_documentation_exist() -> None:
    named = {n for p in PAGES for n in re.findall(r"`(P\d-[a-z-]+)`", text_of(p))}
    assert named
    assert named <= set(PRESETS)


# ---- README and links ----------------------------------------------------------------------


def test_the_first_screen_says_what_it_is_and_how_to_start() -> None:
    screen = "\n".join(text_of(ROOT / "README.md").splitlines()[:25])
    for words in ("make demo", "make test", "not a medical device", "docs/images/report.png"):
        assert words in screen
    targets = text_of(ROOT / "Makefile")
    assert re.search(r"^demo:", targets, re.MULTILINE)
    assert re.search(r"^test:", targets, re.MULTILINE)


def test_every_page_of_the_documentation_is_linked_from_the_readme() -> None:
    readme = text_of(ROOT / "README.md")
    assert [p.name for p in DOCS.rglob("*.md") if f"docs/{p.name}" not in readme] == []


def _anchor(heading: str) -> str:
    """The anchor a Markdown viewer gives to a heading."""
    plain = re.sub(r"[`*]|[^\w\s-]", "", heading.strip().lower())
    return re.sub(r"\s", "-", plain)


def test_every_relative_link_leads_somewhere() -> None:
    lost: list[str] = []
    count = 0
    for path in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text_of(path))):
            if re.match(r"[a-z]+:", target):
                continue
            count += 1
            place, _, anchor = target.partition("#")
            goal = (path.parent / place).resolve() if place else path
            if not goal.exists():
                lost.append(f"{path.name}: {target}")
            elif anchor and anchor not in {
                _anchor(h) for h in re.findall(r"^#+ (.+)$", text_of(goal), re.MULTILINE)
            }:
                lost.append(f"{path.name}: {target} (no such heading)")
    assert count >= 25
    assert lost == []


# ---- Examples ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", [content for _, run, content in blocks("python") if run], ids=lambda c: c[:30]
)
def test_marked_python_examples_run(code: str) -> None:
    exec(compile(code, "documentation", "exec"), {"__name__": "documentation"})


def test_experiments_in_the_documentation_are_valid(tmp_path: Path) -> None:
    found = blocks("toml")
    layouts = [b for b in found if "[[layout]]" in b[2]]
    experiments = [b for b in found if b not in layouts]
    assert len(experiments) >= 3
    assert layouts
    for _, _, content in layouts:
        (tmp_path / "layouts.toml").write_text(content, encoding="utf-8")
        assert Presets.load(tmp_path / "layouts.toml").layouts
    scans = [b for b in experiments if is_cascade(tomllib.loads(b[2]))]
    assert scans
    for page, _, content in experiments:
        tables = tomllib.loads(content)
        if is_cascade(tables):
            assert parse_settings(CascadeExperiment, tables).digest
        else:
            assert jobs_of(parse_settings(Experiment, tables)), page


def test_stored_experiments_are_valid() -> None:
    files = [*ROOT.glob("examples/*.toml"), *ROOT.glob("results/*/experiment.toml")]
    assert files
    cascades = [path for path in files if is_cascade(tomllib.loads(text_of(path)))]
    assert cascades
    for path in files:
        if path in cascades:
            assert read_cascade(path).train.mass.steps
        else:
            assert jobs_of(parse_settings(Experiment, tomllib.loads(text_of(path))))
    analyses = [*ROOT.glob("examples/analysis/*.toml")]
    assert analyses
    for path in analyses:
        assert ceus_settings(path) != ceus_settings(None)


def test_tables_in_the_documentation_can_be_read(tmp_path: Path) -> None:
    tables = [content for _, _, content in blocks("csv")]
    assert len(tables) >= 3
    for content in tables:
        if content.startswith("file,frame,keep"):
            assert read_keep_list(content.encode()) == {"ward/cine1.dcm": (0, 10)}
            continue
        if content.startswith("file,frame"):
            assert len(read_box_table(content.encode(), file="boxes.csv")) == 2
            continue
        if content.startswith("patient,bmode"):
            (tmp_path / "pairs.csv").write_text(content, encoding="utf-8")
            sources = Sources(tmp_path, (tmp_path / "pairs.csv",))
            assert find_layout("auto", sources, ()) is Layout.PAIRS
            assert pair_layout(sources, ()).columns.time_s == "time_s"
            assert dict(unread_columns(Layout.PAIRS, sources)) == {"pairs.csv": {}}
            continue
        table = parse_table(content.encode(), where="labels.csv")
        assert set(columns_of(table)) == set(table.columns)
        assert table_layout(table, "labels.csv", ()).labels is not None


def test_annotations_in_the_documentation_can_be_read() -> None:
    found = [content for _, _, content in blocks("json")]
    assert len(found) == 1
    (lesion,) = read_labelme(found[0].encode(), file="a.json")
    assert lesion.label == "malignant"
    assert lesion.mask is not None
    assert int(lesion.mask.decode().sum()) == 60 * 50
