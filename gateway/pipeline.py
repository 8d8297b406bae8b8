"""One request on one page: route -> source -> stream -> readers -> end.

resolve     the model name to a provider group, or 404
create      the log with its entry 0, or 429 when the journal is full of live streams
own         a session task in the app's group pumps the group's attempts into the log
read        the caller gets a reader at the start of that log; so does everybody who repeats its idempotency key
end         one log line, metrics, what the status object shows from then on
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from gateway.core.errors import RequestError
from gateway.core.events import End, Start, State
from gateway.core.ids import new_sid, show_sid
from gateway.streams.journal import ExpiredStream, JournalFull, UnknownStream
from gateway.streams.lifecycle import Record
from gateway.streams.reader import Reader
from gateway.streams.session import Ground, Session

if TYPE_CHECKING:
    import asyncio

    from gateway.core.chat import ChatRequest
    from gateway.core.clock import Clock
    from gateway.core.principal import Principal
    from gateway.pool.routes import RouteTable
    from gateway.streams.hub import Hub, Owner
    from gateway.streams.journal import Journal
    from gateway.streams.session import Policy
    from gateway.telemetry.metrics import Metrics

log = logging.getLogger("atlas.requests")

WIRE_IDS = {"openai_chat": "chatcmpl-"}
OWNER_NONCE_LENGTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the caller's headers ask for. `on_disconnect` is `cancel`, `continue` or `grace=<seconds>`."""

    on_disconnect: str = "cancel"
    on_cancel: str = "error"
    fallback: bool = True
    idempotency_key: str | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A stream that the caller reads from its start. `session` is None when it is owned elsewhere, or over."""

    sid: str
    start: Start
    reader: Reader
    session: Owner | None
    replayed: bool = False


class Pipeline:
    """Everything that a request passes through. One per app; `tasks` is the app's own task group."""

    def __init__(  # noqa: PLR0913  the composition root calls it, by keyword
        self,
        *,
        routes: RouteTable,
        journal: Journal,
        hub: Hub,
        policy: Policy,
        clock: Clock,
        metrics: Metrics,
        on_pause_expiry: Literal["cancel", "resume"] = "cancel",
    ) -> None:
        self.routes, self.journal, self.hub = routes, journal, hub
        self._clock, self._metrics = clock, metrics
        self._on_pause_expiry: Literal["cancel", "resume"] = on_pause_expiry
        self._ground = Ground(hub=hub, journal=journal, policy=policy, clock=clock, on_end=self._ended)
        self._owner = new_sid()[:OWNER_NONCE_LENGTH]
        self.tasks: asyncio.TaskGroup | None = None
        self.draining = False

    async def open(self, request: ChatRequest, raw: bytes, principal: Principal, options: Options) -> Opened:
        """Begin a stream for `request`, or come back to the one that the same idempotency key began.

        Raises:
            RequestError: 404 unknown model, 422 key with another body, 429 journal full, 503 shutting down.
        """
        self.routes.find(request.model)
        sid = new_sid()
        key = None
        if options.idempotency_key is not None:
            key = _scoped(principal, request.dialect, options.idempotency_key)
            bound, body_hash = await self.journal.remember(key, sid, hashlib.sha256(raw).hexdigest())
            if bound != sid:
                if body_hash != hashlib.sha256(raw).hexdigest():
                    msg = "this Idempotency-Key was used with another body"
                    raise RequestError(msg, status=422, code="idempotency_key_reused", param="Idempotency-Key")
                if (opened := await self._reopen(bound)) is not None:
                    return opened
                await self.journal.forget(key)
                await self.journal.remember(key, sid, body_hash)
        try:
            return await self._begin(sid, request, principal, options, key)
        except BaseException:
            if key is not None:
                await self.journal.forget(key)
            raise

    async def _begin(
        self, sid: str, request: ChatRequest, principal: Principal, options: Options, key: str | None
    ) -> Opened:
        """Create the log and its owner."""
        if self.draining or self.tasks is None:
            raise _unavailable("the gateway is shutting down", 503, "shutting_down", "1")
        group = self.routes.find(request.model)
        record = self._record(sid, group.model, request, principal, options)
        start = _start(record, request, options)
        try:
            entry = await self.journal.create(record, start)
        except JournalFull as error:
            raise _unavailable("too many streams are open", 429, "journal_full", "5") from error
        channel = self.hub.open(sid)
        channel.publish(entry)
        session = Session(record, group.attempt(request, fallback=options.fallback), channel, self._ground)
        session.request_id, session.key = options.request_id, key
        channel.session = session
        reader = Reader(channel, self.hub, self.journal)
        self.tasks.create_task(session.run(), name=f"stream {sid}")
        return Opened(sid=sid, start=start, reader=reader, session=session)

    def _record(self, sid: str, route: str, request: ChatRequest, principal: Principal, options: Options) -> Record:
        now = self._clock.now()
        return Record(
            sid=sid,
            tenant=principal.tenant,
            route=route,
            dialect=request.dialect,
            model=request.model,
            created=now,
            owner=f"{self._owner}-{sid}",
            gen=int(now * 1000),
            on_disconnect=options.on_disconnect,
            on_pause_expiry=self._on_pause_expiry,
        )

    async def _reopen(self, sid: str) -> Opened | None:
        """A reader at the start of a stream that exists; None when its log is gone."""
        try:
            page = await self.journal.read(sid, -1, 1)
        except (UnknownStream, ExpiredStream):
            return None
        start = page.entries[0].events[0]
        channel = self.hub.join(page)
        reader = Reader(channel, self.hub, self.journal)
        if not isinstance(start, Start):
            reader.detach()
            return None
        return Opened(sid=sid, start=start, reader=reader, session=channel.session, replayed=True)

    async def _ended(self, session: Session, end: End) -> None:
        """Settle a stream: what its status shows from now on, metrics, one log line."""
        facts, channel = session.facts(), session.channel
        facts["metrics"] |= {"readers_max": channel.reader_peak, "reattaches": channel.reattaches}
        await self.journal.annotate(session.sid, facts)
        before_content = end.state is State.FAILED and session.stats.first_content is None
        if session.key is not None and (before_content or end.reason == "disconnect"):
            await self.journal.forget(session.key)
        self._count(session, end)
        usage = session.stats.effective_usage()
        log.info(
            "stream ended",
            extra={
                "request": session.request_id,
                "stream": show_sid(session.sid),
                "route": session.record.route,
                "endpoint": session.stats.legs[-1].endpoint if session.stats.legs else None,
                "state": end.state,
                "reason": end.reason,
                "attempts": facts["attempts"],
                "ttft_ms": facts["metrics"]["ttft_ms"],
                "duration_ms": facts["metrics"]["duration_ms"],
                **msgspec.structs.asdict(usage),
            },
        )

    def _count(self, session: Session, end: End) -> None:
        metrics, stats, route = self._metrics, session.stats, session.record.route
        metrics.stream_ends(_end_label(end)).inc()
        if stats.first_content is not None:
            metrics.first_token(route).observe(stats.first_content - stats.created)
        if (median := stats.percentile_s(0.5)) is not None:
            metrics.inter_token(route).observe(median)
        if stats.stalls:
            metrics.stalls.inc(stats.stalls)
        if stats.paused_s:
            metrics.paused.observe(stats.paused_s)
        if stats.legs:
            usage, endpoint = stats.effective_usage(), stats.legs[-1].endpoint
            metrics.tokens(endpoint, "input").inc(usage.input_tokens)
            metrics.tokens(endpoint, "output").inc(usage.output_tokens)


def _end_label(end: End) -> str:
    """State and reason, of which a caller may give any for a cancel: those count as `control`."""
    if end.state is State.CANCELLED and end.reason not in {"disconnect", "pause_expired", "deleted"}:
        return "cancelled:control"
    return end.state if end.reason is None else f"{end.state}:{end.reason}"


def _start(record: Record, request: ChatRequest, options: Options) -> Start:
    """Entry 0: everything that rendering needs."""
    flags = {**request.flags, **({"on_cancel": "finish"} if options.on_cancel == "finish" else {})}
    wire_id = WIRE_IDS.get(request.dialect, "") + record.sid
    return Start(record.sid, wire_id, int(record.created), request.model, request.dialect, flags)


def _unavailable(message: str, status: int, code: str, retry_after: str) -> RequestError:
    type_ = "server_error" if status == 503 else "rate_limit_error"
    return RequestError(message, status=status, code=code, type_=type_, headers={"retry-after": retry_after})


def _scoped(principal: Principal, dialect: str, key: str) -> str:
    digest = hashlib.sha256(key.encode()).hexdigest()
    return f"{principal.tenant}:{dialect}:{digest}"
