"""Errors in OpenAI's shape."""

import pytest

from gateway.core.errors import Category, Failure, RequestError, StreamRefused
from gateway.dialects.openai_errors import failure_body, request_body, retry_headers, stream_cancelled


def test_request_error() -> None:
    """A request that cannot be served is answered with message, type, parameter and code."""
    body = request_body(RequestError("no", param="model", code="model_not_found", status=404))
    error = {"message": "no", "type": "invalid_request_error", "param": "model", "code": "model_not_found"}
    assert body == {"error": error}


def test_refused_control() -> None:
    """A refused control call says more beside the error, and shows the stream if it is the caller's."""
    body = request_body(StreamRefused("no", status=409, code="cursor_ahead", stream={"id": "x"}, last_seq=7))
    assert body["error"]["last_seq"] == 7
    assert body["stream"] == {"id": "x"}


def test_failure() -> None:
    """A failed answer says what failed, whose fault it is, and what was tried."""
    error = failure_body(Failure(Category.OVERLOADED, "busy", attempts=("a: overloaded",)))["error"]
    assert error == {
        "message": "busy",
        "type": "server_error",
        "param": None,
        "code": "overloaded",
        "whose": "provider",
        "attempts": ["a: overloaded"],
    }
    assert failure_body(None)["error"]["code"] == "internal_error"


def test_missing_model_that_the_caller_named() -> None:
    """A 404 for what the caller named is the caller's error, in type as in status."""
    error = failure_body(Failure(Category.MODEL_NOT_FOUND, "no", status=404))["error"]
    assert (error["type"], error["whose"]) == ("invalid_request_error", "caller")


def test_cancelled() -> None:
    """A cancelled stream says by what."""
    error = stream_cancelled("disconnect")["error"]
    assert error["code"] == "stream_cancelled"
    assert "disconnect" in error["message"]
    assert "control" in stream_cancelled(None)["error"]["message"]


@pytest.mark.parametrize(
    ("retry", "wait", "headers"),
    [
        (True, None, {b"x-should-retry": b"true"}),
        (True, 0.2, {b"x-should-retry": b"true", b"retry-after": b"1"}),
        (True, 300.0, {b"x-should-retry": b"true", b"retry-after": b"60"}),
        (False, 5.0, {b"x-should-retry": b"false"}),
    ],
)
def test_retry_headers(retry: bool, wait: float | None, headers: dict[bytes, bytes]) -> None:
    """SDKs are told whether to retry, and never to wait longer than they would."""
    assert dict(retry_headers(retry=retry, retry_after_s=wait)) == headers
