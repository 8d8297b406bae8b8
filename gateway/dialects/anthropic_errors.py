"""Errors in Anthropic's shape: `{"type": "error", "error": {type, message}}`, and the statuses that go with them. Pure.

Beside Anthropic's own two members an error says its stable `code`, `param`, whose error it is, and the attempts: SDKs
keep what they do not know in the exception's body.
"""

from __future__ import annotations

from typing import Any

from gateway.core.errors import Category, Failure, RequestError, StreamRefused, messages_type


def request_body(error: RequestError) -> dict[str, Any]:
    """The body of a request that cannot be served."""
    inner: dict[str, Any] = {"type": messages_type(error.status), "message": error.message, "code": error.code}
    if error.param is not None:
        inner["param"] = error.param
    body: dict[str, Any] = {"type": "error", "error": inner}
    if isinstance(error, StreamRefused):
        inner.update(error.extra)
        if error.stream is not None:
            body["stream"] = error.stream
    return body


def failure_status(failure: Failure) -> int:
    """The status of a plain answer with this failure."""
    return failure.consequence.messages_answer[0]


def failure_body(failure: Failure | None) -> dict[str, Any]:
    """The body of a failed answer, in-band or not."""
    failure = failure or Failure(Category.INTERNAL, "the stream failed")
    row = failure.consequence
    inner: dict[str, Any] = {
        "type": row.messages_answer[1],
        "message": failure.message,
        "code": row.code,
        "whose": row.whose,
    }
    if failure.param is not None:
        inner["param"] = failure.param
    if failure.provider_code is not None:
        inner["provider_code"] = failure.provider_code
    if failure.attempts:
        inner["attempts"] = list(failure.attempts)
    return {"type": "error", "error": inner}


def stream_cancelled(reason: str | None) -> dict[str, Any]:
    """The body of an answer whose stream was cancelled."""
    return failure_body(Failure(Category.CANCELLED, f"the stream was cancelled ({reason or 'control'})"))
