"""Two replicas on a journal that answers late: owners that claim from one another, control and readers on both.

The model says what a stream is: what each owner said goes into the log in order or not at all, densely, and readers of
either replica have a prefix of what is served.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from gateway.core.errors import StreamRefused
from gateway.core.events import TERMINAL, Claim, End, Event, Finish, Text
from gateway.streams.ground import Policy
from gateway.streams.lifecycle import Op, Step
from gateway.streams.session import Session
from tests.unit.streams.test_outages import Far, Many
from tests.unit.streams.world import TENANT, Log, Said, World, follow, text, turns

RIDS = ("one", "two")


def check_words(said: list[list[str]], log: list[Event]) -> None:
    """What each owner said, in order of their claims, stands in the log up to some point; nothing is behind an end."""
    owner, found = 0, [list[str]() for _ in said]
    for event in log:
        if isinstance(event, Claim):
            owner += 1
        elif isinstance(event, Text):
            found[owner].append(event.text)
    assert all(part == words[: len(part)] for part, words in zip(found, said, strict=True))
    assert not any(isinstance(event, End) for event in log[:-1])


@dataclass
class Model:
    """What each owner said, in order of their claims; `check` holds a log against it."""

    said: list[list[str]] = field(default_factory=lambda: [[]])

    def check(self, log: list[Event]) -> None:
        """Each owner's words are a prefix of what it said, between its claim and the next one; the end is last."""
        check_words(self.said, log)

    def served(self, log: list[Event], skip: tuple[int, int] | None, hold: int | None) -> list[int]:
        """The seqs that readers are served."""
        last = len(log) - 1 if hold is None else hold
        return [seq for seq in range(last + 1) if skip is None or not skip[0] < seq < skip[1]]


