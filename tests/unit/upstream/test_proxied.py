"""The way through a corporate proxy, which the chaos provider plays: it answers for all hosts."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest

from gateway.core.errors import Category, ProviderError
from gateway.upstream.contract import Timeouts
from gateway.upstream.transport import Transport, parse_url
from tests.support.baseline import baseline
from tests.support.chaos import ChaosProvider, Gate, Plan
from tests.support.run import run
from tests.support.signals import PATIENCE_S
from tests.unit.upstream.raw_server import raw_server

URL = "http://provider.invalid/v1/chat/completions"
ASKING = b'{"stream": true, "messages": []}'
OK = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def through(proxy: str) -> AsyncIterator[Transport]:
    """A transport that goes through `proxy`; nothing of it may be left behind."""
    async with baseline():
        made = Transport(Timeouts(connect_s=PATIENCE_S), proxy=proxy)
        try:
            yield made
        finally:
            await made.aclose()


async def ask(made: Transport) -> bytes:
    """One exchange to its end."""
    body = b""
    async with made.post(parse_url(URL), [], ASKING) as answer:
        while data := await answer.read():
            body += data
    return body


async def category(made: Transport) -> Category:
    """The category of an exchange that must fail."""
    with pytest.raises(ProviderError) as caught:
        await ask(made)
    return caught.value.category


def test_whole() -> None:
    """The provider's name is the proxy's to resolve, and connections to the proxy are kept."""

    async def go() -> None:
        async with ChaosProvider() as up, through(up.base_url) as made:
            for _ in range(3):
                assert b"[DONE]" in await ask(made)
            assert up.ever == 1
            assert up.last.headers["host"] == "provider.invalid"

    run(go())


def test_left_early() -> None:
    """An answer that is left before its end closes its socket."""

    async def go() -> None:
        async with ChaosProvider(Plan(gate=Gate(2))) as up, through(up.base_url) as made:
            async with made.post(parse_url(URL), [], ASKING) as answer:
                await answer.read()
            await (await up.received()).gone()

    run(go())


@pytest.mark.parametrize(
    ("answer", "wanted"),
    [
        (OK + b"content-length: 10\r\n\r\nhi", Category.STREAM_BROKEN),
        (OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhi", Category.STREAM_BROKEN),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Category.PROTOCOL),
    ],
)
def test_broken(answer: bytes, wanted: Category) -> None:
    """Cut bodies and answers that are no HTTP have the same categories as on the direct way."""

    async def go() -> None:
        async with raw_server(answer) as url, through(url) as made:
            assert await category(made) is wanted

    run(go())


def test_nobody_listens() -> None:
    """A proxy that cannot be reached is `connect`."""

    async def go() -> None:
        with closing(socket.socket()) as taken:
            taken.bind(("127.0.0.1", 0))
            async with through(f"http://127.0.0.1:{taken.getsockname()[1]}") as made:
                assert await category(made) is Category.CONNECT

    run(go())
