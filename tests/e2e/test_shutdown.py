"""The end of a real process: signals, the drain, what clients see of it, and exit codes."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from anthropic import APIStatusError as AnthropicStatusError
from anthropic import AsyncAnthropic
from openai import APIError

from gateway.api.drain import Drain, Others
from tests.e2e.house import CHAT, ask, house, run, sdk, sid_of
from tests.support.chaos import ChaosProvider, Gate, Plan, truth
from tests.support.fold import fold
from tests.support.gateway_process import GatewayProcess
from tests.support.http import Answer, CutBodyError, RawClient, RawStream
from tests.support.server import atlas_config

MAX_S = 60


@dataclass(frozen=True, slots=True)
class Place:
    """A gateway's process, and the provider behind it, whose answers to `held` wait at the gate after two events."""

    gateway: GatewayProcess
    up: ChaosProvider
    gate: Gate

    async def call(self, method: str, path: str, *, json: Any = None) -> Answer:
        """One request on a connection of its own."""
        async with self.gateway.client() as client:
            return await client.request(method, path, json=json)

    @asynccontextmanager
    async def held(self, **body: Any) -> AsyncIterator[RawStream]:
        """A stream of which two events have come."""
        async with self.gateway.client() as client:
            answer = await client.stream("POST", CHAT, json=ask("chaos/held", **body))
            await answer.until_frames(2)
            yield answer

    async def drains(self) -> None:
        """SIGTERM, and the drain has begun."""
        self.gateway.signal(signal.SIGTERM)
        await self.gateway.logged("draining")


@asynccontextmanager
async def place(folder: Path, *, drain_s: float = 60, **sections: Any) -> AsyncIterator[Place]:
    """A gateway that is ready; at the end nothing in its log is a bug's trace."""
    gate = Gate(2)
    async with ChaosProvider() as up:
        up.plans["held"] = Plan(gate=gate)
        config = atlas_config(up, kinds=("openai_chat", "anthropic"), server={"drain_s": drain_s}, **sections)
        async with GatewayProcess(config, folder) as gateway:
            yield Place(gateway, up, gate)
            assert "Traceback" not in gateway.log
            assert all(json.loads(line) for line in gateway.log.splitlines())


def test_open_stream_finishes(tmp_path: Path) -> None:
    """After SIGTERM an open stream is delivered to its proper end, then the process exits with 0."""

    async def scenario() -> None:
        async with place(tmp_path) as it:
            async with it.held() as answer:
                await it.drains()
                assert "draining: 1 streams, at most 60 s; a second signal ends at once" in it.gateway.log
                it.gate.open()
                whole = fold(await answer.read())
                assert (whole.text, whole.finish, whole.done) == (truth(1, 8), "stop", True)
            assert await it.gateway.ended() == 0

    run(scenario(), MAX_S)


def test_what_is_served_while_it_drains(tmp_path: Path) -> None:
    """A draining gateway is not ready and begins no stream, but who has one may look, attach, pause, resume, cancel."""

    async def scenario() -> None:
        async with place(tmp_path) as it, it.held() as answer:
            events, of_stream = f"/v1/streams/{sid_of(answer)}/events", f"/v1/streams/{sid_of(answer)}"
            await it.drains()
            assert (await it.call("GET", "/livez")).status == 200
            for path in ("/readyz", "/healthz"):
                assert (await it.call("GET", path)).status == 503
            refused = await it.call("POST", CHAT, json=ask())
            assert (refused.status, refused.json["error"]["code"]) == (503, "shutting_down")
            assert (refused.headers["retry-after"], refused.headers["connection"]) == ("3", "close")
            await asyncio.sleep(2.2)  # the listener has lingered for two seconds: it is the only way to the stream
            assert (await it.call("POST", f"{of_stream}/pause")).status == 200
            assert (await it.call("GET", of_stream)).json["state"] == "paused"
            async with it.gateway.client() as client:
                other = await client.stream("GET", events)
                await other.until(b"pause")
                assert (await it.call("POST", f"{of_stream}/resume")).status == 200
                await other.until(b"resume")
                assert (await it.call("POST", f"{of_stream}/cancel")).status == 200
                await other.read()
            await answer.read()
            assert await it.gateway.ended() == 0

    run(scenario(), MAX_S)


def test_idle_connections_are_closed(tmp_path: Path) -> None:
    """A kept-alive connection between two requests is closed when the drain begins, not waited for."""

    async def scenario() -> None:
        async with place(tmp_path) as it, it.held() as answer, it.gateway.client() as idle:
            assert (await idle.request("GET", "/readyz")).status == 200
            await it.drains()
            with pytest.raises(CutBodyError):
                await idle.head()
            it.gate.open()
            await answer.read()
            assert await it.gateway.ended() == 0

    run(scenario(), MAX_S)


