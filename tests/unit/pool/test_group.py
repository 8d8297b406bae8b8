"""A route's attempts: order, repeats, what is reported when all fail."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeAlias

import pytest

from gateway.core.chat import ChatRequest
from gateway.core.errors import Category, ProviderError
from gateway.core.events import Extra, Finish, Leg, Text, UsageReport
from gateway.core.usage import Usage
from gateway.pool.continuation import Level
from gateway.pool.endpoint import Endpoint
from gateway.pool.group import Attempts, ProviderGroup
from gateway.upstream.contract import Batch, Timeouts
from tests.support.run import run

C = Category
Act: TypeAlias = Category | ProviderError | Sequence[Batch | Category]
TEXT: Batch = [Text(0, "hi")]
STOP: Batch = [Finish(0, "stop")]
GOOD: Sequence[Batch] = [TEXT, STOP]
EMPTY: Sequence[Batch] = [STOP]


class Scripted:
    """A provider whose calls do, one after another, what the script says: fail on entering, or yield and fail."""

    kind = "scripted"

    def __init__(self, *script: Act) -> None:
        self.script = list(script)
        self.models: list[str] = []
        self.open = 0

    @asynccontextmanager
    async def stream(self, request: ChatRequest, model: str) -> AsyncIterator[AsyncIterator[Batch]]:
        self.models.append(model)
        act = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.open += 1
        try:
            if isinstance(act, Category):
                raise ProviderError(act, f"{act} {len(self.models)}")
            if isinstance(act, ProviderError):
                raise act
            yield _batches(act)
        finally:
            self.open -= 1

    async def aclose(self) -> None:
        """Nothing to close."""


async def _batches(acts: Sequence[Batch | Category]) -> AsyncIterator[Batch]:
    for act in acts:
        if isinstance(act, Category):
            raise ProviderError(act, str(act))
        yield act


class House:
    """A route over scripted providers; remembers waits and outcomes."""

    def __init__(self, *providers: Scripted, model: str = "route", asks_for: str = "m", **changes: Any) -> None:
        self.providers = providers
        self.waits: list[float] = []
        self.outcomes: list[tuple[str, str]] = []
        endpoints = tuple(
            Endpoint(name=f"e{number}", provider=provider, model=asks_for, **changes)
            for number, provider in enumerate(providers, 1)
        )
        self.group = ProviderGroup(
            model=model,
            endpoints=endpoints,
            rng=random.Random(1),
            clock=lambda: 0.0,
            sleep=self._sleep,
            on_attempt=lambda endpoint, outcome, _: self.outcomes.append((endpoint, outcome)),
        )

    async def _sleep(self, seconds: float) -> None:
        assert all(provider.open == 0 for provider in self.providers), "a socket is held while waiting"
        self.waits.append(seconds)

    def ask(self, *, named: str = "route", level: Level = Level.SAFE) -> tuple[list[Any], Attempts]:
        """All events of one streamed request."""
        attempts = self.group.attempt(ChatRequest(dialect="none", model=named, messages=(), stream=True), level=level)

        async def read() -> list[Any]:
            async with attempts.open() as batches:
                return [event async for batch in batches for event in batch]

        events = run(read())
        assert all(provider.open == 0 for provider in self.providers)
        return events, attempts

    def fail(self, **how: Any) -> ProviderError:
        """The error of a request that must fail."""
        with pytest.raises(ProviderError) as caught:
            self.ask(**how)
        assert all(provider.open == 0 for provider in self.providers)
        return caught.value


def test_first_in_order() -> None:
    """The first endpoint answers if it can, and the log says who answered and why."""
    house = House(Scripted(GOOD), Scripted(GOOD))
    events, attempts = house.ask()
    assert events == [Leg(1, "e1", "scripted", "priority", "first in order"), *TEXT, *STOP]
    assert attempts.attempts == ["e1: ok"]
    assert house.providers[1].models == []


def test_fallback() -> None:
    """What fails before content is hidden: the next endpoint answers, and the log says after what."""
    house = House(Scripted(C.PROTOCOL), Scripted([[Extra("d", {"x": 1})], C.TIMEOUT_FIRST_TOKEN]), Scripted(GOOD))
    events, attempts = house.ask()
    assert events[0].why == "e3 after e1: protocol, e2: timeout_first_token"
    assert events[1:] == [*TEXT, *STOP]
    assert attempts.attempts == ["e1: protocol", "e2: timeout_first_token", "e3: ok"]
    assert house.outcomes == [("e1", "protocol"), ("e2", "timeout_first_token"), ("e3", "ok")]


def test_nothing_of_a_failed_attempt_is_left() -> None:
    """What an attempt said before its content, and failed, is not in the log."""
    events, _ = House(Scripted([[Extra("d", {"lost": 1})], C.PROTOCOL]), Scripted(GOOD)).ask()
    assert not any(isinstance(event, Extra) for event in events)


def test_after_content_nothing_is_hidden() -> None:
    """After the first content a failure goes up as it is, and no other endpoint is asked."""
    house = House(Scripted([TEXT, C.STREAM_BROKEN]), Scripted(GOOD))
    error = house.fail()
    assert error.category is C.STREAM_BROKEN
    assert house.providers[1].models == []


def test_repeat() -> None:
    """One endpoint alone is asked once more after a short wait, and not a third time."""
    house = House(Scripted(C.UPSTREAM_5XX))
    error = house.fail()
    assert error.failure.attempts == ("e1: upstream_5xx", "e1: upstream_5xx")
    assert len(house.waits) == 1
    assert House(Scripted(C.UPSTREAM_5XX, GOOD)).ask()[0][1:] == [*TEXT, *STOP]


def test_the_first_error_is_reported() -> None:
    """When all fail, the client hears of the first failure, with all attempts listed."""
    error = House(Scripted(C.PROTOCOL), Scripted(C.QUOTA), Scripted(C.RATE_LIMITED)).fail()
    assert error.category is C.PROTOCOL
    assert error.failure.message == "protocol 1"
    assert error.failure.attempts == ("e1: protocol", "e2: quota", "e3: rate_limited")


def test_three_attempts() -> None:
    """No request costs more than three attempts, over all endpoints."""
    house = House(*(Scripted(C.UPSTREAM_5XX) for _ in range(5)))
    assert len(house.fail().failure.attempts) == 3
    assert [len(provider.models) for provider in house.providers] == [2, 1, 0, 0, 0]


def test_stale_connections_are_not_counted() -> None:
    """A connection that had gone stale costs no attempt and no wait; the request goes out again."""
    house = House(Scripted(C.STALE_CONNECTION, C.UPSTREAM_5XX, C.UPSTREAM_5XX), Scripted(C.STALE_CONNECTION, GOOD))
    _, attempts = house.ask()
    assert attempts.attempts == [
        "e1: stale_connection",
        "e1: upstream_5xx",
        "e1: upstream_5xx",
        "e2: stale_connection",
        "e2: ok",
    ]
    assert house.waits[0] == 0


def test_what_is_always_stale_ends() -> None:
    """Endpoints that close every connection are not asked for ever: only the first of each is free."""
    house = House(*(Scripted(C.STALE_CONNECTION) for _ in range(9)))
    assert len(house.fail().failure.attempts) == 6


@pytest.mark.parametrize("category", [C.BAD_REQUEST, C.CONTEXT_LENGTH, C.CONTENT_FILTER, C.TOO_LARGE])
def test_the_request_is_at_fault(category: Category) -> None:
    """What is wrong with the request is wrong everywhere: nobody else is asked."""
    house = House(Scripted(category), Scripted(GOOD))
    assert house.fail().category is category
    assert house.providers[1].models == []


def test_without_fallback() -> None:
    """A caller that wants no fallback gets the first endpoint's failure, after its repeat."""
    house = House(Scripted(C.UPSTREAM_5XX), Scripted(GOOD))
    assert house.fail(level=Level.OFF).failure.attempts == ("e1: upstream_5xx",) * 2
    assert house.providers[1].models == []


