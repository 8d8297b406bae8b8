"""How a run of an agent is answered: as native events, as its status object at its end, or at once.

A run is a stream like any other, begun through the same pipeline, so its id works on every route of streams. Only its
disconnect policy differs: a run goes on without its caller unless the caller's header says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import Response

from gateway.api.auth import principal_of
from gateway.api.exchange import Exchange
from gateway.api.inference import end_of, left, options, refuse_end, stream_headers
from gateway.api.paths import REQUEST_ID
from gateway.api.sse import PLAIN_ENDS, Delivery, shared
from gateway.core.events import RESTART, Leg, Text
from gateway.core.ids import show_sid
from gateway.dialects.native import NativeRenderer
from gateway.dialects.strict_json import decode_object
from gateway.streams.journal import JournalError

if TYPE_CHECKING:
    from fastapi import Request
    from starlette.types import Receive, Scope, Send

    from gateway.api.deps import Services
    from gateway.core.chat import ChatRequest
    from gateway.core.events import Event
    from gateway.pipeline import Opened

POLICY = "x-atlas-on-disconnect"


async def body(request: Request, services: Services) -> bytes:
    """The JSON body of a request, within the gateway's bounds, and as strictly read as any other."""
    exchange = _exchange(request)
    try:
        raw = await exchange.json_body(services.bodies)
        decode_object(raw)
        return raw
    finally:
        exchange.forget_body()


@dataclass(frozen=True, slots=True)
class AgentRuns:
    """Begins runs: `agents.api.Respond`."""

    services: Services

    async def __call__(
        self, request: Request, chat: ChatRequest, raw: bytes, *, stream: bool, background: bool
    ) -> Response:
        """The answer to one request."""
        exchange, who = _exchange(request), principal_of(request.scope)
        self.services.requests.take(who)
        asked = options(exchange, who.tenant)
        if exchange.header(POLICY) is None:
            asked = replace(asked, on_disconnect="continue")
        opened = await self.services.pipeline.open(chat, raw, who, asked)
        if opened.replayed:
            self.services.reads(opened.reader, who)
        if background:
            opened.reader.detach()
        return _Answer(self.services, opened, who.tenant, stream=stream, background=background)


class _Answer(Response):
    """The answer to one request, written by the gateway's own machinery; the reader is detached in every case."""

    def __init__(self, services: Services, opened: Opened, tenant: str, *, stream: bool, background: bool) -> None:
        super().__init__()
        self._services, self._opened, self._tenant = services, opened, tenant
        self._stream, self._background = stream, background

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, scope.get(REQUEST_ID, ""))
        try:
            if self._background:
                await exchange.answer_json(202, await self._status(), stream_headers(self._opened))
            elif self._stream:
                await self._events(exchange)
            else:
                await self._whole(exchange)
        finally:
            self._opened.reader.detach()

    async def _status(self) -> dict[str, Any]:
        return await self._services.control.status(show_sid(self._opened.sid), self._tenant)

    async def _events(self, exchange: Exchange) -> None:
        services, opened = self._services, self._opened
        renderer = shared(opened.reader, "native", NativeRenderer)
        delivery = Delivery(exchange, opened.reader, renderer, services.clock, services.pace)
        await delivery.run(partial(stream_headers, opened), services.tasks, plain_ends=frozenset())
        if delivery.gone and not opened.reader.done:
            await left(services, opened, dropped=delivery.dropped)

    async def _whole(self, exchange: Exchange) -> None:
        """The status object and the text, at the end."""
        services, opened = self._services, self._opened
        output: list[str] = []
        try:
            end = await end_of(exchange, opened, services, partial(add_text, output))
        except JournalError as error:
            await exchange.fail(error.failure)
            return
        if end is None:
            await left(services, opened)
        elif end.state in PLAIN_ENDS:
            await refuse_end(exchange, services, opened, end)
        else:
            shown = {**await self._status(), "output": "".join(output)}
            await exchange.answer_json(200, shown, stream_headers(opened))


def add_text(output: list[str], events: list[Event]) -> None:
    """Put the answer's own text to what came before; an answer that was begun anew has only its own."""
    for event in events:
        if isinstance(event, Text):
            output.append(event.text)
        elif isinstance(event, Leg) and event.strategy == RESTART:
            output.clear()


def _exchange(request: Request) -> Exchange:
    """To read with; it answers nothing."""
    return Exchange(request.scope, request.receive, request._send, request.scope.get(REQUEST_ID, ""))  # noqa: SLF001
