"""How is a benchmark measured, kept and shown? One way for all of them.

A benchmark is a script with a function that is given a `Book`:

- `compare` times sides that do the same work. They take turns, so that all of them see the same
  load, and each turn begins with another one; given are the median and the middle half (quartiles)
  of the time on the clock and of processor time, and the memory that one more call asks for.
  Without parity of the results, checked in the same run, nothing is timed and nothing is kept.
- `grow` measures one work at several sizes, each in a process of its own, and fits t = a n^p.
- `fact` keeps any other number.

At the end everything goes, with facts about the machine and its load before and after, to one JSON
file and to Markdown. What `--quick` finds only shows that a benchmark works: it goes to a file where
`--out` asks for it, and never into docs.

Times are seconds, memory is MiB (2^20 bytes).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from renalkit.store.runs import machine_facts

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "results" / "benchmarks"
SCHEMA = 1
WARM_UPS = 2
UNTIMED = WARM_UPS + 1
"""Calls of each side of a comparison before it is timed, at most: the last tells its memory."""
THREAD_NAMES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PACKAGES = (
    *("renalkit", "numpy", "scipy", "opencv-python-headless", "pydicom", "imagecodecs", "pillow"),
    *("torch", "monai", "openvino", "onnxruntime", "scikit-learn"),
)

Json = dict[str, Any]
Clock = Literal["wall_s", "cpu_s"]


class Apart(Exception):
    """The sides do not compute the same: there is nothing to compare."""


@dataclass(frozen=True, slots=True)
class Parity:
    """How far the sides' results are apart, and how far they may be."""

    what: str
    apart: float
    allowed: float

    def require(self) -> None:
        """Raises Apart beyond what is allowed, NaN included."""
        if not self.apart <= self.allowed:
            raise Apart(f"{self.what}: {self.apart:.3g} apart, allowed {self.allowed:.3g}")


@dataclass(frozen=True, slots=True)
class Took:
    """What one call took. elsewhere: in another process, whose memory is `peak_mib`, of the largest
    where there are several; None where not known."""

    wall_s: float
    cpu_s: float
    peak_mib: float | None = None
    elsewhere: bool = False


Call = Callable[[], object]
"""One side's work, timed from outside; one that returns a `Took` has measured itself."""
Child = Callable[[Json], Json]
"""Work for a process of its own: plain values in and out."""


# ---- measuring ----------------------------------------------------------------------------------


def processor_s() -> float:
    """User and system time of this process and of all below it, living and ended."""
    uses = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ended = sum(u.ru_utime + u.ru_stime for u in uses)
    return ended + sum(map(_living_s, _children(os.getpid())))


def _children(process: int) -> list[int]:
    """Living children of a process, each reported by the thread that started it (proc(5))."""
    found: list[int] = []
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # it ended meanwhile
            found += map(int, path.read_text().split())
    return found


def _living_s(process: int) -> float:
    """Time of a living process, of its children that ended, and of those that live."""
    try:
        facts = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    own = sum(map(int, facts[11:15])) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(_living_s, _children(process)))


def timed(call: Call) -> Took:
    """One call on both clocks."""
    cpu, wall = processor_s(), time.perf_counter()
    found = call()
    if isinstance(found, Took):
        return found
    return Took(time.perf_counter() - wall, processor_s() - cpu)


def _memory(name: str) -> float:
    """A line of /proc/self/status (proc(5)) in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return math.nan


def added_mib(call: Call) -> float | None:
    """Memory that one call needs beyond what the process holds already; None where the kernel does
    not let the highest mark be set back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier calls left must be asked for again
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    before = _memory("VmRSS")
    found = call()
    if isinstance(found, Took) and found.elsewhere:
        return found.peak_mib
    return max(0.0, _memory("VmHWM") - before)


def own_peak_mib() -> float:
    """Highest memory of this process or of a child of it that ended.

    Files mapped into memory still are not counted of this process: the system drops them when
    needed.
    """
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return max(_memory("VmHWM") - _memory("RssFile"), children)


def taking_turns(sides: Mapping[str, Call], repeats: int) -> dict[str, list[Took]]:
    """Every side once per turn, each turn beginning with the next of them."""
    names = list(sides)
    found: dict[str, list[Took]] = {name: [] for name in names}
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(timed(sides[name]))
    return found