def test_connection_without_a_request_is_answered(tmp_path: Path) -> None:
    """A connection that was open before the drain, and on which nothing was asked yet, gets an answer, its last one."""

    async def scenario() -> None:
        async with place(tmp_path) as it, it.held() as answer, it.gateway.client() as fresh:
            await it.drains()
            ready = await fresh.request("GET", "/readyz")
            assert (ready.status, ready.headers["connection"]) == (503, "close")
            with pytest.raises(CutBodyError):
                await fresh.head()
            it.gate.open()
            await answer.read()
            assert await it.gateway.ended() == 0

    run(scenario(), MAX_S)


def test_client_that_is_cut_short_is_told(tmp_path: Path) -> None:
    """When the drain is over an SDK's user gets an APIError that says why, never a stream that just ends."""

    async def scenario() -> None:
        async with place(tmp_path, drain_s=0.3) as it:
            async with sdk(it.gateway.base_url + "/v1") as client:
                stream = await client.chat.completions.create(**ask("chaos/held"))
                it.gateway.signal()
                with pytest.raises(APIError, match="shutting down") as caught:
                    async for _ in stream:
                        pass
                assert caught.value.code == "shutting_down"
            assert await it.gateway.ended() == 0
            assert "drained: 0 streams handed over, 1 ended by the shutdown" in it.gateway.log

    run(scenario(), MAX_S)


def test_anthropic_client_that_is_cut_short_is_told(tmp_path: Path) -> None:
    """The same for the other dialect."""

    async def scenario() -> None:
        async with place(tmp_path, drain_s=0.3) as it:
            it.gate.allow(3)
            async with AsyncAnthropic(base_url=it.gateway.base_url, api_key="x", max_retries=0) as client:
                stream = await client.messages.create(
                    model="claude/held", max_tokens=64, messages=[{"role": "user", "content": "Hi"}], stream=True
                )
                it.gateway.signal()
                with pytest.raises(AnthropicStatusError, match="shutting down"):
                    async for _ in stream:
                        pass
            assert await it.gateway.ended() == 0

    run(scenario(), MAX_S)


def test_whole_answer_that_is_cut_short(tmp_path: Path) -> None:
    """A request that is not streamed gets a plain 503 that may be retried."""

    async def scenario() -> None:
        async with place(tmp_path, drain_s=0.3) as it:
            async with it.gateway.client() as client:
                asked = asyncio.ensure_future(client.request("POST", CHAT, json=ask("chaos/held", stream=False)))
                await it.up.received()
                it.gateway.signal()
                answer = await asked
            assert (answer.status, answer.json["error"]["code"]) == (503, "shutting_down")
            assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("1", "true")
            assert answer.headers["connection"] == "close"
            assert await it.gateway.ended() == 0

    run(scenario(), MAX_S)


def test_paused_stream(tmp_path: Path) -> None:
    """A paused stream does not keep the process: its reader is told like any other when the drain is over."""

    async def scenario() -> None:
        async with place(tmp_path, drain_s=0.3) as it:
            async with it.held() as answer:
                assert (await it.call("POST", f"/v1/streams/{sid_of(answer)}/pause")).status == 200
                it.gateway.signal()
                assert fold(await answer.read()).error is not None
            assert await it.gateway.ended() == 0

    run(scenario(), MAX_S)


def test_second_signal(tmp_path: Path) -> None:
    """A second signal does not wait for the streams, but they are ended properly all the same."""

    async def scenario() -> None:
        async with place(tmp_path, drain_s=600) as it:
            async with it.held() as answer:
                await it.drains()
                it.gateway.signal(signal.SIGTERM)
                assert b'"shutting_down"' in await answer.read()
            assert await it.gateway.ended() == 0

    run(scenario(), MAX_S)


def test_ctrl_c(tmp_path: Path) -> None:
    """Ctrl-C on an idle gateway ends it at once, with exit code 0 and without a traceback.

    The quickest of three tells: a machine may be slow, but what lingers does so each time.
    """

    async def scenario() -> None:
        async with place(tmp_path) as it:
            took: list[float] = []
            for _ in range(3):
                began = time.monotonic()
                it.gateway.signal(signal.SIGINT)
                assert await it.gateway.ended() == 0
                took.append(time.monotonic() - began)
                if took[-1] < 1.5:
                    return
                await it.gateway.start()
            raise AssertionError(f"it lingered: {took}")

    run(scenario(), MAX_S)


def test_burst_of_signals(tmp_path: Path) -> None:
    """However many signals come, the exit is an orderly one."""

    async def scenario() -> None:
        async with place(tmp_path) as it, it.held() as answer:
            while it.gateway.running:
                it.gateway.signal(signal.SIGINT)
                it.gateway.signal(signal.SIGTERM)
                await asyncio.sleep(0.002)
            assert b'"shutting_down"' in await answer.read()
            assert await it.gateway.ended() == 0

    run(scenario(), MAX_S)


