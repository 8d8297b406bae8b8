"""GET /v1/models and /v1/models/{id}: the names that clients may use, as OpenAI or Anthropic list them.

Which of the two asks is told by the header `anthropic-version`: the paths are the same.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response

from gateway.api.auth import INFER
from gateway.api.paths import ANTHROPIC_VERSION
from gateway.core.errors import RequestError

if TYPE_CHECKING:
    from gateway.api.deps import Services


def router(services: Services) -> APIRouter:
    """The routes, bound to one app's services."""
    routes = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[Depends(INFER)])
    created = int(services.clock.now())

    def shown(name: str, request: Request) -> dict[str, Any]:
        if ANTHROPIC_VERSION in request.headers:
            since = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            return {"type": "model", "id": name, "display_name": name, "created_at": since, "lifecycle": "active"}
        return {"id": name, "object": "model", "created": created, "owned_by": "atlas"}

    @routes.get("", summary="The models that can be asked for; `name/*` takes any name behind the slash")
    async def listing(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
        after_id: str | None = None,
        before_id: str | None = None,
    ) -> Response:
        names = services.routes.names()
        if ANTHROPIC_VERSION not in request.headers:
            return _json({"object": "list", "data": [shown(name, request) for name in names]})
        found = _between(names, after_id, before_id)
        page = found[-limit:] if before_id is not None and after_id is None else found[:limit]
        listed: dict[str, Any] = {
            "data": [shown(name, request) for name in page],
            "has_more": len(found) > len(page),
            "first_id": page[0] if page else None,
            "last_id": page[-1] if page else None,
        }
        return _json(listed)

    @routes.get("/{model:path}", summary="One model")
    async def one(request: Request, model: str) -> Response:
        try:
            services.routes.find(model)
        except RequestError as error:
            error.status = 404
            raise
        return _json(shown(model, request))

    return routes


def _between(names: list[str], after: str | None, before: str | None) -> list[str]:
    """The names behind one and before another; a name that is not there is a cursor to nowhere.

    Raises:
        RequestError: 400, naming the parameter.
    """
    for param, name in (("after_id", after), ("before_id", before)):
        if name is not None and name not in names:
            msg = f"{param} must be the id of a listed model, got {name!r:.64}"
            raise RequestError(msg, param=param, code="bad_cursor")
    begin = 0 if after is None else names.index(after) + 1
    end = len(names) if before is None else names.index(before)
    return names[begin:end]


def _json(body: dict[str, Any]) -> Response:
    return Response(msgspec.json.encode(body), media_type="application/json")
