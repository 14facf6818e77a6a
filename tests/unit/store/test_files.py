"""Durable writes: whole or not at all, one writer at a time, strict JSON."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from renalkit.errors import InputRefused, Locked, StoreError
from renalkit.store import files
from renalkit.store.files import (
    clean_temporaries,
    locked,
    move_folder,
    parse_json,
    read_json,
    replacing_folder,
    sha256_bytes,
    sha256_file,
    text_file,
    write_bytes,
    write_json,
    write_with,
)


def test_a_write_replaces_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "deep/er/file.bin"
    write_bytes(path, b"one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two"
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]
    assert sha256_file(path) == sha256_bytes(b"two")


def test_a_folder_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    long = tmp_path / ("x" * 256)
    for place in (tmp_path / "file", tmp_path / "file/deeper", Path("/proc/renalkit/x"), long):
        with pytest.raises(StoreError, match="write refused"), locked(place):
            pass


def test_a_folder_that_cannot_be_written_is_a_store_error() -> None:
    with pytest.raises(StoreError, match="write refused"):
        write_bytes(Path("/proc/x.bin"), b"")
    with pytest.raises(StoreError, match="write refused"), locked(Path("/proc")):
        pass


@pytest.mark.parametrize("stage", ["fill", "fsync", "replace"])
def test_x07_a_refused_write_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    path = tmp_path / "file.bin"
    write_bytes(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if stage == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    if stage == "replace":
        monkeypatch.setattr(Path, "replace", full)
    fill = full if stage == "fill" else (lambda p: p.write_bytes(b"new") and None)
    with pytest.raises(StoreError, match="disk is full") as caught:
        write_with(path, fill)
    assert caught.value.exit_code == 6
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(_: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_with(tmp_path / "file.bin", stop)
    assert list(tmp_path.iterdir()) == []


def test_a_text_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    with text_file(path) as text:
        text.write("a\n")
        text.flush()
        assert not path.exists()
        text.write("\u00e9\n")
    assert path.read_bytes() == b"a\n\xc3\xa9\n"
    with pytest.raises(TypeError), text_file(path) as text:
        text.writelines(["half", None])  # pyright: ignore[reportArgumentType]
    assert path.read_bytes() == b"a\n\xc3\xa9\n"
    assert [p.name for p in path.parent.iterdir()] == ["table.csv"]


def test_a_folder_of_files_appears_when_it_is_whole(tmp_path: Path) -> None:
    place = tmp_path / "new" / "series"
    for text in ("first", "second"):
        with replacing_folder(place) as folder:
            (folder / text).write_text(text)
            assert not (place / text).exists()
        assert [p.name for p in place.iterdir()] == [text]
    with pytest.raises(KeyboardInterrupt):
        _fill_half(place, KeyboardInterrupt)
    with pytest.raises(StoreError, match="write refused"):
        _fill_half(place, OSError)
    assert [p.name for p in place.parent.iterdir()] == ["series"]
    assert [p.name for p in place.iterdir()] == ["second"]


def _fill_half(place: Path, error: type[BaseException]) -> None:
    with replacing_folder(place) as folder:
        (folder / "half").write_text("x")
        raise error


def test_a_folder_is_put_in_place_at_once_or_not_at_all(tmp_path: Path) -> None:
    for name in ("whole", "taken", "empty"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    (tmp_path / "empty" / "file").unlink()
    with pytest.raises(StoreError, match="Directory not empty"):
        move_folder(tmp_path / "whole", tmp_path / "taken")
    assert (tmp_path / "taken" / "file").read_text() == "taken"
    move_folder(tmp_path / "whole", tmp_path / "empty")
    move_folder(tmp_path / "empty", tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "taken"]
    assert (tmp_path / "new" / "file").read_text() == "whole"


def test_leftovers_of_a_killed_writer_are_cleaned(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / f"a/{files.TMP_PREFIX}x.bin").write_bytes(b"half")
    (tmp_path / f"a/{files.TMP_PREFIX}folder/inner").mkdir(parents=True)
    (tmp_path / "a/keep.bin").write_bytes(b"whole")
    assert clean_temporaries(tmp_path) == 2
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["keep.bin"]


def test_x12_the_second_process_is_told_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from renalkit.store.files import locked\n"
        "from renalkit.errors import Locked\n"
        "try:\n    locked(Path(sys.argv[1])).__enter__()\n"
        "except Locked as e:\n    print(e); sys.exit(e.exit_code)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with locked(tmp_path):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 7
        assert f"in use by process {os.getpid()}" in done.stdout
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    with locked(tmp_path), pytest.raises(Locked), locked(tmp_path):
        pass


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(json_values)
def test_json_survives(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert read_json(path) == value


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "[Infinity]",
        "-Infinity",
        "1e999",
        '{"a":1,"a":2}',
        "1" * 5000,
        "[" * 200_000,
        r'"\ud800"',
        "{} x",
        "",
        b"\xff\xfe",
        b'"\xfc"',
    ],
)
def test_t11_json_that_is_not_strict_is_refused(text: str | bytes) -> None:
    with pytest.raises(InputRefused, match="not strict JSON"):
        parse_json(text, where="t")


def test_json_over_the_size_limit_is_refused() -> None:
    assert parse_json("[1]", where="t", max_bytes=3) == [1]
    with pytest.raises(InputRefused, match="4 bytes"):
        parse_json("[10]", where="t", max_bytes=3)


def test_json_with_a_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", float("nan"))
    assert list(tmp_path.iterdir()) == []
