"""Which systems can be named, in which order? Listing them loads no network library."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from renalkit.errors import ConfigError
from renalkit.systems import baselines, mufnet, multitask_us, repvgg_ceus
from renalkit.systems._contract import System

ENTRY_POINT_GROUP = "renalkit.systems"

SYSTEMS: tuple[System[Any], ...] = (
    *multitask_us.SYSTEMS,
    *mufnet.SYSTEMS,
    *repvgg_ceus.SYSTEMS,
    *baselines.SYSTEMS,
)


def all_systems() -> tuple[System[Any], ...]:
    """Our own systems, then those of installed packages in the order of their entry points.

    An entry point of the group `renalkit.systems` names a System or a tuple of Systems. What its
    import raises is not caught.

    Raises:
        ConfigError: an entry point gives something else, or a name that is already taken.
    """
    systems = list(SYSTEMS)
    problems: list[str] = []
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        loaded: object = point.load()
        offered = loaded if isinstance(loaded, tuple) else (loaded,)
        for system in offered:
            if not isinstance(system, System):
                problems.append(
                    f"entry point {point.name!r} ({point.value}) gives "
                    f"{type(system).__name__}, expected a System or a tuple of Systems"
                )
            elif system.name in {known.name for known in systems}:
                problems.append(
                    f"entry point {point.name!r} ({point.value}): the name {system.name!r} is taken"
                )
            else:
                systems.append(system)
    if problems:
        raise ConfigError(problems, where=ENTRY_POINT_GROUP)
    return tuple(systems)


def get_system(name: str) -> System[Any]:
    """The system of this name.

    Raises:
        ConfigError: no such system; the message lists the known names.
    """
    systems = all_systems()
    for system in systems:
        if system.name == name:
            return system
    known = ", ".join(system.name for system in systems)
    raise ConfigError([f"unknown system {name!r}; known: {known}"], where="system")