def spread(values: Sequence[float]) -> Json:
    """Median and middle half."""
    if len(values) == 1:
        return {"median": values[0], "low": values[0], "high": values[0]}
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "low": low, "high": high}


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """p of value = a size^p, by least squares on logarithms.

    >>> round(exponent([10, 100, 1000], [3, 30, 300]), 6)
    1.0
    """
    x, y = ([math.log(v) for v in column] for column in (sizes, values))
    return statistics.linear_regression(x, y).slope


# ---- the machine --------------------------------------------------------------------------------


def governor() -> str:
    """How the kernel chooses the clock of the first core."""
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return path.read_text().strip() if path.exists() else "not known"


def versions() -> dict[str, str]:
    """Of Python and of every package there is that does the work."""
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """Of the checkout; '+' for files changed since."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12"]
    done = subprocess.run(words, capture_output=True, text=True)
    return done.stdout.strip() or "not known"


def set_threads(threads: int) -> dict[str, int]:
    """Of every library loaded that has threads of its own; what they say afterwards."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(threads)
    if (cv2 := sys.modules.get("cv2")) is not None:
        cv2.setNumThreads(threads)
    found = {name: int(os.environ[name]) for name in THREAD_NAMES}
    if torch is not None:
        found["torch"] = torch.get_num_threads()
    if cv2 is not None:
        found["opencv"] = cv2.getNumThreads()
    return found


# ---- the book -----------------------------------------------------------------------------------


