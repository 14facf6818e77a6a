"""Settings: every problem at once, with the known keys."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.config import Settings, parse_settings, parse_value, read_toml, with_overrides
from renalkit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Inner:
    size: int = 3
    word: str = "a"

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ConfigError(["size: must not be negative"])


class Outer(Settings):
    inner: Inner = Inner()
    names: tuple[str, ...] = ()
    items: tuple[Inner, ...] = ()


def test_defaults_need_no_file() -> None:
    assert parse_settings(Outer, {}) == Outer()


def test_every_problem_is_listed_with_its_path() -> None:
    tables = {
        "inner": {"size": -1},
        "names": 3,
        "items": [{"sise": 1}, {"size": "x"}],
        "name": "b",
    }
    with pytest.raises(ConfigError) as caught:
        parse_settings(Outer, tables)
    text = "\n".join(caught.value.problems)
    assert "inner.size: must not be negative" in text
    assert "names:" in text
    assert "items.0.sise: unknown key (did you mean 'size'?); known keys: size, word" in text
    assert "items.1.size:" in text
    assert "name: unknown key (did you mean 'names'?)" in text
    assert len(caught.value.problems) == 5


def test_settings_cannot_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse_settings(Outer, {}).names = ("x",)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 1e-3),
        ("true", True),
        ("[0, 1]", [0, 1]),
        ('"3"', "3"),
        ("adam", "adam"),
        ("a b", "a b"),
        ("", ""),
    ],
)
def test_values_of_the_command_line(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_overrides_reach_into_tables_and_lists() -> None:
    tables = {"train": {"epochs": 9}, "systems": [{"name": "unet"}]}
    found = with_overrides(tables, ["train.epochs=3", "systems.0.params.width=0.5", "new.key=x"])
    assert found == {
        "train": {"epochs": 3},
        "systems": [{"name": "unet", "params": {"width": 0.5}}],
        "new": {"key": "x"},
    }
    assert tables == {"train": {"epochs": 9}, "systems": [{"name": "unet"}]}, "the input is kept"


@pytest.mark.parametrize("item", ["epochs", "=3", "systems.5.name=x", "systems.a=1"])
def test_overrides_that_lead_nowhere_are_refused(item: str) -> None:
    with pytest.raises(ConfigError, match=r"expected KEY=VALUE|no such place"):
        with_overrides({"systems": [{}]}, [item])


def test_a_file_that_is_missing_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_toml(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="no file to read"):
        read_toml(tmp_path)
    (tmp_path / "bad.toml").write_text("a = = 3")
    with pytest.raises(ConfigError, match="not TOML"):
        read_toml(tmp_path / "bad.toml")
    (tmp_path / "latin.toml").write_bytes(b'a = "\xfc"')
    with pytest.raises(ConfigError, match="not TOML"):
        read_toml(tmp_path / "latin.toml")


@given(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_numbers_survive_an_override(a: int, b: float, c: bool) -> None:
    found = with_overrides({}, [f"a={a}", f"b={b!r}", f"c={str(c).lower()}"])
    # TOML integers are 64 bit in many readers; Python's has no limit.
    assert found == {"a": a, "b": b, "c": c}
