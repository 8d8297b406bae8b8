"""The edge: every request passes here, hot routes go on directly, all others into the web framework.

It gives each request its id, checks the host it is addressed to, answers every error in OpenAI's shape, and counts.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from gateway.api.exchange import ClientGone, Exchange, Message, Receive, Scope, Send
from gateway.core.errors import Category, Failure, RequestError
from gateway.core.ids import RequestIds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from gateway.api.deps import Services

log = logging.getLogger("atlas.api")

UNMATCHED = "unmatched"


class Edge:
    """An ASGI application around the framework's. `hot` maps method and path to a handler."""

    def __init__(
        self,
        services: Services,
        hot: dict[tuple[str, str], Callable[[Exchange], Awaitable[None]]],
        cold: Callable[[Scope, Receive, Send], Awaitable[None]],
    ) -> None:
        self._services, self._hot, self._cold = services, hot, cold
        self._ids = RequestIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        services, begun = self._services, self._services.clock.monotonic()
        exchange = Exchange(scope, receive, send, self._ids.new())
        handler = self._hot.get((scope["method"], scope["path"]))
        try:
            services.guard(exchange)
            if handler is not None:
                await handler(exchange)
            else:
                await self._cold(scope, receive, _Numbered(exchange, send))
        except RequestError as error:
            await exchange.refuse(error)
        except ClientGone:
            pass
        except Exception:
            log.exception("request failed by a bug", extra={"request": exchange.request_id})
            if exchange.status and not exchange.whole:
                exchange.abort()
            elif not exchange.status:
                await exchange.fail(Failure(Category.INTERNAL, "internal error; see the gateway's log"))
        finally:
            self._count(exchange, begun, hot=handler is not None)

    def _count(self, exchange: Exchange, begun: float, *, hot: bool) -> None:
        route: Any = exchange.scope["path"] if hot else getattr(exchange.scope.get("route"), "path", UNMATCHED)
        metrics = self._services.metrics
        metrics.http_requests(route, exchange.scope["method"], str(exchange.status)).inc()
        metrics.http_seconds(route).observe(self._services.clock.monotonic() - begun)


class _Numbered:
    """The framework's `send`, with the request's id on its answers."""

    __slots__ = ("_exchange", "_send")

    def __init__(self, exchange: Exchange, send: Send) -> None:
        self._exchange, self._send = exchange, send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            exchange = self._exchange
            exchange.status = message["status"]
            known = {name for name, _ in message["headers"]}
            if b"x-request-id" not in known:
                message["headers"] = [*message["headers"], (b"x-request-id", exchange.request_id.encode("ascii"))]
        elif not message.get("more_body"):
            self._exchange.whole = True
        await self._send(message)