def test_body_that_is_still_arriving(tmp_path: Path) -> None:
    """A request whose body comes while the drain has begun is read to its end and refused in shape."""

    async def scenario() -> None:
        async with place(tmp_path) as it, it.held() as other, it.gateway.client() as client:
            body = json.dumps(ask()).encode()
            head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            await client.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:10])
            await it.call("GET", "/livez")  # the head was read before this was
            await it.drains()
            await client.send(body[10:])
            answer = await client.head()
            assert (answer.status, answer.headers["connection"]) == (503, "close")
            assert b'"shutting_down"' in await answer.read()
            it.gate.open()
            await other.read()
            assert await it.gateway.ended() == 0

    run(scenario(), MAX_S)


@pytest.mark.parametrize("sent", [b"", b"GET /rea", b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"])
def test_request_that_never_comes_whole(tmp_path: Path, sent: bytes) -> None:
    """A connection that says nothing, or half of a request, does not keep the process."""

    async def scenario() -> None:
        async with place(tmp_path, drain_s=0.3) as it, it.gateway.client() as client:
            await client.send(sent)
            it.gateway.signal()
            assert await it.gateway.ended(9) == 0  # the hard limit is ten

    run(scenario(), MAX_S)


def test_body_that_never_comes_whole(tmp_path: Path) -> None:
    """Nor does a request whose body stands still."""

    async def scenario() -> None:
        async with place(tmp_path, drain_s=0.3) as it, it.gateway.client() as client:
            head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            await client.send(f"{head}content-length: 100\r\n\r\n{{".encode())
            await it.call("GET", "/livez")
            it.gateway.signal()
            assert await it.gateway.ended(9) == 0  # the hard limit is ten

    run(scenario(), MAX_S)


def test_client_that_does_not_read(tmp_path: Path) -> None:
    """A reader that took nothing for long is reset at the end: it does not keep the process either."""

    async def scenario() -> None:
        async with place(tmp_path, drain_s=0.3) as it:
            it.up.plans["long"] = Plan(tokens=200_000, tokens_per_event=50)
            client = RawClient.to(it.gateway.base_url, receive_buffer=4096)
            async with client:
                await client.stream("POST", CHAT, json=ask("chaos/long"))
                it.gateway.signal()
                assert await it.gateway.ended(9) == 0

    run(scenario(), MAX_S)


def test_stream_that_is_handed_over() -> None:
    """A stream that another replica will go on with gets no end in its log, and its reader here is reset, not told one.

    Who asked for a whole answer gets a 503 that may be retried.
    """

    async def scenario() -> None:
        async with house(Plan(gate=Gate(2))) as it:
            services = it.app.services
            others = Others(hand_over=lambda session: session.hand_over(), leave=_nothing)
            drain = Drain(services.pipeline.hub, services.pipeline, services.clock, 0, others)
            async with it.chat() as answer:
                await answer.until_frames(2)
                whole = asyncio.ensure_future(it.ask())
                await it.up.received(2)
                await drain.end()
                assert b"error" not in await answer.read_cut()
                assert answer.ended == "reset"
                assert (await whole).status == 503
            assert (await it.status(sid_of(answer)))["state"] == "running"

    async def _nothing() -> None:
        """Nobody to tell."""

    run(scenario(), MAX_S)


def test_killed_while_it_drains(tmp_path: Path) -> None:
    """SIGKILL in the middle of a drain cuts the body visibly; the next process on that port serves."""

    async def scenario() -> None:
        async with place(tmp_path) as it:
            async with it.held() as answer:
                await it.drains()
                it.gateway.kill()
                with pytest.raises(CutBodyError):
                    await answer.read()
            assert await it.gateway.ended() == -signal.SIGKILL
            await it.gateway.start()
            assert (await it.call("GET", "/readyz")).status == 200

    run(scenario(), MAX_S)


FALLING = """
import asyncio, itertools, socket
from config.settings import Settings
from gateway.api.serving import Server, server_config
from gateway.api.signals import Signals
from gateway.app import create

atlas, calls = create(Settings()), itertools.count()

async def falling(scope, receive, send):
    async def fail_once_up():
        if not next(calls):
            return await receive()
        while not server.started:
            await asyncio.sleep(0.01)
        raise RuntimeError("a task of the application has failed")
    await atlas(scope, fail_once_up, send)

with Signals() as signals, socket.create_server(("127.0.0.1", 0)) as listener:
    server = Server(server_config(falling), atlas.drain, signals)
    raise SystemExit(server.run([listener]))
"""


def test_a_process_does_not_outlive_its_application() -> None:
    """A failure of what every request needs ends the process with 1, for its supervisor to begin anew."""
    ended = subprocess.run([sys.executable, "-c", FALLING], capture_output=True, text=True, timeout=MAX_S, check=False)
    assert ended.returncode == 1, ended.stderr
    assert "the application has failed: ending at once" in ended.stderr
