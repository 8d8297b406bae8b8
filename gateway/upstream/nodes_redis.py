"""Which node of Redis holds a key: the topology behind one URL. The lanes to the nodes are in `lanes_redis`.

A standalone Redis, or the one that sentinels name, is a single node that holds everything: nothing is looked up there.
A cluster is asked for its slots whenever a node answers that a slot has moved, or does not answer. Until it says
something else the last map is used: a wrong node says so, and does nothing.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from gateway.upstream.link_redis import LinkDown
from gateway.upstream.resp import command
from gateway.upstream.slots_redis import SLOTS, Range, ranges_of, slot_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.upstream.link_redis import Link, Wire

log = logging.getLogger("atlas.redis")

AGAIN_S = 0.05
"""Between two looks at the topology, at least."""


class Nodes:
    """The nodes behind one URL. In a cluster `run` is the task that keeps the map of slots."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.is_cluster = link.is_cluster
        self._slots: list[Link] = [link] * (SLOTS if link.is_cluster else 0)
        self._links: dict[tuple[str, int], Link] = {}
        self._down: set[Link] = set()
        self._doubts = asyncio.Event()
        self._doubts.set()
        self._asked = 0
        self._leaving: list[Callable[[Link], None]] = []

    def link_of(self, key: str) -> Link:
        """The link to the node that holds a key; to some node of the cluster until its map is known."""
        return self._slots[slot_of(key)] if self.is_cluster else self.link

    @property
    def down_s(self) -> float:
        """How long a node has been away, the longest of them; 0 while all are there."""
        return max([link.down_s for link in self._links.values()], default=self.link.down_s)

    async def connect(self, key: str) -> Wire:
        """A connection of the caller's own to the node of a key or of a sharded channel.

        Raises:
            LinkDown: not reached, or it refused us.
        """
        self.doubt()  # whoever comes again may have been at the wrong node
        return await self.link_of(key).connect()

    def doubt(self) -> None:
        """A node does not answer, or says that it holds something no more: look at the topology."""
        self._doubts.set()

    def when_leaving(self, told: Callable[[Link], None]) -> None:
        """`told` is told of each node that is in the map no more."""
        self._leaving.append(told)

    async def run(self) -> None:
        """Keep the map, until cancelled; of a single node there is none."""
        while self.is_cluster:
            await self._doubts.wait()
            self._doubts.clear()
            with suppress(LinkDown, ValueError):
                self._apply(await self._ask())
            await asyncio.sleep(AGAIN_S)

    async def _ask(self) -> list[Range]:
        """The map as one node knows it, each time another one.

        Raises:
            LinkDown: that node did not answer.
            ValueError: it serves no map.
        """
        nodes = [link for link in self._links.values() if not link.is_down] or [self.link]
        self._asked += 1
        link = nodes[self._asked % len(nodes)]
        host = link.seed[0] if link is self.link else link.shown.rpartition(":")[0]
        try:
            wire = await link.connect(plain=True)
        except LinkDown:
            self.doubt()
            raise
        try:
            (reply,) = await wire.exchange(command("CLUSTER", "SLOTS"), 1, link.timing.reply_s)
            return ranges_of(reply, host)
        except (LinkDown, ValueError):
            self.doubt()
            raise
        finally:
            wire.abort()

    def _apply(self, ranges: list[Range]) -> None:
        masters = {(found.host, found.port) for found in ranges}
        for place in masters - self._links.keys():
            self._links[place] = self._new(place)
        for first, last, host, port in ranges:
            self._slots[first : last + 1] = [self._links[host, port]] * (last + 1 - first)
        served = set(self._slots)
        for place, link in list(self._links.items()):
            if place not in masters and link not in served:
                del self._links[place]
                self._leave(link)
        if self._links and self.link not in served:
            self._leave(self.link)

    def _new(self, place: tuple[str, int]) -> Link:
        def on_state(up: float) -> None:
            self._say(link, is_down=not up)

        link = self.link.at(*place, on_state)
        log.info("a node of Redis", extra={"redis": link.shown})
        return link

    def _leave(self, link: Link) -> None:
        self._say(link, is_down=False)
        for told in self._leaving:
            told(link)

    def _say(self, link: Link, *, is_down: bool) -> None:
        """A cluster is up when all of its nodes are."""
        was_down = bool(self._down)
        if is_down:
            self._down.add(link)
        else:
            self._down.discard(link)
        if was_down != bool(self._down):
            self.link.observer.on_state(0.0 if self._down else 1.0)
