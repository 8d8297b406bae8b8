"""What OpenAI's and compatible hosts' error bodies mean. Pure.

Shapes seen in recorded traffic: `{"error": {message, type, code, param}}` (OpenAI and most), `{"error": "text"}`,
`{"object": "error", message, type, code}` (vLLM, Mistral), `{"detail": ...}` (FastAPI hosts), `[{...}]` (Gemini).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import msgspec

from gateway.core.errors import Category, ProviderError
from gateway.upstream.classify import by_status
from gateway.upstream.retry_after import retry_after_s

if TYPE_CHECKING:
    from collections.abc import Mapping

_CODES: dict[str, Category] = {
    "context_length_exceeded": Category.CONTEXT_LENGTH,
    "string_above_max_length": Category.CONTEXT_LENGTH,
    "content_filter": Category.CONTENT_FILTER,
    "content_policy_violation": Category.CONTENT_FILTER,
    "responsibleaipolicyviolation": Category.CONTENT_FILTER,
    "insufficient_quota": Category.QUOTA,
    "billing_hard_limit_reached": Category.QUOTA,
    "billing_not_active": Category.QUOTA,
    "credit_balance_too_low": Category.QUOTA,
    "spend_limit_reached": Category.QUOTA,
    "rate_limit_exceeded": Category.RATE_LIMITED,
    "rate_limit_error": Category.RATE_LIMITED,
    "slow_down": Category.OVERLOADED,
    "overloaded_error": Category.OVERLOADED,
    "engine_overloaded_error": Category.OVERLOADED,
    "model_not_found": Category.MODEL_NOT_FOUND,
    "invalid_api_key": Category.PROVIDER_AUTH,
    "authentication_error": Category.PROVIDER_AUTH,
    "exceed_context_size_error": Category.CONTEXT_LENGTH,
}
# Say less than a status does, so they count in a stream only.
_CODES_IN_STREAM = _CODES | {"server_error": Category.UPSTREAM_5XX, "internal_error": Category.UPSTREAM_5XX}
# Vendors that say it in words only; the first match wins.
_WORDS: tuple[tuple[re.Pattern[str], Category], ...] = (
    (
        re.compile(r"maximum context length|context window|prompt is too long|too many (input )?tokens", re.IGNORECASE),
        Category.CONTEXT_LENGTH,
    ),
    (
        re.compile(r"exceeded your current quota|credit balance|insufficient (credits|balance|funds)", re.IGNORECASE),
        Category.QUOTA,
    ),
    (re.compile(r"(incorrect|invalid) api key", re.IGNORECASE), Category.PROVIDER_AUTH),
)


def from_answer(status: int, headers: Mapping[str, str], body: bytes, now: float) -> ProviderError:
    """The error of an answer with an error status. `now` is Unix time, for Retry-After dates."""
    error = _error_member(body)
    message, codes = _read(error)
    category = _by_code(codes) if status not in {401, 403, 413} else None
    category = category or _by_words(status, message) or by_status(status)
    return ProviderError(
        category,
        message or f"the provider answered {status}",
        retry_after_s=retry_after_s(headers, now),
        param=_text(error.get("param")),
        provider_code=next(iter(codes), None),
    )


def from_stream(error: Any) -> ProviderError:
    """The error of an in-stream error event: by its type, because the status is 200 there."""
    members = cast("dict[str, Any]", error) if isinstance(error, dict) else {"message": error}
    message, codes = _read(members)
    category = _by_code(codes, _CODES_IN_STREAM) or _by_words(400, message)
    if category is None:
        category = _by_number(members.get("code")) or _by_number(members.get("status"))
    return ProviderError(
        category or Category.STREAM_ERROR,
        message or "the provider reported an error in the stream",
        provider_code=next(iter(codes), None),
    )


def in_success(body: bytes) -> ProviderError | None:
    """The error that came as JSON with a status of success; None if the body is no error."""
    error = _error_member(body)
    return from_stream(error) if any(_read(error)) else None


def _error_member(body: bytes) -> dict[str, Any]:
    """The object that describes the error, whatever surrounds it; {} for anything else."""
    try:
        found: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    if isinstance(found, list) and found:
        found = found[0]
    if not isinstance(found, dict):
        return {}
    members = cast("dict[str, Any]", found)
    error: Any = members.get("error", members)
    if isinstance(error, dict):
        return cast("dict[str, Any]", error)
    return {"message": error, "code": members.get("code")}


def _read(error: dict[str, Any]) -> tuple[str, list[str]]:
    message = _text(error.get("message")) or _text(error.get("detail")) or ""
    inner = error.get("innererror")
    inner_code = cast("dict[str, Any]", inner).get("code") if isinstance(inner, dict) else None
    codes = [text for value in (error.get("code"), error.get("type"), inner_code) if (text := _text(value))]
    return message, codes


def _by_code(codes: list[str], table: dict[str, Category] = _CODES) -> Category | None:
    return next((category for code in codes if (category := table.get(code.lower())) is not None), None)


def _by_number(code: Any) -> Category | None:
    """The category of an HTTP status that stands in the body, as a number or in digits."""
    found = re.fullmatch(r"[45]\d\d", code if isinstance(code, str) else str(code) if type(code) is int else "")
    return by_status(int(found[0])) if found else None


def _by_words(status: int, message: str) -> Category | None:
    if status not in {400, 402, 404, 413, 422, 429}:
        return None
    return next((category for pattern, category in _WORDS if pattern.search(message)), None)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
