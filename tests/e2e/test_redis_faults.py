"""Redis that is slow, away, or has lost something under running streams: what stock clients and readers elsewhere see.

Where Redis stays away the patience with it is made short: half a second instead of five.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai import APIError, APIStatusError

from gateway.recovery import Recovery
from gateway.streams import layout_redis as layout
from gateway.streams.writer_redis import Batching
from gateway.upstream.link_redis import Timing
from tests.e2e.house import CHAT, MESSAGES, MODEL, House, ask, house, run, sid_of
from tests.support.chaos import Gate, Plan
from tests.support.redis_proxy import RedisProxy
from tests.support.redis_server import RedisServer, shared_redis
from tests.support.signals import PATIENCE_S, eventually

TOKENS = 40
IMPATIENT: Any = {"give_up_s": 0.5}
HURRIED = Timing(answer_s=0.6, patience_s=0.3, reply_s=0.3)
_timing = {"once started": Timing()}


@pytest.fixture
def server() -> RedisServer:
    """The server of this test process, empty."""
    server = shared_redis()
    server.flush()
    return server


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults: Any = Batching.__init__.__kwdefaults__
    for name, seconds in IMPATIENT.items():
        monkeypatch.setitem(defaults, name, seconds)
    monkeypatch.setitem(_timing, "once started", HURRIED)


@asynccontextmanager
async def place(
    server: RedisServer, plan: Plan, *, streams: Any = None, **journal: Any
) -> AsyncIterator[tuple[House, RedisProxy]]:
    """A gateway, and the network between it and Redis."""
    async with (
        RedisProxy.before(server) as proxy,
        house(plan, journal={"kind": "redis", "url": proxy.url, "poll_s": 0.2, **journal}, streams=streams or {}) as it,
    ):
        kept: Any = it.app.services.pipeline.journal
        kept.nodes.link.timing = _timing["once started"]
        yield it, proxy


async def said(it: House, told: list[str] | None = None) -> str:
    """What the stock client accumulates, in `told` while it comes; it raises what it raises."""
    told = [] if told is None else told
    async with it.sdk() as client:
        stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
        async for chunk in stream:
            told += [chunk.choices[0].delta.content or "" if chunk.choices else ""]
    return "".join(told)


async def ended(it: House, sid: str) -> dict[str, Any]:
    """The status object, once the record has its end."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await it.call("GET", f"/v1/streams/{sid}")
            if answer.status == 200 and answer.json["state"] not in {"running", "paused"}:
                return dict(answer.json)
            await asyncio.sleep(0.05)


@pytest.mark.usefixtures("_impatient")
def test_redis_goes_and_the_client_is_told(server: RedisServer) -> None:
    """Without `degrade` the SDK raises when Redis stays away: no answer looks whole that is not in the log."""

    async def scenario() -> None:
        gate = Gate(3)
        async with place(server, Plan(tokens=TOKENS, gate=gate)) as (it, proxy):
            saying = asyncio.ensure_future(said(it))
            await gate.held()
            proxy.refuse()
            gate.open()
            with pytest.raises(APIError) as caught:
                await saying
            assert caught.value.code == "journal_unavailable"
            proxy.refuse(refusing=False)
            (sid,) = [row["id"] for row in (await _listed(it))]
            status = await ended(it, sid)
            assert (status["state"], status["reason"]) == ("failed", "journal_unavailable")

    run(scenario())


@pytest.mark.usefixtures("_impatient")
def test_redis_goes_and_the_client_is_served_on(server: RedisServer) -> None:
    """With `degrade` the SDK has the whole answer; the record says meanwhile that it failed and is not resumable."""

    async def scenario() -> None:
        gate, later = Gate(3), Plan(tokens=TOKENS)
        async with place(server, later.with_(gate=gate), degrade=True) as (it, proxy):
            told: list[str] = []
            saying = asyncio.ensure_future(said(it, told))
            await gate.held()
            proxy.refuse()
            await gate.release(20)
            await eventually(lambda: len(told) > 20, what="the client to be served without Redis")
            proxy.refuse(refusing=False)
            (sid,) = [row["id"] for row in (await _listed(it))]
            status = await ended(it, sid)
            assert (status["state"], status["reason"]) == ("failed", "journal_unavailable")
            assert status["resumable"] is False
            gate.open()
            assert await saying == later.text()
            log = await it.native(sid)
            assert log.body.count(b"event: end") == 1

    run(scenario())


