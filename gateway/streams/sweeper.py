"""The sweeper: no stream is running for ever. What a dead replica owned is claimed by somebody, or it ends.

Every replica sweeps. Which of them ends a stream, or goes on with it, is decided by the journal's compare-and-set on
`gen`: the others find it settled and do nothing. At most lease + 10 s after its owner died a stream is claimed or over.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway.core.errors import Category, Failure
from gateway.core.events import TERMINAL, End, State
from gateway.core.ids import show_sid
from gateway.core.usage import Usage
from gateway.streams.fleet import rid_of
from gateway.streams.journal import ExpiredStream, JournalError, JournalUnavailable, UnknownStream
from gateway.streams.lifecycle import Op, Outcome, Step

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Sequence

    from gateway.streams.hub import Hub
    from gateway.streams.journal import Journal, Known
    from gateway.streams.lifecycle import Record

log = logging.getLogger("atlas.fleet")

AT_ONCE = 16
"""Streams that are looked at side by side."""
A_TURN = 128
"""Streams that one turn looks at; if there are more the next one begins at once."""
LOST = Failure(Category.OWNER_LOST, "the replica that served this stream is gone")
OUTLIVED = Failure(Category.JOURNAL_LOST, "the log of this stream expired while no replica served it")


class Orphans(Protocol):
    """What dead replicas left. All but `is_unborn` may raise `JournalUnavailable`. `rid` is this replica's id."""

    rid: str

    async def dead(self) -> list[str]:
        """Replicas that live no more and may have left something."""
        ...

    async def owned(self, rid: str, most: int) -> list[str]:
        """Some of the streams that such a replica may have owned; none if it left nothing."""
        ...

    async def settled(self, rid: str, sids: Sequence[str]) -> None:
        """These need nobody any more, or have another owner."""
        ...

    async def strays(self, served: Collection[str]) -> list[str]:
        """Streams that are named as this replica's and are not among `served`, and that will not be any more."""
        ...

    async def buried(self, rid: str) -> None:
        """Nothing is left of this replica."""
        ...

    def is_unborn(self, rid: str) -> bool:
        """Whether a stream that this replica named and that has no record may yet be created."""
        ...

    async def announce(self, sids: Sequence[str]) -> None:
        """Whoever reads these, anywhere, should look."""
        ...


class Took(Protocol):
    """What the log of a stream says that its legs took."""

    def usage(self) -> tuple[Usage, int]:
        """Usage of all legs, and how many they were."""
        ...

    def settle(self, end: End) -> dict[str, Any]:
        """Bill them: this stream has no session that would. What its status shows of it."""
        ...


