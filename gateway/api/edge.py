"""The edge: every request passes here, hot routes go on directly, all others into the web framework.

It gives each request its id, checks the host it is addressed to, admits the callers of hot routes, answers every
error in the shape of the caller's dialect, and counts.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from gateway.api.errors import journal_away
from gateway.api.exchange import ClientGone, Exchange, Message, Receive, Scope, Send
from gateway.api.paths import REQUEST_ID
from gateway.core.errors import Category, Declined, Failure, RequestError
from gateway.core.ids import RequestIds
from gateway.streams.journal import JournalUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from gateway.api.auth import Access
    from gateway.api.deps import Services

log = logging.getLogger("atlas.api")

UNMATCHED = "unmatched"


class HotRoute(Protocol):
    """A route that the edge answers itself; `access` is what it asks of its callers."""

    access: ClassVar[Access]

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request, whose caller was admitted."""
        ...


class Edge:
    """An ASGI application around the framework's. `hot` maps method and path to a route."""

    def __init__(
        self,
        services: Services,
        hot: Mapping[tuple[str, str], HotRoute],
        cold: Callable[[Scope, Receive, Send], Awaitable[None]],
    ) -> None:
        self._services, self.hot, self._cold = services, hot, cold
        self._ids = RequestIds()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        services, begun = self._services, self._services.clock.monotonic()
        exchange = Exchange(scope, receive, send, self._ids.new())
        route = self.hot.get((scope["method"], scope["path"]))
        try:
            services.guard(exchange)
            if route is not None:
                route.access.admit(scope, services.keyring)
                await route(exchange)
            else:
                scope[REQUEST_ID] = exchange.request_id
                await self._cold(scope, receive, _Numbered(exchange, send))
        except Declined as error:
            await exchange.fail(error.failure)
        except RequestError as error:
            await exchange.refuse(error)
        except JournalUnavailable:
            await exchange.refuse(journal_away())
        except ClientGone:
            pass
        except Exception:
            log.exception("request failed by a bug", extra={"request": exchange.request_id})
            if exchange.status and not exchange.whole:
                exchange.abort()
            elif not exchange.status:
                await exchange.fail(Failure(Category.INTERNAL, "internal error; see the gateway's log"))
        finally:
            exchange.forget_body()
            self._count(exchange, begun, hot=route is not None)

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
            missing = [header for header in exchange.id_headers() if header[0] not in known]
            message["headers"] = [*message["headers"], *missing]
        elif not message.get("more_body"):
            self._exchange.whole = True
        await self._send(message)
