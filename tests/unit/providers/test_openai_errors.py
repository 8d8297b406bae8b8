"""Error bodies in the vendors' shapes, written by hand from their documentation, and what they mean."""

import json
from typing import Any

import pytest

from gateway.core.errors import Category
from gateway.providers._openai_errors import from_answer, from_stream, in_success

C = Category


def openai(message: str, type_: str | None = None, code: Any = None, param: str | None = None) -> dict[str, Any]:
    """The shape of OpenAI and most others."""
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}


def flat(message: Any, type_: str = "invalid_request_error", code: Any = None) -> dict[str, Any]:
    """The shape of Mistral and older vLLM."""
    return {"object": "error", "message": message, "type": type_, "param": None, "code": code}


REQ = "invalid_request_error"
CORPUS: dict[str, tuple[int, Any, Category]] = {
    "openai bad parameter": (400, openai("Unknown parameter: 'foo'.", REQ, "unknown_parameter", "foo"), C.BAD_REQUEST),
    "openai context": (
        400,
        openai("This model's maximum context length is 8192 tokens.", REQ, "context_length_exceeded", "messages"),
        C.CONTEXT_LENGTH,
    ),
    "openai long string": (400, openai("Invalid 'input': too long.", REQ, "string_above_max_length"), C.CONTEXT_LENGTH),
    "openai policy": (400, openai("Your request was rejected.", REQ, "content_policy_violation"), C.CONTENT_FILTER),
    "openai key": (401, openai("Incorrect API key provided: sk-a***b.", REQ, "invalid_api_key"), C.PROVIDER_AUTH),
    "openai region": (
        403,
        openai("Country not supported.", "request_forbidden", "unsupported_country"),
        C.PROVIDER_PERMISSION,
    ),
    "openai model": (404, openai("The model `x` does not exist.", REQ, "model_not_found"), C.MODEL_NOT_FOUND),
    "openai rate": (429, openai("Rate limit reached for requests", "requests", "rate_limit_exceeded"), C.RATE_LIMITED),
    "openai tokens": (
        429,
        openai("Rate limit reached on tokens per min", "tokens", "rate_limit_exceeded"),
        C.RATE_LIMITED,
    ),
    "openai quota": (
        429,
        openai("You exceeded your current quota.", "insufficient_quota", "insufficient_quota"),
        C.QUOTA,
    ),
    "openai quota in words": (429, openai("You exceeded your current quota, check your plan."), C.QUOTA),
    "openai billing": (429, openai("Billing hard limit.", "billing", "billing_hard_limit_reached"), C.QUOTA),
    "openai credit": (429, openai("Your credit balance is too low."), C.QUOTA),
    "openai slow down": (503, openai("Slow down.", "server_error", "slow_down"), C.OVERLOADED),
    "openai slow down as 429": (429, openai("Slow down.", "requests", "slow_down"), C.OVERLOADED),
    "openai overloaded": (503, openai("The engine is currently overloaded.", "server_error"), C.OVERLOADED),
    "openai server": (500, openai("The server had an error.", "server_error"), C.UPSTREAM_5XX),
    "openai gateway": (502, openai("Bad gateway.", "internal_error"), C.UPSTREAM_5XX),
    "azure filter": (
        400,
        {
            "error": {
                "message": "filtered",
                "code": "x",
                "status": 400,
                "innererror": {"code": "ResponsibleAIPolicyViolation"},
            }
        },
        C.CONTENT_FILTER,
    ),
    "azure filter by code": (400, openai("The response was filtered.", None, "content_filter"), C.CONTENT_FILTER),
    "azure rate": (
        429,
        openai("Requests have exceeded the call rate limit. Retry after 6 seconds.", code="429"),
        C.RATE_LIMITED,
    ),
    "azure deployment": (
        404,
        openai("The API deployment does not exist.", code="DeploymentNotFound"),
        C.MODEL_NOT_FOUND,
    ),
    "azure gateway key": (
        401,
        {"statusCode": 401, "message": "Access denied due to invalid subscription key."},
        C.PROVIDER_AUTH,
    ),
    "mistral key": (401, {"detail": "Unauthorized"}, C.PROVIDER_AUTH),
    "mistral context": (
        400,
        flat("Prompt contains 99 tokens, too large for model with 32 maximum context length"),
        C.CONTEXT_LENGTH,
    ),
    "mistral validation": (422, flat({"detail": [{"type": "missing", "msg": "Field required"}]}), C.BAD_REQUEST),
    "mistral capacity": (429, flat("Service tier capacity exceeded for this model."), C.OVERLOADED),
    "fastapi validation": (422, {"detail": [{"loc": ["body", "model"], "msg": "field required"}]}, C.BAD_REQUEST),
    "vllm model": (404, flat("The model `x` does not exist.", "NotFoundError", 404), C.MODEL_NOT_FOUND),
    "vllm context": (
        400,
        openai("This model's maximum context length is 4096 tokens.", "BadRequestError", 400),
        C.CONTEXT_LENGTH,
    ),
    "llama.cpp context": (
        400,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available size",
                "type": "exceed_context_size_error",
            }
        },
        C.CONTEXT_LENGTH,
    ),
    "llama.cpp loading": (503, openai("Loading model", "unavailable_error", 503), C.OVERLOADED),
    "deepseek balance": (402, openai("Insufficient Balance", "unknown_error", REQ), C.QUOTA),
    "deepseek key": (401, openai("Authentication Fails (no such user)", "authentication_error", REQ), C.PROVIDER_AUTH),
    "groq large": (413, openai("Request too large: tokens per minute", "tokens", "rate_limit_exceeded"), C.TOO_LARGE),
    "groq flex": (
        498,
        openai("Flex tier capacity exceeded", "internal_server_error", "capacity_exceeded"),
        C.OVERLOADED,
    ),
    "groq tool": (400, openai("Failed to call a function.", REQ, "tool_use_failed"), C.BAD_REQUEST),
    "openrouter credits": (402, {"error": {"message": "This request requires more credits", "code": 402}}, C.QUOTA),
    "openrouter context": (
        400,
        {"error": {"message": "This endpoint's maximum context length is 9 tokens.", "code": 400}},
        C.CONTEXT_LENGTH,
    ),
    "openrouter nobody": (404, {"error": {"message": "No endpoints found for x", "code": 404}}, C.MODEL_NOT_FOUND),
    "openrouter provider": (
        502,
        {"error": {"message": "Provider returned error", "code": 502, "metadata": {}}},
        C.UPSTREAM_5XX,
    ),
    "openrouter timeout": (408, {"error": {"message": "Timed out", "code": 408}}, C.UPSTREAM_5XX),
    "xai key": (400, {"code": "invalid-argument", "error": "Incorrect API key provided: xa***"}, C.PROVIDER_AUTH),
    "xai argument": (400, {"code": "invalid-argument", "error": "Argument not supported: stop"}, C.BAD_REQUEST),
    "gemini list": (
        400,
        [{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT"}}],
        C.PROVIDER_AUTH,
    ),
    "gemini quota": (429, [{"error": {"code": 429, "message": "You exceeded your current quota"}}], C.QUOTA),
    "anthropic style": (
        529,
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        C.OVERLOADED,
    ),
    "anthropic style rate": (
        429,
        {"type": "error", "error": {"type": "rate_limit_error", "message": "x"}},
        C.RATE_LIMITED,
    ),
    "text": (400, {"error": "prompt is too long: 9 tokens > 8 maximum"}, C.CONTEXT_LENGTH),
    "text too many": (400, {"error": "too many input tokens"}, C.CONTEXT_LENGTH),
    "null": (500, {"error": None}, C.UPSTREAM_5XX),
    "number": (503, 7, C.OVERLOADED),
    "empty list": (500, [], C.UPSTREAM_5XX),
    "code without an error": (429, {"code": "insufficient_quota"}, C.QUOTA),
    "quota on a 5xx": (500, openai("insufficient funds to debug this", "server_error"), C.UPSTREAM_5XX),
}


@pytest.mark.parametrize("name", CORPUS)
def test_corpus(name: str) -> None:
    """The body means what the vendor means by it."""
    status, body, category = CORPUS[name]
    error = from_answer(status, {}, json.dumps(body).encode(), 0)
    assert error.category is category
    assert error.failure.message


@pytest.mark.parametrize(
    ("status", "body", "category"),
    [
        (413, b"<html><head><title>413 Request Entity Too Large</title></head></html>", C.TOO_LARGE),
        (502, b"<html>nginx</html>", C.UPSTREAM_5XX),
        (503, b"upstream connect error", C.OVERLOADED),
        (401, b"", C.PROVIDER_AUTH),
        (429, b'{"error": {"message": "cut of', C.RATE_LIMITED),
        (500, b"\xff\xfe\x00", C.UPSTREAM_5XX),
    ],
)
def test_no_json(status: int, body: bytes, category: Category) -> None:
    """A body that is no JSON is never shown; its status says what it means."""
    error = from_answer(status, {}, body, 0)
    assert (error.category, error.failure.message) == (category, f"the provider answered {status}")


def test_what_is_kept() -> None:
    """Message, parameter, code and wait reach the failure, nothing else does."""
    body = {"error": {"message": "no", "param": "top_p", "code": "c", "type": "t", "secret": "s3cr3t"}}
    failure = from_answer(429, {"retry-after": "3"}, json.dumps(body).encode(), 0).failure
    assert (failure.message, failure.param, failure.provider_code, failure.retry_after_s) == ("no", "top_p", "c", 3)
    assert "s3cr3t" not in repr(failure)


@pytest.mark.parametrize(
    ("error", "category"),
    [
        ({"message": "x", "type": "overloaded_error"}, C.OVERLOADED),
        ({"message": "x", "type": "server_error"}, C.UPSTREAM_5XX),
        ({"message": "x", "code": "rate_limit_exceeded"}, C.RATE_LIMITED),
        ({"message": "x", "code": "insufficient_quota"}, C.QUOTA),
        ({"message": "x", "code": "context_length_exceeded"}, C.CONTEXT_LENGTH),
        ({"message": "maximum context length is 5"}, C.CONTEXT_LENGTH),
        ({"message": "x", "code": 502}, C.UPSTREAM_5XX),
        ({"message": "x", "code": "429"}, C.RATE_LIMITED),
        ({"message": "x", "status": 503}, C.OVERLOADED),
        ({"message": "x", "code": 200}, C.STREAM_ERROR),
        ({"message": "x", "code": 7, "status": 529}, C.OVERLOADED),
        ({"message": "x", "code": "tool_use_failed"}, C.STREAM_ERROR),
        ({"message": "x"}, C.STREAM_ERROR),
        ("it broke", C.STREAM_ERROR),
        (None, C.STREAM_ERROR),
        ([], C.STREAM_ERROR),
    ],
)
def test_in_stream(error: Any, category: Category) -> None:
    """An error inside a stream is classified by its type, its words or the status it names."""
    assert from_stream(error).category is category


@pytest.mark.parametrize(
    ("body", "category"),
    [
        ({"error": {"message": "busy", "code": 503}}, C.OVERLOADED),
        ({"error": {"message": "odd"}}, C.STREAM_ERROR),
        ({"object": "error", "message": "x", "type": "overloaded_error"}, C.OVERLOADED),
        ({"id": "x", "object": "chat.completion", "choices": []}, None),
        ({}, None),
        ([], None),
    ],
)
def test_success_that_is_none(body: Any, category: Category | None) -> None:
    """JSON with status 200 is an error if it says so; a whole answer is not."""
    error = in_success(json.dumps(body).encode())
    assert (None if error is None else error.category) is category
