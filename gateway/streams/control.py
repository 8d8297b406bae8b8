"""`StreamControl`: pause, resume, cancel, find, delete; the same for HTTP, agents and tests, from any replica.

It answers success only for what has happened: the decision is durable when the journal's step returned, and a cancel
says `closed` only on the word of the owner that no further upstream byte will be read. Every look-up of a stream goes
through `find`, which checks the tenant: a foreign id, an unknown one and one that does not parse are refused alike.

The reply of a step may come before the answers to the owner's appends that it stands behind: then the owner, or who
follows the log here, publishes it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from gateway.core.errors import AtlasError, StreamRefused
from gateway.core.events import TERMINAL, End, State
from gateway.core.ids import parse_sid, show_sid
from gateway.streams.fleet import rid_of
from gateway.streams.journal import ExpiredStream, JournalUnavailable, UnknownStream
from gateway.streams.lifecycle import Answer, Op, Outcome, Step
from gateway.streams.status import status_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.clock import Clock
    from gateway.streams.hub import Hub, Owner
    from gateway.streams.journal import Entry, Journal, Known, Page
    from gateway.streams.lifecycle import Record

log = logging.getLogger("atlas.streams")

Upstream: TypeAlias = Literal["closed", "closing", "unknown", "none"]

MAX_CANCEL_WAIT_S = 10.0
WORD_POLL_S = (0.005, 0.1)
"""How often an owner elsewhere is asked whether it has closed its upstream: at first, and after a while."""
READ_ON_S = 5.0
"""How long the readers of a stream that is deleted while it runs may read on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlAnswer:
    """What a control call did. `upstream` is set for cancel only."""

    changed: bool
    seq: int
    gen: int
    state: State
    upstream: Upstream | None = None


def unknown() -> StreamRefused:
    """The one constant refusal for every id that is not the caller's."""
    return StreamRefused("no such stream", status=404, code="stream_not_found")


