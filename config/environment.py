"""Settings from the environment: `ATLAS_SERVER__PORT=9000` is `server.port`, lists and sections are written as JSON.

A name that looks like a setting and is none is refused, so that a slip of the pen does not pass unseen. A variable that
is empty counts as not set.
"""

from collections.abc import Iterator, Mapping
from typing import Any, cast

from config.keys import PEPPER_VARIABLE
from config.layers import Layer, members_at
from config.problems import Loc, Problem, nearest
from config.yaml_lines import Reading

_PREFIX = "ATLAS_"
RESERVED = ("ATLAS_CONFIG", "ATLAS_RECORDINGS", "ATLAS_URL", "ATLAS_KEY")
"""Names with the prefix that are no settings."""


def environment_layer(environ: Mapping[str, str]) -> Layer:
    """What the environment sets, and the names in it that were meant to and do not."""
    data: dict[str, Any] = {}
    places: dict[Loc, str] = {}
    problems: list[Problem] = []
    for name, text in sorted(environ.items()):
        loc = _loc_of(name) if text else ()
        if loc:
            places.update({loc[:end]: name for end in range(1, len(loc) + 1)})
            problems.extend(_put(data, loc, _read(name, text, problems), name))
        elif text and (wrong := _looks_wrong(name, text)):
            problems.append(Problem(where=name, message=wrong))
    return Layer(data=data, places=places, problems=tuple(problems))


def _loc_of(name: str) -> Loc:
    """The member that a variable sets; empty if it is not about one."""
    if not name.startswith(_PREFIX) or name in RESERVED:
        return ()
    parts = name.removeprefix(_PREFIX).lower().split("__")
    return tuple(parts) if len(parts) > 1 or parts[0] in members_at(()) else ()


def _read(name: str, text: str, problems: list[Problem]) -> Any:
    if name == PEPPER_VARIABLE or not text.lstrip().startswith(("[", "{")):
        return text
    reading = Reading(name=name, variables=None)
    value = reading.read(text)
    problems.extend(Problem(where=name, loc=found.loc, message=found.message) for found in reading.problems)
    return value


def _put(data: dict[str, Any], loc: Loc, value: Any, name: str) -> Iterator[Problem]:
    """Set one member; a section given whole gives way to its members, whose names sort after its own."""
    *sections, member = map(str, loc)
    for section in sections:
        inner: Any = data.setdefault(section, {})
        if not isinstance(inner, dict):
            yield Problem(where=name, loc=loc, message=f"{section} is a value, it has no members")
            return
        data = cast("dict[str, Any]", inner)
    data[member] = value


def _looks_wrong(name: str, text: str) -> str | None:
    """Why a name with the prefix that sets nothing is suspicious; None if it is somebody else's."""
    if (
        not name.startswith(_PREFIX) or name in RESERVED or text.startswith("tcp://")
    ):  # Kubernetes: ATLAS_PORT=tcp://...
        return None
    word = name.removeprefix(_PREFIX).lower()
    for section in members_at(()):
        if word in members_at((section,)):
            return f"unknown setting; did you mean '{_PREFIX}{section.upper()}__{word.upper()}'?"
    near = nearest(word, [*(each.removeprefix(_PREFIX).lower() for each in RESERVED), *members_at(())], likeness=0.75)
    return f"unknown setting; did you mean '{_PREFIX}{near.upper()}'?" if near else None
