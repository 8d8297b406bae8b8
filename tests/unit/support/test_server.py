"""A real uvicorn in the test's loop: it starts, streams, and ends."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from tests.support.baseline import baseline
from tests.support.chaos import ChaosProvider
from tests.support.http import CutBodyError, RawClient
from tests.support.run import run
from tests.support.server import AtlasServer, atlas_settings

both_loops = pytest.mark.parametrize("fast", [False, True], ids=["asyncio", "uvloop"])


def make(log: list[str], gate: asyncio.Event) -> FastAPI:
    """A small app that streams two words, the second when the gate opens."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        log.append("up")
        yield
        log.append("down")

    app = FastAPI(lifespan=lifespan)

    @app.get("/words")
    async def words() -> StreamingResponse:
        async def say() -> AsyncIterator[str]:
            try:
                yield "one "
                await gate.wait()
                yield "two"
            finally:
                log.append("ended")

        return StreamingResponse(say())

    return app


@both_loops
def test_streams_and_ends(fast: bool) -> None:
    """Pieces arrive as they are sent; afterwards nothing is left and signals are whose they were."""
    log: list[str] = []

    async def scenario() -> None:
        gate, before = asyncio.Event(), signal.getsignal(signal.SIGTERM)
        async with baseline():
            async with AtlasServer(make(log, gate)) as atlas:
                assert signal.getsignal(signal.SIGTERM) is before
                async with RawClient.to(atlas.base_url) as client:
                    stream = await client.stream("GET", "/words")
                    assert await stream.until(b"one ") == b"one "
                    assert atlas.connections == 1
                    gate.set()
                    assert await stream.read() == b"one two"
                    assert (await client.request("GET", "/nowhere")).status == 404
            assert log == ["up", "ended", "down"]

    run(scenario(), fast=fast)


@both_loops
def test_connections_can_die(fast: bool) -> None:
    """A reset from the server's side is an RST for the client."""
    log: list[str] = []

    async def scenario() -> None:
        async with AtlasServer(make(log, asyncio.Event())) as atlas, RawClient.to(atlas.base_url) as client:
            stream = await client.stream("GET", "/words")
            await stream.until(b"one ")
            atlas.reset_connections()
            with pytest.raises(CutBodyError) as caught:
                await stream.read()
            assert caught.value.how == "reset"

    run(scenario(), fast=fast)
    assert log == ["up", "ended", "down"]


def test_two_at_once() -> None:
    """Servers in one process have ports of their own."""

    async def scenario() -> None:
        one, two = make([], asyncio.Event()), make([], asyncio.Event())
        async with AtlasServer(one) as first, AtlasServer(two) as second:
            assert first.port != second.port

    run(scenario())


def test_requests_that_outlive_the_grace_are_found() -> None:
    """A request that does not end after the server was told to stop fails the test."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for name in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{name}.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with AtlasServer(app, grace_s=0.01) as atlas, RawClient.to(atlas.base_url) as client:
            await (await client.stream("GET", "/")).until(b"x")
            with pytest.raises(AssertionError, match="grace"):
                await atlas.stop()
        raise KeyError("past the server")

    with pytest.raises(AssertionError, match="grace"):
        run(scenario())


@pytest.mark.parametrize("phase", ["start", "stop"])
def test_lifespan_that_fails(phase: str) -> None:
    """An app that does not start, or not stop, is an error with its cause, and never ends the test run."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if phase == "start":
            raise KeyError("bug")
        yield
        raise KeyError("bug")

    async def scenario() -> None:
        async with baseline(), AtlasServer(FastAPI(lifespan=lifespan)):
            pass

    with pytest.raises(RuntimeError, match=f"did not {phase}") as caught:
        run(scenario())
    assert isinstance(caught.value.__cause__, KeyError)


def test_settings() -> None:
    """The settings route `chaos/*` to the providers in order, and take changes."""

    async def scenario() -> None:
        async with ChaosProvider() as one, ChaosProvider(api_key="k") as two:
            settings = atlas_settings(
                one,
                two,
                endpoint={"timeouts": {"idle_s": 0.2}},
                route={"fallback": {"mid_stream": "off"}},
                streams={"status_wait_s": 0.1},
            )
            assert [endpoint.name for endpoint in settings.endpoints] == ["up", "up2"]
            assert [str(endpoint.base_url) for endpoint in settings.endpoints] == [one.base_url, two.base_url]
            assert settings.endpoints[0].timeouts.idle_s == 0.2
            assert (settings.routes[0].model, settings.routes[0].endpoints) == ("chaos/*", ("up", "up2"))
            assert settings.routes[0].fallback.mid_stream == "off"
            assert (settings.streams.status_wait_s, settings.mock.enabled) == (0.1, True)
            assert atlas_settings().endpoints == ()

    run(scenario())
