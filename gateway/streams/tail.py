"""The tail reader: one task that lets every channel grow that is read here and written elsewhere.

It reads what was hinted at once, and everything else every `poll_s`: hints make it quick, the poll makes it right. What
is hinted while it reads goes into the next turn. A paused channel is read on, for the resume or the cancel; what lies
behind the pause goes through the ring, which is bounded.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway.streams.journal import Entry, JournalError, JournalGap, JournalRegressed, JournalUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gateway.core.clock import Clock
    from gateway.streams.fleet import Growing

AT_ONCE = 64
"""Streams that one pipeline asks for; readers are served between two of them."""
MANY, MUCH = 64, 131_072
"""So many entries, or bytes, at once: there may be more."""
PATIENCE_S = 5.0
"""Readers wait as long for a log as its owner does for the answer to an append."""


class Tailed(Protocol):
    """A journal that others write, too."""

    async def tail(self, wanted: Sequence[tuple[str, int, int]]) -> list[list[Entry] | JournalError]:
        """For each (sid, gen, seq) the entries behind the one with this id, a bounded part; or why there are none."""
        ...


class _Followed:
    """A channel, who owned it when last looked at, when that was, and when a look was last answered."""

    __slots__ = ("answered_at", "channel", "looked_at", "owner")

    def __init__(self, channel: Growing, now: float) -> None:
        self.channel, self.looked_at, self.answered_at, self.owner = channel, now, now, channel.owner


class Tail:
    """Follows channels; `on_moved(channel)` is told when another owner claimed one.

    Who reads a log that has not answered for `patience_s` seconds is told so.
    """

    def __init__(
        self, journal: Tailed, clock: Clock, poll_s: float, on_moved: Callable[[Growing], None],
        patience_s: float = PATIENCE_S,
    ) -> None:  # fmt: skip
        self._journal, self._poll_s, self._on_moved, self._patience_s = journal, poll_s, on_moved, patience_s
        self._monotonic = clock.monotonic
        self._followed: dict[str, _Followed] = {}
        self._hinted: dict[str, None] = {}
        self._wake = asyncio.Event()

    def follow(self, channel: Growing) -> bool:
        """Let this channel grow; False if it does."""
        known = self._followed.get(channel.sid)
        if known is not None and known.channel is channel:
            return False
        self._followed[channel.sid] = _Followed(channel, self._monotonic())
        self.look((channel.sid,))
        return True

    def leave(self, sid: str) -> Growing | None:
        """Nobody reads it here any more, or it is owned here; the channel, if it was followed."""
        self._hinted.pop(sid, None)
        followed = self._followed.pop(sid, None)
        return None if followed is None else followed.channel

    def channels(self) -> list[Growing]:
        """All that is followed."""
        return [followed.channel for followed in self._followed.values()]

    def look(self, sids: Iterable[str]) -> None:
        """These have grown, if they are followed."""
        for sid in sids:
            if sid in self._followed:
                self._hinted[sid] = None
        if self._hinted:
            self._wake.set()

    def look_everywhere(self) -> None:
        """Hints may have been lost."""
        self.look(tuple(self._followed))

    async def run(self) -> None:
        """Read, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._poll(), name="tail poll")
            while True:
                await self._wake.wait()
                self._wake.clear()
                hinted, self._hinted = [*self._hinted], {}
                for at in range(0, len(hinted), AT_ONCE):
                    await self._read(hinted[at : at + AT_ONCE])

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._poll_s / 4)
            due = self._monotonic() - self._poll_s * 3 / 4
            self.look([sid for sid, followed in self._followed.items() if followed.looked_at <= due])

    async def _read(self, sids: Sequence[str]) -> None:
        asked = [self._followed[sid] for sid in sids if sid in self._followed]
        now = self._monotonic()
        wanted: list[tuple[str, int, int]] = []
        for followed in asked:
            followed.looked_at = now
            channel = followed.channel
            wanted.append((channel.sid, channel.gen, channel.tail))
        try:
            found = await self._journal.tail(wanted)
        except JournalUnavailable as error:
            found = [error for _ in asked]
        except msgspec.MsgspecError:
            await self._read_apart(asked)
            return
        for followed, entries in zip(asked, found, strict=True):
            if self._followed.get(followed.channel.sid) is followed:
                self._grow(followed, entries)

    async def _read_apart(self, asked: Sequence[_Followed]) -> None:
        """Some entry among these is not to be read, perhaps of a later version: only its own readers shall suffer."""
        if len(asked) > 1:
            for followed in asked:
                await self._read((followed.channel.sid,))
            return
        for followed in asked:
            channel = followed.channel
            self._break(channel, JournalGap(f"what follows on event {channel.tail} is not to be read here"))

    def _grow(self, followed: _Followed, entries: list[Entry] | JournalError) -> None:
        channel, now = followed.channel, self._monotonic()
        if isinstance(entries, JournalUnavailable) and now - followed.answered_at < self._patience_s:
            return  # the next poll asks again
        if isinstance(entries, JournalError):
            self._break(channel, entries)
            return
        followed.answered_at = now
        size = 0
        for entry in entries:
            size += len(entry.data)
            if entry.gen > channel.gen and entry.seq <= channel.tail:
                msg = f"it goes on with event {entry.seq}, and {channel.tail} was served"
                self._break(channel, JournalRegressed(msg))
                return
            if not channel.offer(entry):
                msg = f"behind event {channel.tail} the log goes on with {entry.first}"
                self._break(channel, JournalGap(msg))
                return
        if channel.ended:
            self.leave(channel.sid)
        elif len(entries) >= MANY or size >= MUCH:
            self.look((channel.sid,))
        if channel.owner != followed.owner:
            followed.owner = channel.owner
            self._on_moved(channel)

    def _break(self, channel: Growing, error: JournalError) -> None:
        """Those who read it now are told once they were served what is known; who comes later may find more."""
        self.leave(channel.sid)
        channel.fail(error)
