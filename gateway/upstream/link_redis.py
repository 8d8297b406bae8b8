"""The one way to Redis: how connections are opened, what is done when that fails, and how commands are asked.

The library owns connecting, authentication and TLS; from there on commands and replies are our own (`resp`), on
connections that belong to one long-lived task each (`lane_redis`, the journal's writer). Requests await a future,
never a socket: a request that is cancelled cannot leave half a reply to the next one.

Oddities, on purpose:
1. The library's retries, pool and socket time-outs are not used: it repeats writes blindly, and raises at its pool's
   bound instead of waiting.
2. Scripts are loaded with every new connection, so that a restart or a failover forgets none.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import logging
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.exceptions import RedisError

from gateway.core.errors import AtlasError
from gateway.upstream.address_redis import Address
from gateway.upstream.resp import Decoder, ErrorReply, ProtocolError, Reply, command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.core.clock import Clock

log = logging.getLogger("atlas.redis")

PIPELINE = 64
"""Commands in one write: more of them hold the loop up when their replies come in one read (measured: 15-45 ms)."""
READ_BYTES = 65_536
_POOL_OPTIONS = frozenset({"max_connections", "timeout", "socket_timeout", "socket_connect_timeout", "protocol"})


# Answers that say nothing of the command but that this is not its moment, or not its server.
TRANSIENT = frozenset(
    {"LOADING", "READONLY", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "BUSY", "NOREPLICAS", "MOVED", "ASK", "MISCONF"}
)
# ... of which these also say that another server is the master now.
ELSEWHERE = frozenset({"READONLY", "MASTERDOWN", "MOVED"})


class LinkDown(AtlasError):
    """Redis was not reached or did not answer in time: what was asked has happened, or has not."""


class LinkRefused(AtlasError):
    """Redis answered with an error that repeating does not cure."""

    def __init__(self, reply: ErrorReply) -> None:
        super().__init__(reply.text)
        self.code = reply.code


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds.

    `reply_s` for one pipeline before its connection is given up; `answer_s` for one question with all its
    repetitions; after `patience_s` of outage questions fail at once. Attempts to connect are `pause_s` apart, doubling
    up to `pause_max_s`.
    """

    connect_s: float = 2.0
    reply_s: float = 2.0
    answer_s: float = 4.0
    patience_s: float = 1.0
    pause_s: float = 0.02
    pause_max_s: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """Who is told what happens on a link, once a pipeline at most; what it does must be quick and not raise.

    `on_state` is told 0.0 when Redis goes and 1.0 when it comes back. `on_latency` is told the kind of lane (append,
    control, read, tail) and the seconds from a pipeline's first byte to its last reply, `on_error` the kind of lane
    whose pipeline was not answered, or was answered with an error. `on_batch` is told how many events went out in a
    pipeline of appends, and for how many seconds its first entry had been waiting in all.
    """

    on_state: Callable[[float], None] = lambda _up: None
    on_latency: Callable[[str, float], None] = lambda _kind, _seconds: None
    on_error: Callable[[str], None] = lambda _kind: None
    on_batch: Callable[[int, float], None] = lambda _events, _seconds: None


