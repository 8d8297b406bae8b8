"""The Anthropic adapter: where and how it asks, and how an answer ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from gateway.core.chat import ChatRequest, Message, TextPart
from gateway.core.errors import Category, ProviderError
from gateway.core.events import Finish, SourceEvent, Text
from gateway.providers._anthropic_events import DIALECT
from gateway.providers.anthropic import PROVIDER, AnthropicProvider
from gateway.upstream.contract import CountsTokens, Timeouts
from gateway.upstream.transport import Transport
from tests.support.baseline import baseline
from tests.support.chaos import ANTHROPIC, ChaosProvider, Garbage, Gate, Plan, body_of, event_of, refusing
from tests.support.clock import ManualClock
from tests.support.received import Received
from tests.support.run import run

C = Category
KEY = "sk-ant-unit"
ASKED = ChatRequest(dialect="other", model="route", messages=(Message(role="user", parts=(TextPart(text="a b"),)),))
BODY = {"model": "route", "messages": [{"role": "user", "content": "a b"}], "max_tokens": 9, "new": [1]}


@asynccontextmanager
async def provider(
    plan: Plan, key: str | None = KEY, below: str = ""
) -> AsyncIterator[tuple[AnthropicProvider, ChaosProvider]]:
    """An adapter and its upstream; nothing is left behind."""
    async with baseline(), ChaosProvider(plan) as up:
        made = PROVIDER(base_url=up.root_url + below, key=key, transport=Transport(Timeouts()), clock=ManualClock())
        try:
            yield made, up
        finally:
            await made.aclose()


async def answered(
    made: AnthropicProvider, request: ChatRequest = ASKED
) -> tuple[list[SourceEvent], ProviderError | None]:
    """The events of one answer, and the error that ended it."""
    events: list[SourceEvent] = []
    try:
        async with made.stream(request, "claude") as batches:
            async for batch in batches:
                events += batch
    except ProviderError as error:
        return events, error
    return events, None


def outcome(plan: Plan) -> tuple[list[SourceEvent], ProviderError | None]:
    """What comes of one plan."""

    async def go() -> tuple[list[SourceEvent], ProviderError | None]:
        async with provider(plan) as (made, _):
            return await answered(made)

    return run(go())


def text(events: list[SourceEvent]) -> str:
    """The visible text."""
    return "".join(event.text for event in events if isinstance(event, Text))


# What is asked.


@pytest.mark.parametrize("below", ["", "/", "/v1", "/v1/", "/some/where", "/some/where/v1"])
def test_url(below: str) -> None:
    """The base may end in the API's version or leave it out."""

    async def go() -> list[str]:
        async with provider(Plan(), below=below) as (made, up):
            await answered(made)
            await made.count_tokens(ASKED, "claude")
            return [up.last.path, up.others[-1].path]

    path = below.rstrip("/").removesuffix("/v1") + "/v1/messages"
    assert run(go()) == [path, f"{path}/count_tokens"]


def asked_with(request: ChatRequest, key: str | None = KEY) -> Received:
    """What the upstream sees of a request."""

    async def go() -> Received:
        async with provider(Plan(), key) as (made, up):
            await answered(made, request)
            return up.last

    return run(go())


