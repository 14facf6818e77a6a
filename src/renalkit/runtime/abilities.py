"""Which fast modes can this processor compute, and which processor is it?

Read from the processor's own flags. A mode without its instructions would still run somewhere, but
slower than float32, so it is refused with words.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path

from renalkit.errors import ModelRefused

CPUINFO = Path("/proc/cpuinfo")


class Precision(StrEnum):
    """How numbers are kept while a network is computed; 32 bits is the reference."""

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


NEEDED: Mapping[Precision, tuple[str, ...]] = {
    Precision.FP32: (),
    Precision.BF16: ("avx512_bf16", "amx_bf16"),
    Precision.INT8: ("avx512_vnni", "avx_vnni", "amx_int8"),
}
"""Instructions of which a processor must have one."""
FAST = (Precision.BF16, Precision.INT8)


@dataclass(frozen=True, slots=True)
class Processor:
    """model: its name; flags: its instructions as the kernel lists them."""

    model: str
    flags: frozenset[str]

    def can(self, precision: Precision) -> bool:
        """Whether a mode has the instructions it needs.

        >>> Processor("old", frozenset({"avx2"})).can(Precision.BF16)
        False
        """
        needed = NEEDED[precision]
        return not needed or bool(self.flags & set(needed))

    def require(self, precision: Precision) -> None:
        """Raises ModelRefused for a mode this processor has no instructions for."""
        if not self.can(precision):
            raise ModelRefused(
                f"mode {precision.value} on a processor ({self.model}) without its instructions",
                where="precision",
                expected=f"one of {', '.join(NEEDED[precision])}",
                remedy="use fp32, or a machine that has them",
            )


@lru_cache(maxsize=1)
def this_processor() -> Processor:
    """The processor this process runs on; without flags where the kernel lists none."""
    if not CPUINFO.exists():
        return Processor(platform.processor() or platform.machine(), frozenset())
    found: dict[str, str] = {}
    for line in CPUINFO.read_text(errors="replace").splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return Processor(
        found.get("model name", platform.machine()), frozenset(found.get("flags", "").split())
    )
