"""Hints between replicas over sharded pub/sub: one connection that listens, and one pipeline at a time that says.

Sharded commands work on a standalone Redis as well, and in a cluster a hint is one node's business. Nothing here is
repeated or acknowledged: whoever waits also polls.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from gateway.streams.hints import Hint, Saying, add
from gateway.streams.layout_redis import channel_of
from gateway.upstream.link_redis import LinkDown
from gateway.upstream.resp import ErrorReply, command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gateway.upstream.lanes_redis import Lanes
    from gateway.upstream.link_redis import Wire
    from gateway.upstream.nodes_redis import Nodes
    from gateway.upstream.resp import Reply

log = logging.getLogger("atlas.fleet")

PAUSE_S, PAUSE_MAX_S = 0.02, 1.0
MOST_TARGETS = 1024
_hints = msgspec.msgpack.Decoder(Hint)
_encode = msgspec.msgpack.Encoder().encode


class Listener:
    """Hears the hints for one replica, on a connection of its own that is opened again whenever it breaks.

    A connection that says nothing is asked (PING) every `health_s`, and given up if it stays silent as long again.
    `on_listening` is told after each subscription: hints may have been lost before.
    """

    def __init__(
        self, nodes: Nodes, rid: str, health_s: float, on_hint: Callable[[Hint], None],
        on_listening: Callable[[], None],
    ) -> None:  # fmt: skip
        self._nodes, self._channel, self._health_s = nodes, channel_of(rid), health_s
        self._on_hint, self._on_listening = on_hint, on_listening
        self._wire: Wire | None = None
        self.is_listening = False
        self._is_quiet = False
        self._failures = 0

    async def run(self) -> None:
        """Listen, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._check(), name="redis hints health")
            while True:
                try:
                    await self._listen()
                except LinkDown:
                    pause_s = min(PAUSE_S * 2**self._failures, PAUSE_MAX_S)
                    self._failures = min(self._failures + 1, 16)
                    await asyncio.sleep(pause_s)
                finally:
                    self._drop()

    async def _listen(self) -> None:
        """Hear hints as long as a connection lasts.

        Raises:
            LinkDown: it broke.
        """
        self._wire = wire = await self._nodes.connect(self._channel)
        self._is_quiet = False
        wire.write(command("SSUBSCRIBE", self._channel))
        while True:
            (reply,) = await wire.replies(1)
            self._is_quiet = False
            self._hear(reply)

    def _hear(self, reply: Reply) -> None:
        if isinstance(reply, ErrorReply):
            raise LinkDown(reply.text)
        match reply:
            case [b"smessage", _, data]:
                try:
                    hint = _hints.decode(data)
                except msgspec.MsgspecError:
                    log.warning("a hint that is none; another version of Atlas?")
                else:
                    self._on_hint(hint)
            case [b"ssubscribe", *_]:
                self._failures = 0
                self.is_listening = True
                self._on_listening()
            case [b"sunsubscribe", *_]:
                raise LinkDown("the channel has moved to another node")
            case _:
                pass  # a pong

    async def _check(self) -> None:
        """Ask a connection that says nothing whether it is there."""
        while True:
            await asyncio.sleep(self._health_s)
            wire = self._wire
            if wire is None:
                continue
            if self._is_quiet:
                self._drop()
                continue
            self._is_quiet = True
            try:
                wire.write(command("PING"))
            except LinkDown:
                self._drop()

    def _drop(self) -> None:
        self.is_listening = False
        if self._wire is not None:
            self._wire.abort()
            self._wire = None


class Speaker:
    """Says hints, one pipeline at a time; what piles up meanwhile goes into the next one, one message a replica."""

    def __init__(self, lanes: Lanes, rid: str) -> None:
        self._lanes, self._rid = lanes, rid
        self._waiting: dict[str, Saying] = {}
        self._wake = asyncio.Event()

    def watch(self, rid: str, sids: Iterable[str]) -> None:
        """These are read here."""
        saying, read = self._to(rid), tuple(sids)
        saying.left.difference_update(read)
        add(saying.watch, read)

    def left(self, rid: str, sid: str) -> None:
        """This one is not read here any more."""
        saying = self._to(rid)
        saying.watch.discard(sid)
        add(saying.left, (sid,))

    def look(self, rid: str, sids: Iterable[str]) -> None:
        """These have grown."""
        add(self._to(rid).look, sids)

    def tell(self, rid: str, sid: str) -> None:
        """A step from here changed this one."""
        add(self._to(rid).told, (sid,))

    def revoked(self, rid: str) -> None:
        """The set of revoked keys has changed."""
        self._to(rid).revoked = True

    def _to(self, rid: str) -> Saying:
        saying = self._waiting.get(rid)
        if saying is None:
            if len(self._waiting) >= MOST_TARGETS:
                return Saying()  # said to nobody
            saying = self._waiting[rid] = Saying()
            self._wake.set()
        return saying

    async def run(self) -> None:
        """Say, until cancelled. What Redis does not take in time is not said."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, {}
            channels = [(channel_of(rid), saying.hint(self._rid)) for rid, saying in waiting.items()]
            await self._lanes.ask_each(
                [(channel, command("SPUBLISH", channel, _encode(hint))) for channel, hint in channels]
            )
