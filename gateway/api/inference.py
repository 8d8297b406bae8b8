"""The hot route of every client dialect: POST a request, get its stream or its whole answer; called by `api.edge`.

Disconnect policy: it looks at the creating response only, and `cancel` takes effect only if nobody else reads the
stream and it is not paused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from gateway.api.auth import INFER, Access, principal_of
from gateway.api.deps import IDEMPOTENCY_KEY, bad_header
from gateway.api.exchange import JSON_TYPE
from gateway.api.sse import PLAIN_ENDS, Delivery, shared
from gateway.core.errors import AtlasError
from gateway.core.events import End, State
from gateway.core.ids import show_sid
from gateway.pipeline import Options
from gateway.pool.capability import NOTHING
from gateway.pool.needs import HEADER, parse_needs
from gateway.pool.plan import own_budgets
from gateway.streams.journal import JournalError, JournalUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.api.deps import Services
    from gateway.api.exchange import Exchange, Headers
    from gateway.core.events import Event
    from gateway.dialects.catalog import Dialect
    from gateway.pipeline import Opened
    from gateway.pool.budget import Budget

KEYED_GRACE = "grace=60"
MAX_GRACE_S = 3600
PIECE_BYTES = 65_536
_GRACE = re.compile(r"grace=(\d{1,6})")


@dataclass(frozen=True, slots=True)
class Inference:
    """The route of one dialect."""

    services: Services
    dialect: Dialect
    access: ClassVar[Access] = INFER

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request."""
        opened, is_streamed = await self._open(exchange)
        try:
            await (self._stream(exchange, opened) if is_streamed else self._whole(exchange, opened))
        finally:
            opened.reader.detach()

    async def _open(self, exchange: Exchange) -> tuple[Opened, bool]:
        """The stream, and whether it is to be delivered as one; what it needs of the request, it holds itself."""
        services = self.services
        raw = await exchange.json_body(services.bodies)
        begun, who = services.clock.monotonic(), services.principal(exchange)
        services.requests.take(who)
        request = self.dialect.parse(raw, exchange.given(self.dialect.headers))
        opened = await services.pipeline.open(request, raw, who, options(exchange, who.tenant))
        if opened.replayed:
            services.reads(opened.reader, who)
        exchange.forget_body()
        services.metrics.overhead.observe(services.clock.monotonic() - begun)
        return opened, request.stream

    async def _stream(self, exchange: Exchange, opened: Opened) -> None:
        renderer = shared(opened.reader, "wire", partial(self.dialect.renderer, opened.start))
        delivery = Delivery(exchange, opened.reader, renderer, self.services.clock, self.services.pace)
        plain = PLAIN_ENDS - {State.CANCELLED} if _finishes_on_cancel(opened) else PLAIN_ENDS
        end = await delivery.run(partial(stream_headers, opened), self.services.tasks, plain_ends=plain)
        if end is not None:
            await refuse_end(exchange, self.services, opened, end)
        elif delivery.gone and not opened.reader.done:
            await left(self.services, opened, dropped=delivery.dropped)

    async def _whole(self, exchange: Exchange, opened: Opened) -> None:
        """One answer at the end; pauses make it wait like any reader."""
        collector = self.dialect.collector(opened.start)
        try:
            end = await end_of(exchange, opened, self.services, collector.add)
        except JournalError as error:
            await exchange.fail(error.failure)
            return
        if end is None:
            await left(self.services, opened)
        elif end.state not in PLAIN_ENDS or (end.state is State.CANCELLED and _finishes_on_cancel(opened)):
            await self._answer(exchange, opened, collector.body(end))
        else:
            await refuse_end(exchange, self.services, opened, end)

    async def _answer(self, exchange: Exchange, opened: Opened, body: bytes) -> None:
        """Send a whole answer, a long one piece by piece: a client that does not read is dropped like any reader."""
        if len(body) <= PIECE_BYTES:
            await exchange.answer_body(200, body, stream_headers(opened))
            return
        reader = opened.reader
        length = (b"content-length", str(len(body)).encode("ascii"))
        await exchange.start(200, [JSON_TYPE, length, *stream_headers(opened)])
        reader.on_stuck, reader.sending = exchange.abort, True
        for at in range(0, len(body), PIECE_BYTES):
            reader.sent_at = self.services.clock.monotonic()
            await exchange.write(body[at : at + PIECE_BYTES], more=at + PIECE_BYTES < len(body))


async def end_of(
    exchange: Exchange, opened: Opened, services: Services, add: Callable[[list[Event]], None]
) -> End | None:
    """Give everything that the caller is served to `add`, up to the end; None if it hung up before.

    Raises:
        JournalError: the log cannot be read on.
    """
    reader, gone = opened.reader, False

    def hung_up() -> None:
        nonlocal gone
        gone = True
        reader.wake()

    with exchange.watched(hung_up, services.tasks):
        while not gone:
            for entry, _, events in await reader.next():
                add(events)
                if isinstance(entry.control, End):
                    return entry.control
    return None


