"""A real llama.cpp server as upstream: somebody else's idea of both wires, on real sockets, with real tokens."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.e2e.house import run, sdk
from tests.support import llamacpp
from tests.support.baseline import baseline
from tests.support.http import RawClient
from tests.support.server import AtlasServer, atlas_settings

pytestmark = pytest.mark.skipif(llamacpp.missing() is not None, reason=str(llamacpp.missing()))

MESSAGES: Any = [{"role": "system", "content": "speak of the sea"}, {"role": "user", "content": "and the birds"}]
ASKED: Any = {"messages": MESSAGES, "max_tokens": 24}
ENDLESS = 15_000
"""More tokens than the server makes in the time that a test has."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's address."""
    with llamacpp.serving(llamacpp.write_model(tmp_path_factory.mktemp("llama") / "tiny.gguf")) as url:
        yield url


@asynccontextmanager
async def atlas(llama: str, name: str = "chat") -> AsyncIterator[AtlasServer]:
    """Atlas before the server: `chat/*` over its chat completions, or `claude/*` over its messages."""
    way = {
        "chat": {"preset": "llamacpp", "base_url": f"{llama}/v1"},
        "claude": {"kind": "anthropic", "base_url": llama},
    }[name]
    endpoints = [{"name": name, "model": "*", **way}]
    routes = [{"model": f"{name}/*", "endpoints": [name]}]
    async with baseline(), AtlasServer(atlas_settings(endpoints=endpoints, routes=routes)) as served:
        yield served


async def streamed(client: AsyncOpenAI, model: str, **body: Any) -> tuple[str, str | None, Any]:
    """Text, finish reason and usage of a stream."""
    text, finish, usage = "", None, None
    async for chunk in await client.chat.completions.create(
        model=model, stream=True, stream_options={"include_usage": True}, **body
    ):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
        usage = chunk.usage or usage
    return text, finish, usage


async def plain(client: AsyncOpenAI, model: str, **body: Any) -> tuple[str, str | None, Any]:
    """Text, finish reason and usage of an answer that is not streamed."""
    answer = await client.chat.completions.create(model=model, **body)
    return answer.choices[0].message.content or "", answer.choices[0].finish_reason, answer.usage


def counted(usage: Any) -> tuple[int, int]:
    """What does not depend on what the server has in its cache."""
    return usage.prompt_tokens, usage.completion_tokens


@pytest.mark.parametrize("way", [streamed, plain])
def test_chat_completions(llama: str, way: Any) -> None:
    """Through Atlas the answer has the text, the ending and the usage that it has without, streamed and not."""

    async def go() -> None:
        async with atlas(llama) as served, sdk(f"{llama}/v1") as direct, sdk(f"{served.base_url}/v1") as through:
            text, finish, usage = await way(direct, "tiny", **ASKED)
            assert (len(text.split()), finish, usage.completion_tokens) == (24, "length", 24)
            again, ended, reported = await way(through, "chat/tiny", **ASKED)
            assert (again, ended, counted(reported)) == (text, finish, counted(usage))

    run(go())


def test_the_servers_own_members_arrive(llama: str) -> None:
    """Members that only this server has reach the client, in every chunk that has them."""

    async def go() -> None:
        async with atlas(llama) as served, sdk(f"{served.base_url}/v1") as client:
            chunks = await client.chat.completions.create(
                model="chat/tiny", stream=True, stream_options={"include_usage": True}, **ASKED
            )
            seen = [chunk.model_dump(exclude_unset=True) async for chunk in chunks]
            assert all(chunk["system_fingerprint"] for chunk in seen)
            assert seen[-1]["timings"]["predicted_n"] == 24

    run(go())


@pytest.mark.parametrize("route", ["chat", "claude"])
def test_cancel_stops_the_generation(llama: str, route: str) -> None:
    """Cancelling a stream closes the socket, and the server stops working on it at once."""

    async def go() -> None:
        async with httpx.AsyncClient() as observer:
            await idle(observer, llama)  # of what other tests asked
            async with atlas(llama, route) as served, RawClient.to(served.base_url) as client:
                body = {"model": f"{route}/tiny", "stream": True, "messages": MESSAGES, "max_tokens": ENDLESS}
                stream = await client.stream("POST", "/v1/chat/completions", json=body)
                assert await busy(observer, llama) == 1
                sid = stream.headers["x-atlas-stream-id"]
                async with RawClient.to(served.base_url) as control:
                    assert (await control.request("POST", f"/v1/streams/{sid}/cancel")).status == 200
                await idle(observer, llama)

    run(go())


async def busy(observer: httpx.AsyncClient, llama: str) -> int:
    """How many answers the server is working on."""
    slots = (await observer.get(f"{llama}/slots")).json()
    return sum(slot["is_processing"] for slot in slots)


async def idle(observer: httpx.AsyncClient, llama: str) -> None:
    """Waits for the server to notice, for less than half of what the answer itself takes."""
    for _ in range(100):
        if await busy(observer, llama) == 0:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the server goes on generating")


@pytest.mark.parametrize("route", ["chat", "claude"])
def test_messages(llama: str, route: str) -> None:
    """The official Anthropic client gets the server's text and usage over either wire, streamed and not."""
    asked: Any = {
        "model": f"{route}/tiny", "max_tokens": 24, "system": "speak of the sea",
        "messages": [{"role": "user", "content": "and the birds"}],
    }  # fmt: skip

    async def go() -> None:
        async with atlas(llama, route) as served, sdk(f"{llama}/v1") as direct:
            text, _, usage = await plain(direct, "tiny", **ASKED)
            async with AsyncAnthropic(base_url=served.base_url, api_key="caller", max_retries=0) as client:
                async with client.messages.stream(**asked) as stream:
                    whole = await stream.get_final_message()
                for message in (whole, await client.messages.create(**asked)):
                    assert "".join(part.text for part in message.content if part.type == "text") == text
                    assert message.stop_reason == "max_tokens"
                    said = message.usage
                    read = (said.cache_read_input_tokens or 0) + (said.cache_creation_input_tokens or 0)
                    assert (said.input_tokens + read, said.output_tokens) == counted(usage)

    run(go())


def test_a_refusal_of_the_server(llama: str) -> None:
    """A prompt that does not fit is the caller's mistake, said in the server's words."""
    huge: Any = [{"role": "user", "content": "sea " * 40_000}]

    async def go() -> None:
        async with atlas(llama) as served, RawClient.to(served.base_url) as client:
            answer = await client.request(
                "POST", "/v1/chat/completions", json={"model": "chat/tiny", "messages": huge, "max_tokens": 1}
            )
            assert answer.status == 400, answer
            assert answer.json["error"]["code"] == "context_length_exceeded"

    run(go())
