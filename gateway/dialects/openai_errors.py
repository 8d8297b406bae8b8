"""Errors in OpenAI's shape: `{"error": {message, type, param, code}}`, and the headers that the SDKs obey. Pure."""

from __future__ import annotations

from math import ceil
from typing import Any

from gateway.core.errors import Category, Failure, RequestError, StreamRefused

MAX_RETRY_AFTER_S = 60
"""anthropic-python sleeps for any Retry-After, openai-python gives up above 120 s: never ask for more than this."""


def request_body(error: RequestError) -> dict[str, Any]:
    """The body of a request that cannot be served."""
    body: dict[str, Any] = {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    }
    if isinstance(error, StreamRefused):
        body["error"].update(error.extra)
        if error.stream is not None:
            body["stream"] = error.stream
    return body


def failure_status(failure: Failure) -> int:
    """The status of a plain answer with this failure."""
    return failure.consequence.status


def failure_body(failure: Failure | None) -> dict[str, Any]:
    """The body of a failed answer, in-band or not; says whose error it is and lists the attempts."""
    failure = failure or Failure(Category.INTERNAL, "the stream failed")
    consequence = failure.consequence
    error: dict[str, Any] = {
        "message": failure.message,
        "type": consequence.type,
        "param": failure.param,
        "code": consequence.code,
        "whose": consequence.whose,
    }
    if failure.provider_code is not None:
        error["provider_code"] = failure.provider_code
    if failure.attempts:
        error["attempts"] = list(failure.attempts)
    return {"error": error}


def stream_cancelled(reason: str | None) -> dict[str, Any]:
    """The body of an answer whose stream was cancelled."""
    failure = Failure(Category.CANCELLED, f"the stream was cancelled ({reason or 'control'})")
    return failure_body(failure)


def retry_headers(*, retry: bool, retry_after_s: float | None = None) -> list[tuple[bytes, bytes]]:
    """`x-should-retry`, which the SDKs obey, and a capped Retry-After."""
    headers = [(b"x-should-retry", b"true" if retry else b"false")]
    if retry and retry_after_s is not None:
        headers.append((b"retry-after", str(min(ceil(retry_after_s), MAX_RETRY_AFTER_S)).encode()))
    return headers
