"""The list of compressions is complete, instant and true."""

import subprocess
import sys

from renalkit.readers.codecs import available_codecs
from renalkit.readers.dicom_syntaxes import ENCAPSULATED, NATIVE


def test_every_transfer_syntax_is_listed_once():
    listed = [s for codec in available_codecs() for s in codec.transfer_syntaxes]
    assert sorted(listed) == sorted(NATIVE + ENCAPSULATED)
    assert len(available_codecs()) == 6
    assert all(codec.available for codec in available_codecs())


def test_listing_imports_no_codec():
    code = (
        "import sys; from renalkit.readers.codecs import available_codecs; available_codecs();"
        "print([m for m in ('numpy', 'imagecodecs', 'pydicom', 'cv2') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_missing_package_is_said(monkeypatch):
    monkeypatch.setattr("renalkit.readers.codecs.find_spec", lambda name: None)
    assert not any(codec.available for codec in available_codecs())
