"""The raw client shows exact bytes and how they ended."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.baseline import baseline
from tests.support.http import CutBodyError, RawClient
from tests.support.run import run


@asynccontextmanager
async def canned(*answers: bytes) -> AsyncIterator[tuple[RawClient, list[bytes]]]:
    """A client of a server that says these bytes, one answer a request, and closes."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with baseline(), server, RawClient("127.0.0.1", server.sockets[0].getsockname()[1]) as client:
        yield client, heard


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\nx-a: 2\r\n\r\n"


def test_chunks_and_lengths() -> None:
    """Chunk extensions and trailers are skipped, repeated headers joined, lengths obeyed, one after another."""

    async def scenario() -> None:
        length = b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nabc"
        async with canned(CHUNKED + b"3;x=y\r\nabc\r\n2\r\n\r\n\r\n0\r\nT: 1\r\n\r\n", length) as (client, heard):
            status, headers, body = await client.request("GET", "/x?y", {"X-Mine": "1"})
            assert (status, headers["x-a"], body) == (200, "1, 2", b"abc\r\n")
            assert heard[0].startswith(b"GET /x?y HTTP/1.1\r\nhost: 127.0.0.1:")
            assert b"x-mine: 1\r\n" in heard[0]
            assert (await client.request("HEAD", "/"))[:2] == (404, {"content-length": "3"})

    run(scenario())


def test_body_up_to_the_end_of_the_connection() -> None:
    """Without a length the body ends with the connection."""

    async def scenario() -> None:
        async with canned(b"HTTP/1.1 200 OK\r\n\r\nabc") as (client, _):
            stream = await client.stream("GET", "/")
            assert [piece async for piece in stream] == [b"abc"]
            assert stream.ended == "complete"

    run(scenario())


@pytest.mark.parametrize("cut", [b"3\r\nab", b"3\r\nabc", b"3\r\nabc\r\n", b"3\r\nabc\r\n0\r\n", b"", b"3"])
def test_cut_bodies_are_told(cut: bytes) -> None:
    """A chunked body without its last chunk is never taken for a whole one."""

    async def scenario() -> None:
        async with canned(CHUNKED + cut) as (client, _):
            stream = await client.stream("GET", "/")
            with pytest.raises(CutBodyError) as caught:
                await stream.read()
            assert (caught.value.how, caught.value.body) == ("eof", cut[3:6])

    run(scenario())


def test_needle_that_never_comes() -> None:
    """Waiting for what the body does not hold fails with what it held."""

    async def scenario() -> None:
        async with canned(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc") as (client, _):
            with pytest.raises(AssertionError, match="abc"):
                await (await client.stream("GET", "/")).until(b"d")

    run(scenario())
