"""Other people's programs that tests hold our DICOM files against, and an archive to send them to."""

from __future__ import annotations

import io
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

LIMIT_S = 60
WEB = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


def program(*names: str, package: str) -> str:
    for name in names:
        if found := shutil.which(name):
            return found
    pytest.skip(f"{names[0]} is not installed (Debian: {package}): DICOM files are NOT tested with it")  # fmt: skip


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(list(map(str, words)), capture_output=True, text=True, timeout=LIMIT_S, check=False)  # fmt: skip


def validated(path: Path) -> list[str]:
    """What the validator of dicom3tools says against a file; that a code is our own is no fault."""
    said = run(program("dciodvfy", package="dicom3tools"), "-new", path).stderr
    lines = [x for x in said.splitlines() if x.startswith(("Error", "Warning"))]
    return [x for x in lines if not x.endswith("Unrecognized defined term = <99RENALKIT>")]


def picture(source: Path | bytes) -> npt.NDArray[np.uint8]:
    """(H,W) or (H,W,3)."""
    with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as found:
        return np.asarray(found)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Archive:
    """A running Orthanc that only this machine can reach."""

    def __init__(self, folder: Path) -> None:
        orthanc = program("Orthanc", "/usr/sbin/Orthanc", package="orthanc")
        self.http, self.dicom = free_port(), free_port()
        settings = {
            "Name": "renalkit",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "index"),
            "Plugins": [str(WEB)] if WEB.exists() else [],
            "HttpPort": self.http,
            "DicomPort": self.dicom,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowStore": True,
            "DicomCheckCalledAet": False,
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self._log = (folder / "orthanc.log").open("wb")
        self._process = subprocess.Popen(
            [orthanc, str(folder / "orthanc.json")], stdout=self._log, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                self.get("system")
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.close()
                    said = (folder / "orthanc.log").read_text(errors="replace")
                    pytest.fail(f"Orthanc did not start:\n{said}")
                time.sleep(0.05)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(LIMIT_S)
        self._log.close()

    def bytes_of(self, place: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}/{place}", data=body)
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return answer.read()

    def store(self, path: Path) -> Any:
        """STOW-RS; what the archive answers (PS3.18 10.5)."""
        if not WEB.exists():
            pytest.skip("no DICOMweb in the archive (Debian: orthanc-dicomweb): STOW is NOT tested")
        bound = b"renalkit-part"
        head = b"--%b\r\nContent-Type: application/dicom\r\n\r\n" % bound
        kind = f'multipart/related; type="application/dicom"; boundary={bound.decode()}'
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}/dicom-web/studies",
            data=head + path.read_bytes() + b"\r\n--%b--\r\n" % bound,
            headers={"Content-Type": kind, "Accept": "application/dicom+json"},
        )
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return json.loads(answer.read())

    def instance(self, uid: str) -> str:
        """The archive's own name of an instance."""
        query = json.dumps({"Level": "Instance", "Query": {"SOPInstanceUID": uid}})
        (known,) = json.loads(self.bytes_of("tools/find", query.encode()))
        return known

    def get(self, place: str) -> Any:
        return json.loads(self.bytes_of(place))

    def send(self, paths: Sequence[Path]) -> None:
        for path in paths:
            answer = json.loads(self.bytes_of("instances", path.read_bytes()))
            assert answer["Status"] == "Success", path


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    found = Archive(tmp_path_factory.mktemp("orthanc"))
    yield found
    found.close()
