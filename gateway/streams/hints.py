"""What replicas tell one another, and who wants to know. Hints only: a lost one costs a poll, nothing else.

watch   "I read these logs, which you write"       repeated, and forgotten when it is not
left    "nobody here reads these any more"
look    "these logs have grown"                    to everyone who watches
told    "I changed these streams, which are yours" from a control step to the owner's replica, which passes it on
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_WATCHED = 100_000
"""Streams that others may watch here; who comes later polls."""
MOST_SAID = 4096
"""Streams that wait to be said to one replica; those beyond are found by polling."""


class Hint(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one replica says to another. `revoked`: the set of revoked keys has changed."""

    sender: str
    watch: list[str] = []
    look: list[str] = []
    told: list[str] = []
    revoked: bool = False
    left: list[str] = []


class Saying:
    """What is about to be said to one replica; the same thing twice is said once."""

    __slots__ = ("left", "look", "revoked", "told", "watch")

    def __init__(self) -> None:
        self.watch: set[str] = set()
        self.look: set[str] = set()
        self.told: set[str] = set()
        self.revoked = False
        self.left: set[str] = set()

    def hint(self, sender: str) -> Hint:
        """All of it."""
        return Hint(sender, list(self.watch), list(self.look), list(self.told), self.revoked, list(self.left))


def add(to: set[str], sids: Iterable[str]) -> None:
    """Say these too, up to the bound."""
    if len(to) < MOST_SAID:
        to.update(sids)


class Watchers:
    """Who reads elsewhere what is written here: `of` maps a stream to its replicas, each with when it is forgotten."""

    def __init__(self, watched_s: float) -> None:
        self._watched_s = watched_s
        self.of: dict[str, dict[str, float]] = {}

    def watch(self, rid: str, sids: Iterable[str], now: float) -> list[str]:
        """A replica watches streams; returns those that it did not watch before."""
        fresh: list[str] = []
        for sid in sids:
            watching = self.of.get(sid)
            if watching is None:
                if len(self.of) >= MOST_WATCHED:
                    continue
                watching = self.of[sid] = {}
            if rid not in watching:
                fresh.append(sid)
            watching[rid] = now + self._watched_s
        return fresh

    def left(self, rid: str, sids: Iterable[str]) -> None:
        """A replica watches these no more."""
        for sid in sids:
            watching = self.of.get(sid, {})
            watching.pop(rid, None)
            if not watching:
                self.of.pop(sid, None)

    def grouped(self, sids: Iterable[str]) -> dict[str, list[str]]:
        """Those of `sids` that are watched, by the replicas that do."""
        found: dict[str, list[str]] = {}
        for sid in self.of.keys() & sids:
            for rid in self.of[sid]:
                found.setdefault(rid, []).append(sid)
        return found

    def forget(self, now: float) -> None:
        """Drop who has not repeated it."""
        for sid, watching in list(self.of.items()):
            for rid in [rid for rid, until in watching.items() if until <= now]:
                del watching[rid]
            if not watching:
                del self.of[sid]
