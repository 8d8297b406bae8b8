"""A provider that repeats the key it was given does not get it past the adapter."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from gateway.core.errors import MAX_MESSAGE, Category, ProviderError
from gateway.providers import anthropic, ollama, openai_chat
from gateway.providers._account import without_secrets
from gateway.providers._openai_errors import from_answer, in_success
from gateway.providers._reading import Asking, Wire
from gateway.upstream.answer import Answer

KEY = "sk-canary/0123456789"
ERROR = {"message": f"bad key {KEY}!", "type": f"{KEY}_error", "param": KEY}
STREAMS = {
    "openai_chat": (openai_chat.WIRE, "data: " + json.dumps({"error": ERROR}) + "\n\n"),
    "anthropic": (anthropic.WIRE, "event: error\ndata: " + json.dumps({"type": "error", "error": ERROR}) + "\n\n"),
    "ollama": (ollama.WIRE, json.dumps({"error": ERROR["message"]}) + "\n"),
}


class Told(Answer):
    """An answer that is there at once."""

    def __init__(self, status: int, body: str) -> None:
        self.status, self.headers, self._left = status, dict[str, str](), [body.encode(), b""]

    async def read(self) -> bytes:
        """All of it, then the end."""
        return self._left.pop(0)


@asynccontextmanager
async def posting(answer: Answer) -> AsyncGenerator[Answer]:
    """An exchange whose answer is there."""
    yield answer


async def check(answer: Answer) -> None:
    """What an adapter does: an error status, or JSON where a stream was asked for."""
    if answer.status != 200:
        raise from_answer(answer.status, {}, await answer.error_body(), 0)


async def check_json(answer: Answer) -> None:
    """An error with a status of success."""
    found = in_success(await answer.error_body())
    if found is not None:
        raise found


def failure(asking: Asking) -> ProviderError:
    """How the exchange fails."""

    async def read() -> None:
        async with asking as batches:
            async for _ in batches:
                pass

    with pytest.raises(ProviderError) as caught:
        asyncio.run(read())
    return caught.value


def assert_hidden(error: ProviderError) -> None:
    """Neither what is shown nor what is logged has the key."""
    assert "canary" not in f"{error} {error.failure} {error.__cause__!r}"
    assert "[key]" in error.failure.message


@pytest.mark.parametrize("kind", STREAMS)
def test_in_stream(kind: str) -> None:
    """An error inside a stream is freed of the key, whatever the wire."""
    wire, body = STREAMS[kind]
    assert_hidden(failure(Asking(posting(Told(200, body)), check, wire, (KEY,))))


@pytest.mark.parametrize("wire", [wire for wire, _ in STREAMS.values()], ids=STREAMS)
def test_at_the_head(wire: Wire) -> None:
    """So is an error answer, and an error with a status of success; the slash may be escaped in its JSON."""
    body = json.dumps({"error": ERROR}).replace("/", "\\/")
    error = failure(Asking(posting(Told(400, body)), check, wire, (KEY,)))
    assert_hidden(error)
    assert error.failure.provider_code == "[key]_error"
    assert error.failure.param == "[key]"
    assert_hidden(failure(Asking(posting(Told(200, body)), check_json, wire, (KEY,))))


@pytest.mark.parametrize("shown", ["sk-ca***6789", "sk-canar********", "****6789", "sk-can...789", "sk-ca\u2026789"])
def test_its_ends(shown: str) -> None:
    """The ends of a key, which many hosts repeat with stars between them, are not shown either."""
    error = without_secrets(
        ProviderError(Category.PROVIDER_AUTH, f"Incorrect API key provided: {shown}. See docs."), (KEY,)
    )
    assert error.failure.message == "Incorrect API key provided: [key]. See docs."


@pytest.mark.parametrize(
    "text", ["wait ... and see", "s... *** 9", "sk-other***6789", "a ****bold**** word", "... 5/6"]
)
def test_what_is_no_key(text: str) -> None:
    """Other stars and dots stay."""
    told = ProviderError(Category.BAD_REQUEST, text)
    assert without_secrets(told, (KEY,)) is told


def test_what_is_left_of_it() -> None:
    """A key that stands where a message was cut is not shown in part."""
    for before in range(MAX_MESSAGE - len(KEY) - 2, MAX_MESSAGE + 2):
        error = without_secrets(ProviderError(Category.QUOTA, "x" * before + KEY + "y" * 99), (KEY,))
        assert "sk-" not in error.failure.message
        assert len(error.failure.message) <= MAX_MESSAGE


def test_what_else_is_said() -> None:
    """Only the words change; an error without the key is the same object, with a key or without."""
    told = ProviderError(Category.QUOTA, f"no {KEY}", retry_after_s=2.0, param="p", provider_code="c", unmapped=418)
    shown = without_secrets(told, (KEY,))
    assert (
        shown.failure
        == ProviderError(Category.QUOTA, "no [key]", retry_after_s=2.0, param="p", provider_code="c").failure
    )
    assert shown.unmapped == 418
    assert without_secrets(told, ()) is told
    assert without_secrets(told, ("another",)) is told
