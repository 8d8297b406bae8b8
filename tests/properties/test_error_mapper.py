"""Error answers of any kind become a ProviderError that is safe to show."""

import json
import time
import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import MAX_MESSAGE, Category, ProviderError
from gateway.core.events import End, State, decode, encode
from gateway.dialects import anthropic_errors, openai_errors
from gateway.providers import _anthropic_errors, _ollama_errors, _openai_errors
from gateway.upstream.classify import by_status, is_known
from gateway.upstream.retry_after import CAP_S, retry_after_s

_TEXTS = st.text(max_size=20) | st.sampled_from(
    [
        "rate_limit_error",
        "server_error",
        "content_filter",
        "x" * 2000,
        "a\x00\x1b[31m\r\n\u2028\x85b",
        "9" * 5000,
        "429",
        "²",
    ]
)
_MEMBERS = [
    "error", "message", "type", "code", "param", "detail", "details", "innererror", "status", "status_code", "object",
    "metadata", "raw", "reasons", "limit_source", "error_code", "error_type", "reason", "violations", "quotaId",
    "retryDelay",
]  # fmt: skip
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | _TEXTS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(_MEMBERS),
            inner,
        )
    ),
    max_leaves=8,
)
_BODIES = st.binary(max_size=60) | _ANY.map(json.dumps).map(str.encode)
_HEADERS = st.dictionaries(
    st.sampled_from(["retry-after", "retry-after-ms"]),
    st.text(max_size=12)
    | st.sampled_from(["1e400", "-1", "nan", "0x10", "1_0", "Mon, 99999999999999999999 Jan 2026 00:00:00 GMT"])
    | st.datetimes().map(lambda at: at.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    | st.datetimes().map(lambda at: at.strftime("%a, %d %b %Y %H:%M:%S -0000")),
)


MAPPERS = [
    pytest.param(mapper, id=mapper.__name__.rsplit(".", 1)[-1])
    for mapper in (_openai_errors, _anthropic_errors, _ollama_errors)
]


def assert_safe(error: ProviderError) -> None:
    """It can be shown, counted and logged."""
    failure = error.failure
    assert isinstance(error.category, Category)
    for text in (failure.message, failure.param or "", failure.provider_code or ""):
        assert len(text) <= MAX_MESSAGE
        assert not any(unicodedata.category(letter) in {"Cc", "Zl", "Zp"} for letter in text)
    assert failure.message
    assert failure.retry_after_s is None or 0 <= failure.retry_after_s <= CAP_S
    end = End(State.FAILED, None, failure)
    assert decode(encode([end])) == [end]
    for shape in (openai_errors, anthropic_errors):
        json.dumps(shape.failure_body(failure))
        assert 400 <= shape.failure_status(failure) < 600


@pytest.mark.parametrize("mapper", MAPPERS)
@settings(max_examples=200)
@given(status=st.integers(100, 999), headers=_HEADERS, body=_BODIES)
def test_answers(mapper: Any, status: int, headers: dict[str, str], body: bytes) -> None:
    """No status, header or body raises."""
    assert_safe(mapper.from_answer(status, headers, body, 1_800_000_000.0))


@pytest.mark.parametrize("mapper", MAPPERS)
@given(error=_ANY)
def test_in_stream(mapper: Any, error: Any) -> None:
    """No in-stream error raises."""
    assert_safe(mapper.from_stream(error))


@pytest.mark.parametrize("mapper", MAPPERS)
@given(body=_BODIES)
def test_success(mapper: Any, body: bytes) -> None:
    """JSON with a status of success is an error or is not; it never raises."""
    error = mapper.in_success(body)
    if error is not None:
        assert_safe(error)


@pytest.mark.parametrize("mapper", MAPPERS)
def test_bottomless(mapper: Any) -> None:
    """A body that nests without end is classified by its status."""
    for body in (b"[" * 60_000, b'{"error":' * 10_000):
        assert mapper.from_answer(503, {}, body, 0).category is Category.OVERLOADED
        assert mapper.in_success(body) is None


@pytest.mark.parametrize("mapper", MAPPERS)
@pytest.mark.parametrize("filler", ["model ", "tokens + ", "input token count ", "exceeds ", "no such ", "9"])
def test_no_text_is_slow(mapper: Any, filler: str) -> None:
    """The largest body that is read is searched for words in a tenth of a second."""
    body = json.dumps({"error": {"message": filler * (60_000 // len(filler))}}).encode()
    begun = time.process_time()
    mapper.from_answer(400, {}, body, 0)
    assert time.process_time() - begun < 0.1


@given(st.integers(100, 999))
def test_status(status: int) -> None:
    """Every status has a category; of errors the class decides whose fault it is."""
    row = by_status(status)
    assert (row is Category.PROTOCOL) == (not 400 <= status < 600)
    assert not is_known(status) or 400 <= status < 600


@given(_HEADERS, st.floats(0, 2e9))
def test_retry_after(headers: dict[str, str], now: float) -> None:
    """No header raises, and no wait is negative or longer than the cap."""
    wait = retry_after_s(headers, now)
    assert wait is None or 0 <= wait <= CAP_S