async def _listed(it: House) -> list[dict[str, Any]]:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await it.call("GET", "/v1/streams")
            if answer.status == 200:
                return list(answer.json["data"])
            assert answer.json["error"]["code"] == "journal_unavailable"
            await asyncio.sleep(0.05)


@pytest.mark.usefixtures("_impatient")
def test_a_stream_that_begins_without_redis(server: RedisServer) -> None:
    """With `degrade` it is answered whole, and nothing of it comes to Redis; without, and with a key, it is a 503."""

    async def scenario() -> None:
        plan = Plan(tokens=TOKENS)
        async with place(server, plan, degrade=True) as (it, proxy):
            proxy.refuse()
            assert await said(it) == plan.text()
            keyed = await it.ask({"idempotency-key": "k1"})
            assert (keyed.status, keyed.json["error"]["code"]) == (503, "journal_unavailable")
            assert keyed.headers["retry-after"], "what a key promises cannot be promised"
            assert (await it.control("str_" + "a" * 26, "cancel")).status == 503
            proxy.refuse(refusing=False)
            assert await _listed(it) == []
            assert await said(it) == plan.text()
            assert len(await _listed(it)) == 1
        async with place(server, plan) as (it, proxy):
            proxy.refuse()
            with pytest.raises(APIStatusError) as caught:
                await said(it)
            assert (caught.value.status_code, caught.value.code) == (503, "journal_unavailable")

    run(scenario())


@pytest.mark.usefixtures("_impatient")
def test_a_stream_that_began_and_nobody_was_told(server: RedisServer) -> None:
    """With `degrade`, a create that happened and whose answer was lost leaves no record that runs for ever."""

    async def scenario() -> None:
        gate, plan = Gate(3), Plan(tokens=TOKENS)
        async with place(server, plan.with_(gate=gate), degrade=True) as (it, proxy):
            proxy.refuse_behind(b"on_expiry")
            saying = asyncio.ensure_future(said(it))
            await gate.held()
            proxy.refuse(refusing=False)
            (row,) = await _listed(it)
            status = await ended(it, row["id"])
            assert (status["state"], status["reason"]) == ("failed", "journal_unavailable")
            assert status["resumable"] is False
            gate.open()
            assert await saying == plan.text()

    run(scenario())


def test_a_slow_redis_costs_time_only(server: RedisServer) -> None:
    """With every answer of Redis late, clients have their whole answers, and control answers truthfully."""

    async def scenario() -> None:
        gate, plan = Gate(3), Plan(tokens=TOKENS)
        async with place(server, plan.with_(gate=gate)) as (it, proxy):
            proxy.delay_s = 0.02
            async with it.chat() as answer:
                assert answer.status == 200
                sid = sid_of(answer)
                paused = await it.control(sid, "pause")
                assert (paused.status, paused.json["changed"]) == (200, True)
                gate.open()
                assert (await it.status(sid))["state"] == "paused"
                assert (await it.control(sid, "resume")).status == 200
                body = await answer.read()
            assert body.endswith(b"data: [DONE]\n\n")
            assert (await it.call("GET", f"/v1/streams/{sid}/text")).json["text"] == plan.text()

    run(scenario())


def test_a_full_redis(server: RedisServer) -> None:
    """Where Redis has no memory left new streams are a 429, with an idempotency key too; then all is well again."""

    async def scenario() -> None:
        async with house(Plan(tokens=TOKENS), journal={"kind": "redis", "url": server.url}) as it:
            with server.client() as client:
                client.config_set("maxmemory", 1)
                try:
                    for headers in ({}, {"idempotency-key": "k1"}):
                        refused = await it.ask(headers)
                        assert (refused.status, refused.json["error"]["code"]) == (429, "journal_full")
                        assert refused.headers["retry-after"]
                finally:
                    client.config_set("maxmemory", 0)
            assert (await it.ask({"idempotency-key": "k1"})).status == 200

    run(scenario())


@pytest.mark.usefixtures("_impatient")
def test_a_stream_that_was_claimed_while_it_began(server: RedisServer) -> None:
    """Who was silent for so long that its newborn stream has another owner says 503, which SDKs repeat."""

    async def scenario() -> None:
        async with place(server, Plan(tokens=TOKENS)) as (it, proxy):
            proxy.refuse_behind(b"on_expiry")
            asking = asyncio.ensure_future(it.ask())
            await eventually(lambda: server.names("*:m"), what="the stream to be created")
            with server.client() as client:
                client.hset(server.names("*:m")[0], "owner", "other-1")
            proxy.refuse(refusing=False)
            refused = await asking
            assert (refused.status, refused.json["error"]["code"]) == (503, "owner_lost")
            assert refused.headers["retry-after"]
            assert it.up.requests == []

    run(scenario())