def test_headers() -> None:
    """The key goes out as `x-api-key`, and no other credential; without a key there is none."""
    headers = asked_with(ASKED).headers
    assert (headers["x-api-key"], headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert (headers["accept"], headers["accept-encoding"]) == ("text/event-stream", "identity")
    assert not {"authorization", "anthropic-beta"} & set(headers)
    assert "x-api-key" not in asked_with(ASKED, None).headers


def test_bearer() -> None:
    """Hosts that want the key as a bearer get it so, and in no other header."""

    async def go() -> dict[str, str]:
        async with ChaosProvider() as up:
            transport = Transport(Timeouts())
            made = PROVIDER(base_url=up.root_url, key=KEY, transport=transport, clock=ManualClock(), auth="bearer")
            await answered(made)
            await made.aclose()
            return up.last.headers

    headers = run(go())
    assert headers["authorization"] == f"Bearer {KEY}"
    assert "x-api-key" not in headers


def test_own_dialect() -> None:
    """A caller of this dialect is passed on whole: body, version and betas."""
    headers = {"anthropic-version": "2026-10-21", "anthropic-beta": "a,b"}
    request = ChatRequest(dialect=DIALECT, model="route", messages=(), body=BODY, headers=headers)
    seen = asked_with(request)
    assert {name: seen.headers[name] for name in headers} == headers
    assert seen.json == {**BODY, "model": "claude", "stream": True}


# How it ends.


def test_whole_answer() -> None:
    """A whole answer has its text and its finish, in pieces of any size."""
    for size in (1, 7, "whole"):
        events, error = outcome(Plan(reasoning=3, chunking=size))
        assert (text(events), error) == (Plan().text(), None)
        assert [event.reason for event in events if isinstance(event, Finish)] == ["stop"]


def overloaded(at: int) -> Plan:
    """An answer that fails at an event."""
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    return Plan(error_event_at=(at, error))


@pytest.mark.parametrize(
    ("plan", "category"),
    [
        (Plan(no_done=True), C.STREAM_BROKEN),
        (Plan(no_done=True, no_finish=True), C.STREAM_BROKEN),
        (Plan(garbage=Garbage(kind="json", at=1, count=3)), C.PROTOCOL),
        (Plan(garbage=Garbage(kind="shape", at=1, count=3)), C.PROTOCOL),
        (Plan(garbage=Garbage(kind="oversize", at=1)), C.PROTOCOL),
        (Plan(body=b"{}", content_type="application/json"), C.PROTOCOL),
        (Plan(body=b"<html>", content_type="text/html"), C.PROTOCOL),
        (Plan(content_encoding="gzip"), C.PROTOCOL),
        (overloaded(0), C.OVERLOADED),
        (overloaded(4), C.OVERLOADED),
        (refusing(529), C.OVERLOADED),
        (refusing(401), C.PROVIDER_AUTH),
        (
            Plan(
                body=b'{"type":"error","error":{"type":"overloaded_error","message":"no"}}',
                content_type="application/json",
            ),
            C.OVERLOADED,
        ),
    ],
)
def test_failures(plan: Plan, category: Category) -> None:
    """Whatever goes wrong is a ProviderError of a fitting kind."""
    _, error = outcome(plan)
    assert error is not None
    assert error.category is category


@pytest.mark.parametrize("chunking", ["event", "whole"])
def test_text_before_an_error_is_delivered(chunking: Any) -> None:
    """What was said before an error event arrives, also when both come in one read."""
    at = event_of(Plan(), "text", 5, wire=ANTHROPIC)
    events, error = outcome(overloaded(at).with_(chunking=chunking))
    assert text(events) == Plan(tokens=5).text()
    assert error is not None
    assert error.category is C.OVERLOADED


def test_malformed_among_good() -> None:
    """Two malformed events in a row are skipped, and nothing of the answer is lost."""
    events, error = outcome(Plan(garbage=Garbage(kind="utf8", at=4, count=2)))
    assert (text(events), error) == (Plan().text(), None)


def test_connection_is_kept() -> None:
    """Answers that were read to their end share one connection."""

    async def go() -> int:
        async with provider(Plan()) as (made, up):
            for _ in range(3):
                await answered(made)
            return up.ever

    assert run(go()) == 1


def test_the_key_is_not_repeated() -> None:
    """A host that repeats the key that it refuses does not tell it to clients."""
    _, error = outcome(refusing(401, message=f"invalid x-api-key: {KEY}"))
    assert error is not None
    assert KEY not in f"{error} {error.failure}"


# Counting.


def counted(plan: Plan, request: ChatRequest = ASKED) -> tuple[int | ProviderError, Received]:
    """What a count gives, and what the upstream saw of it."""

    async def go() -> tuple[int | ProviderError, Received]:
        async with provider(Plan()) as (made, up):
            up.counting = plan
            try:
                return await made.count_tokens(request, "claude"), up.others[-1]
            except ProviderError as error:
                return error, up.others[-1]

    return run(go())


def test_count() -> None:
    """The provider's number is given; of another dialect's request only the prompt goes out."""
    number, seen = counted(Plan(body=b'{"input_tokens": 14}'))
    assert number == 14
    assert seen.json == {
        "model": "claude",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a b"}]}],
    }
    assert (seen.headers["x-api-key"], seen.headers["anthropic-version"]) == (KEY, "2023-06-01")


def test_count_in_own_dialect() -> None:
    """A caller of this dialect is passed on whole: body and betas."""
    request = ChatRequest(dialect=DIALECT, model="route", messages=(), body=BODY, headers={"anthropic-beta": "a"})
    number, seen = counted(Plan(), request)
    assert isinstance(number, int)
    assert seen.json == {**BODY, "model": "claude"}
    assert seen.headers["anthropic-beta"] == "a"


@pytest.mark.parametrize(
    ("plan", "category"),
    [
        (refusing(529), C.OVERLOADED),
        (refusing(400), C.BAD_REQUEST),
        (Plan(body=b"[]"), C.PROTOCOL),
        (Plan(body=b'{"input_tokens": "many"}'), C.PROTOCOL),
        (Plan(body=b"<html>"), C.PROTOCOL),
    ],
)
def test_count_fails(plan: Plan, category: Category) -> None:
    """A count that fails is a ProviderError of a fitting kind."""
    error, _ = counted(plan)
    assert isinstance(error, ProviderError)
    assert error.category is category


def test_count_has_a_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that does not count in time is left, with its connection closed."""
    monkeypatch.setattr("gateway.providers.anthropic.COUNT_DEADLINE_S", 0.05)
    error, _ = counted(Plan(body=b'{"input_tokens": 14}', hold_headers=Gate()))
    assert isinstance(error, ProviderError)
    assert error.category is C.TIMEOUT_TOTAL


def test_adapter_counts() -> None:
    """The adapter is known as one that counts."""
    assert issubclass(AnthropicProvider, CountsTokens)


def test_cut_at_every_byte() -> None:
    """Wherever an answer is cut, it is no success, and no text is invented."""
    plan = Plan(tokens=2)
    length = len(body_of(plan, {"model": "claude", "stream": True}, ANTHROPIC))

    async def go() -> None:
        async with provider(plan) as (made, up):
            for at in range(0, length - 40, 11):
                up.default = plan.with_(end_at_byte=at)
                events, error = await answered(made)
                assert error is not None
                assert error.category is C.STREAM_BROKEN
                assert plan.text().startswith(text(events))

    run(go())
