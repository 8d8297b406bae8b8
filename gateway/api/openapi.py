"""The description of hot routes for OpenAPI: they are answered by the edge, before the framework sees them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["model", "messages"],
                "properties": {
                    "model": {"type": "string"},
                    "messages": {"type": "array", "items": {"type": "object"}},
                    "stream": {"type": "boolean"},
                },
                "additionalProperties": True,
            }
        }
    },
}


def describe_chat(path: str) -> APIRouter:
    """The path of chat completions, so that documentation and 405 know it."""
    routes = APIRouter(tags=["chat"])

    @routes.post(
        path,
        summary="OpenAI's chat completions, streamed or whole",
        openapi_extra={"requestBody": _BODY},
        responses={200: {"content": {"text/event-stream": {}, "application/json": {}}}},
    )
    async def chat() -> Response:
        msg = "the edge answers this route"
        raise RuntimeError(msg)

    return routes
