"""Recorded traffic of Anthropic goes through Atlas's own messages route without loss: the official SDK is the judge.

Atlas's are the message's id, the model's name, and the pings; everything else is the vendor's, member by member.
"""

import json
from typing import Any

import pytest

from tests.recorded.replay import (
    MODEL,
    Ways,
    anthropic_message,
    anthropic_whole,
    body_of,
    is_beta,
    loaded,
    plan_of,
    replayed,
    route_of,
    sizes_of,
    ways,
)
from tests.support.chaos import Received
from tests.support.http import RawClient
from tests.support.recordings import Exchange, Recording
from tests.support.run import run
from tests.support.sse import data_frames

streams = pytest.mark.parametrize("recording", replayed("stream", "anthropic"))
_HEADERS = ("anthropic-version", "anthropic-beta")


@streams
def test_stream(recording: Recording, record_property: Any) -> None:
    """Through Atlas the SDK accumulates what it accumulates from Anthropic, unknown members too."""
    record_property("replayed", "anthropic, on messages")
    exchange = loaded(recording)
    body, beta = body_of(exchange), is_beta(exchange)

    async def both() -> None:
        async with ways() as clients:
            clients.up.default = plan_of(exchange, exchange.body, None)
            direct = await anthropic_message(clients.up_anthropic, body, MODEL, is_beta=beta)
            for size in sizes_of(exchange):
                clients.up.default = plan_of(exchange, exchange.body, size)
                found = await anthropic_message(clients.anthropic, body, route_of(recording), is_beta=beta)
                assert found["model"] == route_of(recording)
                assert _shared(found) == _shared(direct), f"in pieces of {size}"

    run(both())


@streams
def test_events(recording: Recording) -> None:
    """On the wire the events are Anthropic's, member by member and in their order."""
    exchange = loaded(recording)

    async def both() -> None:
        async with ways() as clients:
            for size in (None, 7):
                clients.up.default = plan_of(exchange, exchange.body, size)
                frames = data_frames(await _raw(clients, exchange, route_of(recording)))
                assert all(frame.event == frame.json["type"] for frame in frames)
                assert _events(frames) == _events(data_frames(exchange.body)), f"in pieces of {size}"

    run(both())


@streams
def test_request(recording: Recording) -> None:
    """Anthropic gets the recorded request member by member, but for the model; and the headers that steer it."""
    exchange = loaded(recording)
    if exchange.request_body is None:
        pytest.skip("only the answer was recorded")

    async def ask() -> Received:
        async with ways() as clients:
            clients.up.default = plan_of(exchange, exchange.body, None)
            await _raw(clients, exchange, route_of(recording))
            return clients.up.last

    received = run(ask())
    assert received.json == body_of(exchange)
    assert received.headers.get("anthropic-beta") == exchange.request_headers.get("anthropic-beta")
    version = received.headers["anthropic-version"]
    assert version == exchange.request_headers.get("anthropic-version", version)


@streams
def test_whole(recording: Recording) -> None:
    """Who does not ask for a stream gets in one piece what the SDK accumulates from it."""
    exchange = loaded(recording)
    body, beta = body_of(exchange), is_beta(exchange)

    async def both() -> None:
        async with ways() as clients:
            clients.up.default = plan_of(exchange, exchange.body, 7)
            direct = await anthropic_message(clients.up_anthropic, body, MODEL, is_beta=beta)
            found = await anthropic_whole(clients.anthropic, body, route_of(recording), is_beta=beta)
            assert _shared(found) == _shared(direct)
            assert clients.up.last.json["stream"] is True

    run(both())


def _shared(message: dict[str, Any]) -> dict[str, Any]:
    """All of a message but what Atlas says itself."""
    return {name: value for name, value in message.items() if name not in {"id", "model"} and value is not None}


async def _raw(clients: Ways, exchange: Exchange, model: str) -> bytes:
    headers = {name: exchange.request_headers[name] for name in _HEADERS if name in exchange.request_headers}
    body = {"max_tokens": 9, **body_of(exchange), "model": model}
    async with RawClient.to(clients.atlas.base_url) as client:
        answer = await client.request("POST", exchange.path or "/v1/messages", {"x-api-key": "x", **headers}, json=body)
    assert answer.status == 200, answer.body
    return answer.body


def _events(frames: Any) -> list[Any]:
    """The events but for pings, without the id and the model of the message."""
    found = [json.loads(frame.data) for frame in frames if frame.event != "ping"]
    for event in found:
        for name in ("id", "model"):
            event.get("message", {}).pop(name, None)
    return found
