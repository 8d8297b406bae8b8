"""What the web framework raises, in the shape that the caller's dialect has for errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import compile_path

from gateway.api.paths import ANTHROPIC_VERSION, REQUEST_ID, dialect_of, instead_of
from gateway.core.errors import RequestError
from gateway.dialects.openai_errors import retry_headers
from gateway.streams.journal import JournalUnavailable

INTERNAL = "internal error; see the gateway's log"

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request


def install(app: FastAPI) -> None:
    """Answer the framework's own errors and ours alike."""
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(RequestError, _request)
    app.add_exception_handler(JournalUnavailable, _journal)
    app.add_exception_handler(Exception, _bug)


def journal_away() -> RequestError:
    """The refusal of a request that needs the journal while it cannot be reached."""
    return RequestError(
        "the journal cannot be reached; try again", status=503, code="journal_unavailable", type_="server_error",
        headers={"retry-after": "1"},
    )  # fmt: skip


def response(request: Request, error: RequestError) -> Response:
    """An error as a framework response."""
    headers = {name.decode(): value.decode() for name, value in retry_headers(retry=error.status in {429, 503})}
    dialect = dialect_of(request.url.path, versioned=ANTHROPIC_VERSION in request.headers)
    body = dialect.numbered(dialect.errors.request_body(error), request.scope.get(REQUEST_ID, ""))
    return Response(
        msgspec.json.encode(body),
        error.status,
        {**headers, **error.headers},
        media_type="application/json",
    )


async def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    where = f"{request.method} {request.url.path}"
    match status:
        case 404:
            hint = instead_of(request.url.path)
            message, code = f"{where:.256} is not served here" + (f"; {hint}" if hint else ""), "not_found"
        case 405:
            headers["Allow"] = allow = _allowed(request)
            message, code = f"{where:.256} is not allowed; allowed: {allow}", "method_not_allowed"
        case _:
            message, code = f"{where:.256}: {status}", "http_error"
    return response(request, RequestError(message, status=status, code=code, headers=headers))


def _allowed(request: Request) -> str:
    """All methods of a path; the framework names those of its first route only."""
    path: str = request.scope["path"]
    meant = (route for route in iter_route_contexts(request.app.routes) if compile_path(str(route.path))[0].match(path))
    return ", ".join(sorted({method for route in meant for method in route.methods or ()}))


async def _validation(request: Request, error: Exception) -> Response:
    problems: list[dict[str, Any]] = list(error.errors()) if isinstance(error, RequestValidationError) else []
    first: dict[str, Any] = problems[0] if problems else {"loc": (), "msg": "invalid request"}
    param = ".".join(str(part) for part in first["loc"][1:]) or None
    message = f"{param or 'request'}: {first['msg']}"
    return response(request, RequestError(message, code="invalid_value", param=param))


async def _journal(request: Request, _: Exception) -> Response:
    return response(request, journal_away())


async def _request(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestError):
        raise error
    return response(request, error)


async def _bug(request: Request, _: Exception) -> Response:
    """The framework raises the error again behind this answer; the edge logs it."""
    return response(request, RequestError(INTERNAL, status=500, code="internal_error", type_="server_error"))
