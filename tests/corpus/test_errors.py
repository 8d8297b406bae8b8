"""Every documented way in which a provider says that it failed, and what Atlas makes of it.

`errors/<vendor>-<what>.json`: `kind` of adapter, `source`, `status`, `headers`, `body` (text; `encoding` if it is no
UTF-8), `in_stream` (then the body is the stream), the expected `category`, and where they matter `retry_after_s`,
`code` (the provider's own) and `unmapped` (the status under which an unknown error is counted).
"""

import asyncio
import importlib
import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import MAX_MESSAGE, Category, ProviderError
from gateway.dialects import anthropic_errors, openai_errors
from gateway.providers._reading import Reading, Wire
from gateway.upstream.answer import Answer

FILES = sorted((Path(__file__).parent / "errors").glob("*.json"))
NOW = 1_800_000_000.0
ERRORS = {"openai_chat": "_openai_errors", "anthropic": "_anthropic_errors", "ollama": "_ollama_errors"}

ELSEWHERE = {
    Category.UNTRANSLATABLE: "the adapter's own, before a byte is sent",
    Category.CONNECT: "the transport's",
    Category.STALE_CONNECTION: "the transport's",
    Category.TIMEOUT_FIRST_TOKEN: "the group's clock",
    Category.TIMEOUT_IDLE: "the owner's clock",
    Category.TIMEOUT_TOTAL: "the owner's clock",
    Category.EMPTY: "a whole answer without content, seen by the group",
    Category.POOL_EXHAUSTED: "our own limit",
    Category.GATEWAY_OVERLOADED: "our own limit",
    Category.NO_ENDPOINT: "our own health",
    Category.CANCELLED: "the caller's",
    Category.BUDGET: "our own limit",
    Category.JOURNAL: "our own storage",
    Category.JOURNAL_LOST: "our own storage",
    Category.JOURNAL_GAP: "our own storage",
    Category.JOURNAL_REGRESSED: "our own storage",
    Category.OWNER_LOST: "our own end",
    Category.SHUTDOWN: "our own end",
    Category.INTERNAL: "our own bug",
}
"""Categories that no body of a provider causes, and what does."""


class Recorded(Answer):
    """An answer whose body is there at once."""

    def __init__(self, body: bytes) -> None:
        self.status, self.headers, self._left = 200, dict[str, str](), [body, b""]

    async def read(self) -> bytes:
        """All of it, then the end."""
        return self._left.pop(0)


def loaded(path: Path) -> dict[str, Any]:
    """One case."""
    case: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return case


def provoked(case: dict[str, Any]) -> ProviderError:
    """What the adapter raises."""
    errors = importlib.import_module(f"gateway.providers.{ERRORS[case['kind']]}")
    body = case["body"].encode(case.get("encoding", "utf-8"))
    if case["in_stream"]:
        return asyncio.run(read_to_failure(importlib.import_module(f"gateway.providers.{case['kind']}").WIRE, body))
    found = errors.in_success(body) if case["status"] == 200 else None
    found = found or errors.from_answer(case["status"], case["headers"], body, NOW)
    assert isinstance(found, ProviderError)
    return found


async def read_to_failure(wire: Wire, body: bytes) -> ProviderError:
    """How the reading of a stream ends."""
    with pytest.raises(ProviderError) as caught:
        async for _ in Reading(Recorded(body), wire):
            pass
    return caught.value


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_meaning(path: Path) -> None:
    """The error means what the vendor means by it, and says how long to wait where the vendor does."""
    case = loaded(path)
    error = provoked(case)
    failure = error.failure
    assert error.category == case["category"]
    assert failure.retry_after_s == (pytest.approx(case["retry_after_s"]) if "retry_after_s" in case else None)
    assert error.unmapped == case.get("unmapped")
    assert "code" not in case or failure.provider_code == case["code"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_answer(path: Path) -> None:
    """The client gets a well-formed error in either shape; every text is short and clean, and nothing else is shown."""
    case = loaded(path)
    failure = provoked(case).failure
    openai, anthropic = openai_errors.failure_body(failure), anthropic_errors.failure_body(failure)
    assert openai["error"].keys() >= {"message", "type", "param", "code", "whose"}
    assert anthropic["type"] == "error"
    assert anthropic["error"].keys() >= {"type", "message", "code", "whose"}
    for shape, body in ((openai_errors, openai), (anthropic_errors, anthropic)):
        assert 400 <= shape.failure_status(failure) < 600
        texts = [value for value in body["error"].values() if isinstance(value, str)]
        assert all(0 < len(text) <= MAX_MESSAGE for text in texts)
        assert not any(unicodedata.category(letter) in {"Cc", "Zl", "Zp"} for text in texts for letter in text)
    for hidden in ("flagged_input", "failed_generation", "how do I", "<html", "user_x", "req_1"):
        assert hidden not in json.dumps([openai, anthropic])


def test_totality() -> None:
    """No category that a provider can cause is missing here, and none is both caused and declared impossible."""
    caused = {Category(loaded(path)["category"]) for path in FILES}
    assert caused | ELSEWHERE.keys() == set(Category)
    assert not caused & ELSEWHERE.keys()


def test_vendors() -> None:
    """The corpus is large enough, says where each case is from, and covers every wire and the errors inside streams."""
    cases = [loaded(path) for path in FILES]
    assert len(cases) >= 60
    assert all(case["source"] for case in cases)
    assert {(case["kind"], case["in_stream"]) for case in cases} == {
        (kind, in_stream) for kind in ERRORS for in_stream in (True, False)
    }