@dataclass(frozen=True)
class Script:
    """A Lua script, known to Redis by the digest of its text."""

    text: str

    @property
    def sha(self) -> str:
        """What EVALSHA calls it by."""
        return hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class _Exchange(AbstractConnection):
    """What a library's connection lacks: our commands out, our replies in. All of it belongs to one task."""

    decoder: Decoder

    async def open(self, scripts: list[Script] | None) -> None:
        """Connect as the library does, and, if there are scripts, make sure that it is a master and load them.

        Raises:
            LinkDown: a replica, or Redis does not take them.
        """
        await self.connect()  # type: ignore[no-untyped-call]
        if scripts is None:
            return
        loads = [command("SCRIPT", "LOAD", script.text) for script in scripts]
        self.write(b"".join([command("ROLE"), *loads]))
        role, *loaded = await self.replies(1 + len(loads))
        if not isinstance(role, ErrorReply) and role[0] != b"master":  # who may not ask is told by READONLY
            raise LinkDown("this is a replica, not the master")
        for reply in loaded:
            if isinstance(reply, ErrorReply):
                raise LinkDown(reply.text)

    def write(self, data: bytes) -> None:
        """Send; at most a pipeline, so there is nothing to wait for."""
        if self._writer is None or self._writer.transport.is_closing():
            raise LinkDown("the connection to Redis is closed")
        self._writer.write(data)

    async def replies(self, count: int) -> list[Reply]:
        """The next replies, exactly so many.

        Raises:
            LinkDown: the connection broke.
        """
        found: list[Reply] = []
        try:
            while True:
                found += self.decoder.take(count - len(found))
                if len(found) == count:
                    return found
                data = b"" if self._reader is None else await self._reader.read(READ_BYTES)
                if not data:
                    raise LinkDown("Redis closed the connection")
                self.decoder.feed(data)
        except (OSError, ProtocolError) as error:
            raise LinkDown(str(error)) from error

    async def exchange(self, data: bytes, count: int, within_s: float) -> list[Reply]:
        """Send, and read that many replies.

        Raises:
            LinkDown: no answer in time; the connection must not be used again.
        """
        try:
            async with asyncio.timeout(within_s):
                self.write(data)
                return await self.replies(count)
        except TimeoutError:
            raise LinkDown(f"Redis did not answer within {within_s:g} s") from None

    async def disconnect(self, *_: object, **__: object) -> None:
        """What the library calls when connecting fails midway.

        It would wait for TLS's farewell, and a cancel of that would leave the socket to nobody.
        """
        self.abort()

    def abort(self) -> None:
        """Close at once: synchronous, nothing can cancel it, and no half of a reply is left for anybody."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None


class _Tcp(_Exchange, Connection):
    """Plain TCP."""


class _Seen(asyncio.StreamReaderProtocol):
    """Knows its transport from the moment that there is one."""

    transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        super().connection_made(transport)


class _Tls(_Exchange, SSLConnection):
    """TLS."""

    async def _connect(self) -> None:
        """As the library does, but whoever is cancelled right behind the handshake leaves no socket to a farewell."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        seen = _Seen(reader, loop=loop)
        try:
            async with asyncio.timeout(self.socket_connect_timeout):
                await loop.create_connection(lambda: seen, **self._connection_arguments())
            if self.socket_keepalive:
                seen.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._reader, self._writer = reader, asyncio.StreamWriter(seen.transport, seen, reader, loop)
        finally:
            if self._writer is None and seen.transport is not None:
                seen.transport.abort()


class _Unix(_Exchange, UnixDomainSocketConnection):
    """A socket of this machine."""


Wire = _Exchange


