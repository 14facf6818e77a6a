"""Which libraries does each entry load, and do the layers hold? How long: bench_startup.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = {"torch", "lightning_fabric", "monai"}
SLOW = NETWORKS | {"zarr", "pyarrow", "matplotlib", "scipy", "cv2", "pydicom", "imagecodecs", "av"}


def loaded_after(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter holds after running the code."""
    tail = "\nimport sys; print('LOADED', *sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code + tail],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    line = next(x for x in done.stdout.splitlines() if x.startswith("LOADED"))
    return set(line.split()[1:])


def command(*words: str) -> str:
    """Code that runs a command as the console script does, in silence."""
    return (
        "import contextlib, io, sys\n"
        f"sys.argv = {['renalkit', *words]!r}\n"
        "from renalkit.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        "    main()\n"
    )


def test_the_helper_sees_what_is_loaded() -> None:
    assert "scipy" in loaded_after("import scipy")


def test_importing_the_package_loads_nothing_else() -> None:
    assert not loaded_after("import renalkit") & (SLOW | {"numpy", "pydantic", "typer"})


def test_help_loads_neither_networks_nor_numbers() -> None:
    assert not loaded_after(command("--help")) & (SLOW | {"numpy"})


def test_info_loads_no_slow_library() -> None:
    assert not loaded_after(command("info", "--json")) & SLOW


def test_predict_of_pictures_loads_no_page_of_scans(tmp_path: Path) -> None:
    for name in ("model", "study"):
        (tmp_path / name).mkdir()
    given = [str(tmp_path / name) for name in ("model", "study")]
    loaded = loaded_after(command("predict", *given, "-o", str(tmp_path / "out")))
    assert "cv2" in loaded  # it came as far as looking at the model
    assert "matplotlib" not in loaded


VERBS = (
    *("ingest", "cohort", "check", "evaluate", "report", "differences", "characteristics"),
    *("drift", "readers"),
    # Prediction from a package.
    *("predict", "package_model", "ceus_outliner"),
    *("cascade_predict", "cascade_package_model"),
)


@pytest.fixture(scope="module")
def networks_of() -> dict[str, list[str]]:
    """What of the networks' libraries each verb loads first, in a process that imports them all."""
    code = f"""
import importlib, json, sys
found = {{}}
for verb in {VERBS}:
    before = {{m for m in {NETWORKS} if m in sys.modules}}
    importlib.import_module("renalkit.usecases." + verb)
    found[verb] = sorted(m for m in {NETWORKS} if m in sys.modules and m not in before)
print(json.dumps(found))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=120, check=True
    )
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("verb", VERBS)
def test_verbs_without_networks_load_no_torch(networks_of: dict[str, list[str]], verb: str) -> None:
    assert networks_of[verb] == []


def test_experiments_are_read_without_torch() -> None:
    """An experiment file with a wrong key must be refused at once."""
    code = "from renalkit.usecases.experiment import read_experiment\nfrom pathlib import Path\n"
    code += f"read_experiment(Path({str(ROOT / 'examples' / 'phantom-demo.toml')!r}))"
    assert not loaded_after(code) & NETWORKS


def renalkit(*words: str) -> subprocess.CompletedProcess[str]:
    """The command as a user starts it."""
    script = Path(sys.executable).with_name("renalkit")
    return subprocess.run(
        [str(script), *words], capture_output=True, text=True, timeout=120, check=False
    )


def test_info_prints_one_json_object_and_no_words() -> None:
    done = renalkit("info", "--json")
    assert done.returncode == 0
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    names = [s["name"] for s in found["systems"]]
    assert names[0] == "multitask-us"
    assert len(names) == len(set(names)) == 13
    assert all(s["card"]["intended_use"].startswith("Research use only") for s in found["systems"])
    assert len(found["codecs"]) == 6


def test_every_help_exits_with_0_and_says_research_only() -> None:
    done = renalkit("--help")
    assert done.returncode == 0
    assert "not a medical device" in " ".join(done.stdout.split())


def test_an_unknown_option_exits_with_2() -> None:
    assert renalkit("ingest", "--no-such-option").returncode == 2


def test_the_layers_hold() -> None:
    script = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(script)], capture_output=True, text=True, timeout=240, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("package", "words", "extra"),
    [
        ("torch", ("run", "study.toml"), "train"),
        ("zarr", ("ingest", "pictures", "-o", "cohort", "--key-file", "key"), "study"),
    ],
)
def test_what_is_not_installed_names_its_extra(
    tmp_path: Path, package: str, words: tuple[str, ...], extra: str
) -> None:
    (tmp_path / "study.toml").write_text("")
    (tmp_path / "pictures" / "images").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (64, 80), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "pictures" / "images" / "a.png")
    (tmp_path / "pictures" / "labels.csv").write_text("image,patient,label\na.png,A,benign\n")
    absent = f"raise ModuleNotFoundError('No module named {package}', name='{package}')"
    (tmp_path / f"{package}.py").write_text(absent)
    done = subprocess.run(
        [sys.executable, "-m", "renalkit", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1:] == [
        f"renalkit: {package} is not installed; remedy: install renalkit with the extra '{extra}'"
    ]