class Book:
    """What one benchmark finds.

    quick: seconds instead of minutes; sizes are the benchmark's to choose. threads: of every
    library. repeats: turns of a comparison. given: options of the benchmark itself.
    """

    def __init__(self, script: Path, words: str, given: argparse.Namespace) -> None:
        self.script, self.given = script, given
        self.quick: bool = given.quick
        self.threads: int = given.threads
        self.repeats: int = 1 if given.quick else given.repeats
        self.record: Json = {
            "schema": SCHEMA,
            "name": script.stem.removeprefix("bench_"),
            "question": words.splitlines()[0],
            "command": " ".join(["python", f"benchmarks/{script.name}", *sys.argv[1:]]),
            "quick": self.quick,
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": commit(),
            "machine": machine_facts() | {"governor": governor()},
            "versions": versions(),
            "threads": set_threads(self.threads),
            "load": {"before": os.getloadavg()[0]},
            "facts": {},
            "comparisons": [],
            "growth": [],
        }

    def compare(
        self,
        title: str,
        unit: str,
        sides: Mapping[str, Call],
        *,
        peer: str,
        parity: Sequence[Parity],
        scale: Mapping[str, float] | float = 1.0,
        clock: Clock = "wall_s",
        repeats: int = 0,
        warm: bool = True,
    ) -> Json:
        """Time sides that do the same.

        Args:
            unit: of `scale` times seconds, as in "ms per picture".
            peer: the side that others are compared with.
            parity: of the results of all sides; at least one.
            scale: one for all sides, or by side.
            clock: what is shown and compared; both are kept.
            repeats: 0 are the book's.
            warm: False where each call is a process of its own that tells its memory: nothing is
                called before it is timed.

        Returns:
            what is kept; more may be added to its rows.

        Raises:
            Apart: no parity, or beyond what is allowed.
        """
        if not parity:
            raise Apart(f"{title}: nothing shows that the sides compute the same")
        for one in parity:
            one.require()
        for _ in range(WARM_UPS if warm and not self.quick else 0):
            for call in sides.values():
                call()
        memory = {name: added_mib(call) if warm else None for name, call in sides.items()}
        turns = repeats or self.repeats
        found = taking_turns(sides, turns)
        rows: list[Json] = []
        for name, took in found.items():
            factor = scale if isinstance(scale, int | float) else scale[name]
            peaks = [t.peak_mib for t in took if t.peak_mib is not None]
            rows.append(
                {
                    "side": name,
                    "wall_s": spread([t.wall_s * factor for t in took]),
                    "cpu_s": spread([t.cpu_s * factor for t in took]),
                    "memory_mib": max(peaks) if peaks else memory[name],
                }
            )
        of_peer = next(row for row in rows if row["side"] == peer)[clock]["median"]
        for row in rows:
            row["times_peer"] = of_peer / row[clock]["median"] if row[clock]["median"] else None
        table: Json = {
            "title": title,
            "unit": unit,
            "peer": peer,
            "clock": clock,
            "repeats": turns,
            "rows": rows,
            "parity": [asdict(one) for one in parity],
        }
        self.record["comparisons"].append(table)
        print(f"measured: {title}", file=sys.stderr, flush=True)
        return table

    def grow(self, title: str, what: str, child: str, sizes: Sequence[int], task: Json) -> Json:
        """One work at rising sizes, each in a process of its own.

        Args:
            what: is counted, as in "frames".
            child: name of the work, see `main`; it is given `task` with the size as 'n', and may
                answer with its own 'seconds' of processor time.
        """
        points: list[Json] = []
        for n in sizes:
            answer, took = self.child(child, task | {"n": n})
            seconds = answer.get("seconds", took.cpu_s)
            points.append({"n": n, "seconds": seconds, "peak_mib": took.peak_mib})
        columns = {name: [p[name] for p in points] for name in ("seconds", "peak_mib")}
        curve: Json = {
            "title": title,
            "what": what,
            "points": points,
            "exponent": {k: exponent(sizes, v) for k, v in columns.items()},
            "last_exponent": {k: exponent(sizes[-2:], v[-2:]) for k, v in columns.items()},
        }
        self.record["growth"].append(curve)
        print(f"measured: {title}", file=sys.stderr, flush=True)
        return curve

    def fact(self, name: str, value: object) -> None:
        """Keep any other number, by name."""
        self.record["facts"][name] = value

    def child(self, name: str, task: Json) -> tuple[Json, Took]:
        """Do a work of `main`'s `children` in a new process: its answer and what it took there,
        the start of the process not counted."""
        words = [sys.executable, str(self.script), "--child", name, json.dumps(task)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{self.script.name} --child {name}:\n{done.stderr}")
        answer = json.loads(done.stdout.splitlines()[-1])
        return answer["answer"], Took(**answer["took"], elsewhere=True)

    def close(self) -> None:
        """Show and write what was found."""
        self.record["load"]["after"] = os.getloadavg()[0]
        print(_section(self.record))
        folder = self.given.out or (None if self.quick else RECORDS)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(self.record, indent=1) + "\n"
            (folder / f"{self.record['name']}.json").write_text(text, encoding="utf-8")


def command(words: Sequence[str]) -> Took:
    """A program from its start to its end, its children included.

    Raises RuntimeError where it fails.
    """
    cpu, wall = processor_s(), time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True)
    took = Took(time.perf_counter() - wall, processor_s() - cpu, elsewhere=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
    return took


def main(
    script: str,
    words: str,
    bench: Callable[[Book], None],
    *,
    threads: int = 1,
    repeats: int = 15,
    children: Mapping[str, Child] | None = None,
    options: Callable[[argparse.ArgumentParser], object] = lambda parser: None,
) -> int:
    """Run a benchmark from the command line.

    Args:
        script, words: `__file__` and `__doc__` of the benchmark.
        threads: of every library by default; 0 takes all cores.
        children: works that `Book.child` and `Book.grow` start by name.
        options: adds the benchmark's own.
    """
    if sys.argv[1:2] == ["--child"]:
        return _as_child((children or {})[sys.argv[2]], json.loads(sys.argv[3]))
    parser = argparse.ArgumentParser(description=words.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only show that it works, in seconds")
    parser.add_argument("--out", type=Path, help="folder of the JSON file [results/benchmarks]")
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--threads", type=int, default=threads or len(os.sched_getaffinity(0)))
    options(parser)
    given = parser.parse_args()
    wanted = dict.fromkeys(THREAD_NAMES, str(given.threads))
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        # Read by libraries when they load, so the script begins again with them set.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)
    book = Book(Path(script), words, given)
    try:
        bench(book)
    except Apart as error:
        print(f"nothing is reported: {error}", file=sys.stderr)
        return 1
    book.close()
    return 0


def _as_child(work: Child, task: Json) -> int:
    cpu, wall = processor_s(), time.perf_counter()
    answer = work(task)
    took = Took(time.perf_counter() - wall, processor_s() - cpu, own_peak_mib())
    plain = {"wall_s": took.wall_s, "cpu_s": took.cpu_s, "peak_mib": took.peak_mib}
    print(json.dumps({"answer": answer, "took": plain}))
    return 0


# ---- showing ------------------------------------------------------------------------------------

UNMEASURED = "Not measured yet on an idle machine: `make bench` fills this part."


def markdown(records: Sequence[Json]) -> str:
    """What the records say, as a part of docs; says so where there is none.

    Raises ValueError for a record of `--quick`, whose figures mean nothing.
    """
    quick = [record["name"] for record in records if record["quick"]]
    if quick:
        raise ValueError(f"records of --quick: {', '.join(quick)}; measure without it")
    return "\n\n".join(_section(record) for record in records) if records else UNMEASURED


def read_records(folder: Path = RECORDS) -> list[Json]:
    """Every benchmark's record by name; none where nothing was measured."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def _section(record: Json) -> str:
    machine, load = record["machine"], record["load"]
    threads = record["threads"]["OMP_NUM_THREADS"]
    names = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    parts = [
        f"### {record['name']}",
        record["question"],
        f"`{record['command']}`, {record['began'][:10]}, commit {record['commit']}; "
        f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GiB, "
        f"governor {machine['governor']}; {threads} thread{'s' if threads > 1 else ''}; "
        f"load {load['before']:.1f} before, {load['after']:.1f} after. {names}.",
        *map(_comparison, record["comparisons"]),
        *map(_growth, record["growth"]),
    ]
    facts = [f"- {name}: {_plain(value)}" for name, value in record["facts"].items()]
    return "\n\n".join([*parts, *(["\n".join(facts)] if facts else [])])


def _comparison(table: Json) -> str:
    clock, rows = table["clock"], table["rows"]
    fixed = {"side", "wall_s", "cpu_s", "memory_mib", "times_peer"}
    more = list(dict.fromkeys(k for row in rows for k in row if k not in fixed))
    kind = "processor time" if clock == "cpu_s" else "time on the clock"
    other = "on the clock" if clock == "cpu_s" else "processor"
    lines = [
        f"**{table['title']}**: {table['unit']}, {kind}, median (middle half) of {table['repeats']}",
        "",
        _row(["side", table["unit"], other, "memory, MiB", f"times {table['peer']}", *more]),
        _row(["---"] * (5 + len(more))),
    ]
    for row in rows:
        time_, rest = row[clock], row["wall_s" if clock == "cpu_s" else "cpu_s"]
        shown = f"{_plain(time_['median'])} ({_plain(time_['low'])}-{_plain(time_['high'])})"
        cells = [row["side"], shown, _plain(rest["median"]), _plain(row["memory_mib"])]
        lines.append(_row([*cells, _plain(row["times_peer"]), *(_plain(row.get(k)) for k in more)]))
    lines.append("")
    lines += [
        f"- Parity: {p['what']}: {p['apart']:.1e} apart, allowed {p['allowed']:.1e}"
        for p in table["parity"]
    ]
    return "\n".join(lines)


def _growth(curve: Json) -> str:
    power, last = curve["exponent"], curve["last_exponent"]
    lines = [
        f"**{curve['title']}**: processor time grows as n^{power['seconds']:.2f} (between the two largest "
        f"n^{last['seconds']:.2f}), memory as n^{power['peak_mib']:.2f} "
        f"(n^{last['peak_mib']:.2f})",
        "",
        _row([curve["what"], "s", "ms each", "highest memory, MiB"]),
        _row(["---"] * 4),
    ]
    for p in curve["points"]:
        each = 1000 * p["seconds"] / p["n"]
        lines.append(_row([f"{p['n']:,}", *map(_plain, (p["seconds"], each, p["peak_mib"]))]))
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(value: object) -> str:
    """Three digits of a number.

    >>> _plain(0.012345), _plain(1234.5), _plain(None), _plain({"a": 2.0})
    ('0.0123', '1234', '', 'a 2')
    """
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
