"""Lanes to the nodes of Redis: a question goes to the node of its key, and after it when it moves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.upstream.lane_redis import Job, Lane
from gateway.upstream.link_redis import PIPELINE, LinkDown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.upstream.link_redis import Link, Script
    from gateway.upstream.nodes_redis import Nodes
    from gateway.upstream.resp import Reply


class Lanes:
    """One lane to each node; `run` is their task. What is asked of one key by one task is answered in that order.

    `kind` is what the link's observer is told.
    """

    def __init__(self, nodes: Nodes, kind: str = "control") -> None:
        self._nodes, self._kind = nodes, kind
        self._only = None if nodes.is_cluster else Lane(nodes.link, kind)
        self._lanes: dict[Link, Lane] = {}
        self._tasks: asyncio.TaskGroup | None = None
        nodes.when_leaving(self._leave)

    def lane_of(self, key: str) -> Lane:
        """The lane to the node that holds a key."""
        if self._only is not None:
            return self._only
        link = self._nodes.link_of(key)
        lane = self._lanes.get(link)
        if lane is None:
            lane = self._lanes[link] = Lane(link, self._kind, self._elsewhere)
            self._start(lane)
        return lane

    async def ask(self, key: str, *commands: bytes) -> list[Reply]:
        """The replies to idempotent commands on this key's node; errors of Redis are values among them.

        Raises:
            LinkDown: no answer in time: what was asked has happened, or has not.
        """
        return await self.lane_of(key).ask(*commands, key=key)

    async def call(self, script: Script, keys: list[str], *arguments: bytes | str | float) -> Reply:
        """What an idempotent script returns; its keys lie in one slot.

        Raises:
            LinkDown: no answer in time.
            LinkRefused: the script failed.
        """
        return await self.lane_of(keys[0]).call(script, keys, *arguments)

    async def ask_each(self, wanted: Sequence[tuple[str, bytes]]) -> list[Reply | LinkDown]:
        """Many (key, idempotent command) at once: the reply to each, or `LinkDown` as a value."""
        if self._only is None:
            return await self._ask_nodes(wanted)
        found: list[Reply | LinkDown] = []
        for at in range(0, len(wanted), PIPELINE):
            part = wanted[at : at + PIPELINE]
            try:
                found += await self._only.ask(*[command for _, command in part])
            except LinkDown as error:
                found += [error] * len(part)
        return found

    async def _ask_nodes(self, wanted: Sequence[tuple[str, bytes]]) -> list[Reply | LinkDown]:
        """Each is a job of its own: it may move without its neighbours."""
        jobs = [Job(command, 1, key) for key, command in wanted]
        for job in jobs:
            try:
                lane = self.lane_of(job.key)
                lane.refuse_if_given_up()
                lane.put(job)
            except LinkDown as error:
                job.done.set_exception(error)
        try:
            if jobs:
                await asyncio.wait([job.done for job in jobs], timeout=self._nodes.link.timing.answer_s)
            return [_reply_or_error(job) for job in jobs]
        finally:
            for job in jobs:
                job.done.cancel()  # who was not answered asks no more

    async def run(self) -> None:
        """Send and answer, until cancelled."""
        if self._only is not None:
            await self._only.run()
            return
        async with asyncio.TaskGroup() as self._tasks:
            for lane in self._lanes.values():
                self._start(lane)
            await asyncio.Event().wait()  # lanes come and go

    def _start(self, lane: Lane) -> None:
        if self._tasks is not None:
            self._tasks.create_task(lane.run(), name=f"redis {self._kind}")

    def _elsewhere(self, jobs: list[Job]) -> None:
        """A node did not answer these, or not with what was asked."""
        self._nodes.doubt()
        for job in jobs:
            if not job.done.done():
                self.lane_of(job.key).put(job)

    def _leave(self, link: Link) -> None:
        lane = self._lanes.pop(link, None)
        if lane is not None:
            lane.retire()


def _reply_or_error(job: Job) -> Reply | LinkDown:
    if not job.done.done():
        return LinkDown("Redis did not answer in time")
    error = job.done.exception()
    return error if isinstance(error, LinkDown) else job.done.result()[0]
