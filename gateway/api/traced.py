"""Requests as traces: an ASGI application around the edge's, which is only there while tracing is on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.telemetry.tracing import CURRENT

if TYPE_CHECKING:
    from collections.abc import Container

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from gateway.telemetry.tracing import Trace, Tracer

UNTRACED = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
"""What machines ask every few seconds."""


class Traced:
    """`hot` holds method and path of what the edge answers without the framework."""

    def __init__(self, app: ASGIApp, tracer: Tracer, hot: Container[tuple[str, str]]) -> None:
        self._app, self._tracer, self._hot = app, tracer, hot

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["path"] in UNTRACED:
            await self._app(scope, receive, send)
            return
        trace = self._tracer.request(scope["method"], scope["headers"])
        token = CURRENT.set(trace)
        try:
            await self._app(scope, receive, _Watched(trace, send))
        finally:
            CURRENT.reset(token)
            trace.answered(self._route(scope))

    def _route(self, scope: Scope) -> str | None:
        """The route's pattern, never the path that was asked for: that holds ids."""
        if (scope["method"], scope["path"]) in self._hot:
            return str(scope["path"])
        route: Any = scope.get("route")
        return getattr(route, "path", None)


class _Watched:
    """The server's `send`; what is sent past it, from where it is published, is no head of an answer."""

    __slots__ = ("_send", "_trace")

    def __init__(self, trace: Trace, send: Send) -> None:
        self._trace, self._send = trace, send

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._trace.status = message["status"]
        await self._send(message)