async def left(services: Services, opened: Opened, *, dropped: bool = False) -> None:
    """The creating response's client hung up, or was dropped for not reading: then it may come back for a while."""
    session = opened.session
    if session is None or opened.replayed or session.closed.is_set():
        return
    policy = session.record.on_disconnect
    if dropped and policy == "cancel":
        policy = KEYED_GRACE
    if (grace := _GRACE.fullmatch(policy)) is not None:
        session.grace_until = services.clock.monotonic() + int(grace[1])
    elif policy == "cancel" and not opened.reader.paused and not _has_other_readers(services, opened):
        shown, tenant = show_sid(opened.sid), session.record.tenant
        try:
            await services.control.cancel(shown, tenant, reason="disconnect", wait_s=0)
        except JournalUnavailable:
            session.grace_until = services.clock.monotonic()  # the housekeeper tries again


def _has_other_readers(services: Services, opened: Opened) -> bool:
    return not opened.reader.alone or services.pipeline.hub.fleet.is_read_elsewhere(opened.sid)


def options(exchange: Exchange, tenant: str) -> Options:
    """What the request's own headers ask for.

    Raises:
        RequestError: 400, naming the header.
    """
    key = exchange.header("idempotency-key")
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise bad_header("Idempotency-Key", "1 to 255 visible ASCII characters", key)
    policy = exchange.header("x-atlas-on-disconnect") or ("cancel" if key is None else KEYED_GRACE)
    grace = _GRACE.fullmatch(policy)
    if policy not in {"cancel", "continue"} and (grace is None or int(grace[1]) > MAX_GRACE_S):
        raise bad_header("x-atlas-on-disconnect", f"cancel, continue or grace=<0..{MAX_GRACE_S}>", policy)
    on_cancel = exchange.header("x-atlas-on-cancel") or "error"
    if on_cancel not in {"error", "finish"}:
        raise bad_header("x-atlas-on-cancel", "error or finish", on_cancel)
    fallback = exchange.header("x-atlas-fallback") or "continue"
    if fallback not in {"off", "safe", "continue"}:
        raise bad_header("x-atlas-fallback", "off, safe or continue", fallback)
    needs = exchange.header(HEADER)
    return Options(
        budgets=_own_budgets(exchange, tenant),
        on_disconnect=policy,
        on_cancel=on_cancel,
        fallback=fallback,
        needs=NOTHING if needs is None else parse_needs(needs),
        idempotency_key=key,
        request_id=exchange.request_id,
    )


def _own_budgets(exchange: Exchange, tenant: str) -> tuple[Budget, ...]:
    """What the caller itself lets this request take."""
    given = exchange.header("x-atlas-budget")
    try:
        return () if given is None else own_budgets(given, tenant)
    except ValueError:
        raise bad_header("x-atlas-budget", "tokens=<n>, usd=<amount> or both", given or "") from None


def _finishes_on_cancel(opened: Opened) -> bool:
    return opened.start.flags.get("on_cancel") == "finish"


async def refuse_end(exchange: Exchange, services: Services, opened: Opened, end: End) -> None:
    """An end in failure or cancellation, as plain HTTP; the stream's status stands beside the error."""
    head, beside = stream_headers(opened), await _status(exchange, services, opened)
    if end.state is State.CANCELLED:
        body = exchange.dialect.errors.stream_cancelled(end.reason)
        await exchange.answer_error(409, {**body, **beside}, [(b"x-should-retry", b"false"), *head])
    else:
        await exchange.fail(end.failure, head, beside)


async def _status(exchange: Exchange, services: Services, opened: Opened) -> dict[str, Any]:
    """The status object under its name, if it can be had."""
    try:
        return {"stream": await services.control.status(show_sid(opened.sid), principal_of(exchange.scope).tenant)}
    except AtlasError:
        return {}


def stream_headers(opened: Opened) -> Headers:
    """How the caller finds its stream again."""
    shown = show_sid(opened.sid).encode("ascii")
    headers = [(b"x-atlas-stream-id", shown), (b"location", b"/v1/streams/%s/events" % shown), *opened.headers]
    if opened.session is not None and (attempts := opened.session.attempts):
        endpoint = attempts[-1].partition(":")[0].encode("ascii", "replace")
        headers += [(b"x-atlas-endpoint", endpoint), (b"x-atlas-attempts", str(len(attempts)).encode("ascii"))]
    if opened.replayed:
        headers.append((b"x-atlas-idempotent", b"replayed"))
    return headers
