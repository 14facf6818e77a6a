"""Every entry of a folder is given once, as a file or with the reason why not."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from renalkit.errors import InputRefused, Reason
from renalkit.readers.contract import FileReport, Outcome
from renalkit.readers.walk import walk_files


def split(root):
    found = list(walk_files(root))
    return [f for f in found if isinstance(f, Path)], [
        f for f in found if isinstance(f, FileReport)
    ]


def test_order_is_that_of_the_bytes(tmp_path):
    for name in ("b/z", "b/A", "a", "B", "b/c/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    files, reports = split(tmp_path)
    assert [f.relative_to(tmp_path).as_posix() for f in files] == ["B", "a", "b/A", "b/z", "b/c/d"]
    assert reports == []


@settings(max_examples=30, deadline=None)
@given(
    names=st.sets(
        st.binary(min_size=1, max_size=20).filter(
            lambda n: not set(n) & {0, 47} and n not in (b".", b"..")
        ),
        max_size=8,
    )
)
def test_any_name_is_found(tmp_path_factory, names):
    root = tmp_path_factory.mktemp("names")
    for name in names:
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(b"")
    files, reports = split(root)
    assert {os.fsencode(f.name) for f in files} == names
    assert reports == []


def test_specials_are_skipped_unopened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "lost").symlink_to("nowhere")
    (tmp_path / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "out").symlink_to("/etc", target_is_directory=True)
    (tmp_path / "real").write_text("x")
    (tmp_path / "alias").symlink_to("real")
    files, reports = split(tmp_path)
    assert [f.name for f in files] == ["alias", "real"]
    assert {r.path.name for r in reports} == {"pipe", "null", "self", "lost", "up", "out"}
    assert all(r.outcome is Outcome.SKIPPED for r in reports)
    assert all(r.reasons[0].reason is Reason.SPECIAL_FILE for r in reports)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_entries_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "file").chmod(0)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder").chmod(0)
    _, reports = split(tmp_path)
    (tmp_path / "folder").chmod(0o700)
    assert [r.reasons[0].reason for r in reports] == [Reason.UNREADABLE] * 2


def test_unlistable_folder_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_text("x")
    real = os.scandir

    def scandir(path):
        if Path(path).name == "a":
            raise PermissionError(13, "no")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    files, reports = split(tmp_path)
    assert [f.name for f in files] == ["b"]
    assert [r.reasons[0].reason for r in reports] == [Reason.UNREADABLE]


def test_root_must_be_a_folder(tmp_path):
    with pytest.raises(InputRefused, match="no folder"):
        list(walk_files(tmp_path / "none"))


def test_many_files(tmp_path):
    for i in range(500):
        (tmp_path / f"{i}").touch()
    files, _ = split(tmp_path)
    assert len(files) == 500