@pytest.mark.parametrize("keyed", [True, False])
def test_a_stream_that_is_gone_on_with_elsewhere_while_it_began(server: RedisServer, keyed: bool) -> None:
    """Where its new owner goes on with it, its caller reads that answer: it does not run twice, once for nobody."""

    async def scenario() -> None:
        plan, recovery = Plan(tokens=TOKENS), {"streams": {"recovery": True}}
        headers = {"idempotency-key": "k1"} if keyed else {}
        url = {"kind": "redis", "url": server.url, "poll_s": 0.2}
        async with place(server, plan, **recovery) as (it, proxy), house(plan, checked=False, journal=url) as other:
            proxy.refuse_behind(b"on_expiry")
            asking = asyncio.ensure_future(it.ask(headers))
            await eventually(lambda: server.names("*:m"), what="the stream to be created")
            pipeline = other.app.services.pipeline
            sid = server.names("*:m")[0].split("{")[1].split("}")[0]
            assert await Recovery(pipeline).revive((await pipeline.journal.known(sid)).record)
            proxy.refuse(refusing=False)
            answer = await asking
            assert (answer.status, sid_of(answer)) == (200, f"str_{sid}")
            assert answer.json["choices"][0]["message"]["content"] == plan.text()
            assert "x-atlas-idempotent" not in answer.headers
            assert (len(it.up.requests), len(other.up.requests)) == (0, 1)
            if keyed:
                again = await it.ask(headers)
                assert (again.json, again.headers["x-atlas-idempotent"]) == (answer.json, "replayed")

    run(scenario())


@pytest.mark.parametrize("streamed", [True, False])
def test_a_log_that_is_evicted(server: RedisServer, streamed: bool) -> None:
    """When Redis lost a log under its stream, everybody who reads it is told, here and elsewhere, and nothing waits."""

    async def scenario() -> None:
        gate = Gate(3)
        url = {"journal": {"kind": "redis", "url": server.url, "poll_s": 0.2}}
        async with house(Plan(tokens=TOKENS, gate=gate), **url) as it, house(checked=False, **url) as other:
            asking = asyncio.ensure_future(it.call("POST", CHAT, json=ask(stream=streamed)))
            await gate.held()
            (stream,) = await _listed(it)
            path = f"/v1/streams/{stream['id']}/events"
            async with other.read(path + "?format=wire") as elsewhere:
                with server.client() as client:
                    assert client.delete(layout.key_of_log(stream["id"].removeprefix("str_"))) == 1
                gate.open()
                answer = await asking
                error = await _error_of(answer.body)
                assert error == "journal_lost"
                assert answer.status == (200 if streamed else 503)
                assert b"journal_lost" in await elsewhere.read_cut()
            assert (await it.call("GET", path)).status == 410
            shown = f"/v1/streams/{stream['id']}"
            await eventually(lambda: _ended(server, stream["id"]), what="the record to be ended")
            status = (await other.call("GET", shown)).json
            assert (status["state"], status["reason"], status["resumable"]) == ("failed", "journal_lost", False)

    run(scenario())


def _ended(server: RedisServer, shown: str) -> bool:
    with server.client() as client:
        return bool(client.hexists(layout.key_of_record(shown.removeprefix("str_")), "ended"))


async def _error_of(body: bytes) -> str:
    """The code of the error with which an answer ends."""
    assert b"[DONE]" not in body
    return "journal_lost" if b'"code":"journal_lost"' in body.replace(b": ", b":") else body.decode()


def test_a_failover_that_lost_the_tail(server: RedisServer) -> None:
    """A client that has more than the log holds is told so, with the last event that both have."""

    async def scenario() -> None:
        async with house(Plan(tokens=TOKENS), journal={"kind": "redis", "url": server.url}) as it:
            sid = sid_of(await it.ask())
            events = [line[4:] for line in (await it.native(sid)).body.decode().splitlines() if line[:4] == "id: "]
            log = layout.key_of_log(sid.removeprefix("str_"))
            with server.client() as client:
                names = [name.decode() for name, _ in client.xrange(log)]
                client.xdel(log, *names[1:])
            for cursor in (events[-1], events[-1].partition("-")[2]):
                refused = await it.native(sid, f"?after={cursor}")
                assert (refused.status, refused.json["error"]["code"]) == (409, "cursor_ahead")
                assert refused.json["error"]["last_seq"] == 0
            kept = await it.native(sid, f"?after={events[0]}")
            assert kept.status in {200, 204}

    run(scenario())
