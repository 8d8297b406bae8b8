"""What operators and their machines ask: liveness, readiness, metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse

from gateway import __version__
from gateway.api.auth import METRICS, OPEN
from gateway.telemetry.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from gateway.api.deps import Services


def router(services: Services) -> APIRouter:
    """The routes, bound to one app's services."""
    routes = APIRouter(tags=["operations"])
    anybody = [Depends(OPEN)]

    @routes.head("/", include_in_schema=False, dependencies=anybody)
    @routes.get("/", summary="Who answers here", dependencies=anybody)
    async def root() -> JSONResponse:
        return JSONResponse({"service": "atlas", "version": __version__, "docs": "/docs"})

    @routes.head("/livez", include_in_schema=False, dependencies=anybody)
    @routes.get("/livez", summary="The process answers", dependencies=anybody)
    async def livez() -> JSONResponse:
        return JSONResponse({"status": "ok"})

    @routes.head("/readyz", include_in_schema=False, dependencies=anybody)
    @routes.get("/readyz", summary="New streams are accepted", dependencies=anybody)
    @routes.head("/healthz", include_in_schema=False, dependencies=anybody)
    @routes.get("/healthz", include_in_schema=False, dependencies=anybody)
    async def readyz() -> JSONResponse:
        ready = services.pipeline.tasks is not None and not services.pipeline.draining
        return JSONResponse({"status": "ok" if ready else "draining"}, 200 if ready else 503)

    @routes.get("/metrics", summary="Prometheus metrics", dependencies=[Depends(METRICS)])
    async def metrics() -> Response:
        return Response(services.metrics.exposition(), media_type=CONTENT_TYPE)

    return routes
