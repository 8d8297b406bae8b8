"""A raw HTTP/1.1 client: shows the exact bytes as they come, and leaves as rudely as the test wishes.

async with RawClient.to(atlas.base_url) as client:
    stream = await client.stream("POST", "/v1/chat/completions", json={...})
    assert stream.status == 200
    await stream.until(b"hello")
    client.reset()                            # RST; client.cut() is FIN
"""

import asyncio
import contextlib
import json as json_
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal, NamedTuple, Self, cast
from urllib.parse import urlsplit

from tests.support.sse import Frame, data_frames, frames

__all__ = ["Answer", "CutBodyError", "Frame", "RawClient", "RawStream", "data_frames", "frames"]

_LINGER_0 = struct.pack("ii", 1, 0)
Ended = Literal["complete", "eof", "reset"]


class CutBodyError(Exception):
    """The body ended before its time: `how` is FIN (`eof`) or RST (`reset`), `body` what had come."""

    def __init__(self, how: Ended, body: bytes) -> None:
        super().__init__(f"{how} after {len(body)} bytes of body")
        self.how, self.body = how, body


class Answer(NamedTuple):
    """A whole answer; header names are in lower case, of repeated ones the values are joined by a comma."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json_.loads(self.body)


class RawStream:
    """An answer whose head is here and whose body comes.

    `body` is what came so far, without transfer coding. `ended` is None until the end; a body framed by the
    connection's end is complete at FIN.
    """

    def __init__(self, reader: asyncio.StreamReader, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers = status, headers
        self.body = bytearray()
        self.ended: Ended | None = None
        self._reader = reader
        self._pieces = self._framed()

    async def next(self) -> bytes:
        """Some more bytes as they come; empty at the proper end.

        Raises:
            CutBodyError: when the connection ended before the body did.
        """
        try:
            piece = await anext(self._pieces, b"")
        except asyncio.IncompleteReadError:
            self.ended = "eof"
        except ConnectionError:
            self.ended = "reset"
        else:
            if not piece:
                self.ended = self.ended or "complete"
            self.body += piece
            return piece
        raise CutBodyError(self.ended, bytes(self.body)) from None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self.next():
            yield piece

    async def read(self) -> bytes:
        """All of the body.

        Raises:
            CutBodyError: when the connection ended before the body did.
        """
        while await self.next():
            pass
        return bytes(self.body)

    async def read_cut(self) -> bytes:
        """All that comes, however it ends; see `ended`."""
        try:
            return await self.read()
        except CutBodyError as error:
            return error.body

    async def until(self, needle: bytes) -> bytes:
        """Reads until the body holds `needle`; returns the body so far.

        Raises:
            AssertionError: when the body ended without it.
        """
        while needle not in self.body:
            assert await self.next(), f"the body ended without {needle!r}: {bytes(self.body[-300:])!r}"
        return bytes(self.body)

    async def until_frames(self, n: int) -> list[Frame]:
        """Reads until `n` data frames are there; returns all that are.

        Raises:
            AssertionError: when the body ended with fewer.
        """
        while len(found := data_frames(bytes(self.body))) < n:
            assert await self.next(), f"the body ended after {len(found)} frames of {n}"
        return found

    async def _framed(self) -> AsyncIterator[bytes]:
        if "chunked" in self.headers.get("transfer-encoding", ""):
            async for piece in self._chunks():
                yield piece
        elif "content-length" in self.headers or self.status in {204, 304}:
            async for piece in self._exactly(int(self.headers.get("content-length", 0))):
                yield piece
        else:
            while piece := await self._reader.read(65536):
                yield piece

    async def _exactly(self, n: int) -> AsyncIterator[bytes]:
        while n:
            piece = await self._reader.read(min(n, 65536))
            if not piece:
                raise asyncio.IncompleteReadError(b"", n)
            n -= len(piece)
            yield piece

    async def _chunks(self) -> AsyncIterator[bytes]:
        while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
            async for piece in self._exactly(size):
                yield piece
            assert await self._reader.readexactly(2) == b"\r\n", "a chunk longer than it said"
        while await self._reader.readuntil(b"\r\n") != b"\r\n":
            pass


class RawClient:
    """One connection while entered; requests go over it one after another.

    `receive_buffer`: bytes of kernel buffer; with a small one a test that does not read is a slow reader soon.
    """

    def __init__(self, host: str, port: int, *, receive_buffer: int | None = None) -> None:
        self._host, self._port, self._receive_buffer = host, port, receive_buffer
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    @classmethod
    def to(cls, base_url: str, *, receive_buffer: int | None = None) -> Self:
        """A client for the host and port of a URL; its path is not used."""
        parts = urlsplit(base_url)
        return cls(parts.hostname or "127.0.0.1", parts.port or 80, receive_buffer=receive_buffer)

    async def __aenter__(self) -> Self:
        sock = socket.socket()
        sock.setblocking(False)  # noqa: FBT003 - the standard library's signature
        if self._receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (self._host, self._port))
        except BaseException:
            sock.close()
            raise
        limit = self._receive_buffer or 2**20
        self._reader, self._writer = await asyncio.open_connection(sock=sock, limit=limit)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    def cut(self) -> None:
        """Leaves with FIN."""
        self._writer.close()

    def reset(self) -> None:
        """Leaves with RST."""
        if not self._writer.is_closing():
            sock = cast("socket.socket", self._writer.get_extra_info("socket"))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self._writer.transport.abort()

    async def send(self, raw: bytes) -> None:
        """Any bytes at all."""
        self._writer.write(raw)
        await self._writer.drain()

    async def head(self) -> RawStream:
        """Waits for an answer's head.

        Raises:
            CutBodyError: when the connection ended before it was whole.
        """
        try:
            raw = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise CutBodyError("eof", error.partial) from None
        except ConnectionError:
            raise CutBodyError("reset", b"") from None
        first, *lines = raw[:-4].decode("latin-1").split("\r\n")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            name, value = name.lower(), value.strip()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return RawStream(self._reader, int(first.split(" ")[1]), headers)

    async def stream(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        json: Any = None,
    ) -> RawStream:
        """Sends a request and returns when the answer's head is here; `json` is a body, too."""
        await self.send(self._request(method, path, headers or {}, body, json))
        return await self.head()

    async def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        json: Any = None,
    ) -> Answer:
        """Sends a request and reads all of the answer.

        Raises:
            CutBodyError: when the connection ended before the answer did.
        """
        stream = await self.stream(method, path, headers, body, json=json)
        return Answer(stream.status, stream.headers, b"" if method == "HEAD" else await stream.read())

    def _request(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, json: Any) -> bytes:
        known = {"host": f"{self._host}:{self._port}"}
        if json is not None:
            body = json_.dumps(json).encode()
            known["content-type"] = "application/json"
        if body is not None:
            known["content-length"] = str(len(body))
        known |= {name.lower(): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in known.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
