"""What benchmarks share: nothing without parity, turns, and figures of --quick stay out of docs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPT = """
import sys
import book

def heavy(task):
    held = bytearray(task["n"] << 20)
    held[::4096] = b"x" * len(held[::4096])
    return {"seconds": float(task["n"]) ** 2}

def bench(found):
    sides = {"ours": lambda: sum(range(1000)), "theirs": lambda: sum(range(200_000))}
    apart = 1.0 if found.given.apart else 0.0
    found.compare("Sums", "us", sides, peer="theirs", scale=1e6,
                  parity=[book.Parity("sum", apart, 0.5)])
    found.grow("Held", "MiB", "heavy", [64, 256], {})
    found.fact("threads", found.threads)

sys.exit(book.main(__file__, "How long?\\n\\nMore.", bench, children={"heavy": heavy},
                   options=lambda parser: parser.add_argument("--apart", action="store_true")))
"""


@pytest.fixture(scope="module")
def book() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_book", BENCHMARKS / "book.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_book"] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def a_book(book: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in book.THREAD_NAMES:
        monkeypatch.setenv(name, "1")
    given = Namespace(quick=False, threads=1, repeats=3, out=None)
    return book.Book(Path("bench_made.py"), "How long?", given)


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    script = folder / "bench_made.py"
    script.write_text(SCRIPT)
    return subprocess.run(
        [sys.executable, str(script), *words],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(BENCHMARKS)},
    )


def test_a_benchmark_leaves_one_record_with_machine_load_threads_and_figures(
    tmp_path: Path, book: ModuleType
) -> None:
    done = run(tmp_path, "--repeats", "3", "--threads", "1", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == "made.json"
    (record,) = book.read_records(tmp_path / "out")
    assert record["question"] == "How long?"
    assert record["quick"] is False
    assert record["machine"].keys() >= {"processor", "cores", "memory_gb", "governor"}
    assert record["load"].keys() == {"before", "after"}
    assert set(record["threads"].values()) == {1}
    (table,) = record["comparisons"]
    ours, theirs = table["rows"]
    assert table["repeats"] == 3
    assert ours["times_peer"] > 10
    assert theirs["times_peer"] == 1
    assert ours["wall_s"]["low"] <= ours["wall_s"]["median"] <= ours["wall_s"]["high"]
    (curve,) = record["growth"]
    assert curve["exponent"]["seconds"] == pytest.approx(2)
    small, large = (point["peak_mib"] for point in curve["points"])
    assert large - small == pytest.approx(192, abs=16)
    shown = book.markdown([record])
    assert "times theirs" in shown
    assert "n^2.00" in shown
    assert "threads: 1" in shown


def test_sides_that_differ_are_neither_timed_nor_kept(tmp_path: Path) -> None:
    done = run(tmp_path, "--quick", "--apart", "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "nothing is reported: sum: 1 apart, allowed 0.5" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("apart", [0.2, float("nan"), float("inf")])
def test_parity_beyond_what_is_allowed_is_refused(
    book: ModuleType, a_book: Any, apart: float
) -> None:
    called: list[int] = []
    with pytest.raises(book.Apart, match="masks"):
        a_book.compare(
            "Masks",
            "s",
            {"ours": lambda: called.append(1)},
            peer="ours",
            parity=[book.Parity("masks", apart, 0.1)],
        )
    assert not called


def test_a_comparison_without_parity_is_refused(book: ModuleType, a_book: Any) -> None:
    with pytest.raises(book.Apart, match="nothing shows"):
        a_book.compare("Speed", "s", {"ours": lambda: None}, peer="ours", parity=[])


@pytest.mark.parametrize(("warm", "calls"), [(True, 6), (False, 3)])
def test_processes_of_their_own_are_not_warmed_up(
    book: ModuleType, a_book: Any, warm: bool, calls: int
) -> None:
    called: list[str] = []

    def side() -> Any:
        called.append("side")
        return book.Took(2.0, 1.0, peak_mib=7.0, elsewhere=True)

    table = a_book.compare(
        "Programs", "s", {"side": side}, peer="side", parity=[book.Parity("same", 0, 0)], warm=warm
    )
    assert len(called) == calls
    (row,) = table["rows"]
    assert (row["wall_s"]["median"], row["memory_mib"]) == (2.0, 7.0)


def test_sides_take_turns_and_each_begins_in_its_turn(book: ModuleType) -> None:
    order: list[str] = []
    sides = {name: (lambda name=name: order.append(name)) for name in "abc"}
    found = book.taking_turns(sides, 3)
    assert "".join(order) == "abcbcacab"
    assert [len(times) for times in found.values()] == [3, 3, 3]


def test_a_side_that_measured_itself_is_believed(book: ModuleType) -> None:
    assert book.timed(lambda: book.Took(5.0, 4.0)) == book.Took(5.0, 4.0)


def test_processor_time_counts_processes_that_live_still(book: ModuleType) -> None:
    before = book.processor_s()
    code = "import time\nwhile time.process_time() < 0.5: pass\nprint(flush=True)\ninput()"
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        living = book.processor_s() - before
        child.communicate(b"\n")
    assert living >= 0.45
    assert book.processor_s() - before >= living - 0.05


def test_median_and_middle_half_are_those_of_the_values(book: ModuleType) -> None:
    assert book.spread([5, 1, 3, 2, 4]) == {"median": 3, "low": 2, "high": 4}
    assert book.spread([7.0]) == {"median": 7.0, "low": 7.0, "high": 7.0}


def test_memory_asked_for_by_a_call_is_seen(book: ModuleType) -> None:
    def call() -> None:
        held = bytearray(64 << 20)
        held[::4096] = b"x" * len(held[::4096])

    added = book.added_mib(call)
    assert added is None or 60 < added < 80


def test_figures_of_quick_runs_stay_out_of_docs(book: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "made.json").write_text(json.dumps({"name": "made", "quick": True}))
    with pytest.raises(ValueError, match="--quick: made"):
        book.markdown(book.read_records(tmp_path))


def test_without_records_docs_say_that_nothing_was_measured(
    book: ModuleType, tmp_path: Path
) -> None:
    assert "Not measured yet" in book.markdown(book.read_records(tmp_path))
