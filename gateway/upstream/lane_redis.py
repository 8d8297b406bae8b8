"""A lane: one connection to Redis and the task that owns it, for questions of many tasks.

What is asked while a pipeline is under way goes into the next one. A pipeline that was not answered is sent again,
unchanged, on a new connection. So whatever is asked here must be idempotent: scripts with operation ids, SET NX GET,
ZADD NX, DEL. Appends have a writer of their own.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from gateway.upstream.link_redis import ELSEWHERE, PIPELINE, TRANSIENT, LinkDown, LinkRefused
from gateway.upstream.resp import ErrorReply, Reply, command

if TYPE_CHECKING:
    from gateway.upstream.link_redis import Link, Script, Wire


class _Job:
    """Commands asked together: their bytes, how many they are, and who waits."""

    __slots__ = ("count", "data", "done", "script")

    def __init__(self, data: bytes, count: int, script: bytes | None = None) -> None:
        self.data, self.count = data, count
        self.script = script  # the same question with the script's whole text
        self.done: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()


class Lane:
    """One connection and the task that owns it (`run`); questions of many tasks go out in pipelines, in order."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._jobs: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._wire: Wire | None = None

    async def ask(self, *commands: bytes) -> list[Reply]:
        """The replies to idempotent commands; errors of Redis are values among them.

        Raises:
            LinkDown: no answer in time: what was asked has happened, or has not.
        """
        return await self._answer(_Job(b"".join(commands), len(commands)))

    async def call(self, script: Script, keys: list[str], *arguments: bytes | str | float) -> Reply:
        """What an idempotent script returns.

        Raises:
            LinkDown: no answer in time.
            LinkRefused: the script failed.
        """
        data = command("EVALSHA", script.sha, len(keys), *keys, *arguments)
        whole = command("EVAL", script.text, len(keys), *keys, *arguments)
        (reply,) = await self._answer(_Job(data, 1, whole))
        if isinstance(reply, ErrorReply):
            raise LinkRefused(reply)
        return reply

    async def _answer(self, job: _Job) -> list[Reply]:
        if self._link.is_given_up:
            msg = f"Redis has been away for {self._link.down_s:.1f} s"
            raise LinkDown(msg)
        self._jobs.append(job)
        self._wake.set()
        try:
            async with asyncio.timeout(self._link.timing.answer_s):
                return await job.done
        except TimeoutError:
            msg = f"Redis did not answer within {self._link.timing.answer_s:g} s"
            raise LinkDown(msg) from None

    async def run(self) -> None:
        """Send and answer, until cancelled; who still waits then is told."""
        batch: list[_Job] = []
        try:
            while True:
                await self._wake.wait()
                batch = self._take()
                try:
                    if self._wire is None:
                        self._wire = await self._link.connect()
                    if batch:
                        await self._deliver(self._wire, batch)
                except LinkDown:
                    self._drop()
                    self._again(batch)
        finally:
            self._drop()
            for job in (*batch, *self._jobs):
                if not job.done.done():
                    job.done.set_exception(LinkDown("the link to Redis is closed"))

    def _take(self) -> list[_Job]:
        """Who asked meanwhile and still waits, up to a pipeline."""
        batch: list[_Job] = []
        count = 0
        while self._jobs and count < PIPELINE:
            job = self._jobs.popleft()
            if not job.done.done():
                batch.append(job)
                count += job.count
        if not self._jobs:
            self._wake.clear()
        return batch

    async def _deliver(self, wire: Wire, batch: list[_Job]) -> None:
        count = sum(job.count for job in batch)
        replies = await wire.exchange(b"".join([job.data for job in batch]), count, self._link.timing.reply_s)
        again: list[_Job] = []
        at = 0
        for job in batch:
            own, at = replies[at : at + job.count], at + job.count
            codes = {reply.code for reply in own if isinstance(reply, ErrorReply)}
            if codes & TRANSIENT:
                again.append(job)
                if codes & ELSEWHERE:
                    self._drop()
            elif "NOSCRIPT" in codes and job.script is not None:
                job.data, job.script = job.script, None
                self._again([job])
            elif not job.done.done():
                job.done.set_result(own)
        if again:
            self._again(again)
            await asyncio.sleep(self._link.timing.pause_s)

    def _again(self, jobs: list[_Job]) -> None:
        self._jobs.extendleft(reversed(jobs))
        if self._jobs:
            self._wake.set()

    def _drop(self) -> None:
        if self._wire is not None:
            self._wire.abort()
            self._wire = None
