"""The OpenAPI document: hot routes, which the edge answers before the framework sees them; keys; errors.

What a route asks of its callers is taken from its declared access, so that the document says what the gateway does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, HTTPException, Response

from gateway.api.auth import INFER, declared
from gateway.api.paths import CHAT, COUNT_TOKENS, MESSAGES
from gateway.api.stream_tokens import PARAMETER, OrToken

if TYPE_CHECKING:
    from fastapi import FastAPI

    from gateway.api.auth import Access

_SCHEMES: dict[str, Any] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    "api-key": {"type": "apiKey", "in": "header", "name": "api-key"},
    "stream_token": {"type": "apiKey", "in": "query", "name": PARAMETER},
}
_KEYS: list[dict[str, list[str]]] = [{"bearer": []}, {"x-api-key": []}, {"api-key": []}]
_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type"],
            "properties": {"message": {"type": "string"}, "type": {"type": "string"}},
        },
    },
}
_FAILED: dict[str, Any] = {
    "description": "An error, in the shape of the caller's dialect",
    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
}

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


def _object(required: str, **optional: Any) -> dict[str, Any]:
    """An object of these members, of which those that a string names by type, as `id:string seq:integer`, are there."""
    named = dict(each.split(":") for each in required.split())
    members = {name: {"type": type_} for name, type_ in named.items()}
    return {"type": "object", "required": list(named), "properties": {**members, **optional}}


_SCHEMAS: dict[str, Any] = {
    "Error": _ERROR,
    "Stream": _object(
        "id:string object:string state:string gen:integer seq:integer model:string dialect:string created:integer",
        usage={"type": "object"}, metrics={"type": "object"}, attempts={"type": "array", "items": {"type": "string"}},
    ),
    "Streams": _object("object:string has_more:boolean data:array"),
    "Control": _object("changed:boolean seq:integer", stream={"$ref": "#/components/schemas/Stream"},
                       upstream={"enum": ["closed", "closing", "unknown", "none"]}),
    "Text": _object("id:string object:string choice:integer text:string seq:integer"),
    "Token": _object("object:string stream:string token:string expires_at:integer url:string"),
    "ControlBody": {"type": "object", "additionalProperties": False, "properties": {
        "reason": {"type": "string", "maxLength": 200}, "wait_s": {"type": "number", "minimum": 0, "maximum": 10}}},
}  # fmt: skip
_ONE = "/v1/streams/{stream_id}"
_SAID: dict[tuple[str, str], tuple[str, str | None]] = {
    ("get", "/metrics"): ("text/plain", None),
    ("get", _ONE + "/events"): ("text/event-stream", None),
    ("get", "/v1/streams"): ("application/json", "Streams"),
    ("get", _ONE): ("application/json", "Stream"),
    ("get", _ONE + "/text"): ("application/json", "Text"),
    ("post", _ONE + "/token"): ("application/json", "Token"),
    **{("post", f"{_ONE}/{op}"): ("application/json", "Control") for op in ("pause", "resume", "cancel")},
}
"""What a route answers with 200: the type of the content, and its schema."""


def _says(operation: dict[str, Any], content_type: str, schema: str | None) -> None:
    answers = {content_type: {} if schema is None else {"schema": _reference(schema)}}
    operation["responses"]["200"] = {"description": "Done", "content": answers}
    if schema == "Control":
        body = {"application/json": {"schema": _reference("ControlBody")}}
        operation["requestBody"] = {"required": False, "content": body}
        operation["responses"]["202"] = {"description": "Decided; the upstream is being closed", "content": answers}


def _reference(schema: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{schema}"}


def complete(app: FastAPI) -> None:
    """Let the app's document say which routes want a key, and what errors look like."""
    of_framework = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            _complete(of_framework(), {(method.lower(), path): access
                                       for (method, path), access in declared(app.routes).items()})  # fmt: skip
        return of_framework()

    app.openapi = document  # type: ignore[method-assign]


def _complete(found: dict[str, Any], accesses: dict[tuple[str, str], Access | None]) -> None:
    components = found.setdefault("components", {})
    components["securitySchemes"] = _SCHEMES
    components["schemas"] = _SCHEMAS  # the framework's own of bad parameters are not what is answered
    for (method, path), access in accesses.items():
        operation = found["paths"].get(path.replace(":path}", "}"), {}).get(method)
        if operation is None:
            continue
        operation["responses"].pop("422", None)
        if (method, path) in _SAID:
            _says(operation, *_SAID[method, path])
        operation["responses"]["default"] = _FAILED
        if access is not None and access.scopes:
            operation["security"] = [*_KEYS, {"stream_token": []}] if isinstance(access, OrToken) else _KEYS
