"""`python -m bench.overload`: what a gateway does with more than it can do, and with clients that are slow on purpose.

Capacity is what `--callers` in a closed loop get. Then callers come in an open loop, at twice and five times that: what
is served is counted against capacity, refusals are timed and looked at. A tenant that sends five times what there is
room for beside four that send a tenth each. And 1,000 sockets that are slow, idle or greedy beside healthy callers.

The gateway runs on one core, callers and upstream on the other; everything is on the loopback interface.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

import uvloop

from bench import proc, slow, wire
from bench.callers import Crowd, Tally, percentile
from bench.targets import Rig, Target, atlas_command, await_ready, child, rig
from bench.wire import HOST
from examples.ports import free_port
from gateway.core.keys import digest, new_key, show_digest

PEPPER = "the pepper of a benchmark"
QUIET = 4
CALM_S = 5.0
CALLERS = 2000
"""Connections of a crowd that overloads: more than there are requests under way."""

_YAML = """\
server: {{host: {host}, port: {port}}}
endpoints:
  - {{name: up, kind: openai_chat, base_url: "http://{host}:{upstream}/v1", keys: [bench], model: "*"}}
  - {{name: claude, kind: anthropic, base_url: "http://{host}:{upstream}", keys: [bench], model: "*"}}
routes:
  - {{model: "bench/*", endpoints: [up]}}
  - {{model: "claude/*", endpoints: [claude]}}
keys:
{keys}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Seconds of each load, the upstream's script of every answer, callers of the closed loop, slow sockets."""

    seconds: float
    script: str
    callers: int
    slow_sockets: int


