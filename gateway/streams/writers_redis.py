"""The writers of a Redis Cluster: one to each node, and the entries that go from one to another when slots move.

An entry moves with its count of copies and with what is at hand of its log, so the rules of `writer_redis` hold across
nodes: what was sent to a node that died may be in the log all the same, and the log's tail is looked at first.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import count
from typing import TYPE_CHECKING

from gateway.streams.writer_redis import Batching, Writer, _Append, _Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.core.clock import Clock
    from gateway.streams.journal import Appended, Entry
    from gateway.upstream.link_redis import Link
    from gateway.upstream.nodes_redis import Nodes


class _NodeWriter(Writer):
    """The writer to one node. Epochs are told apart across all of them."""

    _all: Writers
    _epochs: Iterator[int]

    def join(self, writers: Writers, streams: dict[str, _Stream], epochs: Iterator[int]) -> None:
        """One of many: what is known of a stream is known to all."""
        self._all, self._streams, self._epochs = writers, streams, epochs

    def accept(self, append: _Append) -> None:
        """What another node did not take."""
        self._streams.setdefault(append.sid, append.stream)
        self._queue.append(append)
        self._wake.set()

    def retire(self) -> None:
        """The node is none any more: `run` ends when nothing is on its way."""
        self._is_retired = True
        self._wake.set()

    def _epoch_at_first(self) -> int:
        return 0

    def _next_epoch(self) -> int:
        return next(self._epochs)

    def _moved(self, why: str) -> None:  # noqa: ARG002  the topology says where
        self._lost()

    def _lost(self) -> None:
        flight, queue = [append for append in self._flight if append.settled is not None], list(self._queue)
        self._flight, self._queue = [], deque()
        self._flight = self._all.not_taken(flight, self)
        self._queue.extendleft(reversed(self._all.not_taken(queue, self)))


class Writers:
    """Appends of a cluster; arguments as `Writer` has them."""

    def __init__(
        self,
        nodes: Nodes,
        clock: Clock,
        touch: Callable[[str], bytes],
        batching: Batching,
        on_grown: Callable[[list[str]], None],
    ) -> None:
        self._nodes, self._clock, self._touch, self._batching, self._on_grown = nodes, clock, touch, batching, on_grown
        self._writers: dict[Link, _NodeWriter] = {}
        self._streams: dict[str, _Stream] = {}
        self._epochs = count(1)
        self._tasks: asyncio.TaskGroup | None = None
        nodes.when_leaving(self._leave)

    def append(self, sid: str, entry: Entry, settled: Callable[[Appended], None]) -> None:
        """Append as soon as may be; `settled` is called once, later."""
        self._writer_of(sid).append(sid, entry, settled)

    def forget(self, sid: str) -> None:
        """This stream ended, or is no more."""
        self._streams.pop(sid, None)

    def sweep(self, quiet_s: float) -> None:
        """Forget streams that were not written for so long."""
        oldest = self._clock.monotonic() - quiet_s
        busy = {sid for writer in self._writers.values() for sid in writer.busy()}
        for sid in [sid for sid, stream in self._streams.items() if stream.touched < oldest and sid not in busy]:
            del self._streams[sid]

    async def run(self) -> None:
        """Send and settle, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            for writer in self._writers.values():
                self._start(writer)
            await asyncio.Event().wait()  # nodes come and go

    def not_taken(self, appends: list[_Append], writer: _NodeWriter) -> list[_Append]:
        """A node did not take these; returns those that it shall be asked to take again."""
        self._nodes.doubt()
        staying: list[_Append] = []
        for append in appends:
            other = self._writer_of(append.sid)
            if other is writer:
                staying.append(append)
            else:
                other.accept(append)
        return staying

    def _writer_of(self, sid: str) -> _NodeWriter:
        link = self._nodes.link_of(sid)  # the keys' hash tag
        writer = self._writers.get(link)
        if writer is None:
            writer = _NodeWriter(link, self._clock, self._touch, self._batching, self._on_grown)
            writer.join(self, self._streams, self._epochs)
            self._writers[link] = writer
            self._start(writer)
        return writer

    def _start(self, writer: _NodeWriter) -> None:
        if self._tasks is not None:
            self._tasks.create_task(writer.run(), name="redis writer")

    def _leave(self, link: Link) -> None:
        writer = self._writers.pop(link, None)
        if writer is not None:
            writer.retire()
