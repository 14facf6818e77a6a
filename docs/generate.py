"""Which parts of docs/ follow from the code, and do they still agree with it?

    python docs/generate.py           write the generated parts
    python docs/generate.py --check   fail (exit 1) and name the files whose parts are stale

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`. Values, defaults and
names come from the code; the words beside them are in docs/words.py, and a word that is missing or
left over is an error, so that a new setting cannot go undocumented.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import json
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from renalkit.cli import app
from renalkit.cohort_checks.guards import GUARDS
from renalkit.errors import Exit, Reason
from renalkit.phantom.levels import LEVELS
from renalkit.readers.codecs import available_codecs
from renalkit.readers.contract import Limits, Outcome
from renalkit.readers.folder_table import Columns
from renalkit.store import predictions
from renalkit.systems import SYSTEMS
from renalkit.systems._contract import Card, Claim, System
from renalkit.systems.ct_cascade import CASCADES, Cascade
from renalkit.usecases.compare import PRESETS
from renalkit.usecases.experiment import Experiment, SystemSettings
from renalkit.writers.dicom_out import codes as dicom_code_list
from renalkit.writers.dicom_out import perfusion as dicom_perfusion

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "results"
MARK = re.compile(r"<!-- generated: ([a-z-]+) -->\n.*?<!-- end -->", re.DOTALL)
HELP_WIDTH = 92


def _script(path: Path) -> types.ModuleType:
    """A script, not part of a package: loaded by place, whatever the working folder."""
    spec = importlib.util.spec_from_file_location(f"renalkit_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for themselves
    spec.loader.exec_module(module)
    return module


words = _script(DOCS / "words.py")
book = _script(DOCS.parent / "benchmarks" / "book.py")


class Incomplete(Exception):
    """Words are missing for something the code has, or left over for something it has not."""


def matched(known: Sequence[str], said: Mapping[str, Any], what: str) -> None:
    """Raise Incomplete unless exactly the known names have words."""
    missing, left_over = sorted(set(known) - set(said)), sorted(set(said) - set(known))
    if missing or left_over:
        raise Incomplete(
            f"docs/words.py, {what}: no words for {missing}, nothing known as {left_over}"
        )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars inside cells are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(str(c).replace("|", "\\|").split()) for c in line) + " |"
        for line in lines
    )


def _code(text: object) -> str:
    return f"`{text}`"


def reasons() -> str:
    """Every member of errors.Reason with what it means and what to do."""
    matched([r.value for r in Reason], words.REASONS, "REASONS")
    rows = [[_code(r.value), *words.REASONS[r.value]] for r in Reason]
    return table(["reason", "what was found", "what to do"], rows)


def outcomes() -> str:
    matched([o.value for o in Outcome], words.OUTCOMES, "OUTCOMES")
    rows = [[_code(o.value), words.OUTCOMES[o.value]] for o in Outcome]
    return table(["outcome", "meaning"], rows)


def exit_codes() -> str:
    found = {k: v for k, v in vars(Exit).items() if k.isupper()}
    matched(list(found), words.EXIT_CODES, "EXIT_CODES")
    return table(["code", "meaning"], [[str(v), words.EXIT_CODES[k]] for k, v in found.items()])


def phantom_levels() -> str:
    """What each level states."""
    rows = [
        [
            level.name,
            *(f"{auc:.2f}" for auc in (level.auc_single, level.auc_single, level.auc_both)),
            f"{level.distance:.2f}",
            f"{level.correlation:.2f}",
        ]
        for level in LEVELS.values()
    ]
    return table(["level", "B-mode alone", "CEUS alone", "both", "d", "rho"], rows)


def phantom_levels_measured() -> str:
    """What benchmarks/check_levels.py found on rendered patients."""
    rows: list[list[str]] = []
    for name in LEVELS:
        for found in json.loads((RESULTS / "phantom-levels" / f"{name}.json").read_text()):
            easy = found.get("easy", {}).get("all of them")
            other = found.get("other modality")
            rows.append(
                [
                    name,
                    {"bmode": "B-mode", "ceus": "CEUS", "both": "both"}[found["part"]],
                    str(found["patients"]),
                    *(
                        f"{one['auc']:.3f} ({one['low']:.3f}-{one['high']:.3f})" if one else ""
                        for one in (found["oracle"], found["by hand"], easy)
                    ),
                    f"{found['share of the distance from chance']:.3f}",
                    f"{other['by hand']:.2f} ({other['of the true scores']:.2f})" if other else "",
                ]
            )
    head = ["level", "seen", "patients", "ideal observer", "measured by hand", "trivial model"]
    return table([*head, "share", "other modality, r"], rows)


def phantom_crops() -> str:
    """What benchmarks/check_crops.py found in cut-out frame pairs."""
    found = json.loads((RESULTS / "phantom-levels" / "crops.json").read_text())
    rows = [
        [
            name,
            f"{one['many']['auc']:.3f} ({one['many']['low']:.3f}-{one['many']['high']:.3f})",
            f"{one['few']['mean']:.3f} ({one['few']['sd']:.3f})",
        ]
        for name, one in found["seen"].items()
    ]
    many, few = round(0.9 * found["settings"]["patients"]), found["settings"]["few"]
    return table(["seen", f"taught by {many} patients", f"taught by {few} (SD of draws)"], rows)


def limits() -> str:
    fields = dataclasses.fields(Limits)
    matched([f.name for f in fields], words.LIMITS, "LIMITS")
    rows = [[_code(f.name), _amount(f.name, f.default), words.LIMITS[f.name]] for f in fields]
    return table(["limit", "value", "what it bounds"], rows)


def _amount(name: str, value: Any) -> str:
    if not name.endswith("_bytes"):
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"
    return f"{value >> 30} GiB" if value >= 1 << 30 else f"{value >> 20} MiB"


def guards() -> str:
    """Guards and probes with what they ask."""
    matched(list(dict.fromkeys(g.id for g in GUARDS)), words.GUARDS, "GUARDS")
    rows = [[g.id, g.title, words.GUARDS[g.id]] for g in GUARDS]
    rows.append(["L07", "probe: margin alone", "review when it tells the classes apart"])
    rows.append(["L08", "probe: metadata alone", "review when they tell the classes apart"])
    return table(["id", "asks about", "how severe"], rows)


def label_columns() -> str:
    names = [f.name for f in dataclasses.fields(Columns) if f.name != "covariates"]
    matched(names, words.LABEL_COLUMNS, "LABEL_COLUMNS")
    return table(["column", "content"], [[_code(n), words.LABEL_COLUMNS[n]] for n in names])


def codecs() -> str:
    rows = [
        [c.name, ", ".join(_code(s) for s in c.transfer_syntaxes), _code(c.package)]
        for c in available_codecs()
    ]
    return table(["compression", "transfer syntaxes", "package"], rows)


def dicom_figures() -> str:
    """Codes of the figures of a bolus fit in structured reports."""
    rows = [
        [_code(name), f"{code.value} ({code.scheme})", code.meaning, _code(unit.value)]
        for name, (code, unit) in dicom_perfusion.FIGURES.items()
    ]
    return table(["figure", "code", "meaning", "unit (UCUM)"], rows)


def dicom_codes() -> str:
    """Codes of structures, sizes, curves and algorithms in results as DICOM."""
    found = [
        code
        for value in vars(dicom_code_list).values()
        for code in ([value.kind] if isinstance(value, dicom_code_list.Structure) else [value])
        if isinstance(code, dicom_code_list.Code) and code.scheme != "UCUM"
    ]
    rows = [[f"{c.value} ({c.scheme})", c.meaning] for c in dict.fromkeys(found)]
    return table(["code", "meaning"], rows)


def prediction_columns() -> str:
    schema = predictions.schema()
    matched(list(schema.names), words.PREDICTION_COLUMNS, "PREDICTION_COLUMNS")
    rows = [[_code(f.name), str(f.type), words.PREDICTION_COLUMNS[f.name]] for f in schema]
    return table(["column", "type", "content"], rows)


# ---- Settings ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a settings table: its type, default and limits as text."""

    name: str
    kind: str
    default: str


