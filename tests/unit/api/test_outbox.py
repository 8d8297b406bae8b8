"""What `write_now` holds back until the end of a turn keeps its place among everything else that is written."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from gateway.api.exchange import Exchange, Receive, Scope, Send
from gateway.api.outbox import AT_ONCE, Outbox
from gateway.api.server import MAX_HELD
from tests.support.asgi import App
from tests.support.http import RawClient
from tests.support.run import run
from tests.support.server import AtlasServer


def served(answer: Callable[[Exchange], Awaitable[None]]) -> App:
    """An app that answers every request so."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await answer(Exchange(scope, receive, send))
            return
        for _ in range(2):  # the lifespan's begin and end
            message = await receive()
            await send({"type": f"{message['type']}.complete"})

    return app


async def _by_every_way(exchange: Exchange) -> None:
    """One turn that writes by every way there is."""
    write_now = partial(exchange.write_now, exchange.scope)
    await exchange.begin(200, [], b"a", more=True)
    assert write_now(b"b")
    assert write_now(b"c" * MAX_HELD)
    assert write_now(b"d")
    await exchange.write(b"e")
    assert write_now(b"f")
    await exchange.write(b"", more=False)


async def _forged(exchange: Exchange) -> None:
    """A head with more lines in it than it should have."""
    with pytest.raises(ValueError, match="control character"):
        await exchange.begin(200, [(b"x", b"1\r\ny: 2")], b"", more=False)
    await exchange.answer_body(500, b"refused", [])


@pytest.mark.parametrize("times", [1, 2])
def test_parts_keep_their_order(times: int) -> None:
    """Parts that were held back go out before what is written at once, and the connection serves on."""

    async def scenario() -> None:
        async with AtlasServer(served(_by_every_way)) as atlas, RawClient.to(atlas.base_url) as client:
            for _ in range(times):
                answer = await client.request("POST", "/", json={})
                assert answer.body == b"ab" + b"c" * MAX_HELD + b"def"

    run(scenario(), fast=True)


def test_a_line_end_in_a_header_is_refused() -> None:
    """No header can begin another one."""

    async def scenario() -> None:
        async with AtlasServer(served(_forged)) as atlas, RawClient.to(atlas.base_url) as client:
            answer = await client.request("POST", "/", json={})
            assert (answer.status, answer.body) == (500, b"refused")
            assert "y" not in answer.headers

    run(scenario(), fast=True)


class Flushed:
    """A connection that notes its flush."""

    def __init__(self, flushed: list["Flushed"]) -> None:
        self._flushed = flushed

    def flush(self) -> None:
        """It was told to write."""
        self._flushed.append(self)


def test_a_long_turn() -> None:
    """Where many hold something back the first need not wait for the turn's end; each is flushed once, in order."""

    async def scenario() -> None:
        flushed: list[Flushed] = []
        box, added = Outbox(asyncio.get_running_loop()), [Flushed(flushed) for _ in range(2 * AT_ONCE + 1)]
        for at, connection in enumerate(added):
            box.add(connection)
            assert len(flushed) == (at + 1) // AT_ONCE * AT_ONCE
        await asyncio.sleep(0)
        assert flushed == added

    run(scenario())
