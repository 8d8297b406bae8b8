"""Two tasks a process that enforce what is due: deadlines, pause expiry, grace after a disconnect, heartbeats, TTLs.

A beat a few times a second instead of a timer per read or per stream: nothing here is on the hot path, and a stream
costs a few comparisons a beat. What asks the journal is a task of its own, so that deadlines hold while that is away.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.core.errors import AtlasError
from gateway.core.ids import show_sid
from gateway.streams.journal import ExpiredStream, JournalLost, JournalUnavailable, UnknownStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.clock import Clock
    from gateway.streams.control import StreamControl
    from gateway.streams.hub import Follower, Hub, Owner
    from gateway.streams.journal import Journal

log = logging.getLogger("atlas.streams")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rhythm:
    """Seconds.

    `tick_s` between looks at deadlines and quiet readers, `sweep_s` between looks at TTLs and at what others did to
    quiet streams, `lost_s` between looks for logs that are gone, `client_send_s` for one blocked send before its reader
    is dropped.
    """

    tick_s: float = 0.25
    sweep_s: float = 1.0
    lost_s: float = 30.0
    pause_max_s: float = 900.0
    client_send_s: float = 20.0


class Housekeeper:
    """Calls what is due; `run` are its tasks, `tick` one look, for tests with a manual clock."""

    def __init__(
        self, hub: Hub, journal: Journal, control: StreamControl, clock: Clock, rhythm: Rhythm,
        on_lag: Callable[[float], None] = lambda _seconds: None,
    ) -> None:  # fmt: skip
        self._on_lag = on_lag
        self._hub, self._journal, self._control, self._clock, self._rhythm = hub, journal, control, clock, rhythm
        self._swept = self._sought = clock.monotonic()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._beat(), name="beat")
            tasks.create_task(self._chores(), name="chores")

    async def _beat(self) -> None:
        while True:
            slept = self._clock.monotonic()
            await asyncio.sleep(self._rhythm.tick_s)
            self._on_lag(max(self._clock.monotonic() - slept - self._rhythm.tick_s, 0.0))
            self.look()

    async def _chores(self) -> None:
        while True:
            await asyncio.sleep(self._rhythm.tick_s)
            await self.ask()

    async def tick(self) -> None:
        """Enforce everything that is due now."""
        self.look()
        await self.ask()

    def look(self) -> None:
        """Deadlines of sessions and readers."""
        now = self._clock.monotonic()
        for session in self._hub.sessions():
            session.tick(now)
        for channel in list(self._hub.channels.values()):
            for reader in list(channel.readers):
                self._look_at(reader, now)

    async def ask(self) -> None:
        """Whatever needs the journal."""
        now = self._clock.monotonic()
        for session in self._hub.sessions():
            if session.orphaned(now):
                await self._cancel(session)
        if now - self._swept < self._rhythm.sweep_s:
            return
        self._swept = now
        try:
            await self._notice_control(now)
            await self._expire_pauses()
            if now - self._sought >= self._rhythm.lost_s:
                self._sought = now
                await self._notice_lost()
            await self._journal.sweep()
        except JournalUnavailable:
            log.warning("the journal is away: pauses and old logs are looked at later")

    async def _notice_control(self, now: float) -> None:
        """Owners that append learn of control elsewhere by a refusal; the others are asked for here, all at once."""
        unsure = [(session, known) for session in self._hub.sessions() if (known := session.unsure(now)) is not None]
        if unsure:
            moved = await self._journal.moved([known for _, known in unsure])
            for (session, _), has_moved in zip(unsure, moved, strict=True):
                if has_moved:
                    session.nudge()

    async def _notice_lost(self) -> None:
        """A log that is gone has no end for who waits for it here."""
        for channel in [channel for channel in self._hub.channels.values() if not channel.ended]:
            if channel.readers and channel.session is None:
                try:
                    await self._journal.read(channel.sid, channel.tail, 1)
                except (ExpiredStream, UnknownStream):
                    channel.fail(JournalLost("it has expired"))

    def _look_at(self, reader: Follower, now: float) -> None:
        """Let a reader that sent nothing since the last beat look for what is due; drop one whose client is stuck."""
        quiet_s = now - reader.sent_at
        if reader.sending:
            if quiet_s > self._rhythm.client_send_s and reader.on_stuck is not None:
                reader.on_stuck()
        elif quiet_s >= self._rhythm.tick_s:
            reader.wake()

    async def _cancel(self, session: Owner) -> None:
        """Nobody came back to this stream in time."""
        try:
            shown, tenant = show_sid(session.sid), session.record.tenant
            await self._control.cancel(shown, tenant, reason="disconnect", wait_s=0)
        except JournalUnavailable:
            session.grace_until = self._clock.monotonic()  # again with the next beat
        except AtlasError:
            log.warning("could not cancel an abandoned stream", extra={"stream": show_sid(session.sid)}, exc_info=True)

    async def _expire_pauses(self) -> None:
        for record in await self._journal.paused_since(self._clock.now() - self._rhythm.pause_max_s):
            try:
                await self._control.expire(record)
            except AtlasError:
                log.warning("could not expire a pause", extra={"stream": show_sid(record.sid)}, exc_info=True)
