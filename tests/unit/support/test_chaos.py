"""The chaos provider does what its plan says, to the byte."""

import asyncio
import json
import zlib
from collections.abc import Coroutine
from typing import Any

import pytest
from openai import AsyncOpenAI

from tests.support.answer import body_of, event_of
from tests.support.baseline import baseline
from tests.support.chaos import ChaosProvider, Gate, Plan, Tool, refusing
from tests.support.fold import fold
from tests.support.http import CutBodyError, RawClient, RawStream
from tests.support.run import run
from tests.support.truth import tokens_seen

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
SIZE = len(body_of(Plan(), ASK))
both_loops = pytest.mark.parametrize("fast", [False, True], ids=["asyncio", "uvloop"])


def check(coro: Coroutine[Any, Any, None], *, fast: bool = False) -> None:
    """Runs, and sees that nothing is left."""

    async def bounded() -> None:
        async with baseline():
            await coro

    run(bounded(), fast=fast)


async def ask(client: RawClient, **changes: Any) -> RawStream:
    """One streamed request."""
    return await client.stream("POST", CHAT, json={**ASK, **changes})


@both_loops
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("chunking", ["event", "whole", 1, 100])
def test_honest_answer(fast: bool, framing: Any, chunking: Any) -> None:
    """The body is the planned one, however it is framed and cut into writes; the books are right."""

    async def scenario() -> None:
        async with ChaosProvider(Plan(framing=framing, chunking=chunking)) as up, RawClient.to(up.base_url) as client:
            stream = await ask(client)
            assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
            body = await stream.read()
            assert body == body_of(up.default, ASK) == bytes(up.last.body_sent)
            assert await up.last.answered() == "complete"
            assert (up.last.tokens, up.ever, len(up.requests)) == (8, 1, 1)
            assert up.last.json == ASK
            assert up.last.headers["content-type"] == "application/json"

    check(scenario(), fast=fast)


@both_loops
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("at", [0, 1, 100, 101, SIZE - 1, SIZE])
@pytest.mark.parametrize("fault", ["cut_at_byte", "reset_at_byte", "end_at_byte"])
def test_bytes_of_body(fast: bool, framing: Any, at: int, fault: str) -> None:
    """Exactly so many bytes of body arrive, then FIN, RST or a proper end, for every framing."""

    async def scenario() -> None:
        plan = Plan(framing=framing).with_(**{fault: at})
        async with ChaosProvider(plan) as up, RawClient.to(up.base_url) as client:
            stream = await ask(client)
            body = await stream.read_cut()
            assert body == body_of(Plan(), ASK)[:at]
            assert await up.last.answered() == {"cut": "cut", "reset": "reset", "end": "ended"}[fault.partition("_")[0]]
            proper = {"end_at_byte": "complete", "reset_at_byte": "reset", "cut_at_byte": "eof"}[fault]
            if fault == "cut_at_byte" and (framing == "close" or (framing == "length" and at == SIZE)):
                proper = "complete"  # where the connection's end is the body's, nobody can tell
            if fault == "reset_at_byte" and framing == "length" and at == SIZE:
                proper = "complete"
            assert stream.ended == proper

    check(scenario(), fast=fast)


@both_loops
@pytest.mark.parametrize("fault", ["cut_at_byte", "reset_at_byte"])
def test_bytes_of_wire(fast: bool, fault: str) -> None:
    """Counted on the wire, the head can be cut, too; at 0 the provider hangs up without a word."""

    async def scenario() -> None:
        async with ChaosProvider() as up:
            for at in (0, 10, 300):
                up.script = [Plan(count="wire").with_(**{fault: at})]
                async with RawClient.to(up.base_url) as client:
                    with pytest.raises(CutBodyError) as caught:
                        await (await ask(client)).read()
                assert caught.value.how == ("eof" if fault == "cut_at_byte" else "reset")
                assert up.last.wire_sent == at

    check(scenario(), fast=fast)


@both_loops
def test_every_byte(fast: bool) -> None:
    """A reset at any byte loses no byte before it and leaks none after it."""

    async def scenario() -> None:
        expected = body_of(Plan(tokens=3), ASK)
        async with ChaosProvider() as up:
            for at in range(0, len(expected), 3):
                up.script = [Plan(tokens=3, reset_at_byte=at)]
                async with RawClient.to(up.base_url) as client:
                    stream = await ask(client)
                    assert await stream.read_cut() == expected[:at]
                    assert stream.ended == "reset"

    check(scenario(), fast=fast)


@both_loops
@pytest.mark.parametrize("rude", [False, True], ids=["fin", "rst"])
def test_the_provider_sees_the_socket_close(fast: bool, rude: bool) -> None:
    """A peer that leaves in mid-stream is noticed at once, and what it was sent by then is known."""

    async def scenario() -> None:
        gate = Gate(3)
        async with ChaosProvider(Plan(gate=gate)) as up:
            async with RawClient.to(up.base_url) as client:
                stream = await ask(client)
                await stream.until_frames(3)
                await gate.held()
                assert not up.last.closed.is_set()
                client.reset() if rude else client.cut()
                await up.last.gone()
            assert (up.last.closed_by, up.last.outcome, up.last.events, up.last.tokens) == ("peer", "left", 3, 2)
            assert up.open == 0

    check(scenario(), fast=fast)


