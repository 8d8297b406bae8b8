"""The chaos provider speaks Anthropic and Ollama so that their official clients understand it, faults included."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

import pytest
from anthropic import APIStatusError, AsyncAnthropic
from ollama import AsyncClient, ResponseError

from tests.support.answer import body_of, event_of
from tests.support.baseline import baseline
from tests.support.chaos import ANTHROPIC, OLLAMA, OPENAI, ChaosProvider, Garbage, Plan, Tool, refusing
from tests.support.http import RawClient
from tests.support.run import run
from tests.support.sse import frames
from tests.support.wires import anthropic, ollama
from tests.support.wires.seam import Wire

MESSAGES: Any = [{"role": "user", "content": "hi"}]
ASK: dict[str, Any] = {"model": "m", "messages": MESSAGES, "stream": True, "max_tokens": 9}
TOOLS = (Tool(id="toolu_1", name="weather", arguments='{"city":"Łódź"}'), Tool(id="toolu_2", name="now"))
FULL = Plan(reasoning=3, tools=TOOLS, cached=4)
PATHS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages", "ollama": "/api/chat"}
every_wire = pytest.mark.parametrize("wire", [OPENAI, ANTHROPIC, OLLAMA], ids=lambda wire: wire.name)
streamed_or_not = pytest.mark.parametrize("stream", [True, False])


def check(scenario: Coroutine[Any, Any, None]) -> None:
    """Runs, and sees that nothing is left."""

    async def bounded() -> None:
        async with baseline():
            await scenario

    run(bounded())


def claude(up: ChaosProvider, key: str = "x") -> AsyncAnthropic:
    """The official client."""
    return AsyncAnthropic(base_url=up.root_url, api_key=key, max_retries=0)


def llama(up: ChaosProvider) -> AsyncClient:
    """The official client."""
    return AsyncClient(host=up.root_url)


async def aclose(client: AsyncClient) -> None:
    """Closes it, whose own method has no types."""
    await client.close()  # type: ignore[no-untyped-call]


async def said(up: ChaosProvider) -> Any:
    """What the official client accumulates from a stream."""
    async with claude(up) as client, client.messages.stream(model="m", messages=MESSAGES, max_tokens=9) as stream:
        return await stream.get_final_message()


@streamed_or_not
def test_anthropic_says_the_plan(stream: bool) -> None:
    """Thinking with its signature, text, tools, stop reason and usage arrive, streamed or whole."""

    async def scenario() -> None:
        async with ChaosProvider(FULL) as up, claude(up) as client:
            message: Any
            if stream:
                message = await said(up)
            else:
                message = await client.messages.create(model="m", messages=MESSAGES, max_tokens=9)
            thinking, text, *tools = message.content
            assert (thinking.thinking, thinking.signature) == (FULL.reasoning_text(), anthropic.signature_of(FULL))
            assert text.text == FULL.text()
            assert [(tool.id, tool.name, tool.input) for tool in tools] == [
                (tool.id, tool.name, json.loads(tool.arguments)) for tool in TOOLS
            ]
            assert (message.stop_reason, message.model, message.id) == ("tool_use", "m", "msg_chaos1")
            usage = message.usage
            assert (usage.input_tokens, usage.cache_read_input_tokens) == (6, 4)
            assert usage.output_tokens == anthropic.tokens_of(FULL) == up.last.tokens

    check(scenario())


def test_anthropic_counts_and_refuses() -> None:
    """Tokens are counted, a key may come either way, and refusals are of the official client's classes."""

    async def scenario() -> None:
        async with ChaosProvider(api_key="right") as up, claude(up, "right") as client, claude(up, "wrong") as stranger:
            count = await client.messages.count_tokens(model="m", messages=MESSAGES * 3)
            assert (count.input_tokens, [other.path for other in up.others]) == (30, ["/v1/messages/count_tokens"])
            up.script = [refusing(429, retry_after="3"), Plan(status=529)]
            for client_, status, type_ in (
                (stranger, 401, "authentication_error"),
                (client, 429, "rate_limit_error"),
                (client, 529, "overloaded_error"),
            ):
                with pytest.raises(APIStatusError) as caught:
                    await client_.messages.create(model="m", messages=MESSAGES, max_tokens=9)
                assert (caught.value.status_code, caught.value.body["error"]["type"]) == (status, type_)  # type: ignore[index]

    check(scenario())


def test_anthropic_events() -> None:
    """Every frame is named by its type; a ping comes early, the signature after the thinking, the end last."""
    found = frames(body_of(FULL, ASK, ANTHROPIC))
    assert all(frame.event == frame.json["type"] for frame in found)
    kinds = [frame.event for frame in found]
    assert kinds[:3] == ["message_start", "content_block_start", "ping"]
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert kinds.count("content_block_start") == kinds.count("content_block_stop") == 4
    assert event_of(FULL, "signature", wire=ANTHROPIC) == event_of(FULL, "reasoning", 2, wire=ANTHROPIC) + 1
    assert "".join(frame.json["delta"].get("text", "") for frame in found if "delta" in frame.json) == FULL.text()


@pytest.mark.parametrize(("style", "start", "end"), [("asked", 6, 6), ("finish", 0, 6), ("never", None, None)])
def test_anthropic_usage_styles(style: Any, start: int | None, end: int | None) -> None:
    """Usage is at both ends, only at the end, or nowhere."""
    found = {frame.event: frame.json for frame in frames(body_of(FULL.with_(usage=style), ASK, ANTHROPIC))}
    assert found["message_start"]["message"].get("usage", {}).get("input_tokens") == start
    assert found["message_delta"].get("usage", {}).get("input_tokens") == end


