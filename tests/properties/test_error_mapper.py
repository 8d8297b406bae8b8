"""Error answers of any kind become a ProviderError that is safe to show."""

import json
import unicodedata
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import MAX_MESSAGE, Category, ProviderError
from gateway.core.events import End, State, decode, encode
from gateway.providers._openai_errors import from_answer, from_stream, in_success
from gateway.upstream.classify import by_status
from gateway.upstream.retry_after import CAP_S, retry_after_s

_TEXTS = st.text(max_size=20) | st.sampled_from(["x" * 2000, "a\x00\x1b[31m\r\n\u2028\x85b", "9" * 5000, "429", "²"])
_ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | _TEXTS,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["error", "message", "type", "code", "param", "detail", "innererror", "status", "object"]),
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


@settings(max_examples=300)
@given(st.integers(100, 999), _HEADERS, _BODIES)
def test_answers(status: int, headers: dict[str, str], body: bytes) -> None:
    """No status, header or body raises."""
    assert_safe(from_answer(status, headers, body, 1_800_000_000.0))


@given(_ANY)
def test_in_stream(error: Any) -> None:
    """No in-stream error raises."""
    assert_safe(from_stream(error))


@given(_BODIES)
def test_success(body: bytes) -> None:
    """JSON with a status of success is an error or is not; it never raises."""
    error = in_success(body)
    if error is not None:
        assert_safe(error)


def test_bottomless() -> None:
    """A body that nests without end is classified by its status."""
    for body in (b"[" * 60_000, b'{"error":' * 10_000):
        assert from_answer(503, {}, body, 0).category is Category.OVERLOADED
        assert in_success(body) is None


@given(st.integers(100, 999))
def test_status(status: int) -> None:
    """Every status has a category; of errors the class decides whose fault it is."""
    row = by_status(status)
    assert (row is Category.PROTOCOL) == (not 400 <= status < 600)


@given(_HEADERS, st.floats(0, 2e9))
def test_retry_after(headers: dict[str, str], now: float) -> None:
    """No header raises, and no wait is negative or longer than the cap."""
    wait = retry_after_s(headers, now)
    assert wait is None or 0 <= wait <= CAP_S