class Link:
    """One Redis: opens connections to it, and knows whether it is there.

    `shown` is its address without user or password.

    Raises:
        ValueError: the URL is none, or has an option that does not exist.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        *,
        timing: Timing | None = None,
        scripts: Iterable[Script] = (),
        observer: Observer | None = None,
    ) -> None:
        self._address = Address.of(url)
        options = parse_url(self._address.url)
        self._options: dict[str, Any] = {name: value for name, value in options.items() if name not in _POOL_OPTIONS}
        kind = self._options.pop("connection_class", Connection)
        self._class: type[Any] = {SSLConnection: _Tls, UnixDomainSocketConnection: _Unix}.get(kind, _Tcp)
        self.shown = str(self._options.get("path") or f"{self._options.get('host', 'localhost')}:"
                         f"{self._options.get('port', 6379)}")  # fmt: skip
        self.timing = timing or Timing()
        self.scripts = list(scripts)
        self.observer = observer or Observer()
        self.clock = clock
        self._down_since: float | None = None
        self._failures = self._seed = 0
        self.is_of_cluster = self.is_cluster
        self._next_try = 0.0
        self._new(self._class, self._options)  # an unknown option is found now, not with the first request

    def _new(self, kind: type[Any], options: dict[str, Any]) -> Wire:
        try:
            wire: Wire = kind(**options, protocol=2, socket_timeout=None, socket_connect_timeout=self.timing.connect_s)
        except TypeError as error:
            raise ValueError(f"the URL of Redis has an option that does not exist: {error}") from None
        wire.decoder = Decoder()
        return wire

    async def _node(self) -> Wire:
        """A wire to where the master is, or to some node of a cluster, not open yet."""
        if self._address.seeds:
            host, port = self.seed
            return self._new(self._class, {**self._options, "host": host, "port": port})
        if not self._address.sentinels:
            return self._new(self._class, self._options)
        share_s = self.timing.connect_s / (len(self._address.sentinels) + 1)  # one that is silent costs its share
        for host, port in self._address.sentinels:
            with suppress(RedisError, OSError, LinkDown):
                async with asyncio.timeout(share_s):
                    node = await self._ask_sentinel(host, port)
                return self._new(self._class, {**self._options, **node})
        msg = f"no sentinel knows a master of {self._address.service!r}"
        raise LinkDown(msg)

    async def _ask_sentinel(self, host: str, port: int) -> dict[str, Any]:
        wire = self._new(_Tcp, {"host": host, "port": port})
        try:
            await wire.open(None)
            question = command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._address.service)
            (found,) = await wire.exchange(question, 1, self.timing.reply_s)
        finally:
            wire.abort()
        if found is None or isinstance(found, ErrorReply):
            msg = f"the sentinel does not know {self._address.service!r}"
            raise LinkDown(msg)
        return {"host": found[0].decode(), "port": int(found[1])}

    @property
    def is_cluster(self) -> bool:
        """Whether this is a cluster, of which this link reaches some node."""
        return bool(self._address.seeds)

    @property
    def seeds(self) -> int:
        """How many nodes of a cluster the URL names."""
        return len(self._address.seeds)

    @property
    def seed(self) -> tuple[str, int]:
        """The node of a cluster that this link reaches, or tries next."""
        return self._address.seeds[self._seed % len(self._address.seeds)]

    def at(self, host: str, port: int, on_state: Callable[[float], None]) -> Link:
        """A link of its own to one node of a cluster, with everything else as it is here."""
        link = copy.copy(self)
        link._become(host, port)  # noqa: SLF001  its own kind
        link.observer = replace(self.observer, on_state=on_state)
        return link

    def _become(self, host: str, port: int) -> None:
        """Another server behind the same URL, of which nothing is known yet."""
        self._address = Address(self._address.url)
        self._options = {**self._options, "host": host, "port": port}
        self.shown = f"{host}:{port}"
        self._down_since, self._failures, self._next_try = None, 0, 0.0

    @property
    def is_down(self) -> bool:
        """Whether the last attempt to connect failed."""
        return self._down_since is not None

    @property
    def down_s(self) -> float:
        """How long Redis has been away; 0 while it is there."""
        return 0.0 if self._down_since is None else self.clock.monotonic() - self._down_since

    @property
    def is_given_up(self) -> bool:
        """The breaker: whether it has been away for so long that nobody shall wait for it."""
        return self.down_s > self.timing.patience_s

    async def connect(self, *, plain: bool = False) -> Wire:
        """A new connection with the scripts loaded, after a pause if the last attempt failed.

        `plain`: to whatever is there, for a look at it.

        Raises:
            LinkDown: not reached, or it refused us.
        """
        await asyncio.sleep(max(self._next_try - self.clock.monotonic(), 0.0))
        try:
            async with asyncio.timeout(self.timing.connect_s):
                wire = await self._open(plain=plain)
        except (RedisError, OSError, LinkDown) as error:  # OSError: TimeoutError is one
            why = str(error) or f"no answer within {self.timing.connect_s:g} s"
            self._lost(why)
            raise LinkDown(why) from error
        self._found()
        return wire

    async def _open(self, *, plain: bool) -> Wire:
        wire = await self._node()
        opened = False
        try:
            await wire.open(None if plain else self.scripts)
            opened = True
        finally:
            if not opened:
                wire.abort()
        return wire

    def _lost(self, why: str) -> None:
        """No connection could be made; said once in an outage. One that merely broke is no outage yet."""
        now = self.clock.monotonic()
        if self._down_since is None:
            self._down_since = now
            log.warning("Redis is away: %s", why, extra={"redis": self.shown})
            self.observer.on_state(0.0)
        pause_s = self.timing.pause_s * 2 ** min(self._failures, 16)
        self._failures += 1
        self._seed += 1
        self._next_try = now + min(pause_s, self.timing.pause_max_s)

    def _found(self) -> None:
        self._failures, self._next_try = 0, 0.0
        if self._down_since is not None:
            log.warning("Redis is back after %.1f s", self.down_s, extra={"redis": self.shown})
            self._down_since = None
            self.observer.on_state(1.0)