class Heir(Protocol):
    """Who may go on with streams. Both have deadlines of their own, and are not interrupted."""

    async def revive(self, record: Record) -> bool:
        """Claim a stream and go on with it; False if nobody can.

        A claim without a session would be a stream that nobody serves.
        """
        ...

    async def took(self, record: Record) -> Took | None:
        """What a stream took that is ended; None if that cannot be told."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ending:
    """A stream that is ended here: what was known of it, what its legs took, and the step that says so."""

    known: Known
    took: Took | None
    step: Step


class Sweeper:
    """Looks at what dead replicas left, every `sweep_s`.

    A stream with which the `heir` does not go on is ended, so a replica that is about to leave does not sweep: `stop`.
    """

    def __init__(
        self, orphans: Orphans, journal: Journal, hub: Hub, heir: Heir, *, sweep_s: float, rng: random.Random,
    ) -> None:  # fmt: skip
        self._orphans, self._journal, self._hub, self._heir = orphans, journal, hub, heir
        self._sweep_s, self._rng = sweep_s, rng
        self._ended: list[str] = []
        self._unanswered: list[_Ending] = []
        self._is_stopped = False

    def stop(self) -> None:
        """End nothing any more, revive nothing; what is being claimed gets its session."""
        self._is_stopped = True

    async def run(self) -> None:
        """Sweep until stopped or cancelled."""
        more = False
        while not self._is_stopped:
            await asyncio.sleep(0 if more else self._sweep_s * self._rng.uniform(0.75, 1.0))
            more = await self.turn()

    async def turn(self) -> bool:
        """One look; whether there is more to do at once."""
        try:
            await self._end_unanswered()
            await self._sweep_strays()
            room = A_TURN
            for rid in await self._orphans.dead():
                room -= await self._sweep(rid, room)
                if room <= 0:
                    return True
        except JournalError:
            log.warning("the journal is away: what dead replicas left is looked at later")
        return False

    async def _sweep(self, rid: str, most: int) -> int:
        """Settle what one dead replica left; how many streams that were."""
        sids = await self._orphans.owned(rid, most)
        if not sids:
            await self._orphans.buried(rid)
            return 0
        return await self._settle_all(rid, sids)

    async def _sweep_strays(self) -> None:
        """Settle what is named as this replica's and has no session here."""
        strays = await self._orphans.strays({session.sid for session in self._hub.sessions()})
        if strays:
            await self._settle_all(self._orphans.rid, strays)

    async def _settle_all(self, rid: str, sids: Sequence[str]) -> int:
        """How many of these could be settled; those that could not wait for a later turn."""
        settled: list[str] = []
        try:
            for at in range(0, len(sids), AT_ONCE):
                part = sids[at : at + AT_ONCE]
                outcomes = await asyncio.gather(*[self._settle(rid, sid) for sid in part], return_exceptions=True)
                for sid, outcome in zip(part, outcomes, strict=True):
                    if self._is_settled(sid, outcome):
                        settled.append(sid)
        finally:
            if settled:
                await self._orphans.settled(rid, settled)
            await self._announce()
        return len(settled)

    async def _announce(self) -> None:
        ended, self._ended = self._ended, []
        if ended:
            await self._orphans.announce(ended)

    @staticmethod
    def _is_settled(sid: str, outcome: bool | BaseException) -> bool:
        """Whatever became of one stream, the others go on; but nobody goes on without a journal."""
        if isinstance(outcome, JournalUnavailable | asyncio.CancelledError):
            raise outcome
        if isinstance(outcome, BaseException):
            log.error("a stream of a dead replica could not be settled", extra={"stream": show_sid(sid)},
                      exc_info=outcome)  # fmt: skip
            return False
        return outcome

    async def _settle(self, rid: str, sid: str) -> bool:
        """Whether nothing is left to do for a stream of a dead replica, or of none here."""
        if self._is_stopped:
            return False
        try:
            known = await self._journal.known(sid)
        except UnknownStream:
            return not self._orphans.is_unborn(rid)
        record = known.record
        if rid_of(record.owner) != rid or record.state in TERMINAL:
            return True
        if known.tail < 0:
            return await self._end_without_log(record)
        if record.kept is not None:
            return True  # it needs no owner: resume, cancel or expiry appends its end
        if rid != self._orphans.rid and await self._is_revived(record):
            return True
        return not self._is_stopped and await self._end(known)

    async def _end_without_log(self, record: Record) -> bool:
        """The log expired while nobody lived: its record alone says that nothing comes any more."""
        end = End(State.FAILED, OUTLIVED.category, OUTLIVED)
        step = Step(op=Op.FINISH, op_id=f"lost:{self._orphans.rid}:{record.gen}", expect_gen=record.gen, end=end)
        with suppress(UnknownStream, ExpiredStream):
            await self._journal.step(record.sid, step)
        return True

    async def _is_revived(self, record: Record) -> bool:
        """Whether this replica goes on with a stream; one whose revival fails, for whatever reason, is only ended."""
        (outcome,) = await asyncio.gather(self._heir.revive(record), return_exceptions=True)
        if isinstance(outcome, JournalUnavailable | asyncio.CancelledError):
            raise outcome
        if isinstance(outcome, BaseException):
            log.error("nobody goes on with a stream of a dead replica: that failed",
                      extra={"stream": show_sid(record.sid)}, exc_info=outcome)  # fmt: skip
            return False
        return outcome

    async def _end(self, known: Known) -> bool:
        """Say in the log that nobody goes on with this stream; False if somebody else changed it meanwhile."""
        record = known.record
        took = await self._counted(record)
        usage, legs = (_usage(known), len(known.facts.get("legs", ()))) if took is None else took.usage()
        end = End(State.FAILED, "owner_lost", LOST, usage, legs)
        step = Step(op=Op.FINISH, op_id=f"lost:{self._orphans.rid}:{record.gen}", expect_gen=record.gen, end=end)
        return await self._take_step(_Ending(known=known, took=took, step=step))

    async def _end_unanswered(self) -> None:
        """Repeat the steps whose answer was lost: each may have been this replica's to tell of, and to bill."""
        unanswered, self._unanswered = self._unanswered, []
        for at, ending in enumerate(unanswered):
            try:
                await self._take_step(ending)
            except JournalUnavailable:
                self._unanswered += unanswered[at + 1 :]
                raise
            except JournalError:
                continue  # it is gone
        await self._announce()

    async def _take_step(self, ending: _Ending) -> bool:
        """Whether it has ended; False if somebody else changed it meanwhile."""
        known, took, step = ending.known, ending.took, ending.step
        sid = known.record.sid
        try:
            answer, entries = await self._journal.step(sid, step)
        except JournalUnavailable:
            self._unanswered.append(ending)
            raise
        if answer.outcome is Outcome.STALE:
            return False
        if answer.outcome is Outcome.CHANGED and step.end is not None:
            await self._tell(known, {} if took is None else took.settle(step.end))
        channel = self._hub.find(sid)
        for entry in entries:
            if channel is None or not channel.offer(entry):
                break  # the tail reader finds it
        return True

    async def _counted(self, record: Record) -> Took | None:
        """What the stream took; a log that cannot be counted is ended all the same."""
        (outcome,) = await asyncio.gather(self._heir.took(record), return_exceptions=True)
        if isinstance(outcome, JournalUnavailable | asyncio.CancelledError):
            raise outcome
        if isinstance(outcome, BaseException):
            log.error("a stream was not settled", extra={"stream": show_sid(record.sid)}, exc_info=outcome)
            return None
        return outcome

    async def _tell(self, known: Known, facts: dict[str, Any]) -> None:
        """Whoever reads it should look, and the status says what it took."""
        sid = known.record.sid
        self._ended.append(sid)
        log.warning("the replica of a stream is gone", extra={"stream": show_sid(sid)})
        try:
            await self._journal.annotate(sid, {**known.facts, **facts})
        except JournalError:
            log.warning("could not say in a status what its stream took", extra={"stream": show_sid(sid)})


def _usage(known: Known) -> Usage | None:
    """Usage as far as the owner had said it."""
    try:
        return msgspec.convert(known.facts.get("usage"), Usage | None)
    except msgspec.ValidationError:
        return None
