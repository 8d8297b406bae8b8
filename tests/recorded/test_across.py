"""Recorded traffic through another vendor's language: its SDK hears what the vendor's own client hears.

Text, shown reasoning, tool calls, why it ended and usage are compared; what only one language can say is not.
"""

from dataclasses import replace
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import message_create_params
from ollama._types import ChatRequest
from openai.types.chat import completion_create_params
from pydantic import TypeAdapter

from tests.recorded import said
from tests.recorded.replay import (
    ASKED,
    COMPATIBLE,
    MODEL,
    anthropic_message,
    body_of,
    is_beta,
    loaded,
    ollama_lines,
    openai_chunks,
    plan_of,
    replayed,
    route_of,
    ways,
)
from tests.recorded.said import Said
from tests.support.chaos import Plan
from tests.support.http import RawClient
from tests.support.recordings import Exchange, Recording
from tests.support.run import run

SIZES = (None, 7)
USAGE: dict[str, Any] = {**ASKED, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("recording", replayed("stream", *COMPATIBLE, "ollama"))
def test_messages(recording: Recording, record_property: Any) -> None:
    """On the messages route the Anthropic SDK hears what the vendor said."""
    record_property("replayed", f"{recording.provider}, on messages")
    exchange = loaded(recording)

    async def both() -> None:
        async with ways() as clients:
            for size in SIZES:
                clients.up.default = plan_of(exchange, exchange.body, size)
                if recording.provider == "ollama":
                    direct = said.of_ollama(await ollama_lines(clients.up_ollama))
                else:
                    direct = said.of_openai(await openai_chunks(clients.up_openai, USAGE, MODEL))
                found = said.of_anthropic(await anthropic_message(clients.anthropic, ASKED, route_of(recording)))
                assert found == _as_told(direct, found), f"in pieces of {size}"

    run(both())


@pytest.mark.parametrize("recording", replayed("stream", "anthropic", "ollama"))
def test_chat_completions(recording: Recording, record_property: Any) -> None:
    """On the chat completions route the OpenAI SDK hears what the vendor said."""
    record_property("replayed", f"{recording.provider}, on chat completions")
    exchange = loaded(recording)

    async def both() -> None:
        async with ways() as clients:
            for size in SIZES:
                clients.up.default = plan_of(exchange, exchange.body, size)
                if recording.provider == "ollama":
                    direct = said.of_ollama(await ollama_lines(clients.up_ollama))
                else:
                    beta = is_beta(exchange)
                    message = await anthropic_message(clients.up_anthropic, ASKED, MODEL, is_beta=beta)
                    direct = said.of_anthropic(message)
                found = said.of_openai(await openai_chunks(clients.openai, USAGE, route_of(recording)))
                assert found == _as_told(direct, found), f"in pieces of {size}"

    run(both())


@pytest.mark.parametrize("recording", replayed("stream", *COMPATIBLE, "ollama"))
def test_whole(recording: Recording) -> None:
    """Who does not ask for a stream hears in one piece what the vendor's own client accumulates from one."""
    exchange = loaded(recording)

    async def both() -> None:
        async with ways() as clients:
            clients.up.default = plan_of(exchange, exchange.body, 7)
            if recording.provider == "ollama":
                direct = said.of_ollama(await ollama_lines(clients.up_ollama))
            else:
                direct = said.of_openai(await openai_chunks(clients.up_openai, USAGE, MODEL))
            asked = clients.openai.chat.completions.create(messages=ASKED["messages"], model=route_of(recording))
            found = said.of_openai_whole((await asked).model_dump(warnings=False))
            assert found == _as_told(direct, found)

    run(both())


@pytest.mark.parametrize("recording", replayed("stream", "anthropic", "ollama"))
def test_cut(recording: Recording) -> None:
    """Of a recording whose end is missing nothing is a success, in either dialect: the SDK raises."""
    exchange = loaded(recording)
    end = b"\n" if recording.provider == "ollama" else b"\n\n"
    frames = [frame for frame in exchange.body.split(end) if frame.strip()]

    async def ask() -> None:
        async with ways() as clients:
            for count in sorted({0, len(frames) // 2, len(frames) - 1}):
                clients.up.default = plan_of(exchange, b"".join(frame + end for frame in frames[:count]), None)
                with pytest.raises(anthropic.APIError):
                    await anthropic_message(clients.anthropic, ASKED, route_of(recording))
                with pytest.raises(openai.APIError):
                    await openai_chunks(clients.openai, ASKED, route_of(recording))

    run(ask())


def _as_told(direct: Said, found: Said) -> Said:
    """What Atlas has to make of it: a finish that the vendor forgot, and a usage that it did not tell, are Atlas's."""
    finish = direct.finish or ("tool_calls" if direct.calls else "stop")
    if direct.usage is None:
        assert found.usage is not None
        assert found.usage.answer > 0
    return replace(direct, finish=finish, usage=direct.usage or found.usage)


_BODIES: dict[str, Any] = {
    "chaos": completion_create_params.CompletionCreateParamsStreaming,
    "claude": message_create_params.MessageCreateParamsStreaming,
}


def _with_requests(*vendors: str) -> list[Any]:
    return [
        param
        for param in replayed("stream", *vendors)
        if param.values[0] is None or param.values[0].load().request_body
    ]


@pytest.mark.parametrize("recording", _with_requests(*COMPATIBLE))
def test_requests_of_chat_completions(recording: Recording, record_property: Any) -> None:
    """A recorded request reaches Anthropic and Ollama as they want it, or is a 400 that names what cannot be said."""
    for route in ("claude", "llama"):
        _asked_elsewhere(recording, "/v1/chat/completions", route, record_property)


@pytest.mark.parametrize("recording", _with_requests("anthropic"))
def test_requests_of_messages(recording: Recording, record_property: Any) -> None:
    """A recorded request reaches OpenAI and Ollama as they want it, or is a 400 that names what cannot be said."""
    for route in ("chaos", "llama"):
        _asked_elsewhere(recording, "/v1/messages", route, record_property)


def _asked_elsewhere(recording: Recording, path: str, route: str, record_property: Any) -> None:
    exchange = loaded(recording)
    status, answer, upstream = run(_ask(exchange, path, f"{route}/{MODEL}"))
    if status == 400:
        message = answer["error"]["message"]
        record_property("refused", f"{recording.provider} to {route}: {message[:120]}")
        assert upstream is None
        assert message
        return
    assert status == 200, answer
    assert upstream is not None
    assert (upstream["model"], bool(upstream["messages"])) == (MODEL, True)
    if route == "llama":
        ChatRequest.model_validate(upstream)
    else:
        TypeAdapter(_BODIES[route]).validate_python(upstream)


async def _ask(exchange: Exchange, path: str, model: str) -> tuple[int, Any, Any]:
    """The answer's status, its JSON if it is an error, and what the upstream got."""
    async with ways() as clients:
        clients.up.default = Plan()
        async with RawClient.to(clients.atlas.base_url) as client:
            answer = await client.request("POST", path, json={**body_of(exchange), "model": model})
        upstream = clients.up.last.json if clients.up.requests else None
        return answer.status, answer.json if answer.status != 200 else None, upstream
