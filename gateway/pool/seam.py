"""Where a continuation is joined to what was delivered: what of it is dropped, so that the text reads on. Sans-IO.

    given      ... and the quick
    comes      | and the quick|quick|  |brown fox          echo, overlap, whitespace written twice
    is shown                            brown fox

Oddities, on purpose:
1. A host that is known to repeat the prefill has it dropped whatever it is. Of any other host it is dropped only where
   a repetition of the whole answer so far cannot be what the model meant: it is long enough and does not itself consist
   of repetitions ("ha ha ha").
2. What may still turn out to be dropped is held, at most as long as the text it is compared with.
3. The prefill goes out without white space at its end, which many hosts refuse or strip. The model writes that again,
   so what both begin with is dropped.
4. A stop string that begins in the delivered text and ends in the continuation is one that no provider could see.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

ECHO_CHARS = 16
"""An unannounced echo shorter than this may be the model's own words."""

OVERLAP_CHARS = 8
OVERLAP_WINDOW = 256
_LOOKED_AT, _HEAD = 4_096, 64


class _Stage(Protocol):
    def feed(self, text: str, *, last: bool) -> str:
        """What is shown of the text so far; with `last` nothing more will come."""
        ...


@dataclass(slots=True)
class _Echo:
    """Drops a repetition of `given` at the beginning."""

    given: str
    known: bool
    held: str = ""
    over: bool = False
    dropped: int = 0

    def feed(self, text: str, *, last: bool) -> str:
        if self.over:
            return text
        self.held += text
        if self.held.startswith(self.given):
            self.over, self.dropped = True, len(self.given)
            return self.held[len(self.given) :]
        if self.given.startswith(self.held) and not last:
            return ""
        if last and self.known and self.given.startswith(self.held):
            self.dropped, self.held = len(self.held), ""
        self.over = True
        return self.held


@dataclass(slots=True)
class _Overlap:
    """Drops the longest end of `given` that the continuation begins with, if it is long enough to be no accident."""

    given: str
    held: str = ""
    over: bool = False

    def feed(self, text: str, *, last: bool) -> str:
        if self.over:
            return text
        self.held += text
        if not last and self._may_grow():
            return ""
        self.over = True
        longest = min(len(self.held), len(self.given))
        sizes = range(longest, OVERLAP_CHARS - 1, -1)
        return self.held[next((size for size in sizes if self.held.startswith(self.given[-size:])), 0) :]

    def _may_grow(self) -> bool:
        sizes = range(len(self.held) + 1, len(self.given) + 1)
        return any(self.given[-size:].startswith(self.held) for size in sizes)


@dataclass(slots=True)
class _Blank:
    """Drops white space that stands at the end of the delivered text already."""

    left: str

    def feed(self, text: str, *, last: bool) -> str:
        del last
        if not self.left or not text:
            return text
        same = 0
        while same < min(len(self.left), len(text)) and self.left[same] == text[same]:
            same += 1
        self.left = self.left[same:] if same == len(text) else ""
        return text[same:]


@dataclass(slots=True)
class _Stops:
    """Ends the answer where a stop string is completed that began before the seam."""

    stops: tuple[str, ...]
    tail: str
    held: str = ""
    over: bool = False
    stopped: bool = False

    def feed(self, text: str, *, last: bool) -> str:
        if self.over:
            return "" if self.stopped else text
        self.held += text
        joined = self.tail + self.held
        begins, seam = range(len(self.tail)), len(self.tail)
        if any(at + len(stop) > seam and joined.startswith(stop, at) for at in begins for stop in self.stops):
            self.over = self.stopped = True
            return ""
        if not last and any(stop.startswith(joined[at:]) for at in begins for stop in self.stops):
            return ""
        self.over = True
        return self.held


def is_repetitive(text: str) -> bool:
    """Whether `text`, as far as it is looked at, is made of one piece again and again, at least twice."""
    text = text[:_LOOKED_AT]
    head = text[: min(len(text) // 2, _HEAD)]
    at = text.find(head, 1) if head else -1
    while 0 < at <= len(text) // 2:
        if text.startswith(text[at:]):
            return True
        at = text.find(head, at + 1)
    return False


@dataclass(slots=True)
class Seam:
    """The seam of one continuation. `stopped`: the answer is over, by a stop string across it."""

    stages: tuple[_Stage, ...] = ()
    _echo: _Echo | None = None
    _stops: _Stops | None = None
    _over: bool = field(default=False)

    def feed(self, text: str) -> str:
        """What is shown once `text` came."""
        return self._pass(text, last=False)

    def finish(self) -> str:
        """What is shown once the provider says nothing more."""
        if self._over:
            return ""
        self._over = True
        return self._pass("", last=True)

    def _pass(self, text: str, *, last: bool) -> str:
        for stage in self.stages:
            text = stage.feed(text, last=last)
        return text

    @property
    def stopped(self) -> bool:
        """Whether a stop string across the seam ended the answer."""
        return self._stops is not None and self._stops.stopped

    @property
    def echoed(self) -> int:
        """Characters of the echo that were dropped."""
        return 0 if self._echo is None else self._echo.dropped


def prefill_seam(delivered: str, *, echoes: bool, stops: Iterable[str] = ()) -> Seam:
    """The seam behind a prefill; `echoes`: the host is known to repeat it."""
    given = delivered.rstrip()
    may_echo = bool(given) and (echoes or (len(given) >= ECHO_CHARS and not is_repetitive(given)))
    echo = _Echo(given, known=echoes) if may_echo else None
    return _seam(delivered, echo, (), stops)


def instruct_seam(delivered: str, stops: Iterable[str] = ()) -> Seam:
    """The seam behind a turn that asks to go on: models like to repeat the last words."""
    return _seam(delivered, None, (_Overlap(delivered.rstrip()[-OVERLAP_WINDOW:]),), stops)


def _seam(delivered: str, echo: _Echo | None, stages: tuple[_Stage, ...], stops: Iterable[str]) -> Seam:
    wanted = tuple(stop for stop in stops if stop)
    tail = delivered[-max(map(len, wanted), default=1) + 1 :] if max(map(len, wanted), default=1) > 1 else ""
    checked = _Stops(wanted, tail) if tail else None
    blank = _Blank(delivered[len(delivered.rstrip()) :])
    last = () if checked is None else (checked,)
    first = () if echo is None else (echo,)
    return Seam((*first, *stages, blank, *last), echo, checked)
