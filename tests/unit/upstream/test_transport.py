"""The one HTTP client: what goes wrong on real sockets, and what becomes of connections."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

import pytest

from gateway.core.errors import Category, ProviderError
from gateway.upstream.answer import Answer
from gateway.upstream.contract import Timeouts
from gateway.upstream.transport import Transport, Trust, parse_url
from tests.support.baseline import baseline
from tests.support.chaos import ChaosProvider, Gate, Plan
from tests.support.run import run
from tests.support.signals import PATIENCE_S
from tests.unit.upstream.raw_server import RESET, raw_server

ASKING = b'{"stream": true, "messages": []}'
OK = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def transport(tls: ssl.SSLContext | None = None, *, connect_s: float = PATIENCE_S) -> AsyncIterator[Transport]:
    """One transport; nothing of it may be left behind."""
    async with baseline():
        made = Transport(Timeouts(connect_s=connect_s), tls=tls)
        try:
            yield made
        finally:
            await made.aclose()


async def ask(made: Transport, url: str) -> bytes:
    """One exchange to its end."""
    body = b""
    async with made.post(parse_url(url), [("accept", "text/event-stream")], ASKING) as answer:
        while data := await answer.read():
            body += data
    return body


async def to_end(answer: Answer) -> None:
    """Reads on until there is nothing more."""
    while await answer.read():
        pass


async def refused(made: Transport, url: str) -> ProviderError:
    """The error of an exchange that must fail."""
    with pytest.raises(ProviderError) as caught:
        await ask(made, url)
    return caught.value


def chat(up: ChaosProvider) -> str:
    """Where the chaos provider answers."""
    return up.base_url + "/chat/completions"


@pytest.mark.parametrize("name", ["nope.invalid", "a..b", "a" * 70 + ".invalid"])
def test_name_that_does_not_exist(name: str) -> None:
    """A host name that cannot be resolved, or is none, is `connect`."""

    async def go() -> None:
        async with transport(connect_s=2) as made:
            assert (await refused(made, f"http://{name}/x")).category is Category.CONNECT

    run(go())


def test_nobody_listens() -> None:
    """A refused connection is `connect`."""

    async def go() -> None:
        with closing(socket.socket()) as taken:
            taken.bind(("127.0.0.1", 0))  # bound, but not listening
            async with transport() as made:
                error = await refused(made, f"http://127.0.0.1:{taken.getsockname()[1]}/x")
                assert error.category is Category.CONNECT

    run(go())


def test_tls_to_a_plain_port() -> None:
    """TLS with a server that does not speak it is `connect`."""

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 plain text only\r\n")
        writer.close()

    async def go() -> None:
        async with await asyncio.start_server(speak, "127.0.0.1", 0) as server, transport(Trust().of(None)) as made:
            error = await refused(made, f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/x")
            assert error.category is Category.CONNECT
            assert "TLS" in error.failure.message

    run(go())


@pytest.mark.parametrize("answer", [b"", RESET])
def test_closed_without_an_answer(answer: bytes) -> None:
    """A fresh connection that is closed without a byte is `connect`: a failure that counts."""

    async def go() -> None:
        async with raw_server(answer) as url, transport() as made:
            assert (await refused(made, url)).category is Category.CONNECT

    run(go())


@pytest.mark.parametrize("answer", [b"", RESET])
def test_stale_connection(answer: bytes) -> None:
    """A kept connection that is closed without a byte is `stale_connection`, and the next exchange gets a new one."""
    whole = OK + b"content-length: 2\r\n\r\nhi"

    async def go() -> None:
        async with raw_server(whole, answer, whole) as url, transport() as made:
            assert await ask(made, url) == b"hi"
            assert (await refused(made, url)).category is Category.STALE_CONNECTION
            assert await ask(made, url) == b"hi"

    run(go())


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        OK + b"x" * 70_000,
        b"\x00" * 10,
        OK + b": no name\r\n\r\n",
    ],
)
def test_not_http(answer: bytes) -> None:
    """An answer that is not HTTP, or a head without end, is `protocol`."""

    async def go() -> None:
        async with raw_server(answer) as url, transport() as made:
            assert (await refused(made, url)).category is Category.PROTOCOL

    run(go())


@pytest.mark.parametrize(
    ("answer", "category"),
    [
        (OK + b"content-length: 10\r\n\r\nhi", Category.STREAM_BROKEN),
        (OK + b"content-length: 10\r\n\r\nhi" + RESET, Category.STREAM_BROKEN),
        (OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n", Category.STREAM_BROKEN),
        (OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhi", Category.STREAM_BROKEN),
        (OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n", Category.STREAM_BROKEN),
        (OK + b"transfer-encoding: chunked\r\n\r\n2\r\nhi\r\nzz\r\n", Category.PROTOCOL),
    ],
)
def test_cut_body(answer: bytes, category: Category) -> None:
    """A body that ends before its announced end fails, after all that came of it was read."""

    async def go() -> None:
        async with raw_server(answer) as url, transport() as made:
            async with made.post(parse_url(url), [], ASKING) as upstream:
                if not answer.endswith(RESET):  # a reset may overtake what was sent
                    assert await upstream.read() == b"hi"
                with pytest.raises(ProviderError) as caught:
                    await to_end(upstream)
            assert caught.value.category is category

    run(go())


def test_body_that_ends_with_the_connection() -> None:
    """Without a length the end of the connection is the end of the body."""

    async def go() -> None:
        async with raw_server(OK + b"\r\nhi") as url, transport() as made:
            assert await ask(made, url) == b"hi"

    run(go())


def test_interim_answers() -> None:
    """An interim answer is not the answer, and its headers are not the answer's."""
    answer = b"HTTP/1.1 103 Early Hints\r\nx-early: 1\r\n\r\n" + OK + b"content-length: 2\r\n\r\nhi"

    async def go() -> None:
        async with (
            raw_server(answer) as url,
            transport() as made,
            made.post(parse_url(url), [], ASKING) as upstream,
        ):
            assert upstream.status == 200
            assert "x-early" not in upstream.headers
            assert await upstream.read() == b"hi"

    run(go())


