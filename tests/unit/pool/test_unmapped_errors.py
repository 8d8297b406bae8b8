"""Errors that the tables do not know are counted, whenever they come."""

import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.core.chat import ChatRequest
from gateway.core.errors import ProviderError
from gateway.core.events import Text
from gateway.pool.endpoint import Endpoint
from gateway.pool.group import ProviderGroup
from gateway.providers._openai_errors import from_answer, from_stream
from gateway.upstream.contract import Batch
from tests.support.run import run

UNKNOWN_STATUS = from_answer(418, {}, b"", 0)
UNKNOWN_TYPE = from_stream({"type": "type_of_the_future"})
UNKNOWN_NUMBER = from_stream({"message": "I am a teapot.", "code": 418})
KNOWN_NUMBER = from_stream({"message": "Provider returned error", "code": 429})
KNOWN = from_answer(429, {}, b'{"error": {"code": "code_of_the_future"}}', 0)


class Failing:
    """A provider that fails at once, or after its first content."""

    kind = "failing"

    def __init__(self, error: ProviderError, *, after_content: bool) -> None:
        self._error, self._after_content = error, after_content

    @asynccontextmanager
    async def stream(self, request: ChatRequest, model: str) -> AsyncGenerator[AsyncIterator[Batch]]:
        yield self._batches()

    async def _batches(self) -> AsyncIterator[Batch]:
        if self._after_content:
            yield [Text(0, "hi")]
        raise self._error

    async def aclose(self) -> None:
        """Nothing to close."""


@pytest.mark.parametrize("after_content", [False, True])
@pytest.mark.parametrize(
    ("error", "counted"),
    [
        (UNKNOWN_STATUS, [("e", 418)]),
        (UNKNOWN_TYPE, [("e", 200)]),
        (UNKNOWN_NUMBER, [("e", 418)]),
        (KNOWN_NUMBER, []),
        (KNOWN, []),
    ],
)
def test_counted(error: ProviderError, counted: list[tuple[str, int]], after_content: bool) -> None:
    """An unknown error is counted once an attempt, by endpoint and status; one that is known is not."""
    seen: list[tuple[str, int]] = []
    group = ProviderGroup(
        model="m",
        endpoints=(Endpoint(name="e", provider=Failing(error, after_content=after_content), model="m"),),
        rng=random.Random(1),
        clock=lambda: 0.0,
        sleep=_at_once,
        on_unmapped=lambda endpoint, status: seen.append((endpoint, status)),
    )

    async def read() -> None:
        attempts = group.attempt(ChatRequest(dialect="none", model="m", messages=(), stream=True))
        async with attempts.open() as batches:
            async for _ in batches:
                pass

    with pytest.raises(ProviderError):
        run(read())
    repeats = 2 if error is UNKNOWN_TYPE and not after_content else 1  # a stream error is tried once more
    assert seen == counted * repeats


async def _at_once(_: float) -> None:
    """No waiting."""
