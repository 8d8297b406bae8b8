"""What callers see of a process that has too much to do: quick refusals in their dialect, and control as ever."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from bench import slow
from bench.callers import Crowd
from bench.wire import Wire, request
from gateway.api.gate import SPARE_S
from tests.e2e.house import CHAT, House, ask, house, run, sid_of
from tests.e2e.test_ops import metrics, total
from tests.support.chaos import Gate, Plan
from tests.support.clock import ManualClock
from tests.support.fold import fold
from tests.support.gateway_process import GatewayProcess
from tests.support.http import RawClient, RawStream
from tests.support.keys import keyed, made
from tests.support.signals import eventually

BOTH: dict[str, Any] = {"kinds": ("openai_chat", "anthropic")}


@asynccontextmanager
async def full(gate: Gate, **sections: Any) -> AsyncIterator[tuple[House, RawStream]]:
    """A house for one stream, which is open and brings its rest through `gate`."""
    sections = {"server": {"max_streams": 1}, **BOTH, **sections}
    async with house(Plan(gate=gate), **sections) as it, it.chat() as answer:
        await answer.until_frames(2)
        yield it, answer


def test_refusals() -> None:
    """A stream too many is a 503 to OpenAI's client and a 529 to Anthropic's, with the headers that say when again."""

    async def scenario() -> None:
        gate = Gate(2)
        async with full(gate) as (it, answer):
            async with it.sdk() as client:
                with pytest.raises(openai.InternalServerError) as refused:
                    await client.chat.completions.create(**ask(stream=False))
            assert refused.value.status_code == 503
            assert (refused.value.type, refused.value.code) == ("server_error", "gateway_overloaded")
            assert refused.value.response.headers["retry-after"] == "2"
            assert refused.value.response.headers["x-should-retry"] == "true"
            assert refused.value.request_id.startswith("req_")
            async with anthropic.AsyncAnthropic(base_url=it.atlas.base_url, api_key="x", max_retries=0) as client:
                with pytest.raises(anthropic.APIStatusError) as overloaded:
                    await client.messages.create(model="claude/any", max_tokens=9, messages=ask()["messages"])
            assert overloaded.value.status_code == 529
            body: Any = overloaded.value.body
            assert body["error"]["type"] == "overloaded_error"
            assert body["request_id"] == overloaded.value.response.headers["request-id"]
            assert overloaded.value.response.headers["retry-after"] == "2"
            samples = await metrics(it)
            assert total(samples, "atlas_overload_refusals", 'reason="streams"') == 2
            assert total(samples, "atlas_http_requests", f'route="{CHAT}"', 'status="503"') == 1
            gate.open()
            assert fold(await answer.read()).done
            await eventually(lambda: it.channels == 0)
            assert (await it.ask()).status == 200

    run(scenario())


def test_preflight_is_answered() -> None:
    """What a browser asks before a page may call is no stream, and is answered when no streams are taken."""

    async def scenario() -> None:
        page = {"origin": "https://page.example", "access-control-request-method": "POST"}
        server: Any = {"max_streams": 1, "cors_origins": ["https://page.example"]}
        async with full(Gate(2), server=server) as (it, answer):
            assert (await it.call("OPTIONS", CHAT, page)).status == 200
            refused = await it.ask({"origin": "https://page.example"})
            assert (refused.status, refused.headers["access-control-allow-origin"]) == (503, "https://page.example")
            assert "retry-after" in refused.headers["access-control-expose-headers"]
            other = await it.ask({"origin": "https://other.example"})
            assert (other.status, "access-control-allow-origin" in other.headers) == (503, False)
            await it.control(sid_of(answer), "cancel")
            await answer.read()

    run(scenario())


def test_control_has_priority() -> None:
    """A process that takes no more streams still shows, pauses, resumes and cancels those it has, and is probed."""

    async def scenario() -> None:
        async with full(Gate(2)) as (it, answer):
            assert (await it.ask()).status == 503
            for path in ("/livez", "/readyz", "/metrics", f"/v1/streams/{sid_of(answer)}"):
                assert (await it.call("GET", path)).status == 200
            for op in ("pause", "resume", "cancel"):
                assert (await it.control(sid_of(answer), op)).status == 200
            await answer.read()

    run(scenario())


def test_connection_is_kept() -> None:
    """A refusal costs the client no connection, whatever body it had begun to send; what it sends next is answered."""

    async def scenario() -> None:
        async with full(Gate(2)) as (it, answer), it.client() as client:
            body = json.dumps(ask()).encode() + b" " * 200_000
            for _ in range(3):
                assert (await client.request("POST", CHAT, {"content-type": "application/json"}, body)).status == 503
            assert (await client.request("GET", "/livez")).status == 200
            await it.control(sid_of(answer), "cancel")
            await answer.read()

    run(scenario())


def test_refused_in_a_row() -> None:
    """Of many requests sent without waiting for answers the first refusal is the last answer: it closes."""

    async def scenario() -> None:
        async with full(Gate(2)) as (it, answer), it.client() as client:
            body = json.dumps(ask()).encode()
            head = (
                b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            )
            probe = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
            await client.send(probe + (head % (CHAT.encode(), len(body)) + body) * 2000)
            seen = []
            for _ in range(2):
                one = await client.head()
                await one.read()
                seen.append((one.status, one.headers.get("connection")))
            assert seen == [(200, None), (503, "close")]
            await it.control(sid_of(answer), "cancel")
            await answer.read()

    run(scenario())


def test_refused_then_rubbish() -> None:
    """Behind refusals, rubbish gets its 400 after them, in the order in which it was sent."""

    async def scenario() -> None:
        async with full(Gate(2)) as (it, answer), it.client() as client:
            one = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n" % CHAT.encode()
            await client.send(one + one + b"rubbish\r\n\r\n")
            seen = []
            for _ in range(3):
                answered = await client.head()
                await answered.read()
                seen.append((answered.status, answered.headers.get("connection")))
            assert seen == [(503, None), (503, None), (400, "close")]
            await it.control(sid_of(answer), "cancel")
            await answer.read()

    run(scenario())


def test_no_body_is_asked_for() -> None:
    """A client that asks before it sends its body is told not to, and its connection is closed."""

    async def scenario() -> None:
        async with full(Gate(2)) as (it, answer), it.client() as client:
            head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n"
            await client.send(head % CHAT.encode())
            refused = await client.head()
            assert (refused.status, refused.headers["connection"]) == (503, "close")
            await it.control(sid_of(answer), "cancel")
            await answer.read()

    run(scenario())


def test_burst() -> None:
    """Hundreds of requests at the same moment are all answered; meanwhile a probe does not wait for them."""

    async def scenario() -> None:
        async with house() as it, AsyncExitStack() as stack:
            probe, *clients = [await stack.enter_async_context(it.client()) for _ in range(301)]
            asked = [asyncio.ensure_future(one.request("POST", CHAT, json=ask(stream=False))) for one in clients]
            await asyncio.sleep(0)
            assert (await probe.request("GET", "/livez")).status == 200
            assert {(await one).status for one in asked} == {200}

    run(scenario())


def test_slow_loop() -> None:
    """While the loop is too slow for longer than a second, new streams are refused and running ones go on."""

    async def scenario() -> None:
        gate, clock = Gate(2), ManualClock()
        async with full(gate, clock=clock, server={"max_loop_s": 1e-9}) as (it, answer):

            def is_strained() -> bool:
                clock.advance(0.1)
                return it.app.gate.overload.strain.standing

            await eventually(is_strained)
            refused = await it.ask()
            assert (refused.status, refused.headers["retry-after"]) == (503, "2")
            assert total(await metrics(it), "atlas_overload_refusals", 'reason="loop"') == 1
            gate.open()
            assert fold(await answer.read()).done

    run(scenario())


async def _until_both(crowd: Crowd) -> None:
    """Far too many ask until some were served and some refused: within a second, or longer on a busy machine."""
    seconds, good, refused = 1.0, 0, 0
    while not (good and refused):
        tally = await crowd.loop(600, seconds)
        assert (tally.bad, tally.words) == (0, [])
        seconds, good, refused = 2 * seconds, good + tally.good, refused + len(tally.refusal_s)


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
def test_more_than_it_can_do(tmp_path: Path, wire: Wire) -> None:
    """Of far too many at once each is served or properly refused; control is answered; then everything is as before."""

    async def scenario() -> None:
        config = {"mock": {"enabled": True}, "server": {"queue_s": 0.05}}
        async with GatewayProcess(config, tmp_path) as gateway, gateway.client() as probe:
            crowd = Crowd(gateway.port, request(gateway.port, "mock-fast", wire=wire), wire)
            calling = asyncio.ensure_future(_until_both(crowd))
            while not calling.done():
                assert (await probe.request("GET", "/v1/streams")).status == 200
                await asyncio.sleep(0.05)
            await calling
            while (after := await crowd.run(10, 1.0)).good < after.sent:  # the test's deadline ends it
                assert (after.bad, after.words) == (0, [])
            crowd.close()

    run(scenario())


def test_slow_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets that are slow, idle or greedy are all gone after ten seconds, while others are served.

    Some more where the machine is busy: what nothing bounds would stay for ever, and a body without a rate for 35.
    """
    monkeypatch.setattr(slow, "LIVES_S", 25.0)

    async def scenario() -> None:
        async with GatewayProcess({"mock": {"enabled": True}}, tmp_path) as gateway:
            sockets = slow.Sockets(gateway.port, "any")
            crowd = Crowd(gateway.port, request(gateway.port, "mock-fast"))
            await crowd.connect(20)
            _, tally = await asyncio.gather(sockets.run(160), crowd.run(20, 10.0))
            crowd.close()
            assert sockets.left == 0
            assert (tally.good, tally.bad) == (tally.sent, 0)

    run(scenario())


