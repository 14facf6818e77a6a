"""How a TOML file becomes typed settings, with every problem reported at once.

Generic: the caller brings the pydantic class. Nothing in a file can name Python code.
"""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError

from renalkit.errors import ConfigError


class Settings(BaseModel):
    """Base of all settings: unknown keys are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


S = TypeVar("S", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; ConfigError when it is missing, no readable file or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError([f"no such file: {path}"]) from error
    except OSError as error:
        raise ConfigError([f"no file to read: {error.strerror}"], where=path.name) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"not TOML: {error}"], where=path.name) from error


def parse_value(text: str) -> Any:
    """A command-line value in TOML notation; bare words are strings.

    >>> parse_value("3"), parse_value("[1, 2]"), parse_value("adam"), parse_value("true")
    (3, [1, 2], 'adam', True)
    """
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def with_overrides(tables: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The tables with ``dotted.key=value`` overrides put in; numbers index lists of tables.

    >>> with_overrides({"train": {"epochs": 9}}, ["train.epochs=3"])
    {'train': {'epochs': 3}}
    """
    result: Any = _copied(tables)
    problems: list[str] = []
    for item in overrides:
        name, separator, text = item.partition("=")
        if not separator or not name:
            problems.append(f"'{item}': expected KEY=VALUE, for instance train.epochs=30")
            continue
        try:
            _put(result, name.strip().split("."), parse_value(text.strip()))
        except (KeyError, IndexError, ValueError, TypeError):
            problems.append(f"'{name}': no such place in the settings")
    if problems:
        raise ConfigError(problems)
    return result


def with_values(tables: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The tables with values put in by dotted key; numbers index lists of tables.

    Raises KeyError, IndexError, ValueError or TypeError for a place that cannot be.

    >>> with_values({"systems": [{"name": "unet"}]}, {"systems.0.size": 64})
    {'systems': [{'name': 'unet', 'size': 64}]}
    """
    result: Any = _copied(tables)
    for name, value in values.items():
        _put(result, name.split("."), value)
    return result


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _copied(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(v) for v in value]
    return value


def _put(place: Any, names: list[str], value: Any) -> None:
    for name in names[:-1]:
        place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
    if isinstance(place, list):
        place[int(names[-1])] = value
    else:
        place[names[-1]] = value


def to_toml(tables: Mapping[str, Any]) -> str:
    """Settings as TOML text that reads back equal (checked)."""
    lines = [f"{k} = {toml_value(v)}" for k, v in tables.items() if not _is_table(v)]
    for key, value in tables.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{key}]", *(f"{k} = {toml_value(v)}" for k, v in value.items())]
        elif _is_table(value):
            for item in value:
                lines += ["", f"[[{key}]]", *(f"{k} = {toml_value(v)}" for k, v in item.items())]
    text = "\n".join(lines) + "\n"
    assert tomllib.loads(text) == dict(tables), "the settings do not survive being written"
    return text


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)
    )


def toml_value(value: Any) -> str:
    """A plain value in TOML notation; `parse_value` reads it back."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {toml_value(v)}" for k, v in value.items()) + " }"
    return "[" + ", ".join(toml_value(v) for v in value) + "]"


def problems_of(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """One line per problem: dotted path, what is wrong, the known keys where a key is unknown."""
    lines: list[str] = []
    for item in error.errors(include_url=False):
        path = ".".join([*([prefix] if prefix else []), *map(str, item["loc"])])
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = _known_keys(model, [str(part) for part in item["loc"][:-1]])
            close = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
            hint = f" (did you mean '{close[0]}'?)" if close else ""
            lines.append(f"{path}: unknown key{hint}; known keys: {', '.join(known)}")
            continue
        inner = item.get("ctx", {}).get("error")
        if isinstance(inner, ConfigError):
            lines += [f"{path}.{problem}" for problem in inner.problems]
        else:
            words = item["msg"][0].lower() + item["msg"][1:]
            lines.append(f"{path}: {words}, got {item['input']!r}")
    return lines


def _known_keys(model: Any, path: list[str]) -> list[str]:
    """Names a table at `path` may hold; models and plain dataclasses alike."""
    current = model
    for name in path:
        if name.isdigit():
            continue
        annotation = _annotations(current).get(name)
        inner = [annotation, *getattr(annotation, "__args__", ())]
        current = next((a for a in inner if isinstance(a, type) and _annotations(a)), None)
        if current is None:
            return []
    return sorted(_annotations(current))


def _annotations(model: Any) -> dict[str, Any]:
    if dataclasses.is_dataclass(model) and isinstance(model, type):
        return get_type_hints(model)
    fields = getattr(model, "model_fields", {})
    return {f.alias or name: f.annotation for name, f in fields.items()}


def parse_settings(model: type[S], tables: Mapping[str, Any], *, prefix: str = "") -> S:
    """The tables as typed settings; ConfigError carries every problem."""
    try:
        return model.model_validate(dict(tables))
    except ValidationError as error:
        raise ConfigError(problems_of(error, model, prefix)) from error
