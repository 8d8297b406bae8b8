"""The description of hot routes for OpenAPI: they are answered by the edge, before the framework sees them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Response

from gateway.api.auth import INFER
from gateway.api.paths import CHAT, COUNT_TOKENS, MESSAGES

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


_ANSWERS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}, "application/json": {}}}}
_COUNTED: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {}}}}


def describe_hot() -> APIRouter:
    """The paths of the client dialects, so that documentation and 405 know them."""
    routes = APIRouter(dependencies=[Depends(INFER)])
    body = {"requestBody": _BODY}
    chat = routes.post(
        CHAT, tags=["chat"], summary="OpenAI's chat completions, streamed or whole", openapi_extra=body,
        responses=_ANSWERS,
    )  # fmt: skip
    messages = routes.post(
        MESSAGES, tags=["messages"], summary="Anthropic's messages, streamed or whole", openapi_extra=body,
        responses=_ANSWERS,
    )  # fmt: skip
    count = routes.post(
        COUNT_TOKENS, tags=["messages"], summary="How many tokens a request has", openapi_extra=body,
        responses=_COUNTED,
    )  # fmt: skip
    for describe in (chat, messages, count):
        describe(_answered_by_the_edge)
    return routes


async def _answered_by_the_edge() -> Response:
    """The edge answers these. Only a path with a line break at its end gets here: the framework's patterns take it."""
    raise HTTPException(404)
