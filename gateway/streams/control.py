"""`StreamControl`: pause, resume, cancel, find, delete; the same for HTTP, agents and tests.

It answers success only for what has happened: the decision is durable when the journal's step returned, and a cancel
says `closed` only on the word of the owner that no further upstream byte will be read. Every look-up of a stream goes
through `find`, which checks the tenant: a foreign id, an unknown one and one that does not parse are refused alike.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from gateway.core.errors import StreamRefused
from gateway.core.events import TERMINAL, End, Pause, Resume, State
from gateway.core.ids import parse_sid, show_sid
from gateway.streams.journal import ExpiredStream, JournalUnavailable, UnknownStream
from gateway.streams.lifecycle import Answer, Op, Outcome, Step
from gateway.streams.status import end_facts, status_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.clock import Clock
    from gateway.streams.hub import Hub
    from gateway.streams.journal import Entry, Journal, Known, Page
    from gateway.streams.lifecycle import Record

Upstream: TypeAlias = Literal["closed", "closing", "unknown", "none"]

MAX_CANCEL_WAIT_S = 10.0


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
        self._journal, self._hub, self._clock = journal, hub, clock
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
        return self.describe(await self.find(shown, tenant))

    def describe(self, known: Known) -> dict[str, Any]:
        """The status object of a stream that was found before."""
        channel = self._hub.find(known.record.sid)
        facts = known.facts
        if channel is not None and channel.session is not None:
            facts = {**facts, **channel.session.facts()}
        return status_object(known, facts=facts, channel=channel)

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
        channel = self._hub.find(record.sid)
        session = None if channel is None else channel.session
        answer = await self._step(
            record,
            Step(
                op=Op.CANCEL,
                op_id=_op_id(Op.CANCEL, op_id),
                expect_gen=expect_gen,
                end=self._cancelled(record, reason or "control"),
            ),
        )
        upstream: Upstream = "closed"
        if session is not None and not session.closed.is_set():
            upstream = "closing"
            begun = self._clock.monotonic()
            if await _happens(session.closed, min(wait_s, MAX_CANCEL_WAIT_S)):
                upstream = "closed"
                self._on_close(self._clock.monotonic() - begun)
        return _shown(answer, upstream)

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
        await self._journal.delete(record.sid)

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
        self._publish(record.sid, entries)
        if entries and isinstance(entries[-1].control, End):
            await self._note(record, entries[-1].control)
        if answer.outcome in _REFUSALS:
            raise _refusal(answer, record)
        return answer

    def _publish(self, sid: str, entries: list[Entry]) -> None:
        channel = self._hub.find(sid)
        if channel is None:
            return
        for entry in entries:
            channel.publish(entry)
            if channel.session is None:
                continue
            match entry.control:
                case End():
                    channel.session.cancel(entry.control)
                case Pause():
                    channel.session.paused()
                case Resume():
                    channel.session.resumed()
                case _:
                    pass

    async def _note(self, record: Record, end: End) -> None:
        """A stream without an owner here has nobody else who says why it ended, and how long it was paused."""
        channel = self._hub.find(record.sid)
        if channel is not None and channel.session is not None:
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
            await self._journal.annotate(record.sid, {**facts, **end_facts(end), "metrics": metrics})

    def _cancelled(self, record: Record, reason: str) -> End:
        channel = self._hub.find(record.sid)
        if channel is not None and channel.session is not None:
            return End(State.CANCELLED, reason, None, *channel.session.usage())
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
