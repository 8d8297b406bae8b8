"""Two replicas on a real Redis: owners that claim from one another, control and readers on both, hints that are lost.

The model says which answers a control call may get, and what a stream is: what each owner said goes into the log in
order or not at all, densely, and a reader that comes and goes by its cursor has what is served, once.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from gateway.core.clock import SystemClock
from gateway.core.errors import StreamRefused
from gateway.core.events import TERMINAL, Event, Finish
from gateway.core.ids import new_sid
from gateway.streams.fleet_redis import RedisFleet
from gateway.streams.ground import Ground, Policy
from gateway.streams.housekeeping import Housekeeper, Rhythm
from gateway.streams.journal_redis import Lifetimes, RedisJournal
from gateway.streams.lifecycle import Op, Step
from gateway.streams.reader import Reader, resolve
from gateway.streams.session import Session
from gateway.upstream.link_redis import Link
from tests.properties.test_two_owners import check_words
from tests.replicas.figures import figure
from tests.support.redis_server import shared_redis
from tests.unit.streams.fleet_world import BRISK
from tests.unit.streams.redis_world import STEADY
from tests.unit.streams.world import TENANT, Log, Said, World, follow, text

Served = list[tuple[int, int, Event]]
IN_TIME_S = 20.0


@dataclass
class Model:
    """`said` is what each owner said, by claims; `finishing`: the newest one's provider has ended, it may be over."""

    said: list[list[str]] = field(default_factory=lambda: [[]])
    paused = finishing = over = False

    def answers(self, op: str) -> set[str]:
        """What a control call may be answered."""
        if self.over:
            return {"same"} if op == "cancel" else {"stream_terminal"}
        if self.paused:
            return {"same"} if op == "pause" else {"changed"}
        late = {"same"} if op == "cancel" else {"stream_terminal"}
        return {"same" if op == "resume" else "changed"} | (late if self.finishing else set())

    def answered(self, op: str, answer: str) -> None:
        """It was."""
        assert answer in self.answers(op), f"{op}: {answer}, not {self.answers(op)}"
        self.over = self.over or answer == "stream_terminal" or op == "cancel"
        self.paused = not self.over and (op == "pause" or (self.paused and op != "resume"))

    def claimed(self) -> None:
        """Somebody else speaks from now on."""
        self.said.append([])
        self.finishing = False

    def check(self, log: list[Event]) -> None:
        """Each owner's words are a prefix of what it said, between its claim and the next one; the end is last."""
        check_words(self.said, log)

    def whole(self, log: Served, skip: tuple[int, int] | None, hold: int | None) -> Served:
        """What readers are served of it."""
        last = len(log) - 1 if hold is None else hold
        return [each for each in log[: last + 1] if skip is None or not skip[0] < each[1] < skip[1]]


class Side(World):
    """One replica, as far as streams know it."""

    def __init__(self, url: str) -> None:
        clock = SystemClock()
        journal = RedisJournal(Link(url, clock, timing=STEADY), Lifetimes(), clock, on_grown=self._grown)
        self.fleet = RedisFleet(new_sid()[:8], journal, clock, timing=BRISK)
        super().__init__(fleet=self.fleet, shared=journal)  # type: ignore[arg-type]
        self.fleet.attach(self.hub)
        self.ground = Ground(
            hub=self.hub, journal=journal, policy=Policy(retry_s=0.01), clock=clock, on_end=self._settle,
            spawn=self._spawn,
        )  # fmt: skip
        self.control._clock = clock
        rhythm = Rhythm(tick_s=0.05, sweep_s=0.1)
        keeper = Housekeeper(self.hub, journal, self.control, clock, rhythm)
        self.standing = [asyncio.ensure_future(part.run()) for part in (journal, self.fleet, keeper)]

    def _grown(self, sids: Any) -> None:
        self.fleet.grown(sids)

    async def stop(self) -> None:
        """End its tasks."""
        for task in self.standing:
            task.cancel()
        await asyncio.gather(*self.standing, return_exceptions=True)


