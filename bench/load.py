"""The load generator: `python -m bench.load '<plan as JSON>'`, a process of its own, prints its result as JSON.

It reads the CPU time of the processes it is given at the very edges of its window, beside its own frame counters, so
that CPU per chunk never depends on how long a message takes from one process to another. Two kinds of load:

    hold   opens `streams` streams over `ramp_s`, all of them at once for the whole run
    loop   `streams` connections, each asking anew as soon as its answer is complete
"""

import asyncio
import gc
import math
import os
import sys
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Literal

import msgspec
import uvloop

from bench import proc
from bench.client import ExactReader, Reader, Tally
from bench.wire import ENDS, Wire, request, script

_OPEN_AT_ONCE = 20
_POLL_S = 0.05


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    `model` is what the target is asked for, `script` the upstream's name for it. `watched` names groups of processes
    whose CPU and memory are read; the generator adds itself as `load`. `warm_s` lies between the ramp and the window,
    `settle_s` is how long streams may take to end after it. `idle` streams are never to end: they are left when the
    window closes. `cores` are those of which the time that nothing watched has used is told. `sample_every`: one relay
    latency per so many chunks of a stream. `wire` is the client's dialect. `gap_s` is a pause between an answer and the
    next request.
    """

    kind: Literal["hold", "loop"]
    port: int
    model: str
    script: str
    streams: int
    wire: Wire = "openai"
    window_s: float
    warm_s: float = 1.0
    ramp_s: float = 0.0
    settle_s: float = 10.0
    gap_s: float = 0.0
    idle: bool = False
    exact: bool = False
    sample_every: int = 0
    watched: dict[str, list[int]] = {}
    cores: tuple[int, ...] = ()


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A distribution in milliseconds."""

    count: int
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, values_ns: Sequence[int]) -> "Spread | None":
        """Nearest-rank percentiles of nanoseconds; None of nothing."""
        if not values_ns:
            return None
        ordered = sorted(values_ns)
        last = len(ordered) - 1
        p50, p99 = ordered[round(last * 0.50)], ordered[round(last * 0.99)]
        return cls(count=len(ordered), p50=p50 / 1e6, p99=p99 / 1e6, max=ordered[-1] / 1e6)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What one run gave; `frames`, `answers`, `cpu_s` and the spreads are those of the window of `seconds`."""

    seconds: float
    frames: int
    answers: int
    cpu_s: dict[str, float]
    others_cpu_s: float
    memory_before_kib: dict[str, int]
    memory_kib: dict[str, int]
    relay: Spread | None
    first_token: Spread | None
    complete: int
    failed: int
    errors: list[str]


class Edge(msgspec.Struct, frozen=True, kw_only=True):
    """The counters at one edge of the window."""

    at: float
    frames: int
    answers: int
    cpu_s: dict[str, float]
    machine_cpu_s: float


class Generator:
    """Runs one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._tally = Tally(sample_every=plan.sample_every)
        self._stopping = False
        self._watched = {**plan.watched, "load": [os.getpid()]}
        kind = ExactReader if plan.exact else Reader
        known = script(plan.script)
        expected = known.chunks if known and known.ends else 0
        payload, mark = request(plan.port, plan.model, wire=plan.wire), ENDS[plan.wire]
        self._readers = [kind(payload, expected, self._tally, self._again, mark) for _ in range(plan.streams)]

    def _again(self, reader: Reader) -> None:
        if self._plan.kind == "loop" and not self._stopping:
            if self._plan.gap_s:
                asyncio.get_running_loop().call_later(self._plan.gap_s, reader.send)
            else:
                reader.send()

    def _edge(self) -> Edge:
        return Edge(
            at=monotonic(),
            frames=sum(reader.frames for reader in self._readers),
            answers=self._tally.complete,
            cpu_s={name: proc.cpu_s(pids) for name, pids in self._watched.items()},
            machine_cpu_s=proc.machine_cpu_s(self._plan.cores),
        )

    def _memory(self) -> dict[str, int]:
        return {name: proc.memory_kib(pids) for name, pids in self._watched.items()} if self._plan.idle else {}

    async def run(self) -> Result:
        """Ramp up, warm up, measure the window, let the streams end."""
        plan, tally = self._plan, self._tally
        before = self._memory()
        await self._open()
        await asyncio.sleep(plan.warm_s)
        if plan.idle:
            await self._until(lambda: all(reader.has_first for reader in self._readers))
        tally.latencies.clear()
        tally.first_tokens.clear()
        begin = self._edge()
        await asyncio.sleep(plan.window_s)
        end = self._edge()
        relay, first_token = Spread.of(tally.latencies), Spread.of(tally.first_tokens)
        memory = self._memory()
        self._stopping = True
        await self._close()
        cpu_s = {name: end.cpu_s[name] - begin.cpu_s[name] for name in end.cpu_s}
        return Result(
            seconds=end.at - begin.at,
            frames=end.frames - begin.frames,
            answers=end.answers - begin.answers,
            cpu_s=cpu_s,
            others_cpu_s=max(0.0, end.machine_cpu_s - begin.machine_cpu_s - sum(cpu_s.values())),
            memory_before_kib=before,
            memory_kib=memory,
            relay=relay,
            first_token=first_token,
            complete=tally.complete,
            failed=tally.failed,
            errors=tally.errors,
        )

    async def _open(self) -> None:
        """Connect and ask, evenly over the ramp."""
        waiting = list(self._readers)
        begin, opened = monotonic(), 0
        while waiting:
            group, waiting = waiting[:_OPEN_AT_ONCE], waiting[_OPEN_AT_ONCE:]
            results = await asyncio.gather(
                *(reader.connect(self._plan.port) for reader in group), return_exceptions=True
            )
            for reader, result in zip(group, results, strict=True):
                if isinstance(result, BaseException):
                    self._tally.fail(f"could not connect: {result!r}")
                reader.send()
                if self._plan.ramp_s:
                    opened += 1
                    ahead = begin + self._plan.ramp_s * opened / len(self._readers) - monotonic()
                    await asyncio.sleep(max(0.0, ahead))

    async def _close(self) -> None:
        """Let streams that end do so, then count the rest as failed, or leave those that are idle by intent."""
        if not self._plan.idle:
            await self._until(lambda: not any(reader.busy for reader in self._readers))
        for reader in self._readers:
            late = reader.busy and not self._plan.idle
            reader.abort(f"not ended {self._plan.settle_s:g} s after the window" if late else None)
        if self._plan.idle and self._tally.failed == 0:
            self._tally.complete = len(self._readers)

    async def _until(self, condition: Callable[[], bool]) -> None:
        for _ in range(math.ceil(self._plan.settle_s / _POLL_S)):
            if condition():
                return
            await asyncio.sleep(_POLL_S)


def main() -> None:
    """Run the plan in the first argument."""
    plan = msgspec.json.decode(sys.argv[1], type=Plan)
    gc.disable()
    result = uvloop.run(Generator(plan).run())
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
