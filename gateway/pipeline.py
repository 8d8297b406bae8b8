"""One request on one page: route -> source -> stream -> readers -> end.

resolve     the model name to a provider group, or 404
create      the log with its entry 0, or 429 when the journal is full of live streams
own         a session task in the app's group pumps the group's attempts into the log
read        the caller gets a reader at the start of that log; so does everybody who repeats its idempotency key
end         one settlement row a leg, one log line, metrics, what the status object shows from then on
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import logging
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from gateway.bookkeeping import bound, malformed, payer_of
from gateway.core.errors import Category, Declined, Failure, RequestError
from gateway.core.events import TERMINAL, End, Start, State
from gateway.core.ids import new_sid, show_sid
from gateway.dialects.catalog import DIALECTS
from gateway.pool.capability import NOTHING, Needs
from gateway.pool.continuation import Level
from gateway.streams.ground import Ground
from gateway.streams.journal import Entry, ExpiredStream, JournalFull, JournalUnavailable, StreamTaken, UnknownStream
from gateway.streams.lifecycle import Record
from gateway.streams.reader import Reader
from gateway.streams.session import Session
from gateway.streams.stored import Stored, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from gateway.bookkeeping import Bookkeeping
    from gateway.core.chat import ChatRequest
    from gateway.core.clock import Clock
    from gateway.core.principal import Principal
    from gateway.pool.budget import Budget
    from gateway.pool.budgets import Budgets
    from gateway.pool.routes import Answering, RouteTable
    from gateway.pool.ticket import Ticket
    from gateway.streams.ground import Policy
    from gateway.streams.hub import Hub, Owner
    from gateway.streams.journal import Journal, Page
    from gateway.streams.source import Source
    from gateway.streams.stats import Stats
    from gateway.telemetry.metrics import Metrics

log = logging.getLogger("atlas.requests")

WIRE_IDS = {dialect.name: dialect.id_prefix for dialect in DIALECTS.values()}
BIRTH_S, BIRTH_LOOKS = 2.0, 100
"""So long a stream may take from the binding of its idempotency key to its log; and how often that is looked at."""
RETRY_ELSEWHERE_S = "3"
"""By then a load balancer knows that this process is leaving."""
RETRY_FULL_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the caller's headers ask for.

    `on_disconnect` is `cancel`, `continue` or `grace=<seconds>`; `fallback` a `pool.continuation.Level`, which lowers
    the route's.
    """

    on_disconnect: str = "cancel"
    on_cancel: str = "error"
    fallback: str = Level.CONTINUE
    idempotency_key: str | None = None
    request_id: str = ""
    budgets: tuple[Budget, ...] = ()
    needs: Needs = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A stream that the caller reads from its start. `session` is None when it is owned elsewhere, or over."""

    sid: str
    start: Start
    reader: Reader
    session: Owner | None
    replayed: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()


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
        bookkeeping: Bookkeeping,
        budgets: Budgets,
        on_pause_expiry: Literal["cancel", "resume"] = "cancel",
        recoverable: Callable[[str], bool] = lambda _route: False,
    ) -> None:
        self.routes, self.journal, self.hub = routes, journal, hub
        self.clock, self._metrics, self.bookkeeping, self.budgets = clock, metrics, bookkeeping, budgets
        self.recoverable = recoverable
        self._on_pause_expiry: Literal["cancel", "resume"] = on_pause_expiry
        self._ground = Ground(
            hub=hub, journal=journal, policy=policy, clock=clock, on_end=self._ended, spawn=self.spawn,
            on_control=self._controlled,
        )  # fmt: skip
        self.tasks: asyncio.TaskGroup | None = None
        self.draining = False
        self.max_streams = sys.maxsize
        self._owners = itertools.count(1)
        self.on_owned: Callable[[Record], None] = lambda _record: None  # told of each stream that is owned here
        self.on_control: Callable[[str, str, str | None], None] = lambda _sid, _op, _reason: None  # see `Ground`
        self.on_ended: Callable[[Session, End], None] = lambda _session, _end: None  # ... and of its end, settled

    async def open(self, request: ChatRequest, raw: bytes, principal: Principal, options: Options) -> Opened:
        """Begin a stream for `request`, or come back to the one that the same idempotency key began.

        Raises:
            RequestError: 404 unknown model, 422 key with another body, 429 journal full, 503 full or shutting down.
        """
        try:
            return await self._open(request, raw, principal, options)
        except JournalFull as error:
            raise _unavailable("too many streams are open", 429, "journal_full", "5") from error

    async def _open(self, request: ChatRequest, raw: bytes, principal: Principal, options: Options) -> Opened:
        self.routes.find(request.model)
        sid = new_sid()
        key = None
        if options.idempotency_key is not None:
            key = _scoped(principal, request.dialect, options.idempotency_key)
            if (opened := await self._bound(key, sid, hashlib.sha256(raw).hexdigest())) is not None:
                return opened
        try:
            opened = await self._begin_or_follow(sid, request, principal, options, key)
        except BaseException:
            if key is not None:
                await self.journal.forget(key)
            raise
        if (channel := self.hub.find(sid)) is not None:
            channel.request_bytes = len(raw)
        return opened

    async def _bound(self, key: str, sid: str, body_hash: str) -> Opened | None:
        """The stream that this key began before; None once the key is bound to `sid`."""
        looks = 0
        while True:
            bound, body = await self.journal.remember(key, sid, body_hash)
            if bound == sid:
                return None
            if body != body_hash:
                msg = "this Idempotency-Key was used with another body"
                raise RequestError(msg, status=422, code="idempotency_key_reused", param="Idempotency-Key")
            try:
                if (opened := await self._reopen(bound)) is not None:
                    return opened
            except UnknownStream:
                looks += 1
                if looks < BIRTH_LOOKS:  # who bound the key is about to create it
                    await asyncio.sleep(BIRTH_S / BIRTH_LOOKS)
                    continue
            await self.journal.forget(key)

    async def _begin_or_follow(
        self, sid: str, request: ChatRequest, principal: Principal, options: Options, key: str | None
    ) -> Opened:
        """A new stream, which another replica may have taken over in the midst of its creation."""
        try:
            return await self._begin(sid, request, principal, options, key)
        except StreamTaken as error:
            return await self._taken(sid, error)

    async def _begin(
        self, sid: str, request: ChatRequest, principal: Principal, options: Options, key: str | None
    ) -> Opened:
        """Create the log and its owner."""
        if self.draining or self.tasks is None:
            raise _unavailable("the gateway is shutting down", 503, "shutting_down", RETRY_ELSEWHERE_S)
        if len(self.hub.channels) >= self.max_streams:
            raise Declined(Failure(Category.GATEWAY_OVERLOADED, "too many streams are open; try again", RETRY_FULL_S))
        group = self.routes.find(request.model)
        account = self.bookkeeping.account(group, request)
        ticket = await self.budgets.admit(sid, principal, request, account, options.budgets)
        try:
            source = self._source(group, request, options, ticket)  # may refuse, while there is no log yet
            record = self._record(sid, group.model, request, principal, options)
            start = _start(record, request, options)
            kept = self._kept(group.model, request, options, key)
            entry, durable = await self._create(record, start, kept)
        except BaseException:
            self.budgets.close(sid)
            raise
        channel = self.hub.open(sid)
        channel.offer(entry)
        session = Session(record, source, channel, self._ground)
        session.request_id, session.key, session.recoverable = options.request_id, key, kept is not None
        self.bookkeeping.begin(session, account)
        self.hub.own(channel, session)
        reader = Reader(channel, self.hub, self.journal)
        if not durable:
            session.go_on_undurably()
        self.tasks.create_task(session.run(), name=f"stream {sid}")
        self.on_owned(record)
        headers = () if ticket is None else tuple(ticket.headers)
        return Opened(sid=sid, start=start, reader=reader, session=session, headers=headers)

    def _source(self, group: Answering, request: ChatRequest, options: Options, ticket: Ticket | None) -> Source:
        """What answers the request, held to what its budgets allow."""
        level = Level(options.fallback)
        capped = request if ticket is None else ticket.capped(request)
        source: Source = group.attempt(capped, level=level, needs=options.needs)
        if ticket is None:
            return source
        bound(source, ticket.room)
        return self.budgets.metered(source, ticket)

    async def _create(self, record: Record, start: Start, kept: bytes | None) -> tuple[Entry, bool]:
        """The log's entry 0, and whether it is durable.

        Raises:
            StreamTaken: another replica held this one for dead meanwhile, and goes on with the stream, or ended it.
        """
        try:
            return await self.journal.create(record, start, kept), True
        except JournalUnavailable:
            if not self._ground.policy.degrade:
                raise
            return Entry.of_control(record.gen, 0, start), False

    async def _taken(self, sid: str, error: StreamTaken) -> Opened:
        """The stream at its new owner, so that its caller reads what it asked for; begun anew it would run twice."""
        opened = None
        with suppress(UnknownStream):
            owner = (await self.journal.known(sid)).record.owner
            opened = await self._reopen(sid) if await self.hub.fleet.is_alive(owner) else None
        if opened is None:
            msg = "another replica held this one for dead and has taken the stream over; try again"
            raise _unavailable(msg, 503, "owner_lost", RETRY_ELSEWHERE_S) from error
        return replace(opened, replayed=False)

    def _kept(self, route: str, request: ChatRequest, options: Options, key: str | None) -> bytes | None:
        """What another replica needs to go on with this stream; None where the route is not recovered."""
        if not self.recoverable(route):
            return None
        return encode(Stored.of(request, options.fallback, options.request_id, key))

    def adopt(self, page: Page, source: Source, request: ChatRequest, stats: Stats) -> Session:
        """Own a stream that was claimed: `page` names this owner, `stats` hold what its log tells of earlier legs."""
        channel = self.hub.join(page)
        session = Session(page.record, source, channel, self._ground, stats)
        self.bookkeeping.begin(session, self.bookkeeping.account(self.routes.find(request.model), request))
        self.hub.own(channel, session)
        self.spawn(session.run())
        self.on_owned(page.record)
        return session

    def new_owner(self) -> str:
        """An owner token of this replica, whose id is new with every start of the process."""
        return f"{self.hub.fleet.rid}-{next(self._owners):x}"

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Begin a task that the app owns."""
        if self.tasks is None:
            msg = "the app's task group is not open"
            raise RuntimeError(msg)
        return self.tasks.create_task(work)

    def _record(self, sid: str, route: str, request: ChatRequest, principal: Principal, options: Options) -> Record:
        now = self.clock.now()
        return Record(
            sid=sid,
            tenant=principal.tenant,
            key_id=principal.key_id,
            route=route,
            dialect=request.dialect,
            model=request.model,
            created=now,
            owner=self.new_owner(),
            gen=int(now * 1000),
            on_disconnect=options.on_disconnect,
            on_pause_expiry=self._on_pause_expiry,
        )

    async def _reopen(self, sid: str) -> Opened | None:
        """A reader at the start of a stream; None when its log is gone, or its key about to be freed.

        Raises:
            UnknownStream: it does not exist, or not yet.
        """
        try:
            page = await self.journal.read(sid, -1, 1)
            if page.record.state in TERMINAL and _frees_key(await self.journal.read(sid, page.tail - 1, 1)):
                return None
        except ExpiredStream:
            return None
        start = page.entries[0].events[0]
        channel = self.hub.join(page)
        reader = Reader(channel, self.hub, self.journal)
        if not isinstance(start, Start):
            reader.detach()
            return None
        return Opened(sid=sid, start=start, reader=reader, session=channel.session, replayed=True)

    async def _ended(self, session: Session, end: End) -> dict[str, Any]:
        """Settle a stream: the bill of each leg, metrics, one log line; returns what its status shows from now on."""
        self.bookkeeping.settle(session.stats, session.source, payer_of(session.record), end)
        self.budgets.close(session.sid)
        self.on_ended(session, end)
        facts, channel = session.facts(), session.channel
        self._count(session, end, facts["metrics"]["wasted_tokens"])
        _log_end(session, end, facts)
        facts["metrics"] |= {
            "readers_max": channel.reader_peak,
            "reattaches": channel.reattaches,
            "replayed_events": channel.replayed_events,
            "malformed_events": malformed(session.source),
        }
        return facts

    def _controlled(self, sid: str, op: str, reason: str | None) -> None:
        self.on_control(sid, op, reason)

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


def _frees_key(last: Page) -> bool:
    """Whether a stream failed before any content, or was cancelled by its client's hanging up; by its last entry."""
    end = last.entries[-1].control if last.entries else None
    if not isinstance(end, End):
        return False
    return end.reason == "disconnect" or (end.state is State.FAILED and last.tail == 1)


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
