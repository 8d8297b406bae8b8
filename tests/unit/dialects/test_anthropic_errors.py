"""Errors in Anthropic's shape."""

import pytest

from gateway.core.errors import CONSEQUENCES, Category, Failure, RequestError, StreamRefused
from gateway.dialects import openai_errors
from gateway.dialects.anthropic_errors import failure_body, failure_status, request_body, stream_cancelled

# platform.claude.com/docs/en/api/errors: the statuses that have a type of their own.
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "invalid_request_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
# pool.md section 2, where it differs from the status and type of OpenAI's shape.
OWN = {
    "quota": (402, "billing_error"), "budget": (402, "billing_error"), "overloaded": (529, "overloaded_error"),
    "gateway_overloaded": (529, "overloaded_error"),
}  # fmt: skip


@pytest.mark.parametrize("status", TYPES)
def test_request_error(status: int) -> None:
    """A request that cannot be served is answered with the type that Anthropic has for the status."""
    body = request_body(RequestError("no", param="messages[0].role", code="invalid_value", status=status))
    error = {"type": TYPES[status], "message": "no", "code": "invalid_value", "param": "messages[0].role"}
    assert body == {"type": "error", "error": error}


def test_refused_control() -> None:
    """A refused control call says more beside the error, and shows the stream if it is the caller's."""
    body = request_body(StreamRefused("no", status=409, code="cursor_ahead", stream={"id": "x"}, last_seq=7))
    assert body["error"]["last_seq"] == 7
    assert body["stream"] == {"id": "x"}


@pytest.mark.parametrize("category", Category)
def test_status_and_type(category: Category) -> None:
    """Each category has the status of OpenAI's shape and the type that belongs to it, but for money and overload."""
    failure = Failure(category, "no")
    status = CONSEQUENCES[category].status
    wanted = OWN.get(category, (status, TYPES[status]))
    assert (failure_status(failure), failure_body(failure)["error"]["type"]) == wanted
    assert openai_errors.failure_status(failure) == status


def test_failure() -> None:
    """A failed answer says what failed, in the provider's own word too, whose fault it is, and what was tried."""
    failure = Failure(
        Category.QUOTA, "no money", param="model", attempts=("a: quota",), provider_code="enforced_spend_limit_reached"
    )
    assert failure_body(failure) == {
        "type": "error",
        "error": {
            "type": "billing_error",
            "message": "no money",
            "code": "insufficient_quota",
            "whose": "provider",
            "param": "model",
            "provider_code": "enforced_spend_limit_reached",
            "attempts": ["a: quota"],
        },
    }
    assert failure_body(None)["error"]["code"] == "internal_error"


def test_missing_model_that_the_caller_named() -> None:
    """A 404 for what the caller named is the caller's error, in type as in status."""
    failure = Failure(Category.MODEL_NOT_FOUND, "no", status=404)
    error = failure_body(failure)["error"]
    assert (failure_status(failure), error["type"], error["whose"]) == (404, "not_found_error", "caller")


def test_cancelled() -> None:
    """A cancelled stream says by what."""
    error = stream_cancelled("disconnect")["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "stream_cancelled")
    assert "disconnect" in error["message"]
    assert "control" in stream_cancelled(None)["error"]["message"]