class StreamControl:
    """Pause, resume and cancel streams of one tenant at a time.

    Each call takes an optional `op_id` (repeat it and get the first answer), `expect_gen` (If-Match) and `reason` (at
    most 200 characters). `on_control(op, result)`, `on_close(seconds)`, from a cancel to the closed upstream, and
    `on_wasted(tokens)`, which a cancel dropped after their owner had left, are told what happened.
    """

    def __init__(
        self,
        journal: Journal,
        hub: Hub,
        clock: Clock,
        *,
        on_control: Callable[[str, str], None] = lambda _op, _result: None,
        on_close: Callable[[float], None] = lambda _seconds: None,
        on_wasted: Callable[[int], None] = lambda _tokens: None,
    ) -> None:
        self._journal, self._hub, self._clock, self._fleet = journal, hub, clock, hub.fleet
        self._on_control, self._on_close, self._on_wasted = on_control, on_close, on_wasted

    async def find(self, shown: str, tenant: str) -> Known:
        """What is known of the caller's stream.

        Raises:
            StreamRefused: 404, the same for unknown, foreign and malformed ids.
        """
        sid = parse_sid(shown)
        if sid is None:
            raise unknown()
        try:
            known = await self._journal.known(sid)
        except UnknownStream:
            raise unknown() from None
        if known.record.tenant != tenant:
            raise unknown()
        return known

    async def page(self, shown: str, tenant: str, after: int = -1, max_bytes: int = 1) -> Page:
        """A part of the caller's log.

        Raises:
            StreamRefused: 404, or 410 when the log is gone.
        """
        record = (await self.find(shown, tenant)).record
        try:
            return await self._journal.read(record.sid, after, max_bytes)
        except UnknownStream:
            raise unknown() from None
        except ExpiredStream:
            raise self._expired() from None

    async def status(self, shown: str, tenant: str) -> dict[str, Any]:
        """The status object, also of a stream whose log expired."""
        return (await self.describe([await self.find(shown, tenant)]))[0]

    async def describe(self, found: list[Known]) -> list[dict[str, Any]]:
        """The status objects of streams that were found before."""
        alive: dict[str, bool] = {}
        for record in [known.record for known in found if self._needs_owner(known.record)]:
            if (rid := rid_of(record.owner)) not in alive:
                alive[rid] = await self._fleet.is_alive(record.owner)
        return [
            self._described(known, recovering=not alive.get(rid_of(known.record.owner), True)
                            and self._needs_owner(known.record))
            for known in found
        ]  # fmt: skip

    def _needs_owner(self, record: Record) -> bool:
        """Whether a stream is at a stand without its owner, and that one is not here."""
        return record.state not in TERMINAL and record.kept is None and self._session(record) is None

    def _described(self, known: Known, *, recovering: bool) -> dict[str, Any]:
        channel, session = self._hub.find(known.record.sid), self._session(known.record)
        facts = known.facts if session is None else {**known.facts, **session.facts()}
        return status_object(known, facts=facts, channel=channel, recovering=recovering)

    def _session(self, record: Record) -> Owner | None:
        """The stream's owner, if it is here; one that was superseded and does not know it yet is none."""
        channel = self._hub.find(record.sid)
        session = None if channel is None else channel.session
        return session if session is not None and session.record.owner == record.owner else None

    async def pause(
        self,
        shown: str,
        tenant: str,
        *,
        op_id: str | None = None,
        expect_gen: int | None = None,
        reason: str | None = None,
    ) -> ControlAnswer:
        """Serve nothing further until a resume."""
        record = (await self.find(shown, tenant)).record
        answer = await self._step(
            record, Step(op=Op.PAUSE, op_id=_op_id(Op.PAUSE, op_id), expect_gen=expect_gen, reason=reason)
        )
        return _shown(answer)

    async def resume(
        self,
        shown: str,
        tenant: str,
        *,
        op_id: str | None = None,
        expect_gen: int | None = None,
        reason: str | None = None,
    ) -> ControlAnswer:
        """Serve what was held back, and go on."""
        record = (await self.find(shown, tenant)).record
        answer = await self._step(
            record, Step(op=Op.RESUME, op_id=_op_id(Op.RESUME, op_id), expect_gen=expect_gen, reason=reason)
        )
        return _shown(answer)

    async def cancel(
        self,
        shown: str,
        tenant: str,
        *,
        op_id: str | None = None,
        expect_gen: int | None = None,
        reason: str | None = None,
        wait_s: float = 2.0,
    ) -> ControlAnswer:
        """End the stream and close its upstream; waits up to `wait_s` for the owner's word that it is closed."""
        record = (await self.find(shown, tenant)).record
        session = self._session(record)
        answer = await self._step(
            record,
            Step(
                op=Op.CANCEL,
                op_id=_op_id(Op.CANCEL, op_id),
                expect_gen=expect_gen,
                end=self._cancelled(record, reason or "control"),
            ),
        )
        wait_s = min(wait_s, MAX_CANCEL_WAIT_S)
        if session is None:
            return _shown(answer, await self._closed_elsewhere(record, wait_s))
        if not self._is_durable(record.sid):
            session.cancel(End(State.CANCELLED, reason or "control", None, *session.usage()))
        if session.closed.is_set():
            return _shown(answer, "closed")
        begun = self._clock.monotonic()
        if not await _happens(session.closed, wait_s):
            return _shown(answer, "closing")
        self._on_close(self._clock.monotonic() - begun)
        return _shown(answer, "closed")

    async def _closed_elsewhere(self, before: Record, wait_s: float) -> Upstream:
        """The word of a stream's owner whose session is not here; `before` is the record as before the cancel.

        An owner of this replica without a session has left, and gave its word, or is about to begin.
        """
        loop = asyncio.get_running_loop()
        begun, (pause_s, most_s) = loop.time(), WORD_POLL_S
        try:
            owner = (await self._journal.known(before.sid)).record.owner
            while (await self._journal.known(before.sid)).closed_by != owner:
                if not await self._fleet.is_alive(owner):  # it may die while it is waited for
                    return "unknown" if before.kept is None else "none"
                if loop.time() - begun + pause_s > wait_s:
                    return "closing"
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, most_s)
        except (UnknownStream, JournalUnavailable):
            return "closing"
        if before.state not in TERMINAL:
            self._on_close(loop.time() - begun)
        return "closed"

    def _is_durable(self, sid: str) -> bool:
        channel = self._hub.find(sid)
        return channel is None or channel.durable

    async def cancel_quietly(self, record: Record, reason: str) -> None:
        """Cancel a stream in the gateway's own name, if it still runs."""
        try:
            await self.cancel(show_sid(record.sid), record.tenant, reason=reason, wait_s=0)
        except AtlasError:
            log.warning("could not cancel a stream (%s)", reason, extra={"stream": show_sid(record.sid)}, exc_info=True)

    async def expire(self, record: Record) -> None:
        """The pause that `record` tells of lasted too long: end it by the stream's policy, unless that was done."""
        step = Step(
            op=Op.EXPIRE, op_id=f"expire:{record.gen}", expect_gen=record.gen,
            end=self._cancelled(record, "pause_expired"),
        )  # fmt: skip
        with suppress(StreamRefused):
            await self._step(record, step)

    async def delete(self, shown: str, tenant: str, *, force: bool = False) -> None:
        """Forget an ended stream; with `force`, cancel it first.

        Raises:
            StreamRefused: 409 while it runs, unless forced; 404 also when only its record is left.
        """
        known = await self.find(shown, tenant)
        record = known.record
        if known.tail < 0:
            raise unknown()
        if record.state not in TERMINAL:
            if not force:
                msg = f"the stream is {record.state}; cancel it first, or delete with ?force=1"
                raise StreamRefused(msg, status=409, code="not_terminal")
            await self.cancel(shown, tenant, reason="deleted")
            return await self._journal.delete(record.sid, after_s=READ_ON_S)
        return await self._journal.delete(record.sid)

    async def _step(self, record: Record, step: Step) -> Answer:
        """Run a step, publish what it appended here, and act on it."""
        try:
            answer, entries = await self._journal.step(record.sid, step)
        except UnknownStream:
            raise unknown() from None
        except ExpiredStream:
            self._on_control(step.op, "expired")
            raise self._expired() from None
        except JournalUnavailable:
            self._on_control(step.op, "unavailable")
            raise
        self._on_control(step.op, answer.outcome)
        self._publish(record, entries)
        if entries and isinstance(entries[-1].control, End):
            await self._note(record, entries[-1].control)
        if answer.outcome in _REFUSALS:
            raise _refusal(answer, record)
        return answer

    def _publish(self, record: Record, entries: list[Entry]) -> None:
        channel = self._hub.find(record.sid)
        if channel is not None:
            follows = all(channel.offer(entry) for entry in entries)  # up to the first that does not
            if not follows and channel.session is not None:
                channel.session.nudge()
        if entries and self._session(record) is None:
            self._fleet.tell(record.owner, record.sid)

    async def _note(self, record: Record, end: End) -> None:
        """A stream that no owner will settle has nobody else who says how long it was paused."""
        if self._session(record) is not None or (record.kept is None and await self._is_owned_elsewhere(record)):
            return
        with suppress(UnknownStream):
            facts = (await self._journal.known(record.sid)).facts
            metrics = dict(facts.get("metrics", {}))
            if record.paused_since is not None:
                paused_ms = 1000 * (self._clock.now() - record.paused_since)
                metrics["paused_ms"] = round(metrics.get("paused_ms", 0.0) + paused_ms, 3)
            if end.state is State.CANCELLED and (held := facts.get("held_tokens", 0)):
                metrics["wasted_tokens"] = held
                self._on_wasted(held)
            await self._journal.annotate(record.sid, {**facts, "metrics": metrics})

    async def _is_owned_elsewhere(self, record: Record) -> bool:
        return rid_of(record.owner) != self._fleet.rid and await self._fleet.is_alive(record.owner)

    def _cancelled(self, record: Record, reason: str) -> End:
        if (session := self._session(record)) is not None:
            return End(State.CANCELLED, reason, None, *session.usage())
        if record.kept is not None:
            return End(State.CANCELLED, reason, None, record.kept.usage, record.kept.legs)
        return End(State.CANCELLED, reason)

    @staticmethod
    def _expired() -> StreamRefused:
        return StreamRefused("the stream's log has expired", status=410, code="stream_expired")


_REFUSALS = {Outcome.NOT_PAUSED, Outcome.TERMINAL, Outcome.STALE}


def _refusal(answer: Answer, record: Record) -> StreamRefused:
    match answer.outcome:
        case Outcome.STALE:
            msg = f'If-Match does not hold: the stream\'s ETag is "{answer.gen}"'
            return StreamRefused(msg, status=412, code="stale")
        case Outcome.NOT_PAUSED:
            msg = f"{show_sid(record.sid)} is {answer.state}, not paused"
            return StreamRefused(msg, status=409, code="not_paused")
        case _:
            msg = f"{show_sid(record.sid)} has ended ({answer.state})"
            return StreamRefused(msg, status=409, code="stream_terminal")


def _shown(answer: Answer, upstream: Upstream | None = None) -> ControlAnswer:
    return ControlAnswer(
        changed=answer.outcome is Outcome.CHANGED,
        seq=answer.seq,
        gen=answer.gen,
        state=answer.state,
        upstream=upstream,
    )


def _op_id(op: Op, given: str | None) -> str:
    return secrets.token_hex(8) if given is None else f"client:{op}:{given}"


async def _happens(event: asyncio.Event, within_s: float) -> bool:
    try:
        async with asyncio.timeout(within_s):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True