def _kind(annotation: Any) -> str:
    """A type as a user would write its values."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(inner[0])
    if origin is typing.Literal:
        return ", ".join(_toml(v) for v in inner)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(a) for a in inner if a is not type(None))
    if origin is tuple:
        kinds = {_kind(a) for a in inner if a is not Ellipsis}
        return "tables" if kinds == {"tables"} else "list of " + " or ".join(sorted(kinds))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return ", ".join(_toml(m.value) for m in annotation)
    if origin is dict:
        return "table"
    if _is_table(annotation):
        return "tables"
    names = {int: "whole number", float: "number", bool: "true, false", str: "text", Path: "path"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _toml(value: Any) -> str:
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, dict) and not value:
        return "{}"
    return f'"{value}"' if isinstance(value, str | Path) else f"{value}"


def _bounds(field: FieldInfo) -> str:
    signs = (("ge", "at least"), ("gt", "above"), ("le", "at most"), ("lt", "below"))
    found = [
        f"{sign} {getattr(rule, name):g}"
        for rule in field.metadata
        for name, sign in signs
        if getattr(rule, name, None) is not None
    ]
    return f" ({', '.join(found)})" if found else ""


def _is_table(annotation: Any) -> bool:
    return isinstance(annotation, type) and (
        issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)
    )


def keys_of(model: Any) -> list[Key]:
    """The keys of a settings model or a plain dataclass, without its nested tables."""
    if dataclasses.is_dataclass(model):
        hints = typing.get_type_hints(model)
        return [
            Key(f.name, _kind(hints[f.name]), _toml(f.default)) for f in dataclasses.fields(model)
        ]
    return [
        Key(name, _kind(f.annotation) + _bounds(f), _default(f))
        for name, f in model.model_fields.items()
        if not _is_table(f.annotation)
    ]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    value = field.default
    if value is PydanticUndefined and field.default_factory is not None:
        value = field.default_factory()  # pyright: ignore[reportCallIssue]
    return _toml(value)


def experiment_keys() -> str:
    """Every key of an experiment file, table by table."""
    fields = Experiment.model_fields.items()
    tables: dict[str, Any] = {"": Experiment}
    tables |= {name: f.annotation for name, f in fields if _is_table(f.annotation)}
    tables["[systems]"] = SystemSettings
    matched(
        [f"{name}.{key.name}".lstrip(".") for name, m in tables.items() for key in keys_of(m)],
        words.EXPERIMENT,
        "EXPERIMENT",
    )
    parts: list[str] = []
    for name, model in tables.items():
        rows = [
            [_code(k.name), k.kind, _code(k.default) if k.default != "needed" else k.default,
             words.EXPERIMENT[f"{name}.{k.name}".lstrip(".")]]
            for k in keys_of(model)
        ]  # fmt: skip
        title = f"`[{name}]`" if name else "Top of the file"
        parts.append(f"### {title}\n\n" + table(["key", "values", "default", "meaning"], rows))
    return "\n\n".join(parts)


def presets() -> str:
    parts: list[str] = []
    for name, preset in PRESETS.items():
        rows = [
            [_code(label), ", ".join(_code(f"{k} = {_toml(v)}") for k, v in changes.items())]
            for label, changes in preset.variants.items()
        ]
        parts.append(f"`{name}`: {preset.words}.\n\n" + table(["variant", "changes"], rows))
    return "\n\n".join(parts)


# ---- Systems -------------------------------------------------------------------------------


def systems() -> str:
    """One section per system from its Card and its Params."""
    return "\n\n".join(_system(s) for s in SYSTEMS)


def _system(system: System[Any]) -> str:
    card, params = system.card, system.params_type
    tasks = ", ".join(sorted(task.value for task in system.tasks))
    looks = " or ".join(" with ".join(modes) for modes in system.takes)
    parts = [
        f"## `{system.name}`: {card.title}",
        card.summary,
        f"Tasks: {tasks}. Looks at: {looks}. Reference: {card.reference}",
    ]
    if system.missing:
        parts.append("Answers from one modality where the other is missing, and says so.")
    if system.features:
        parts.append("Numbers beside the picture, such as perfusion figures, can be given to it.")
    return "\n\n".join([*parts, "### Parameters", _settings(params), *_of_card(card)])


def cascades() -> str:
    """One section per system of several networks on CT scans."""
    return "\n\n".join(_cascade(c) for c in CASCADES)


def _cascade(cascade: Cascade) -> str:
    card = cascade.card
    stages = cascade.stages
    matched(list(stages), words.STAGES, "STAGES")
    parts = [
        f"## `{cascade.name}`: {card.title}",
        card.summary,
        f"Looks at: CT scans. Named by `cascade` in an experiment, in place of `[[systems]]`. "
        f"Reference: {card.reference}",
        "### Parameters",
        "`[params]`: of all stages.",
        _settings(cascade.params_type),
    ]
    for name, stage in stages.items():
        parts += [f"`[params.{name}]`: {words.STAGES[name]}.", _settings(stage)]
    return "\n\n".join([*parts, *_of_card(card)])


def _settings(params: Any) -> str:
    rows = [
        [_code(k.name), k.kind, _code(k.default), params.model_fields[k.name].description or ""]
        for k in keys_of(params)
    ]
    return table(["key", "values", "default", "meaning"], rows)


def _of_card(card: Card) -> list[str]:
    """Sizes of networks, published figures, and what the paper leaves open."""
    sizes = [[what, f"{count:,}"] for what, count in card.parameters.items()]
    parts = ["### Size", table(["network", "trainable parameters"], sizes)]
    if card.claims:
        head = ["task", "figure", "published", "unit and n", "where"]
        parts += ["### Published figures", table(head, [_claim(c) for c in card.claims])]
    if card.open_choices:
        choices = [
            [c.topic, c.paper_says, c.chosen, ", ".join(_code(p) for p in c.param.split(", ") if p)]
            for c in card.open_choices
        ]
        head = ["point", "the paper", "here", "key"]
        parts += ["### What the paper leaves open", table(head, choices)]
    return parts


def _claim(claim: Claim) -> list[str]:
    interval = "" if claim.low is None else f" ({claim.low:g} to {claim.high:g})"
    unit = ", ".join(str(v) for v in (claim.unit, claim.n and f"n = {claim.n:,}") if v)
    value = f"{claim.value:g}{interval}"
    return [claim.task, claim.metric, value, unit or "not stated", claim.where]


# ---- Command line --------------------------------------------------------------------------


def commands() -> dict[str, Any]:
    """Every command by the words a user types, groups before their members."""
    found: dict[str, Any] = {}

    def walk(command: Any, name: str) -> None:
        found[name] = command
        for inner, child in getattr(command, "commands", {}).items():
            walk(child, f"{name} {inner}")

    walk(typer.main.get_command(app), "renalkit")
    return found


def help_of(command: Any, name: str) -> str:
    """What --help prints, at a fixed width."""
    context = command.make_context(
        name, [], resilient_parsing=True, terminal_width=HELP_WIDTH, max_content_width=HELP_WIDTH
    )
    return "\n".join(line.rstrip() for line in command.get_help(context).splitlines()).strip()


def cli() -> str:
    parts = [(name, help_of(command, name)) for name, command in commands().items()]
    return "\n\n".join(f"## {name}\n\n```text\n{text}\n```" for name, text in parts)


def benchmarks() -> str:
    """What `make bench` measured; a record of --quick is refused."""
    return book.markdown(book.read_records())


PARTS: dict[str, Callable[[], str]] = {
    "benchmarks": benchmarks,
    "cli": cli,
    "codecs": codecs,
    "dicom-codes": dicom_codes,
    "dicom-figures": dicom_figures,
    "exit-codes": exit_codes,
    "phantom-levels": phantom_levels,
    "phantom-levels-measured": phantom_levels_measured,
    "phantom-crops": phantom_crops,
    "experiment": experiment_keys,
    "guards": guards,
    "label-columns": label_columns,
    "limits": limits,
    "outcomes": outcomes,
    "predictions": prediction_columns,
    "presets": presets,
    "reasons": reasons,
    "systems": systems,
    "cascades": cascades,
}


def render(text: str, where: str) -> str:
    """The text with its generated parts made anew; KeyError names an unknown part."""

    def part(found: re.Match[str]) -> str:
        name = found.group(1)
        if name not in PARTS:
            raise Incomplete(f"{where}: there is no generated part '{name}'")
        return f"<!-- generated: {name} -->\n\n{PARTS[name]()}\n\n<!-- end -->"

    return MARK.sub(part, text)


def pages() -> list[Path]:
    return sorted([*DOCS.rglob("*.md"), DOCS.parent / "README.md"])


def main(arguments: Sequence[str]) -> int:
    check = "--check" in arguments
    stale = 0
    for path in pages():
        before = path.read_text(encoding="utf-8")
        after = render(before, path.name)
        if before == after:
            continue
        if not check:
            path.write_text(after, encoding="utf-8")
            print(f"wrote {path.relative_to(DOCS.parent)}")
            continue
        stale += 1
        print(f"stale: {path.relative_to(DOCS.parent)} (run python docs/generate.py)")
        sides = (before.splitlines(), after.splitlines())
        print("\n".join(list(difflib.unified_diff(*sides, "kept", "now", lineterm="", n=0))[:20]))
    return 1 if stale else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Incomplete as problem:
        sys.exit(str(problem))