class TwoOwnersOnRedis(RuleBasedStateMachine):
    """One stream, two replicas."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.model, self.number = Model(), 0
        self.sides: list[Side] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.zombies: list[Said] = []

    @initialize()
    def begin(self) -> None:
        """The first replica owns the stream; both read it."""
        self.runner.run(self._begin())

    async def _begin(self) -> None:
        self.server = shared_redis()
        self.sides = [Side(self.server.url) for _ in range(2)]
        self.source = Said()
        stream = await self.sides[0].session(self.source, owner=f"{self.sides[0].fleet.rid}-0")
        self.sid, self.shown = stream.sid, stream.shown
        self.tasks.append(asyncio.ensure_future(stream.session.run()))
        self.logs = [Log(side, stream.record, stream.start) for side in self.sides]
        self.readers: list[Reader | None] = [await log.reader() for log in self.logs]
        self.applied: list[Served] = [[], []]

    @rule(count=st.integers(1, 3), settle=st.booleans())
    def say(self, count: int, settle: bool) -> None:
        """The owner's provider says something; perhaps it is in the log before anything else happens."""
        if not self.model.finishing:
            words = [f"{self.number + at} " for at in range(count)]
            self.number += count
            self.model.said[-1] += words
            self.source.say(text(*words))
        self.runner.run(asyncio.sleep(0.01 if settle else 0))

    @rule(
        op=st.sampled_from(["pause", "resume", "pause", "resume", "pause", "resume", "cancel"]), side=st.integers(0, 1)
    )
    def control(self, op: str, side: int) -> None:
        """Either replica controls the stream."""
        self.runner.run(self._control(op, side))

    async def _control(self, op: str, side: int) -> None:
        try:
            more = {"wait_s": 0.0} if op == "cancel" else {}
            answer = await getattr(self.sides[side].control, op)(self.shown, TENANT, **more)
        except StreamRefused as refused:
            self.model.answered(op, refused.code or "")
            return
        self.model.answered(op, "changed" if answer.changed else "same")
        if self.model.paused:
            for applied in self.applied:
                assert all(seq <= answer.seq for _, seq, _ in applied)

    @rule(both=st.booleans())
    def finish(self, both: bool) -> None:
        """The owner's provider ends; perhaps a pause meets that."""
        if not self.model.finishing and self.number > 6:
            self.model.finishing = True
            self.source.say([Finish(0, "stop")], None)
            if both:
                self.control("pause", 1)

    @rule(really=st.integers(0, 2))
    def claim(self, really: int) -> None:
        """The other replica takes the stream over; the first one does not know yet."""
        if really == 0 and len(self.model.said) < 5:
            self.runner.run(self._claim())

    async def _claim(self) -> None:
        number = len(self.model.said)
        side = self.sides[number % 2]
        channel = await self.logs[number % 2].channel()
        owner = f"{side.fleet.rid}-{number}"
        if channel.session is None:  # else its own zombie has not left yet
            answer, entries = await side.journal.step(self.sid, Step(op=Op.CLAIM, op_id=owner, owner=owner))
            if entries:
                self.zombies.append(self.source)
                self.source = Said()
                self.model.claimed()
                session = Session((await side.journal.read(self.sid, -1, 1)).record, self.source, channel, side.ground)
                side.hub.own(channel, session)
                self.tasks.append(asyncio.ensure_future(session.run()))
            else:
                assert self.model.over or self.model.finishing, answer
        if channel.session is None:
            side.hub.release(channel)

    @rule()
    def lose_hints(self) -> None:
        """Every subscription is cut."""
        with self.server.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

    @rule(side=st.integers(0, 1), comes_back=st.booleans())
    def read(self, side: int, comes_back: bool) -> None:
        """A reader takes what there is; perhaps it hangs up and comes back by its cursor."""
        self.runner.run(self._read(side))
        if comes_back:
            self.runner.run(self._come_back(side))
        self.check()

    async def _read(self, side: int) -> None:
        reader = self.readers[side]
        assert reader is not None
        self.applied[side] += await follow(reader)

    async def _come_back(self, side: int) -> None:
        reader, (gen, seq, _) = self.readers[side], (self.applied[side] or [(0, 0, None)])[-1]
        assert reader is not None
        reader.detach()
        world = self.sides[side]
        page = await world.journal.read(self.sid, -1, 1)
        position = await resolve(f"{gen}-{seq}" if gen else None, page, world.journal)
        self.readers[side] = Reader(
            world.hub.join(await world.journal.read(self.sid, -1, 1)), world.hub, world.journal, position
        )

    def check(self) -> None:
        """Everything that was served is the log's, in order."""
        page = self.runner.run(self.sides[0].journal.read(self.sid, -1, 10**9))
        log = [(entry.gen, seq, event) for entry in page.entries for seq, event in enumerate(entry.events, entry.first)]
        assert [seq for _, seq, _ in log] == list(range(len(log)))
        assert sorted(log, key=lambda each: each[:2]) == log
        self.model.check([event for _, _, event in log])
        self.whole = self.model.whole(log, page.record.skip, page.record.pause_seq)
        for applied in self.applied:
            assert applied == self.whole[: len(applied)]

    def teardown(self) -> None:
        """It ends, everybody has all of it, and nothing is left."""
        try:
            if self.sides:
                self.runner.run(self._in_the_end())
                self.check()
                assert self.applied == [self.whole, self.whole]
        finally:
            self.runner.run(self._stop())
            self.runner.close()

    async def _in_the_end(self) -> None:
        if self.model.paused:
            await self._control("resume", 1)
        for zombie in self.zombies:
            zombie.say(text("never"), None)
        if not self.model.finishing:
            self.source.say([Finish(0, "stop")], None)
        async with asyncio.timeout(IN_TIME_S):
            await asyncio.gather(*self.tasks)
            while (await self.sides[0].journal.known(self.sid)).record.state not in TERMINAL:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            for side, reader in enumerate(self.readers):
                while reader is not None and not reader.done:
                    await self._read(side)
                    await asyncio.sleep(0.005)
                if reader is not None:
                    reader.detach()
        assert [side.hub.channels for side in self.sides] == [{}, {}]

    async def _stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        for side in self.sides:
            with suppress(asyncio.CancelledError):
                await side.stop()


TestTwoOwnersOnRedis = TwoOwnersOnRedis.TestCase
TestTwoOwnersOnRedis.settings = settings(
    max_examples=figure(40, 500), stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
