"""GET /v1/pool, and POST /v1/pool/{endpoint}/enable, disable and probe: for administrators.

All of it is about the replica that answers. What is shown names endpoints, models and prices, and no secret: keys go by
their place in the configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Depends, Response

from gateway.api.auth import ADMIN

if TYPE_CHECKING:
    from gateway.core.clock import Clock
    from gateway.pool.overview import Pool


def router(pool: Pool, clock: Clock) -> APIRouter:
    """The routes, bound to one app's pool."""
    routes = APIRouter(prefix="/v1/pool", tags=["pool"], dependencies=[Depends(ADMIN)])

    @routes.get("", summary="Every endpoint: state, statistics, keys; every route: its newest choices and why")
    async def shown() -> Response:
        return _json(pool.shown(clock.monotonic()))

    @routes.post("/{endpoint}/enable", summary="Ask this endpoint again, with every key")
    async def enable(endpoint: str) -> Response:
        return _json(pool.enable(endpoint, clock.monotonic()))

    @routes.post("/{endpoint}/disable", summary="Send no new requests there")
    async def disable(endpoint: str) -> Response:
        return _json(pool.disable(endpoint, clock.monotonic()))

    @routes.post("/{endpoint}/probe", summary="Check its health now; the next request may be the breaker's probe")
    async def probe(endpoint: str) -> Response:
        return _json(await pool.probe(endpoint, clock.monotonic()))

    return routes


def _json(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