class TwoOwners(RuleBasedStateMachine):
    """One stream, two replicas."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.model, self.number = Model(), 0
        self.tasks: list[asyncio.Task[None]] = []

    def go(self, work: Any) -> Any:
        async def all_of_it() -> Any:
            found = await work
            await turns()
            return found

        return self.loop.run_until_complete(all_of_it())

    @initialize()
    def begin(self) -> None:
        """The first replica owns the stream; both read it."""
        self.go(self._begin())

    async def _begin(self) -> None:
        policy = Policy(retry_s=0.001)
        self.worlds = [World(policy, journal=Far, fleet=Many(rid, *RIDS)) for rid in RIDS]
        journal = self.worlds[0].journal
        assert isinstance(journal, Far)
        self.journal, self.worlds[1] = journal, World(policy, fleet=Many("two", *RIDS), shared=journal)
        self.source = Said()
        stream = await self.worlds[0].session(self.source, owner="one-0")
        self.sid, self.shown, self.sessions = stream.sid, stream.shown, [stream.session]
        self.tasks.append(self.loop.create_task(stream.session.run()))
        self.logs = [Log(world, stream.record, stream.start) for world in self.worlds]
        self.readers = [await log.reader() for log in self.logs]
        self.applied: list[list[tuple[int, int, Event]]] = [[], []]

    @rule(count=st.integers(1, 3))
    def say(self, count: int) -> None:
        """The owner's provider says something."""
        words = [f"{self.number + at} " for at in range(count)]
        self.number += count
        self.model.said[-1] += words
        self.source.say(text(*words))
        self.go(turns())

    @rule(late=st.booleans(), which=st.integers(0, 1))
    def arrive(self, late: bool, which: int) -> None:
        """What is under way comes in; perhaps somebody controls the stream before that is answered."""
        self.go(self._arrive(late, which))

    async def _arrive(self, late: bool, which: int) -> None:
        answers = self.journal.arrive(acknowledge=False)
        if late:
            await self._control("pause", which)
        for answer in answers:
            answer()

    @rule(op=st.sampled_from(["pause", "resume", "pause", "resume", "nothing"]), which=st.integers(0, 1))
    def control(self, op: str, which: int) -> None:
        """Either replica controls the stream."""
        if op != "nothing":
            self.go(self._control(op, which))

    async def _control(self, op: str, which: int, **members: Any) -> None:
        try:
            await getattr(self.worlds[which].control, op)(self.shown, TENANT, **members)
        except StreamRefused as refused:
            assert refused.code in {"not_paused", "stream_terminal"}  # noqa: PT017

    @rule(which=st.integers(0, 1))
    def hint(self, which: int) -> None:
        """A hint reaches a replica: its session looks, or who reads there does."""
        self.go(self._hint(which))

    async def _hint(self, which: int) -> None:
        channel = self.worlds[which].hub.find(self.sid)
        if channel is None:
            return
        if channel.session is not None:
            channel.session.nudge()
            return
        for entry in (await self.journal.read(self.sid, channel.tail, 10**9)).entries:
            channel.offer(entry)

    @rule(really=st.integers(0, 3))
    def claim(self, really: int) -> None:
        """The other replica takes the stream over; the first one does not know yet."""
        if really == 0 and len(self.sessions) < 5:
            self.go(self._claim())

    async def _claim(self) -> None:
        number = len(self.sessions)
        world, owner = self.worlds[number % 2], f"{RIDS[number % 2]}-{number}"
        channel = await self.logs[number % 2].channel()
        if channel.session is not None:
            return  # its own zombie has not left yet
        _, entries = await self.journal.step(self.sid, Step(op=Op.CLAIM, op_id=owner, owner=owner))
        if not entries:
            return
        page = await self.journal.read(self.sid, -1, 1)
        self.source = Said()
        self.model.said.append([])
        session = Session(page.record, self.source, channel, world.ground)
        world.hub.own(channel, session)
        self.sessions.append(session)
        self.tasks.append(self.loop.create_task(session.run()))

    @rule(which=st.integers(0, 1))
    def read(self, which: int) -> None:
        """A reader takes what there is."""
        self.applied[which] += self.go(follow(self.readers[which]))
        self.check()

    def check(self) -> None:
        """Everything that was served is the log's, in order."""
        page = self.go(self.journal.read(self.sid, -1, 10**9))
        log = [(entry.gen, seq, event) for entry in page.entries for seq, event in enumerate(entry.events, entry.first)]
        assert [seq for _, seq, _ in log] == list(range(len(log)))
        events = [event for _, _, event in log]
        self.model.check(events)
        assert self.journal.most_under_way <= len(self.sessions)
        skip = page.record.skip
        for applied in self.applied:
            wanted = [each for each in log if skip is None or not skip[0] < each[1] < skip[1]]
            assert applied == wanted[: len(applied)]
        self.whole = [log[seq] for seq in self.model.served(events, skip, page.record.pause_seq)]

    def teardown(self) -> None:
        """It ends, everybody has all of it, and nothing is left."""
        if not self.tasks:
            self.loop.close()
            return
        try:
            self.in_the_end()
        finally:
            self.loop.close()

    def in_the_end(self) -> None:
        """The last owner's provider ends; its words are all there."""
        self.control("resume", 1)
        self.source.say([Finish(0, "stop")], None)
        for _ in range(6):
            self.arrive(late=False, which=0)
            self.hint(0)
            self.hint(1)
        assert all(task.done() for task in self.tasks)
        self.read(0)
        self.read(1)
        record = self.go(self.journal.known(self.sid)).record
        assert record.state in TERMINAL
        assert [event.text for _, _, event in self.whole if isinstance(event, Text)][-len(self.model.said[-1]) :] == (
            self.model.said[-1] or [event.text for _, _, event in self.whole if isinstance(event, Text)]
        )
        assert self.applied == [self.whole, self.whole]
        for reader, world in zip(self.readers, self.worlds, strict=True):
            reader.detach()
            assert world.hub.channels == {}


TestTwoOwners = TwoOwners.TestCase
TestTwoOwners.settings = settings(max_examples=100, deadline=None)