@streamed_or_not
def test_ollama_says_the_plan(stream: bool) -> None:
    """Thinking, text, whole tool calls, the reason and the counts arrive, streamed or whole."""

    async def scenario() -> None:
        async with ChaosProvider(FULL) as up:
            client = llama(up)
            if stream:
                lines = [line async for line in await client.chat(model="m", messages=MESSAGES, stream=True)]
            else:
                lines = [await client.chat(model="m", messages=MESSAGES)]
            assert "".join(line.message.thinking or "" for line in lines) == FULL.reasoning_text()
            assert "".join(line.message.content or "" for line in lines) == FULL.text()
            calls = [call.function for line in lines for call in line.message.tool_calls or ()]
            assert [(call.name, call.arguments) for call in calls] == [("weather", {"city": "Łódź"}), ("now", {})]
            last = lines[-1]
            assert (last.done, last.done_reason, last.prompt_eval_count) == (True, "stop", 10)
            assert last.eval_count == ollama.tokens_of(FULL) == up.last.tokens
            await aclose(client)

    check(scenario())


def test_ollama_ends_and_errors() -> None:
    """The last line can lack its reason, its counts, or itself; an error is a line, or a status with a text."""

    async def scenario() -> None:
        async with ChaosProvider() as up:
            client = llama(up)
            assert json.loads(body_of(Plan(no_finish=True), ASK, OLLAMA).splitlines()[-1]).get("done_reason") is None
            assert "eval_count" not in json.loads(body_of(Plan(usage="never"), ASK, OLLAMA).splitlines()[-1])
            assert b'"done":true' not in body_of(Plan(no_done=True), ASK, OLLAMA)
            joined = body_of(Plan(finish_with_last=True), ASK, OLLAMA).splitlines()
            assert len(joined) == 8
            assert json.loads(joined[-1])["message"]["content"]
            up.script = [refusing(503, message="queue is full"), Plan(error_event_at=(2, {"error": "out of memory"}))]
            for text in ("queue is full", "out of memory"):
                with pytest.raises(ResponseError, match=text):
                    [line async for line in await client.chat(model="m", messages=MESSAGES, stream=True)]
            await aclose(client)

    check(scenario())


@every_wire
@pytest.mark.parametrize("fault", ["cut_at_byte", "reset_at_byte", "end_at_byte"])
def test_bytes_of_body(wire: Wire, fault: str) -> None:
    """On every wire exactly so many bytes of body arrive, then the planned end."""

    async def scenario() -> None:
        whole = body_of(FULL, ASK, wire)
        async with ChaosProvider() as up:
            for at in (0, 1, 100, len(whole) - 1, len(whole)):
                up.default = FULL.with_(**{fault: at}, chunking=7)
                async with RawClient.to(up.base_url) as client:
                    stream = await client.stream("POST", PATHS[wire.name], json=ASK)
                    assert stream.headers["content-type"] == wire.stream_type
                    assert await stream.read_cut() == whole[:at]
                    proper = {"end_at_byte": "complete", "reset_at_byte": "reset", "cut_at_byte": "eof"}[fault]
                    assert stream.ended == proper

    check(scenario())


@every_wire
def test_stall_headers_and_body(wire: Wire) -> None:
    """On every wire the provider can fall silent, send other headers, and send another body."""

    async def scenario() -> None:
        at = event_of(FULL, "text", 4, wire=wire)
        async with ChaosProvider(FULL.with_(stall_at_event=at)) as up:
            async with RawClient.to(up.base_url) as client:
                stream = await client.stream("POST", PATHS[wire.name], json=ASK)
                await up.last.wrote(at)
                assert await stream.next()
                assert (up.last.events, up.last.outcome) == (at, "open")
            await up.last.gone()
            up.default = Plan(content_type="text/html", body=b"<p>", headers={"x-odd": "1"})
            async with RawClient.to(up.base_url) as client:
                answer = await client.request("POST", PATHS[wire.name], json=ASK)
            assert (answer.headers["content-type"], answer.headers["x-odd"], answer.body) == ("text/html", "1", b"<p>")

    check(scenario())


@every_wire
@pytest.mark.parametrize("kind", ["json", "utf8", "oversize", "not_object", "shape", "html", "truncated"])
def test_garbage(wire: Wire, kind: Any) -> None:
    """On every wire garbage stands between honest events, or in place of one, and does not hide the others."""
    honest = body_of(FULL, ASK, wire)
    found = body_of(FULL.with_(garbage=Garbage(kind=kind, at=3, count=2, size=5000)), ASK, wire)
    assert len(found) > len(honest)
    start = next(at for at, (a, b) in enumerate(zip(honest, found, strict=False)) if a != b)
    assert found.endswith(honest[start:])
    doubled = body_of(FULL.with_(duplicates=frozenset({3})), ASK, wire)
    assert len(honest) < len(doubled) < 2 * len(honest)


def test_wires_side_by_side() -> None:
    """One provider speaks all wires at once, each by its path."""

    async def scenario() -> None:
        async with ChaosProvider() as up:

            async def ask(path: str) -> bytes:
                async with RawClient.to(up.base_url) as client:
                    return (await client.request("POST", path, json=ASK)).body

            found = await asyncio.gather(*(ask(path) for path in PATHS.values()))
            assert found == [body_of(up.default, ASK, wire) for wire in (OPENAI, ANTHROPIC, OLLAMA)]

    check(scenario())