def test_gate_lets_events_go_one_by_one() -> None:
    """Nothing comes that was not released, and `release` returns when it was written."""

    async def scenario() -> None:
        gate = Gate()
        async with ChaosProvider(Plan(gate=gate, tokens=3)) as up, RawClient.to(up.base_url) as client:
            stream = await ask(client)
            await gate.held()
            for n in range(1, 5):
                await gate.release()
                assert up.last.events == n
                assert len(await stream.until_frames(n)) == n
            gate.open()
            assert fold(await stream.read()).done

    check(scenario())


def test_gate_before_the_head_and_stall() -> None:
    """The head can be held; a stalled stream says nothing more and stays open."""

    async def scenario() -> None:
        gate = Gate()
        plan = Plan(hold_headers=gate, stall_at_event=event_of(Plan(), "text", 4))
        async with ChaosProvider(plan) as up, RawClient.to(up.base_url) as client:
            asking = asyncio.ensure_future(ask(client))
            await gate.held()
            assert not asking.done()
            await gate.release()
            stream = await asking
            await stream.until_frames(5)
            assert tokens_seen(1, fold(bytes(stream.body)).text) == 4
            assert up.last.outcome == "open"
            with pytest.raises(TimeoutError, match="event 6"):
                await up.last.wrote(6, timeout=0.02)
            with pytest.raises(TimeoutError, match="write event"):
                await Gate(timeout=0.05).release(9)

    check(scenario())


def test_plans_are_chosen() -> None:
    """The script comes first, then the model's plan or its next one, then the default."""

    async def scenario() -> None:
        async with ChaosProvider(Plan(seed=1)) as up, RawClient.to(up.base_url) as client:
            up.plans = {"one": Plan(seed=2), "turns": [Plan(seed=3), refusing(503), Plan(seed=4)]}
            up.script = [Plan(seed=9)]
            seeds = [
                (await (await ask(client, model=name)).read())[:60]
                for name in ("one", "one", "turns", "turns", "turns", "turns", "other")
            ]
            assert [request.plan.seed for request in up.requests] == [9, 2, 3, 1, 4, 4, 1]
            assert [request.plan.status for request in up.requests].count(503) == 1
            assert len(set(seeds)) == 6
            assert (up.ever, up.requests[0].reused, up.requests[1].reused) == (1, False, True)

    check(scenario())


def test_refusals() -> None:
    """Statuses, headers, raw bodies and the key are as planned; what is no chat goes to `others`."""

    async def scenario() -> None:
        async with ChaosProvider(api_key="secret") as up, RawClient.to(up.base_url) as client:
            key = {"authorization": "Bearer secret"}
            assert (await client.request("POST", CHAT, json=ASK)).status == 401
            up.script = [
                refusing(429, code="slow_down", retry_after="3"),
                Plan(status=502, body=b"<html>", content_type="text/html"),
            ]
            limited = await client.request("POST", CHAT, key, json=ASK)
            assert (limited.status, limited.headers["retry-after"], limited.json["error"]["code"]) == (
                429,
                "3",
                "slow_down",
            )
            page = await client.request("POST", CHAT, key, json=ASK)
            assert (page.status, page.headers["content-type"], page.body) == (502, "text/html", b"<html>")
            assert (await client.request("POST", CHAT, key, b"{")).status == 400
            up.plans["m"] = Plan()
            models = await client.request("GET", "/v1/models", key)
            assert [row["id"] for row in models.json["data"]] == ["m"]
            assert (await client.request("GET", "/nowhere", key)).status == 404
            assert (len(up.requests), len(up.others)) == (4, 2)

    check(scenario())


@pytest.mark.parametrize(("encoding", "bits"), [("gzip", 31), ("deflate", 15)])
def test_content_encoding(encoding: str, bits: int) -> None:
    """Compressed bodies can be read event by event; a lying header leaves them plain."""

    async def scenario() -> None:
        gate = Gate(2)
        plan = Plan(content_encoding=encoding, gate=gate)
        async with ChaosProvider(plan) as up, RawClient.to(up.base_url) as client:
            stream = await ask(client)
            engine, plain = zlib.decompressobj(wbits=bits), b""
            while plain.count(b"\n\n") < 2:
                plain += engine.decompress(await stream.next())
            gate.open()
            assert zlib.decompress(await stream.read(), wbits=bits) == body_of(Plan(), ASK)
            up.script = [Plan(content_encoding=encoding, encoding_lies=True)]
            assert await (await ask(client)).read() == body_of(Plan(), ASK)

    check(scenario())