def main() -> int:
    """Run all of it and print it; 1 if an answer was neither good nor a proper refusal."""
    parser = argparse.ArgumentParser(prog="python -m bench.overload", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each load (default 60)")
    parser.add_argument("--script", default="bench-one", help="what is asked for, see bench/wire.py")
    parser.add_argument("--callers", type=int, default=64, help="in the closed loop that finds the capacity")
    parser.add_argument("--slow-sockets", type=int, default=1000)
    options = Options(**vars(parser.parse_args()))
    load_core, gateway_core = proc.cores()
    os.sched_setaffinity(0, {load_core})
    keys = [new_key() for _ in range(QUIET + 1)]
    with rig(load_core, gateway_core) as where, _gateway(where, keys) as target:
        return uvloop.run(Run(options, target, keys).all())


@contextmanager
def _gateway(where: Rig, keys: list[str]) -> Iterator[Target]:
    """Atlas, with a tenant for each key."""
    port, config, log = free_port(), where.directory / "overload.yaml", where.directory / "overload.log"
    rows = "\n".join(
        f'  - {{id: k{at}, tenant: t{at}, hash: "{show_digest(digest(key.encode(), PEPPER.encode()))}"}}'
        for at, key in enumerate(keys)
    )
    config.write_text(_YAML.format(host=HOST, port=port, upstream=where.upstream_port, keys=rows))
    os.environ["ATLAS_KEY_PEPPER"] = PEPPER
    begun = monotonic()
    with child(atlas_command(config), where.gateway_core, log) as process:
        await_ready(process, port, begun, log)
        yield Target(name="atlas", port=port, prefix="bench/", is_atlas=True, processes={"target": process.pid})


class Run:
    """All loads against one gateway."""

    def __init__(self, options: Options, target: Target, keys: list[str]) -> None:
        self._options, self._port, self._keys = options, target.port, keys
        self._bad = 0

    async def all(self) -> int:
        """The exit status."""
        capacity = await self._capacity()
        for times in (2, 5):
            await self._overload(capacity, times)
        await self._noisy(capacity)
        await self._slow(capacity)
        return 1 if self._bad else 0

    def _crowd(self, key: int = 0, dialect: wire.Wire = "openai") -> Crowd:
        prefix = "claude/" if dialect == "anthropic" else "bench/"
        request = wire.request(self._port, prefix + self._options.script, wire=dialect)
        return Crowd(self._port, request.replace(b"Bearer bench", b"Bearer " + self._keys[key].encode()), dialect)

    async def _capacity(self) -> float:
        """Answers a second of a closed loop."""
        crowd, seconds, callers = self._crowd(), min(self._options.seconds, 5.0), self._options.callers
        await crowd.loop(callers, 1.0)
        tally = await crowd.loop(callers, seconds)
        crowd.close()
        capacity = tally.good / seconds
        self._say("capacity", tally, f"{capacity:.0f}/s, {callers} at once")
        return capacity

    async def _overload(self, capacity: float, times: int) -> None:
        """Half of the callers speak one dialect, half the other; then the gateway is left with what it can do."""
        seconds = self._options.seconds
        crowds = self._crowd(), self._crowd(0, "anthropic")
        for crowd in crowds:
            await crowd.connect(CALLERS)
        begun = monotonic()
        tallies = await asyncio.gather(*(crowd.run(capacity * times / 2, seconds) for crowd in crowds))
        over = begun + seconds
        for crowd, tally in zip(crowds, tallies, strict=True):
            self._say(f"{times}x, {crowd.wire}", tally, "")
        good = sum(tally.good for tally in tallies) / seconds
        calm = await crowds[0].run(capacity * 0.7, CALM_S)
        last = max(tally.last_refusal for tally in (*tallies, calm))
        goodput = f"goodput {good:.0f}/s = {good / capacity:.0%} of capacity"
        self._say(f"after {times}x", calm, f"{goodput}; the last refusal {max(0.0, last - over):.2f} s after its end")
        for crowd in crowds:
            crowd.close()

    async def _noisy(self, capacity: float) -> None:
        """Four tenants send a tenth of capacity each, alone, and then beside one that sends five times all of it."""
        quiet = [self._crowd(at) for at in range(1, QUIET + 1)]
        noisy, seconds = self._crowd(), self._options.seconds
        for crowd in quiet:
            await crowd.connect(CALLERS // 10)
        alone = await asyncio.gather(*(crowd.run(capacity / 10, seconds) for crowd in quiet))
        await noisy.connect(CALLERS * 2)
        for crowd in quiet:
            await crowd.connect(CALLERS // 10)
        together = await asyncio.gather(
            noisy.run(capacity * 5, seconds), *(crowd.run(capacity / 10, seconds) for crowd in quiet)
        )
        before, after = sum(tally.good for tally in alone), sum(tally.good for tally in together[1:])
        self._say("noisy", together[0], "")
        for tally in together[1:]:
            self._say("quiet", tally, "")
        print(f"quiet tenants keep {after / before:.1%} of their goodput", flush=True)
        for crowd in (noisy, *quiet):
            crowd.close()

    async def _slow(self, capacity: float) -> None:
        """Healthy callers beside slow sockets, and how long those are let live."""
        crowd = self._crowd()
        await crowd.connect(CALLERS // 10)
        before = await crowd.run(capacity / 4, 5.0)
        during, (left, gone_s) = await asyncio.gather(
            crowd.run(capacity / 4, slow.LIVES_S + 2),
            slow.against(self._port, self._keys[0], self._options.slow_sockets),
        )
        crowd.close()
        self._say("before slow", before, "")
        self._say("beside slow", during, "")
        print(f"{self._options.slow_sockets} slow sockets: {left} left, the last gone after {gone_s:.1f} s")

    def _say(self, name: str, tally: Tally, more: str) -> None:
        self._bad += tally.bad
        good, refused = tally.good_s, tally.refusal_s
        print(
            f"{name:15} sent {tally.sent:7} good {tally.good:7} (p50 {percentile(good, 0.5):6.1f}, "
            f"p99 {percentile(good, 0.99):6.1f} ms) refused {len(refused):7} (p50 {percentile(refused, 0.5):5.1f}, "
            f"p99 {percentile(refused, 0.99):5.1f} ms) bad {tally.bad} unsent {tally.unsent} {more}", flush=True,
        )  # fmt: skip
        for words in tally.words:
            print(f"    {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
