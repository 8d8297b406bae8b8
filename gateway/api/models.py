"""GET /v1/models and /v1/models/{id}: the names that clients may use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Request, Response

from gateway.core.errors import RequestError

if TYPE_CHECKING:
    from gateway.api.deps import Services


def router(services: Services) -> APIRouter:
    """The routes, bound to one app's services."""
    routes = APIRouter(prefix="/v1/models", tags=["models"])
    created = int(services.clock.now())

    def shown(name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": created, "owned_by": "atlas"}

    @routes.get("", summary="The models that can be asked for; `name/*` takes any name behind the slash")
    async def listing() -> Response:
        data = [shown(name) for name in services.routes.names()]
        return Response(msgspec.json.encode({"object": "list", "data": data}), media_type="application/json")

    @routes.get("/{model:path}", summary="One model")
    async def one(request: Request, model: str) -> Response:
        del request
        try:
            services.routes.find(model)
        except RequestError as error:
            error.status = 404
            raise
        return Response(msgspec.json.encode(shown(model)), media_type="application/json")

    return routes
