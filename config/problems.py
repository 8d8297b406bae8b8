"""What can be wrong with a configuration, and how it is said: every problem at once, each with its place."""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Loc: TypeAlias = tuple[str | int, ...]
"""A member's place in the settings, as in `("endpoints", 0, "base_url")`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing to correct. `where`: a file's line, an environment variable or a flag; `loc` is empty for the whole."""

    where: str
    message: str
    loc: Loc = ()

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, show_loc(self.loc), self.message) if part)


class ConfigError(Exception):
    """The configuration cannot be used; `problems` lists every reason that was found, one a line when printed."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)


def show_loc(loc: Loc) -> str:
    """`endpoints[0].base_url` for `("endpoints", 0, "base_url")`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).removeprefix(".")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest of the known words, nothing when none is near."""
    near = nearest(word, known)
    return f"; did you mean {near!r}?" if near else ""


def nearest(word: str, known: Iterable[str], *, likeness: float = 0.6) -> str | None:
    """The known word that is most like this one, if any is at least so alike; `likeness` is from 0 to 1."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=likeness)), None)
