"""How raw identifiers become pseudonyms: keyed (HMAC-SHA256), so that nobody without the project's
key can test a guess, and the same person gets the same key in every import of the project.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType

from renalkit.errors import InputRefused, Reason, StoreError
from renalkit.store.files import make_folder, write_bytes

KEY_BYTES = 32


@dataclass(slots=True)
class Pseudonyms:
    """Issues keys and remembers, in memory only, what it issued them for.

    Raw identifiers are compared byte by byte: `007`, `7` and ` 007` are three patients.
    """

    key: bytes = field(repr=False)
    _issued: dict[str, str] = field(default_factory=dict[str, str], repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise StoreError(
                f"project key of {len(self.key)} bytes",
                expected=f"{KEY_BYTES} bytes",
                remedy="restore the key file; pseudonyms cannot be continued without it",
            )

    def _digest(self, domain: str, raw: str) -> str:
        message = f"{domain}\0{raw}".encode("utf-8", "surrogateescape")
        return hmac.new(self.key, message, sha256).hexdigest()[:20]

    def patient(self, raw: str) -> str:
        """Key of a patient; InputRefused(NO_PATIENT) for an empty identifier."""
        if not raw.strip():
            raise InputRefused(
                Reason.NO_PATIENT,
                "empty patient identifier",
                expected="an identifier per patient",
                remedy="give a table that maps files to patients",
            )
        key = f"p-{self._digest('patient', raw)}"
        self._issued[key] = raw
        return key

    def study(self, raw: str) -> str:
        """Key of a study: from its UID, or from the identity of its files."""
        key = f"s-{self._digest('study', raw)}"
        self._issued[key] = raw
        return key

    def lesion(self, study: str, raw: str) -> str:
        """Key of a lesion within a study key."""
        within = "\0".join((study, raw))
        return f"l-{self._digest('lesion', within)}"

    def path(self, relative: Path) -> str:
        """Keyed form of a path relative to the import folder."""
        return f"f-{self._digest('path', relative.as_posix())}"

    @property
    def issued(self) -> Mapping[str, str]:
        """Key to raw identifier: the content of the link table, which never enters a cohort."""
        return MappingProxyType(self._issued)


def load_or_create_key(path: Path) -> bytes:
    """The project's key, created on first use with owner-only access.

    The key file lies outside every cohort; whoever holds it can link pseudonyms to patients.
    """
    if path.exists():
        return path.read_bytes()
    make_folder(path.parent)
    key = secrets.token_bytes(KEY_BYTES)
    write_bytes(path, key)
    path.chmod(0o600)
    return key
