"""The table of categories, and what may be shown."""

import pytest

from gateway.core.errors import CONSEQUENCES, MAX_MESSAGE, Category, Failure, ProviderError, clean

# pool.md section 2: category -> status, type, code, same endpoint again, elsewhere, x-should-retry.
TABLE = {
    "bad_request": (400, "invalid_request_error", "bad_request", False, False, False),
    "context_length": (400, "invalid_request_error", "context_length_exceeded", False, False, False),
    "content_filter": (400, "invalid_request_error", "content_filter", False, False, False),
    "provider_auth": (502, "server_error", "provider_auth", False, True, False),
    "provider_permission": (502, "server_error", "provider_permission", False, True, False),
    "model_not_found": (502, "server_error", "model_not_found", False, True, False),
    "too_large": (413, "invalid_request_error", "request_too_large", False, False, False),
    "rate_limited": (429, "rate_limit_error", "rate_limit_exceeded", False, True, True),
    "quota": (429, "insufficient_quota", "insufficient_quota", False, True, False),
    "overloaded": (503, "server_error", "overloaded", True, True, True),
    "upstream_5xx": (502, "server_error", "upstream_error", True, True, True),
    "connect": (502, "server_error", "connect", True, True, True),
    "stale_connection": (502, "server_error", "stale_connection", True, True, True),
    "timeout_first_token": (504, "server_error", "timeout_first_token", False, True, True),
    "timeout_idle": (504, "server_error", "timeout_idle", True, True, True),
    "stream_broken": (502, "server_error", "stream_broken", True, True, True),
    "stream_error": (502, "server_error", "stream_error", True, True, True),
    "protocol": (502, "server_error", "protocol", False, True, True),
    "empty": (502, "server_error", "empty", True, True, True),
    "pool_exhausted": (503, "server_error", "pool_exhausted", False, True, True),
    "no_endpoint": (503, "server_error", "no_endpoint", False, False, True),
    "budget": (429, "insufficient_quota", "budget_exceeded", False, False, False),
}


# pool.md section 2, column breaker; what is not named says nothing of the endpoint.
BREAKER = {
    "rate_limited": "ratio", "empty": "ratio", "quota": "probe", "model_not_found": "opens",
    **dict.fromkeys(
        ("overloaded", "upstream_5xx", "connect", "timeout_first_token", "timeout_idle", "stream_broken",
         "stream_error", "protocol"), "counts",
    ),
}  # fmt: skip


def test_every_category_has_consequences() -> None:
    """No failure is without an answer for the client."""
    assert set(CONSEQUENCES) == set(Category)


@pytest.mark.parametrize("name", TABLE)
def test_consequence(name: str) -> None:
    """The row is that of the specification."""
    row = CONSEQUENCES[Category(name)]
    assert (row.status, row.type, row.code, row.same, row.elsewhere, row.retry) == TABLE[name]


@pytest.mark.parametrize("category", Category)
def test_breaker(category: Category) -> None:
    """Only what is the endpoint's fault counts against it."""
    assert CONSEQUENCES[category].breaker == BREAKER.get(category, "ignores")


@pytest.mark.parametrize("category", Category)
def test_blame(category: Category) -> None:
    """A client is never told to mend its own credentials for the provider's sake, nor to repeat what is its fault."""
    row = CONSEQUENCES[category]
    assert row.status not in {401, 403}
    if row.whose == "caller":
        assert not row.retry
        assert row.status < 500


def test_what_the_caller_named() -> None:
    """A model that the caller named and nobody has is a 404 that is the caller's to mend."""
    failure = Failure(Category.MODEL_NOT_FOUND, "no such model", status=404)
    row = failure.consequence
    assert (row.status, row.type, row.code, row.whose) == (404, "invalid_request_error", "model_not_found", "caller")


def test_messages_are_clean() -> None:
    """What a provider said is cut at 512 characters and freed of control characters, in every text that is shown."""
    dirty = "a\x00b\x1b[31m\r\nc\u2028d\x85" + "x" * 2000
    error = ProviderError(Category.BAD_REQUEST, dirty, param=dirty, provider_code=dirty)
    for text in (error.failure.message, error.failure.param, error.failure.provider_code):
        assert text == clean(dirty)
        assert len(text) == MAX_MESSAGE
        assert text.startswith("a b [31m  c d x")
