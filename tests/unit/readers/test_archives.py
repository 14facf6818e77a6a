"""Nothing of an archive is written outside a temporary folder, and no size is believed."""

from __future__ import annotations

import stat
import zipfile
from pathlib import Path

import pytest

from renalkit.errors import InputRefused
from renalkit.readers.archives import ArchiveLimits, is_archive, unpacked
from renalkit.readers.contract import Limits


def packed(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


def test_members_are_files_until_the_context_ends(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", ("one/a.png", b"a"), ("b.png", b"b" * 3_000_000))
    assert is_archive(path)
    with unpacked(path) as found:
        assert (found.folder / "one/a.png").read_bytes() == b"a"
        assert (found.folder / "b.png").stat().st_size == 3_000_000
        assert found.refused == ()
    assert not found.folder.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../a.png", "leads out"),
        ("/etc/a.png", "leads out"),
        ("x/../../a.png", "leads out"),
        ("x\\..\\a.png", "leads out"),
        ("C:/a.png", "leads out"),
        ("x//a.png", "leads out"),
        ("x/" * 30 + "a.png", "too long or too deep"),
        ("n" * 300 + ".png", "too long or too deep"),
        (link("a.png"), "a link"),
    ],
)
def test_a_member_that_could_harm_is_refused_and_the_rest_taken(
    tmp_path: Path, name: str | zipfile.ZipInfo, words: str
) -> None:
    path = packed(tmp_path / "a.zip", (name, b"/etc/passwd"), ("b.png", b"b"))
    with unpacked(path) as found:
        (report,) = found.refused
        assert words in report.reasons[0].words
        assert [p.name for p in found.folder.rglob("*")] == ["b.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip"]


def test_what_a_packing_program_adds_is_skipped(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", ("__MACOSX/._b.png", b"x"), ("b.png", b"b"))
    with unpacked(path) as found:
        assert [r.outcome.value for r in found.refused] == ["skipped"]
        assert [p.name for p in found.folder.iterdir()] == ["b.png"]


def test_doubled_names_and_files_below_files_are_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = packed(
            tmp_path / "a.zip",
            *(("a.png", b"1"), ("a.png", b"2"), ("A.png", b"3"), ("a.png/b.png", b"4")),
        )
    with unpacked(path) as found:
        assert len(found.refused) == 3
        assert (found.folder / "a.png").read_bytes() == b"1"


def test_a_member_that_grows_too_large_is_refused_whatever_it_declares(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", ("a.png", b"\0" * 5_000_000), ("b.png", b"b"))
    with unpacked(path, Limits(file_bytes=1_000_000)) as found:
        (report,) = found.refused
        assert report.reasons[0].reason.value == "too-large"
        assert [p.name for p in found.folder.iterdir()] == ["b.png"]


def test_more_bytes_or_members_than_allowed_refuse_the_archive(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", *((f"{k}.png", b"\0" * 600_000) for k in range(3)))
    with (
        pytest.raises(InputRefused, match="more than 1000000 bytes"),
        unpacked(path, limits=ArchiveLimits(total_bytes=1_000_000)),
    ):
        pass
    with (
        pytest.raises(InputRefused, match="3 members or more"),
        unpacked(path, limits=ArchiveLimits(members=2)),
    ):
        pass


def test_damaged_encrypted_and_foreign_archives(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", ("a.png", bytes(range(256)) * 40), ("b.png", b"b"))
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    with unpacked(path) as found:
        assert [r.reasons[0].reason.value for r in found.refused] == ["truncated"]
        assert [p.name for p in found.folder.iterdir()] == ["b.png"]
    flagged = bytearray(packed(tmp_path / "b.zip", ("a.png", b"a")).read_bytes())
    flagged[flagged.rfind(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(flagged)
    with unpacked(path) as found:
        assert "encrypted" in found.refused[0].reasons[0].words
    path.write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(InputRefused, match="cannot be read"), unpacked(path):
        pass
    path.write_bytes(b"something else")
    assert not is_archive(path)
