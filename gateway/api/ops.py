"""What operators and their machines ask: liveness, readiness, metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from gateway import __version__
from gateway.telemetry.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from gateway.api.deps import Services


def router(services: Services) -> APIRouter:
    """The routes, bound to one app's services."""
    routes = APIRouter(tags=["operations"])

    @routes.head("/", include_in_schema=False)
    @routes.get("/", summary="Who answers here")
    async def root() -> JSONResponse:
        return JSONResponse({"service": "atlas", "version": __version__, "docs": "/docs"})

    @routes.get("/livez", summary="The process answers")
    async def livez() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @routes.get("/readyz", summary="New streams are accepted")
    @routes.get("/healthz", include_in_schema=False)
    async def readyz() -> JSONResponse:
        ready = services.pipeline.tasks is not None and not services.pipeline.draining
        return JSONResponse({"status": "ok" if ready else "draining"}, 200 if ready else 503)

    @routes.get("/metrics", summary="Prometheus metrics")
    async def metrics() -> Response:
        return Response(services.metrics.exposition(), media_type=CONTENT_TYPE)

    return routes
