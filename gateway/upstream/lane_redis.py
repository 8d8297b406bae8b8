"""A lane: one connection to Redis and the task that owns it, for questions of many tasks.

What is asked while a pipeline is under way goes into the next one. A pipeline that was not answered is sent again,
unchanged, on a new connection. So whatever is asked here must be idempotent: scripts with operation ids, SET NX GET,
ZADD NX, DEL. Appends have a writer of their own.

In a cluster, what this node does not answer goes back to whoever knows the nodes (`elsewhere`), and comes again, here
or on another lane.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from gateway.upstream.link_redis import ELSEWHERE, PIPELINE, TRANSIENT, LinkDown, LinkRefused
from gateway.upstream.resp import ErrorReply, Reply, command

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.upstream.link_redis import Link, Script, Wire


class Job:
    """Commands asked together: their bytes, how many they are, and who waits. `key` is any of theirs.

    `whole` makes the same question of a script with the script's text, if it is one by its digest.
    """

    __slots__ = ("count", "data", "done", "key", "whole")

    def __init__(self, data: bytes, count: int, key: str = "", whole: Callable[[], bytes] | None = None) -> None:
        self.data, self.count, self.key, self.whole = data, count, key, whole
        self.done: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()


class Lane:
    """One connection and the task that owns it (`run`); questions of many tasks go out in pipelines, in order.

    `kind` is what the link's observer is told.
    """

    def __init__(self, link: Link, kind: str = "control", elsewhere: Callable[[list[Job]], None] | None = None) -> None:
        self._link, self._kind, self._elsewhere = link, kind, elsewhere
        self._jobs: deque[Job] = deque()
        self._wake = asyncio.Event()
        self._wire: Wire | None = None
        self._is_retired = False

    async def ask(self, *commands: bytes, key: str = "") -> list[Reply]:
        """The replies to idempotent commands; errors of Redis are values among them.

        Raises:
            LinkDown: no answer in time: what was asked has happened, or has not.
        """
        return await self._answer(Job(b"".join(commands), len(commands), key))

    async def call(self, script: Script, keys: list[str], *arguments: bytes | str | float) -> Reply:
        """What an idempotent script returns.

        Raises:
            LinkDown: no answer in time.
            LinkRefused: the script failed.
        """
        data = command("EVALSHA", script.sha, len(keys), *keys, *arguments)
        job = Job(data, 1, keys[0], lambda: command("EVAL", script.text, len(keys), *keys, *arguments))
        (reply,) = await self._answer(job)
        if isinstance(reply, ErrorReply):
            raise LinkRefused(reply)
        return reply

    async def _answer(self, job: Job) -> list[Reply]:
        self.refuse_if_given_up()
        self.put(job)
        try:
            async with asyncio.timeout(self._link.timing.answer_s):
                return await job.done
        except TimeoutError:
            msg = f"Redis did not answer within {self._link.timing.answer_s:g} s"
            raise LinkDown(msg) from None

    def refuse_if_given_up(self) -> None:
        """Nobody waits for what has been away for long.

        Raises:
            LinkDown: it has.
        """
        if self._link.is_given_up:
            msg = f"Redis has been away for {self._link.down_s:.1f} s"
            raise LinkDown(msg)

    def put(self, job: Job) -> None:
        """Behind all others."""
        self._jobs.append(job)
        self._wake.set()

    def retire(self) -> None:
        """The node is none any more: `run` ends when nobody waits."""
        self._is_retired = True
        self._wake.set()

    async def run(self) -> None:
        """Send and answer, until cancelled; who still waits then is told."""
        batch: list[Job] = []
        try:
            while self._jobs or not self._is_retired:
                if self._wire is not None or not self._link.is_down:  # else look for it, though nobody asks
                    await self._wake.wait()
                batch = self._take()
                try:
                    if self._wire is None and (batch or not self._is_retired):
                        self._wire = await self._link.connect()
                        batch = [job for job in batch if not job.done.done()]  # that took long: who waits still?
                    if self._wire is not None and batch:
                        await self._deliver(self._wire, batch)
                except LinkDown:
                    self._link.observer.on_error(self._kind)
                    self._drop()
                    self._again(batch, also_waiting=True)
                batch = []
        finally:
            self._drop()
            for job in (*batch, *self._jobs):
                if not job.done.done():
                    job.done.set_exception(LinkDown("the link to Redis is closed"))

    def _take(self) -> list[Job]:
        """Who asked meanwhile and still waits, up to a pipeline."""
        batch: list[Job] = []
        count = 0
        while self._jobs and count < PIPELINE:
            job = self._jobs.popleft()
            if not job.done.done():
                batch.append(job)
                count += job.count
        if not self._jobs:
            self._wake.clear()
        return batch

    async def _deliver(self, wire: Wire, batch: list[Job]) -> None:
        timing, observer, monotonic = self._link.timing, self._link.observer, self._link.clock.monotonic
        count, begun = sum([job.count for job in batch]), monotonic()
        replies = await wire.exchange(b"".join([job.data for job in batch]), count, timing.reply_s)
        observer.on_latency(self._kind, monotonic() - begun)
        errors: set[str] = set()
        again: list[Job] = []
        at = 0
        for job in batch:
            own, at = replies[at : at + job.count], at + job.count
            codes = {reply.code for reply in own if isinstance(reply, ErrorReply)}
            errors |= codes
            if codes & TRANSIENT:
                again.append(job)
            elif "NOSCRIPT" in codes and job.whole is not None:
                job.data, job.whole = job.whole(), None
                again.append(job)
            elif not job.done.done():
                job.done.set_result(own)
        if errors - {"NOSCRIPT"}:
            observer.on_error(self._kind)
        if errors & ELSEWHERE and self._elsewhere is None:
            self._drop()
        if again:
            self._again(again)
            await asyncio.sleep(timing.pause_s if errors & TRANSIENT else 0)

    def _again(self, jobs: list[Job], *, also_waiting: bool = False) -> None:
        """These come again, in front; with `also_waiting` a cluster is asked where all others belong, too."""
        if self._elsewhere is not None:
            if also_waiting:
                jobs = [*jobs, *self._jobs]
                self._jobs.clear()
            self._elsewhere(jobs)
            return
        self._jobs.extendleft(reversed(jobs))
        if self._jobs:
            self._wake.set()

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire.abort()
            self._wire = None
