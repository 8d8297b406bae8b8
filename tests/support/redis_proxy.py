"""A network in front of Redis that misbehaves at one chosen command: its reply is lost, or it arrives too late.

Commands are counted over all connections from `begin` on; what a connection says to introduce itself does not count.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from gateway.upstream import resp
from tests.support.redis_server import RedisServer

_GREETINGS = {b"SCRIPT", b"CLIENT", b"HELLO", b"AUTH", b"SELECT", b"ROLE"}


class RedisProxy:
    """Every command goes through one by one; `seen` are the counted ones, as (name, first key or digest)."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._socket = Path(tempfile.mkdtemp(prefix="atlas-proxy-")) / "proxy.sock"
        self._tasks: set[asyncio.Task[None]] = set()
        self._lose: int | None = None
        self._late: int | None = None
        self._silent = self._refusing = False
        self._held: bytes | None = None
        self._last: bytes | None = None
        self.delay_s = 0.0
        """How much later everything arrives."""
        self.seen: list[bytes] = []

    @classmethod
    @asynccontextmanager
    async def before(cls, server: RedisServer) -> AsyncIterator["RedisProxy"]:
        """A proxy of one test."""
        proxy = cls(server)
        listener = await asyncio.start_unix_server(proxy._begin, proxy._socket)
        try:
            yield proxy
        finally:
            listener.close()
            for task in proxy._tasks:
                task.cancel()
            await asyncio.gather(*proxy._tasks, return_exceptions=True)
            proxy._socket.unlink(missing_ok=True)
            proxy._socket.parent.rmdir()

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def begin(self, *, lose: int | None = None, late: int | None = None, silent: bool = False) -> None:
        """Count anew. Command `lose` (from 0) is carried out and its reply lost; command `late` is kept until `arrive`.

        Its connection is cut then, or, if `silent`, just says nothing any more.
        """
        self._lose, self._late, self._silent = lose, late, silent
        self.seen.clear()

    @property
    def is_holding(self) -> bool:
        """Whether a command is under way that has not arrived."""
        return self._held is not None

    async def arrive(self) -> resp.Reply:
        """The late command arrives, from a connection that nobody listens to; what Redis answers it."""
        assert self._held is not None, "nothing is held"
        held, self._held = self._held, None
        reader, writer = await asyncio.open_unix_connection(self._server.socket)
        try:
            writer.write(held)
            return (await _reply(reader))[0]
        finally:
            writer.transport.abort()

    def refuse(self, *, refusing: bool = True) -> None:
        """Redis is not to be reached: connections are cut, and new ones are too."""
        self._refusing = refusing
        if refusing:
            for task in self._tasks:
                task.cancel()

    def refuse_behind(self, words: bytes) -> None:
        """The next command that holds these words is carried out; its reply is lost, and Redis is away from then on."""
        self._last = words

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection has its task, and is closed with it, also if that is cancelled before it has begun."""
        task = asyncio.ensure_future(self._connected(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(lambda _: writer.close())
        task.add_done_callback(self._tasks.discard)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            return
        with suppress(OSError):
            up_reader, up_writer = await asyncio.open_unix_connection(self._server.socket)
            try:
                await self._carry(reader, writer, up_reader, up_writer)
            finally:
                up_writer.close()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:
        decoder = resp.Decoder()
        while data := await reader.read(65_536):
            decoder.feed(data)
            await asyncio.sleep(self.delay_s)
            for parts in decoder.take(1_000_000):
                number = len(self.seen) if parts[0] not in _GREETINGS else None
                if number is not None:
                    self.seen.append(parts[0])
                whole = resp.command(*parts)
                if number is not None and number == self._late:
                    self._held = whole
                    return await self._end(reader)
                up_writer.write(whole)
                _, raw = await _reply(up_reader)
                if number is not None and self._last is not None and self._last in whole:
                    self._last = None
                    return self.refuse()
                if number is not None and number == self._lose:
                    return await self._end(reader)
                writer.write(raw)
        return None

    async def _end(self, reader: asyncio.StreamReader) -> None:
        while self._silent and await reader.read(65_536):
            pass


async def _reply(reader: asyncio.StreamReader) -> tuple[resp.Reply, bytes]:
    """One reply, and its bytes."""
    raw = b""
    while True:
        data = await reader.read(65_536)
        if not data:
            raise ConnectionResetError
        raw += data
        decoder = resp.Decoder()
        decoder.feed(raw)
        if found := decoder.take(1):
            return found[0], raw
