"""Limits of keys and streams in one process: statuses, when to come back, and that nobody else is touched."""

from contextlib import AsyncExitStack
from typing import Any

from tests.e2e.house import CHAT, ask, house, run, sid_of
from tests.support.chaos import Gate, Plan
from tests.support.clock import ManualClock
from tests.support.http import Answer
from tests.support.keys import keyed, made
from tests.support.signals import eventually


def refused(answer: Answer, code: str, after_s: int = 1) -> None:
    """A 429 that says what it is and when to come back."""
    assert (answer.status, answer.json["error"]["code"]) == (429, code)
    assert answer.json["error"]["type"] == "rate_limit_error"
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == (str(after_s), "true")


def test_requests_per_second() -> None:
    """A key that asks more often than it may gets a 429 in its dialect; another key is served."""

    async def scenario() -> None:
        one, other = made("a"), made("b")
        server = {"requests_per_s": 0.1}
        sections: Any = {"kinds": ("openai_chat", "anthropic"), **keyed(one, other)}
        async with house(server=server, clock=ManualClock(), **sections) as it:
            assert (await it.ask(one.headers())).status == 200
            refused(await it.ask(one.headers()), "rate_limit_exceeded", 10)
            assert (await it.ask(other.headers())).status == 200
            body = {"model": "claude/any", "max_tokens": 9, "messages": ask()["messages"]}
            answer = await it.call("POST", "/v1/messages", one.headers("x-api-key"), json=body)
            assert (answer.status, answer.json["error"]["type"]) == (429, "rate_limit_error")
            assert answer.headers["retry-after"] == "10"

    run(scenario())


def test_control_operations_per_second() -> None:
    """Pauses, resumes, cancels and deletes count together, for each key; reading and asking do not."""

    async def scenario() -> None:
        server: Any = {"control_per_s": 2}
        async with house(Plan(gate=Gate(2)), server=server, clock=ManualClock()) as it, it.chat() as answer:
            sid = sid_of(answer)
            assert (await it.control(sid, "pause")).status == 200
            assert (await it.control(sid, "resume")).status == 200
            for op in ("pause", "resume", "cancel"):
                refused(await it.control(sid, op), "rate_limit_exceeded")
            refused(await it.call("DELETE", f"/v1/streams/{sid}"), "rate_limit_exceeded")
            assert (await it.status(sid))["state"] == "running"

    run(scenario())


def test_readers_of_a_stream() -> None:
    """A reader too many is refused, in the native format and the stream's own, until one leaves; nobody is cut off."""

    async def scenario() -> None:
        gate = Gate(2)
        async with AsyncExitStack() as stack:
            it = await stack.enter_async_context(house(Plan(gate=gate), server={"max_readers": 2}))
            answer = await stack.enter_async_context(it.chat())
            path = f"/v1/streams/{sid_of(answer)}/events"
            readers = [await stack.enter_async_context(it.read(path)) for _ in range(2)]
            for query in ("", "?format=wire"):
                refused(await it.call("GET", path + query), "too_many_readers")
            gate.open()
            for reader in (answer, *readers):
                assert reader.status == 200
                assert b"end" in await reader.read() or reader is answer
            assert (await it.call("GET", path)).status == 200

    run(scenario())


def large(size: int) -> dict[str, Any]:
    """Members of a request of a little more than so many bytes."""
    return {"messages": [{"role": "user", "content": "x" * size}]}


def test_bodies_in_all() -> None:
    """Bodies that arrive or whose streams run are bounded together; small requests and what runs are not touched."""

    async def scenario() -> None:
        gate, server = Gate(2), {"max_body": 300_000, "max_bodies": 700_000}
        async with AsyncExitStack() as stack:
            it = await stack.enter_async_context(house(Plan(gate=gate), server=server))
            running = await stack.enter_async_context(it.chat(**large(250_000)))
            await running.until_frames(2)
            arriving = await stack.enter_async_context(it.client())
            head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            await arriving.send(head.encode())
            await arriving.send(b"content-length: 300000\r\n\r\n" + b" " * 290_000)
            await eventually(lambda: it.app.services.bodies.arriving > 200_000)
            answer = await it.ask(**large(250_000))
            assert (answer.status, answer.json["error"]["code"]) == (503, "gateway_overloaded")
            assert answer.headers["retry-after"] == "2"
            gate.open()
            assert (await it.ask(**large(1_000))).status == 200
            assert (await running.read()).endswith(b"data: [DONE]\n\n")
            arriving.reset()
            await eventually(lambda: it.app.services.bodies.arriving == it.channels == 0)
            assert (await it.ask(**large(290_000))).status == 200
            assert (await it.call("POST", "/v1/agents/assistant/runs", json={"input": "x" * 290_000})).status == 200
            counting = {"model": "mock", "max_tokens": 1, **large(290_000)}
            assert (await it.call("POST", "/v1/messages/count_tokens", json=counting)).status == 200
            assert it.app.services.bodies.arriving == 0

    run(scenario())


def test_chat_is_not_control() -> None:
    """Asking for answers is not held to the rate of control operations."""

    async def scenario() -> None:
        async with house(server={"control_per_s": 1}) as it, it.client() as client:
            for _ in range(5):
                assert (await client.request("POST", CHAT, json=ask(stream=False))).status == 200

    run(scenario())
