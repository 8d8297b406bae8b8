"""An HTTP/1.1 client for one origin: just what a provider adapter needs, on an asyncio protocol and llhttp.

Why not a library's: per relayed chunk a general client costs more than the rest of Atlas does (aiohttp 5 us, httpx 40
us; see bench/RESULTS.md), and per request as much again. Pool policy, retries and fallback live in the pool; here a
request takes an idle connection or opens one, and gives it back or closes it.

Oddities, on purpose:
1. A connection goes back to the idle ones only when its answer was read to the end and the server will keep it.
2. Closing is an abort: it is synchronous, nothing can cancel it, and it stops the provider's generation.
3. A server that closes a connection without a byte of an answer means `stale_connection` if the connection had served
   before, else `connect`: only the first is safe to repeat silently.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, cast

import httptools
from aiohappyeyeballs import start_connection

from gateway.core.errors import Category, ProviderError
from gateway.upstream.answer import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KEEPALIVE_S = 30.0
MAX_IDLE = 1024
MAX_HEAD_BYTES = 65_536
BUFFER_BYTES = 262_144
"""What may lie unread of one answer before the socket is no longer read."""
HAPPY_EYEBALLS_S = 0.25


class Origin(NamedTuple):
    """Where to connect: scheme, host and port; `tls` is None for plain HTTP."""

    host: str
    port: int
    tls: ssl.SSLContext | None


class Connection(asyncio.Protocol, Answer):
    """One connection, one exchange at a time. Parser callbacks are named as httptools wants them."""

    __slots__ = (
        "_fields", "_garbage", "_has_head", "_head", "_head_size", "_is_lost", "_keep", "_loop", "_lost", "_parser",
        "_parts", "_paused", "_sink", "_size", "_transport", "_waiter", "complete", "headers", "idle_since", "served",
        "status",
    )  # fmt: skip

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._lost: Exception | None = None
        self._is_lost = False
        self.served = 0
        self.idle_since = 0.0
        self._reset()

    def _reset(self) -> None:
        self.status = 0
        self._fields: dict[str, str] = {}
        self.headers = self._fields
        self.complete = False
        self._parser = httptools.HttpResponseParser(self)
        self._head: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._sink: Callable[[], bool] | None = None
        self._parts: list[bytes] = []
        self._size = self._head_size = 0
        self._has_head = self._paused = self._keep = False
        self._garbage: Exception | None = None

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return not self._is_lost and self._transport is not None and not self._transport.is_closing()

    @property
    def reusable(self) -> bool:
        """Whether the exchange is over and the server keeps the connection."""
        return self.complete and self._keep and self.usable and self._garbage is None

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is open."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer; nobody asked for any behind its end, or before a request."""
        over = self.complete
        if over or self._head is None:
            self._spoil(ValueError("bytes outside of an answer"))
            return
        if not self._has_head:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._spoil(error)
        except httptools.HttpParserUpgrade as error:
            self._spoil(error)
        if not self._has_head and self._head_size > MAX_HEAD_BYTES:
            self._spoil(ValueError("the head is too long"))
        if self._sink is not None:
            while (self._parts or self.complete) and self._sink():
                pass
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        elif self._size > BUFFER_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        """The server will send nothing further; for an answer without a length that is its end."""
        if self._has_head and not self.complete and self._ends_with_connection():
            self.complete = True
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self._is_lost, self._lost = True, exc
        if exc is None and self._has_head and not self.complete and self._ends_with_connection():
            self.complete = True
        self._wake()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """An answer begins; some servers send one to nobody (408) before they close a kept connection."""
        if self.complete or self._head is None:
            msg = "an answer that nobody asked for"
            raise ValueError(msg)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header of the answer."""
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        held = self._fields.get(key)
        self._fields[key] = text if held is None else f"{held}, {text}"

    def on_headers_complete(self) -> None:
        """The head is whole; an interim one (1xx) is not the answer's."""
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self._fields.clear()
            return
        self._has_head = True
        if self._head is not None and not self._head.done():
            self._head.set_result(None)

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._parts.append(body)
        self._size += len(body)

    def on_message_complete(self) -> None:
        """The body is whole."""
        if self._has_head:
            self.complete = True
            self._keep = self._parser.should_keep_alive()

    # What a request does.

    async def exchange(self, request: bytes) -> None:
        """Send a whole request and wait for the head of its answer.

        Raises:
            ProviderError: `stale_connection`, `connect` or `protocol`.
        """
        if self._transport is None or not self.usable:
            raise self._no_answer()
        self._head = self._loop.create_future()
        self._transport.write(request)
        await self._head
        if not self._has_head:
            raise self._no_answer()

    async def read(self) -> bytes:
        """What has arrived since the last read; empty at the end of the body.

        Raises:
            ProviderError: `stream_broken` or `protocol`, after everything before the fault was read.
        """
        while (data := self.take()) is None:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return data

    def take(self) -> bytes | None:
        """What has arrived since the last read, without waiting; None: nothing, empty: the end of the body."""
        parts = self._parts
        if parts:
            if len(parts) > 1 or self._paused:
                return self._take()
            self._size = 0
            return parts.pop()
        if self.complete:
            return b""
        if self._garbage is not None:
            raise ProviderError(Category.PROTOCOL, "the provider's answer is not valid HTTP") from self._garbage
        if self._is_lost:
            raise ProviderError(Category.STREAM_BROKEN, "the provider's answer was cut off") from self._lost
        return None

    def push_to(self, sink: Callable[[], bool] | None) -> bool:
        """Call `sink` from where bytes arrive; see `Answer`."""
        self._sink = sink
        return True

    def _take(self) -> bytes:
        parts = self._parts
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._size = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def recycle(self, now: float) -> None:
        """Make ready for the next exchange."""
        self.served += 1
        self.idle_since = now
        self._reset()

    def abort(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._transport.abort()

    def _ends_with_connection(self) -> bool:
        """RFC 9112 section 6.3: no length and not chunked means that the connection's end is the body's."""
        coding = self.headers.get("transfer-encoding", "").lower()
        return "content-length" not in self.headers and not coding.endswith("chunked")

    def _spoil(self, error: Exception) -> None:
        self._garbage = error
        self.abort()
        self._wake()

    def _wake(self) -> None:
        for future in (self._head, self._waiter):
            if future is not None and not future.done():
                future.set_result(None)
        if self._sink is not None:
            self._sink()

    def _no_answer(self) -> ProviderError:
        if self._garbage is not None:
            return ProviderError(Category.PROTOCOL, "the provider's answer is not valid HTTP")
        if self.served:
            return ProviderError(Category.STALE_CONNECTION, "the provider had closed the kept connection")
        return ProviderError(Category.CONNECT, "the provider closed the connection without an answer")


class Client:
    """Connections to one origin, for the life of the process."""

    def __init__(self, origin: Origin, connect_s: float) -> None:
        self._origin, self._connect_s = origin, connect_s
        self._idle: deque[Connection] = deque(maxlen=MAX_IDLE)

    async def acquire(self) -> Connection:
        """The idle connection used last, or a new one.

        Raises:
            ProviderError: `connect`.
        """
        oldest = asyncio.get_running_loop().time() - KEEPALIVE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since > oldest:
                return connection
            connection.abort()
        return await self._connect()

    def release(self, connection: Connection) -> None:
        """Take a connection back, or close it if its exchange is not over."""
        if not connection.reusable:
            connection.abort()
            return
        now = asyncio.get_running_loop().time()
        connection.recycle(now)
        while self._idle and self._idle[0].idle_since < now - KEEPALIVE_S:
            self._idle.popleft().abort()
        if len(self._idle) == MAX_IDLE:
            self._idle.popleft().abort()
        self._idle.append(connection)

    def close(self) -> None:
        """Close idle connections."""
        while self._idle:
            self._idle.pop().abort()

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(self._connect_s):
                return await self._open()
        except TimeoutError:
            message = f"no connection to the provider within {self._connect_s:g} s"
        except (socket.gaierror, UnicodeError):
            message = "the provider's host name cannot be resolved"
        except ssl.SSLError as error:
            message = f"TLS to the provider failed ({error.reason or type(error).__name__})"
        except OSError as error:
            if error.errno in {errno.EMFILE, errno.ENFILE}:
                raise ProviderError(Category.POOL_EXHAUSTED, "the gateway has no file descriptor left") from error
            message = f"the provider cannot be reached ({type(error).__name__})"
        raise ProviderError(Category.CONNECT, message)

    async def _open(self) -> Connection:
        loop, origin = asyncio.get_running_loop(), self._origin
        found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        opened = await start_connection(found, happy_eyeballs_delay=HAPPY_EYEBALLS_S, loop=loop)
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            name = origin.host if origin.tls is not None else None
            _, connection = await loop.create_connection(Connection, sock=opened, ssl=origin.tls, server_hostname=name)
        except BaseException:
            opened.close()
            raise
        return connection


def request_bytes(method: str, path: bytes, host: str, headers: Sequence[tuple[str, str]], content: bytes) -> bytes:
    """A whole request as it goes out.

    Raises:
        ValueError: a header with a line end or another control character in it.
    """
    lines = [f"{method} {path.decode('ascii')} HTTP/1.1", f"host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append(f"content-length: {len(content)}")
    head = "\r\n".join(lines)
    if head.count("\r") != len(lines) - 1 or head.count("\n") != len(lines) - 1 or "\0" in head:
        msg = "a header holds a control character"
        raise ValueError(msg)
    return b"%b\r\n\r\n%b" % (head.encode("latin-1"), content)
