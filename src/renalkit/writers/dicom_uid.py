"""How do files that renalkit makes get UIDs of their own?"""

from __future__ import annotations

import hashlib

from pydicom.uid import UID


def derived_uid(*parts: object) -> UID:
    """A UID that depends on the parts only (PS3.5 B.2: 2.25 and a 128-bit number)."""
    digest = bytearray(hashlib.sha256("\0".join(map(str, parts)).encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80  # version 8 of RFC 9562: made by our own rule
    digest[8] = digest[8] & 0x3F | 0x80
    return UID(f"2.25.{int.from_bytes(digest)}")
