"""One request on one page: route -> source -> stream -> readers -> end.

resolve     the model name to a provider group, or 404
create      the log with its entry 0, or 429 when the journal is full of live streams
own         a session task in the app's group pumps the group's attempts into the log
read        the caller gets a reader at the start of that log; so does everybody who repeats its idempotency key
end         one settlement row a leg, one log line, metrics, what the status object shows from then on
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from gateway.core.errors import RequestError
from gateway.core.events import End, Leg, Start, State
from gateway.core.ids import new_sid, show_sid
from gateway.dialects.catalog import DIALECTS
from gateway.pool.group import STRATEGY, Attempts
from gateway.pool.settlement import Account, Row, Settlement
from gateway.streams.ground import Ground
from gateway.streams.journal import ExpiredStream, JournalFull, UnknownStream
from gateway.streams.lifecycle import Record
from gateway.streams.reader import Reader
from gateway.streams.session import Session
from gateway.streams.status import REPLACED, end_word

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Coroutine

    from gateway.core.chat import ChatRequest
    from gateway.core.clock import Clock
    from gateway.core.principal import Principal
    from gateway.pool.routes import RouteTable
    from gateway.pool.settlement import Books, OnSettled
    from gateway.streams.ground import Policy
    from gateway.streams.hub import Hub, Owner
    from gateway.streams.journal import Journal
    from gateway.telemetry.metrics import Metrics

log = logging.getLogger("atlas.requests")
settlements = logging.getLogger("atlas.settlements")

WIRE_IDS = {dialect.name: dialect.id_prefix for dialect in DIALECTS.values()}
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
        books: Books,
        on_settled: OnSettled = lambda _settlement: None,
        on_pause_expiry: Literal["cancel", "resume"] = "cancel",
    ) -> None:
        self.routes, self.journal, self.hub = routes, journal, hub
        self._clock, self._metrics, self._on_settled, self.books = clock, metrics, on_settled, books
        self._on_pause_expiry: Literal["cancel", "resume"] = on_pause_expiry
        self._ground = Ground(
            hub=hub, journal=journal, policy=policy, clock=clock, on_end=self._ended, spawn=self._spawn
        )
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
        session.stats.account = self.books.account(group, request)
        channel.session = session
        reader = Reader(channel, self.hub, self.journal)
        self.tasks.create_task(session.run(), name=f"stream {sid}")
        return Opened(sid=sid, start=start, reader=reader, session=session)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        if self.tasks is None:
            msg = "the app's task group is not open"
            raise RuntimeError(msg)
        return self.tasks.create_task(work)

    def _record(self, sid: str, route: str, request: ChatRequest, principal: Principal, options: Options) -> Record:
        now = self._clock.now()
        return Record(
            sid=sid,
            tenant=principal.tenant,
            key_id=principal.key_id,
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
        """Settle a stream: the bill of each leg, metrics, one log line, what its status shows from now on."""
        _name_abandoned(session)
        for settlement in _settled(session, end, self._clock.monotonic()):
            self._emit(settlement)
        facts, channel = session.facts(), session.channel
        self._count(session, end, facts["metrics"]["wasted_tokens"])
        _log_end(session, end, facts)
        facts["metrics"] |= {
            "readers_max": channel.reader_peak,
            "reattaches": channel.reattaches,
            "replayed_events": channel.replayed_events,
            "malformed_events": session.source.malformed if isinstance(session.source, Attempts) else 0,
        }
        await self.journal.annotate(session.sid, facts)
        before_content = end.state is State.FAILED and session.stats.first_content is None
        if session.key is not None and (before_content or end.reason == "disconnect"):
            await self.journal.forget(session.key)

    def _emit(self, settlement: Settlement) -> None:
        """Send a row everywhere: log, metrics, and whoever keeps budgets."""
        usage, endpoint, count = settlement.usage, settlement.endpoint, self._metrics.tokens
        for type_, tokens in (
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("cached", usage.cached_tokens),
            ("cache_creation", usage.cache_creation_tokens),
            ("reasoning", usage.reasoning_tokens),
        ):
            if tokens:
                count(endpoint, type_).inc(tokens)
        if settlement.cost_usd is not None:
            self._metrics.cost(endpoint).inc(settlement.cost_usd)
        if settlements.isEnabledFor(logging.INFO):
            settlements.info("leg settled", extra=_row(settlement))
        self._on_settled(settlement)

    def _count(self, session: Session, end: End, wasted_tokens: int) -> None:
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
        if wasted_tokens:
            metrics.wasted_tokens.inc(wasted_tokens)


def _name_abandoned(session: Session) -> None:
    """An attempt that was under way when the stream ended may be billed: it becomes leg 0."""
    source, stats = session.source, session.stats
    if stats.leg is None and isinstance(source, Attempts) and source.trying is not None:
        endpoint = source.trying
        stats.leg = Leg(0, endpoint.name, endpoint.provider.kind, STRATEGY, "ended before its first content")


def _settled(session: Session, end: End, now: float) -> list[Settlement]:
    """The bill of each leg; providers' own figures teach the estimates of later streams."""
    stats, account, record = session.stats, session.stats.account, session.record
    if not isinstance(account, Account):
        return []
    found: list[Settlement] = []
    tallies = stats.tallies()
    for at, tally in enumerate(tallies):
        if tally.leg is None:
            continue
        if tally.finished and not tally.usage.estimated:
            account.learn(tally.leg, tally.counted, tally.usage)
        is_last = at + 1 == len(tallies)
        row = Row(
            stream=show_sid(record.sid),
            tenant=record.tenant,
            key=record.key_id,
            leg=tally.leg,
            usage=tally.usage,
            finished=tally.finished,
            end=end_word(end) if is_last else REPLACED,
            duration_s=round((now if is_last else tally.ended) - tally.begun, 6),
        )
        found.append(account.settle(row))
    return found


def _row(settlement: Settlement) -> dict[str, Any]:
    """A settlement as the fields of a log line."""
    row = {name: getattr(settlement, name) for name in Settlement.__slots__ if name not in {"usage", "duration_s"}}
    return row | msgspec.structs.asdict(settlement.usage) | {"duration_ms": round(1000 * settlement.duration_s, 3)}


def _log_end(session: Session, end: End, facts: dict[str, Any]) -> None:
    legs, metrics = session.stats.legs, facts["metrics"]
    log.info(
        "stream ended",
        extra={
            "request": session.request_id,
            "stream": show_sid(session.sid),
            "key": session.record.key_id,
            "route": session.record.route,
            "endpoint": legs[-1].endpoint if legs else None,
            "state": end.state,
            "reason": end.reason,
            "attempts": facts["attempts"],
            "ttft_ms": metrics["ttft_ms"],
            "duration_ms": metrics["duration_ms"],
            "cost_usd": facts["cost_usd"],
            **facts["usage"],
        },
    )


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