def test_answer_that_nobody_asked_for() -> None:
    """A second answer is neither part of the first one's body nor taken for the next request's."""
    whole, unasked = OK + b"content-length: 2\r\n\r\nhi", b"HTTP/1.1 408 Timeout\r\ncontent-length: 3\r\n\r\nbye"

    async def go() -> None:
        async with raw_server(whole + unasked, whole) as url, transport() as made:
            assert await ask(made, url) == b"hi"
            assert await ask(made, url) == b"hi"

    run(go())


def test_connection_is_used_again() -> None:
    """An answer that was read to its end leaves its connection to the next one."""

    async def go() -> None:
        async with ChaosProvider() as up, transport() as made:
            for _ in range(5):
                assert b"[DONE]" in await ask(made, chat(up))
            assert up.ever == 1

    run(go())


def test_error_body_leaves_the_connection() -> None:
    """A refusal whose body was read leaves its connection to the next request."""

    async def go() -> None:
        async with ChaosProvider(Plan(status=429)) as up, transport() as made:
            for _ in range(3):
                async with made.post(parse_url(chat(up)), [], ASKING) as answer:
                    assert answer.status == 429
                    assert b"error" in await answer.error_body()
            assert up.ever == 1

    run(go())


def test_left_early() -> None:
    """An answer that is left before its end closes its socket at once: that is what stops a generation."""

    async def go() -> None:
        gate = Gate(2)
        async with ChaosProvider(Plan(gate=gate)) as up, transport() as made:
            async with made.post(parse_url(chat(up)), [], ASKING) as answer:
                await answer.read()
            received = await up.received()
            await received.gone()
            assert received.closed_by == "peer"
            assert received.outcome == "left"

    run(go())


@pytest.mark.parametrize("waits_for", ["head", "body"])
def test_cancelled(waits_for: str) -> None:
    """A cancelled exchange closes its socket, whether it waits for the head or for the body."""

    async def go() -> None:
        gate = Gate(1)
        plan = Plan(hold_headers=Gate()) if waits_for == "head" else Plan(gate=gate)
        async with ChaosProvider(plan) as up, transport() as made:
            task = asyncio.ensure_future(ask(made, chat(up)))
            received = await up.received()
            if waits_for == "body":
                await gate.held()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await received.gone()

    run(go())


def test_many_at_once() -> None:
    """A hundred and fifty streams run side by side over one transport: nothing queues before the provider."""

    async def go() -> None:
        gate = Gate()
        async with ChaosProvider(Plan(hold_headers=gate)) as up, transport() as made:
            tasks = [asyncio.ensure_future(ask(made, chat(up))) for _ in range(150)]
            await up.received(150)
            assert up.open == 150
            gate.open()
            assert all(b"[DONE]" in body for body in await asyncio.gather(*tasks))
            await made.aclose()
            await up.all_closed()

    run(go())


def test_slow_reader_stops_the_provider() -> None:
    """Who does not read is not read for: the provider's writing stops, and goes on with the reading."""

    async def go() -> None:
        async with (
            ChaosProvider(Plan(body=b"x" * 3_000_000, framing="length"), send_buffer=65_536) as up,
            transport() as made,
            made.post(parse_url(chat(up)), [], ASKING) as answer,
        ):
            received = await up.received()
            await up.signal.until(lambda: received.paused_writing)
            size = 0
            while data := await answer.read():
                size += len(data)
            assert size == 3_000_000

    run(go())


def test_header_with_a_line_end() -> None:
    """No header can smuggle another one in."""

    async def go() -> None:
        async with ChaosProvider() as up, transport() as made:
            with pytest.raises(ValueError, match="control"):
                async with made.post(parse_url(chat(up)), [("x", "a\r\nauthorization: b")], ASKING):
                    pass
            assert not up.requests

    run(go())