@pytest.mark.parametrize("idle", ["close", "reset"])
def test_idle_connections_end(idle: Any) -> None:
    """After a whole answer the provider hangs up, as vendors do with idle connections."""

    async def scenario() -> None:
        async with ChaosProvider(Plan(idle=idle)) as up, RawClient.to(up.base_url) as client:
            assert fold(await (await ask(client)).read()).done
            await up.last.gone()
            assert (up.last.closed_by, up.last.outcome) == ("provider", "complete")
            with pytest.raises((CutBodyError, ConnectionError)):
                await ask(client)

    check(scenario())


def test_idle_connections_are_closed_on_demand() -> None:
    """`close_idle` spares the busy; `refuse` refuses new connections until `listen`."""

    async def scenario() -> None:
        gate = Gate(1)
        async with ChaosProvider() as up, RawClient.to(up.base_url) as idle, RawClient.to(up.base_url) as busy:
            await (await ask(idle)).read()
            up.script = [Plan(gate=gate)]
            stream = await ask(busy)
            up.close_idle()
            await up.requests[0].gone()
            assert up.open == 1
            up.refuse()
            with pytest.raises(ConnectionRefusedError):
                await RawClient.to(up.base_url).__aenter__()
            port = up.port
            await up.listen()
            assert up.port == port
            async with RawClient.to(up.base_url) as third:
                assert (await ask(third)).status == 200
            gate.open()
            assert fold(await stream.read()).done

    check(scenario())


def test_a_provider_leaves_politely() -> None:
    """`leave` lets the answer under way out, then closes its connection too, and nobody gets in until `listen`."""

    async def scenario() -> None:
        gate = Gate(1)
        async with ChaosProvider() as up, RawClient.to(up.base_url) as busy, RawClient.to(up.base_url) as idle:
            await (await ask(idle)).read()
            up.script = [Plan(gate=gate)]
            stream = await ask(busy)
            up.leave()
            with pytest.raises(ConnectionRefusedError):
                await RawClient.to(up.base_url).__aenter__()
            assert up.open == 1
            gate.open()
            await stream.read()
            await up.all_closed()
            await up.listen()
            async with RawClient.to(up.base_url) as third:
                assert (await ask(third)).status == 200

    check(scenario())


def test_reader_that_does_not_read_is_felt() -> None:
    """Small buffers stop the provider's writing soon, and it says so."""

    async def scenario() -> None:
        plan = Plan(tokens=8_000, chunking="event")
        up = ChaosProvider(plan, send_buffer=4096)
        async with up, RawClient.to(up.base_url, receive_buffer=4096) as client:
            stream = await ask(client)
            await up.signal.until(lambda: up.last.paused_writing)
            assert up.last.tokens < 4_000
            assert tokens_seen(1, fold(await stream.read()).text) == 8_000

    check(scenario())


def test_chunked_request_bodies() -> None:
    """A request without a length is read, too."""

    async def scenario() -> None:
        raw = json.dumps(ASK).encode()
        body = b"".join(
            f"{len(raw[at : at + 9]):x}\r\n".encode() + raw[at : at + 9] + b"\r\n" for at in range(0, len(raw), 9)
        )
        async with ChaosProvider() as up, RawClient.to(up.base_url) as client:
            await client.send(b"POST " + CHAT.encode() + b" HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
            await client.send(body + b"0\r\n\r\n")
            assert fold(await (await client.head()).read()).done
            assert up.last.json == ASK

    check(scenario())


def test_the_stock_sdk_agrees() -> None:
    """openai-python reads text, tools, usage and whole answers from it."""

    async def scenario() -> None:
        tool = Tool(id="call_1", name="add", arguments='{"x": 1}')
        up = ChaosProvider(Plan(tools=(tool,)))
        async with up, AsyncOpenAI(base_url=up.base_url, api_key="k", max_retries=0) as client:
            messages: Any = [{"role": "user", "content": "hi"}]
            whole = await client.chat.completions.create(model="m", messages=messages)
            assert whole.choices[0].message.content == up.default.text()
            seen, usage = "", None
            stream = await client.chat.completions.create(
                model="m", messages=messages, stream=True, stream_options={"include_usage": True}
            )
            async for chunk in stream:
                seen += "".join(choice.delta.content or "" for choice in chunk.choices)
                usage = chunk.usage or usage
            assert seen == up.default.text()
            assert usage is not None
            assert usage.completion_tokens == up.last.tokens
            assert up.last.headers["authorization"] == "Bearer k"

    check(scenario())


def test_bug_in_a_plan_is_raised() -> None:
    """What the provider stumbles over fails the test, instead of looking like a network fault."""

    async def scenario() -> None:
        async with ChaosProvider(Plan(extra_chunk={"bad": object()})) as up, RawClient.to(up.base_url) as client:
            with pytest.raises(CutBodyError):
                await ask(client)

    with pytest.raises(TypeError, match="JSON"):
        run(scenario())
