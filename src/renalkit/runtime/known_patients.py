"""Whom has a model seen, told without naming anybody?

A package carries keyed hashes of the pseudonyms that trained and chose each of its networks. Who
has a cohort can ask which of its own patients are among them; who has not learns nothing.
Pseudonyms, and so their hashes, agree only where both sides were ingested with the same key.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

KEYED_BY = "HMAC-SHA256 of the pseudonym under the salt"


def patient_hash(salt: str, pseudonym: str) -> str:
    """Keyed hash (HMAC-SHA256) of a pseudonym.

    >>> patient_hash("a", "p-1") == patient_hash("b", "p-1")
    False
    """
    return hmac.new(salt.encode(), pseudonym.encode(), sha256).hexdigest()


@dataclass(frozen=True, slots=True)
class KnownPatients:
    """Hashes of those a network was trained with, and of those its epoch was chosen with."""

    salt: str
    trained: frozenset[str]
    validated: frozenset[str]

    @classmethod
    def of(cls, salt: str, trained: Iterable[str], validated: Iterable[str]) -> KnownPatients:
        """The hashes of pseudonyms."""
        return cls(
            salt,
            frozenset(patient_hash(salt, p) for p in trained),
            frozenset(patient_hash(salt, p) for p in validated),
        )

    @classmethod
    def parse(cls, plain: Mapping[str, Any]) -> KnownPatients:
        """The inverse of `plain`; KeyError or TypeError when it has another form."""
        return cls(str(plain["salt"]), frozenset(plain["trained"]), frozenset(plain["validated"]))

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "salt": self.salt,
            "trained": sorted(self.trained),
            "validated": sorted(self.validated),
        }

    def among(self, patients: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
        """Those of the pseudonyms it was trained with, and those it was chosen with."""
        of = {patient_hash(self.salt, p): p for p in patients}
        return (
            frozenset(of[h] for h in self.trained & of.keys()),
            frozenset(of[h] for h in self.validated & of.keys()),
        )