def test_model_that_the_client_named() -> None:
    """Behind a wildcard a missing model is the client's 404; behind a configured name it is ours."""
    wild = House(Scripted(C.MODEL_NOT_FOUND), model="open/*", asks_for="*")
    assert wild.fail(named="open/gpt").failure.status == 404
    assert wild.providers[0].models == ["gpt"]
    assert House(Scripted(C.MODEL_NOT_FOUND)).fail().failure.status is None


@pytest.mark.parametrize("ending", [EMPTY, [[]], [[], [UsageReport(Usage(output_tokens=0))], STOP], []])
def test_empty(ending: Sequence[Batch]) -> None:
    """An answer without content, although nothing cut it short, is a failure: asked once more, then elsewhere."""
    house = House(Scripted(ending), Scripted(GOOD))
    _, attempts = house.ask()
    assert attempts.attempts == ["e1: empty", "e1: empty", "e2: ok"]


@pytest.mark.parametrize("reason", ["length", "content_filter", "tool_calls"])
def test_rightly_without_content(reason: Any) -> None:
    """An answer that was filtered, or spent its tokens unseen, is an answer."""
    events, _ = House(Scripted([[Finish(0, reason)]])).ask()
    assert events[1:] == [Finish(0, reason)]


def test_first_token_in_time() -> None:
    """An endpoint that says nothing in time is left and not asked again; pings do not count as saying something."""

    class Silent(Scripted):
        @asynccontextmanager
        async def stream(self, request: ChatRequest, model: str) -> AsyncIterator[AsyncIterator[Batch]]:
            async def pings() -> AsyncIterator[Batch]:
                while True:
                    yield []
                    await asyncio.sleep(0)

            async with super().stream(request, model):
                yield pings()

    house = House(Silent(GOOD), Scripted(GOOD))
    first, second = house.group.endpoints
    hasty = replace(first, timeouts=Timeouts(first_token_s=0.02))
    house.group = replace(house.group, endpoints=(hasty, second))
    _, attempts = house.ask()
    assert attempts.attempts == ["e1: timeout_first_token", "e2: ok"]
    assert len(house.providers[0].models) == 1


def test_deadlines_are_those_of_who_answers() -> None:
    """Deadlines after the first content are the answering endpoint's, whatever was tried before."""
    group = House(Scripted(C.PROTOCOL), Scripted(GOOD)).group
    slow = Timeouts(idle_s=99)
    second = Endpoint(name="slow", provider=group.endpoints[1].provider, model="m", timeouts=slow)
    attempts = Attempts(group, ChatRequest(dialect="none", model="r", messages=()), (group.endpoints[0], second))
    assert attempts.timeouts == Timeouts()

    async def go() -> None:
        async with attempts.open():
            assert attempts.timeouts is slow

    run(go())


def test_cancelled_while_waiting() -> None:
    """A request that is cancelled before its first token holds nothing."""

    class Endless(Scripted):
        @asynccontextmanager
        async def stream(self, request: ChatRequest, model: str) -> AsyncIterator[AsyncIterator[Batch]]:
            async with super().stream(request, model):
                await asyncio.Event().wait()
                yield _batches([])

    provider = Endless(GOOD)
    attempts = House(provider).group.attempt(ChatRequest(dialect="none", model="r", messages=()))

    async def go() -> None:
        async def enter() -> None:
            async with attempts.open():
                pass

        task = asyncio.ensure_future(enter())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert provider.open == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(go())
    assert provider.open == 0
    assert attempts.attempts == []
