"""The ASGI caller shows each message as it is sent, and leaves when it wants."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse

from tests.support.asgi import AsgiCall
from tests.support.baseline import baseline
from tests.support.lifespan import Lifespan
from tests.support.run import run


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers each piece of the request with a piece of body."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-path", scope["raw_path"])]})
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message["more_body"]
        await send({"type": "http.response.body", "body": message["body"], "more_body": more})


def test_body_goes_in_and_comes_out_piece_by_piece() -> None:
    """Nothing is buffered on either way."""

    async def scenario() -> None:
        async with baseline(), AsgiCall(echo, "POST", "/a%20b?c=d") as call:
            assert await call.start() == (200, {"x-path": "/a%20b"})
            for piece in (b"one", b"two"):
                call.feed(piece)
                assert await call.chunk() == piece
            assert call.is_running
            call.feed(b"three", more=False)
            assert await call.rest() == b"three"
            assert await call.chunk() is None
            await call.ended()
            assert await call.message() is None

    run(scenario())


def test_disconnect_is_told_by_receive_only() -> None:
    """After a disconnect sends vanish without an error, as they do under uvicorn."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        seen.append((await receive())["type"])
        await send({"type": "http.response.body", "body": b"y", "more_body": True})
        seen.append("sent")

    async def scenario() -> None:
        async with baseline(), AsgiCall(app, "POST", json={}) as call:
            await call.start()
            assert await call.chunk() == b"x"
            call.disconnect()
            await call.ended()

    run(scenario())
    assert seen == ["http.disconnect", "sent"]


def test_receive_tells_of_the_end_of_the_answer() -> None:
    """Whoever listens for a disconnect is freed when the answer is complete."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        listening = asyncio.ensure_future(receive())
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})
        assert (await listening)["type"] == "http.disconnect"

    async def scenario() -> None:
        async with AsgiCall(app) as call:
            assert (await call.start())[0] == 204
            await call.ended()

    run(scenario())


def test_slow_reader_holds_the_app() -> None:
    """With a bounded buffer the app waits in `send` until the test reads, or leaves."""
    sent: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for i in range(5):
            await send({"type": "http.response.body", "body": b"%d" % i, "more_body": True})
            sent.append(i)

    async def scenario() -> None:
        async with baseline(), AsgiCall(app, buffer=1) as call:
            await call.start()
            assert await call.chunk() == b"0"
            for _ in range(20):
                await asyncio.sleep(0)
            assert sent == [0, 1]
            call.disconnect()
            await call.ended()
            assert sent == [0, 1, 2, 3, 4]

    run(scenario())


def test_errors_of_the_app_come_out() -> None:
    """A crash of the app fails the test; one that does not end after the disconnect is found, too."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("bug")

    async def scenario() -> None:
        async with AsgiCall(app) as call:
            assert await call.message() is None

    with pytest.raises(KeyError, match="bug"):
        run(scenario())


def test_deaf_app_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that does not end after the disconnect fails the test, and is ended."""
    monkeypatch.setattr("tests.support.asgi._TIMEOUT_S", 0.02)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with baseline(), AsgiCall(app):
            pass

    with pytest.raises(AssertionError, match="did not end"):
        run(scenario())


def test_fastapi_with_lifespan() -> None:
    """A FastAPI app streams into the caller's hand, with the state of its lifespan."""
    gate = asyncio.Event()
    log: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        log.append("up")
        yield {"greeting": "hi"}
        log.append("down")

    app = FastAPI(lifespan=lifespan)

    @app.post("/say")
    async def say(request: Request) -> StreamingResponse:
        body = await request.json()

        async def words() -> Any:
            yield request.state.greeting
            await gate.wait()
            yield body["name"]

        return StreamingResponse(words())

    async def scenario() -> None:
        say_you = {"name": "you"}
        async with baseline(), Lifespan(app) as state, AsgiCall(app, "POST", "/say", json=say_you, state=state) as call:
            assert (await call.start())[0] == 200
            assert await call.chunk() == b"hi"
            gate.set()
            assert await call.rest() == b"you"

    run(scenario())
    assert log == ["up", "down"]


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
def test_lifespan_that_fails(phase: str) -> None:
    """A lifespan that fails is an error with its cause."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while True:
            message = await receive()
            if message["type"] == f"lifespan.{phase}":
                raise KeyError("bug")
            await send({"type": f"{message['type']}.complete"})

    async def scenario() -> None:
        async with baseline(), Lifespan(app):
            pass

    with pytest.raises(RuntimeError, match=f"{phase} failed") as caught:
        run(scenario())
    assert isinstance(caught.value.__cause__, KeyError)
