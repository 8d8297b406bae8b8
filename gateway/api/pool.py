"""GET /v1/pool, and POST /v1/pool/{endpoint}/enable, disable and probe: for administrators.

All of it is about the replica that answers. What is shown names endpoints, models and prices, and no secret: keys go by
their place in the configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from gateway.api.auth import ADMIN, principal_of
from gateway.api.paths import REQUEST_ID
from gateway.telemetry.audit import record

if TYPE_CHECKING:
    from gateway.core.clock import Clock
    from gateway.pool.overview import Pool
    from gateway.telemetry.audit import Act


def router(pool: Pool, clock: Clock) -> APIRouter:
    """The routes, bound to one app's pool."""
    routes = APIRouter(prefix="/v1/pool", tags=["pool"], dependencies=[Depends(ADMIN)])

    @routes.get("", summary="Every endpoint: state, statistics, keys; every route: its newest choices and why")
    async def shown() -> Response:
        return _json(pool.shown(clock.monotonic()))

    @routes.post("/{endpoint}/enable", summary="Ask this endpoint again, with every key")
    async def enable(request: Request, endpoint: str) -> Response:
        shown = pool.enable(endpoint, clock.monotonic())
        _record(request, "pool.enable", endpoint)
        return _json(shown)

    @routes.post("/{endpoint}/disable", summary="Send no new requests there")
    async def disable(request: Request, endpoint: str) -> Response:
        shown = pool.disable(endpoint, clock.monotonic())
        _record(request, "pool.disable", endpoint)
        return _json(shown)

    @routes.post("/{endpoint}/probe", summary="Check its health now; the next request may be the breaker's probe")
    async def probe(request: Request, endpoint: str) -> Response:
        shown = await pool.probe(endpoint, clock.monotonic())
        _record(request, "pool.probe", endpoint)
        return _json(shown)

    return routes


def _record(request: Request, act: Act, endpoint: str) -> None:
    record(act, "done", principal_of(request.scope), endpoint=endpoint, request=request.scope.get(REQUEST_ID))


def _json(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
