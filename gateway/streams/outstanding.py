"""What a record lacks when its session is over: its end, what its status shows, the word that the source is closed.

A journal that is away comes back, or the log expires: until then it is tried again, with growing pauses.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import msgspec

from gateway.core.events import TERMINAL
from gateway.core.ids import show_sid
from gateway.streams.appender import Superseded
from gateway.streams.journal import ExpiredStream, JournalError, JournalLost, UnknownStream
from gateway.streams.lifecycle import Op, Outcome, Step

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.core.events import End
    from gateway.streams.appender import Appender
    from gateway.streams.ground import Ground, Policy
    from gateway.streams.journal import Journal
    from gateway.streams.lifecycle import Record

log = logging.getLogger("atlas.streams")

BILL_DEADLINE_S = 5.0
_BEHIND_ALL = 2**53 - 1


class Outstanding(msgspec.Struct, kw_only=True):
    """One record's.

    `end` is written as the last entry of what readers here were served, or, `unseen`, of a log that differs from that.
    `closed_by` is None for a stream that another replica claims. `key` is an idempotency key to be freed. Once it is
    `hurried`, it is tried once more at most.
    """

    record: Record
    facts: dict[str, Any]
    closed_by: str | None
    end: End | None = None
    unseen: bool = False
    key: str | None = None
    hurried: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    async def write(self, journal: Journal, appender: Appender) -> None:
        """Write what is left of it.

        Raises:
            Superseded: nothing of it is this owner's to say any more.
            JournalError: not now.
        """
        if self.end is not None:
            try:
                await (end_unseen(journal, self.record, self.end) if self.unseen else appender.finish_late(self.end))
            except (ExpiredStream, JournalLost):
                await end_without_log(journal, self.record, self.end)
            self.end = None
        await journal.annotate(self.record.sid, self.facts, closed_by=self.closed_by)
        if self.key is not None:
            await journal.forget(self.key)


async def billed(billing: Awaitable[dict[str, Any] | None]) -> dict[str, Any] | None:
    """What the status shows from now on, once the stream's bill is made; cancels its task when that takes too long."""
    task = cast("asyncio.Task[None]", asyncio.current_task())
    overdue = asyncio.get_running_loop().call_later(BILL_DEADLINE_S, task.cancel)  # cheaper than a timeout
    try:
        return await billing
    finally:
        overdue.cancel()


async def settle(left: Outstanding, ground: Ground, appender: Appender) -> None:
    """Write it, again and again."""
    await _again(lambda: left.write(ground.journal, appender), left.record, ground.policy, left.hurried)


async def end_later(record: Record, end: End, ground: Ground) -> None:
    """End a log that its stream has gone on without, as soon as that can be done."""
    await _again(lambda: end_unseen(ground.journal, record, end), record, ground.policy, asyncio.Event())


async def _again(write: Callable[[], Awaitable[None]], record: Record, policy: Policy, hurried: asyncio.Event) -> None:
    """Try until it is written, somebody else did, nothing is left to write to, or the process ends."""
    loop = asyncio.get_running_loop()
    deadline, pause_s = loop.time() + policy.give_up_s, policy.retry_s
    while True:
        try:
            return await write()
        except (Superseded, UnknownStream, ExpiredStream, JournalLost):
            return None
        except JournalError as error:
            if loop.time() >= deadline or hurried.is_set():
                shown = {"stream": show_sid(record.sid)}
                log.error("a stream's record lacks its end: %s", type(error).__name__, extra=shown)  # noqa: TRY400
                return None
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await hurried.wait()
        pause_s = min(2 * pause_s, policy.retry_max_s)


async def end_without_log(journal: Journal, record: Record, end: End) -> None:
    """Say in the record how a stream ended whose log is gone, if it is still this owner's.

    Raises:
        JournalError: not now, or not even the record is left.
    """
    known = (await journal.known(record.sid)).record
    if known.owner == record.owner:
        step = Step(op=Op.FINISH, op_id=f"lost:{record.owner}", expect_gen=known.gen, end=end)
        with suppress(ExpiredStream):
            await journal.step(record.sid, step)


async def end_unseen(journal: Journal, record: Record, end: End) -> None:
    """End a log behind whatever it holds, if it is still this owner's; nobody here is told.

    Raises:
        JournalError: not now.
    """
    while True:
        page = await journal.read(record.sid, _BEHIND_ALL, 1)
        if page.record.owner != record.owner or page.record.state in TERMINAL:
            return
        step = Step(
            op=Op.FINISH, op_id=f"finish:{record.owner}", expect_gen=page.record.gen, expect_seq=page.tail, end=end
        )
        answer, _ = await journal.step(record.sid, step)
        if answer.outcome is not Outcome.STALE:
            return