SLOW_HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost:"


def test_slow_sockets_keep_nobody_out() -> None:
    """When slow sockets hold all places, whoever comes has one of theirs: probes are answered, and streams begin."""

    async def scenario() -> None:
        async with house(server={"max_connections": 16}) as it, AsyncExitStack() as stack:
            slow_ones = [await stack.enter_async_context(RawClient.to(it.atlas.base_url)) for _ in range(15)]
            idle = await stack.enter_async_context(RawClient.to(it.atlas.base_url))
            for each in slow_ones:
                await each.send(SLOW_HEAD)
            assert (await idle.request("GET", "/livez")).status == 200
            _all_are_silent(it, since_s=-60)  # whatever the clock says: nobody has been silent for long
            refused = await (await stack.enter_async_context(RawClient.to(it.atlas.base_url))).head()
            assert refused.status == 503
            _all_are_silent(it, since_s=SPARE_S)
            for path in ("/livez", "/readyz"):
                async with RawClient.to(it.atlas.base_url) as client:
                    assert (await client.request("GET", path)).status == 200
            async with it.chat() as answer:
                assert answer.status == 200
                assert b"[DONE]" in await answer.read()
            waiting = [asyncio.ensure_future(each.head()) for each in slow_ones]
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert {(each.result().status, each.result().headers["connection"]) for each in done} == {(408, "close")}
            for each in waiting:
                each.cancel()
            await asyncio.wait(waiting)

    run(scenario())


def _all_are_silent(it: House, since_s: float) -> None:
    """Whoever says nothing has done so for so long."""
    silent = it.app.gate.silent
    silent.update(dict.fromkeys(silent, asyncio.get_running_loop().time() - since_s))


def test_fair_share() -> None:
    """The last places are for tenants that hold less than their share: one that holds the others is refused first."""

    async def scenario() -> None:
        noisy, quiet = made("noisy"), made("quiet")
        sections = {"server": {"max_streams": 10}, **keyed(noisy, quiet)}
        async with house(Plan(stall_at_event=3), **sections) as it, AsyncExitStack() as stack:

            async def statuses(headers: dict[str, str], times: int) -> list[int]:
                streams = [await stack.enter_async_context(it.chat(headers)) for _ in range(times)]
                return [stream.status for stream in streams]

            assert await statuses(noisy.headers(), 10) == [200] * 9 + [503]
            assert await statuses(quiet.headers(), 2) == [200, 503]

    run(scenario())
