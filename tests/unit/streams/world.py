"""A process in miniature: clock, journal, hub, control, housekeeper, sessions on sources that a test speaks for."""

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from gateway.core.events import TERMINAL, End, Event, Start, Text
from gateway.core.ids import new_sid, show_sid
from gateway.streams.control import StreamControl
from gateway.streams.fleet import Alone, Fleet
from gateway.streams.ground import Ground, Policy
from gateway.streams.housekeeping import Housekeeper, Rhythm
from gateway.streams.hub import Channel, Hub
from gateway.streams.journal import Entry
from gateway.streams.journal_memory import Bounds, MemoryJournal
from gateway.streams.lifecycle import Op, Record, Step
from gateway.streams.reader import Reader
from gateway.streams.session import Session
from gateway.upstream.contract import Batch, Timeouts
from tests.support.baseline import baseline
from tests.support.clock import ManualClock
from tests.support.run import run
from tests.support.signals import PATIENCE_S

TENANT = "acme"
RHYTHM = Rhythm(tick_s=0.25, sweep_s=1.0, pause_max_s=900.0, client_send_s=20.0)


def looped(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """An async test in a loop of its own that must leave no task behind."""

    @functools.wraps(test)
    def plain(*args: Any, **kwargs: Any) -> None:
        async def whole() -> None:
            async with baseline():
                await test(*args, **kwargs)

        run(whole())

    return plain


async def turns(n: int = 20) -> None:
    """Everything that can go on without time goes on."""
    for _ in range(n):
        await asyncio.sleep(0)


def text(*words: str) -> Batch:
    """A batch of text events."""
    return [Text(0, word) for word in words]


class Said:
    """A source that says what the test says, and counts how it is treated."""

    def __init__(self, *script: Batch | BaseException | None, opens: bool = True, closes: bool = True) -> None:
        self._script: asyncio.Queue[Batch | BaseException | None] = asyncio.Queue()
        self._may_open, self._may_close = asyncio.Event(), asyncio.Event()
        self.timeouts = Timeouts(idle_s=1e6, progress_s=1e6, total_s=1e6)
        self.attempts: list[str] = ["one"]
        self.opened = self.closed = self.read = 0
        self.say(*script)
        if opens:
            self._may_open.set()
        if closes:
            self._may_close.set()

    def say(self, *script: Batch | BaseException | None) -> None:
        """What comes next: a batch, an error, or None for the end."""
        for item in script:
            self._script.put_nowait(item)

    def let_open(self) -> None:
        """The first content is there."""
        self._may_open.set()

    def let_close(self) -> None:
        """The socket can be closed."""
        self._may_close.set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[Batch]]:
        self.opened += 1
        try:
            await self._may_open.wait()
            yield self._batches()
        finally:
            try:
                await self._may_close.wait()
            finally:
                self.closed += 1

    async def _batches(self) -> AsyncGenerator[Batch]:
        while (item := await self._script.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            self.read += 1
            yield item


class World:
    """Everything that a process has one of. `settled` are the ends that sessions reported."""

    def __init__(
        self,
        policy: Policy | None = None,
        bounds: Bounds | None = None,
        journal: type[MemoryJournal] = MemoryJournal,
        fleet: Fleet | None = None,
        shared: MemoryJournal | None = None,
    ) -> None:
        self.clock = ManualClock()
        self.hub = Hub(fleet or Alone("replica"))
        self.journal = shared or journal(bounds or Bounds(), self.clock)
        self.closes: list[float] = []
        self.controls: list[tuple[str, str]] = []
        self.control = StreamControl(
            self.journal,
            self.hub,
            self.clock,
            on_control=lambda op, result: self.controls.append((op, result)),
            on_close=self.closes.append,
        )
        self.keeper = Housekeeper(self.hub, self.journal, self.control, self.clock, RHYTHM)
        self.settled: list[End] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.ground = Ground(
            hub=self.hub,
            journal=self.journal,
            policy=policy or Policy(),
            clock=self.clock,
            on_end=self._settle,
            spawn=self._spawn,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    async def _settle(self, session: Session, end: End) -> dict[str, Any]:
        self.settled.append(end)
        return session.facts()

    async def log(self, **changes: Any) -> "Log":
        """A stream without an owner here; `changes` are members of its record."""
        now = self.clock.now()
        members: dict[str, Any] = {
            "sid": new_sid(),
            "tenant": TENANT,
            "route": "route",
            "dialect": "openai_chat",
            "model": "model",
            "created": now,
            "owner": "replica-1",
            "gen": int(now * 1000),
        }
        record = Record(**members | changes)
        start = Start(record.sid, "chatcmpl-1", int(now), record.model, record.dialect)
        return Log(self, record, await self.journal.create(record, start))

    async def session(self, source: Any, **changes: Any) -> "Owned":
        """A stream with its owner, whose task has not begun."""
        log = await self.log(**changes)
        channel = self.hub.open(log.sid)
        channel.publish(log.start)
        session = Session(log.record, source, channel, self.ground)
        self.hub.own(channel, session)
        return Owned(self, session, log)

    async def beat(self, seconds: float = 0.25) -> None:
        """Time passes, then the housekeeper looks."""
        self.clock.advance(seconds)
        await self.keeper.tick()


class Log:
    """One log and what a test does to it: appends as its owner, steps as anybody, readers."""

    def __init__(self, world: World, record: Record, start: Entry) -> None:
        self.world, self.record, self.start = world, record, start
        self.sid, self.shown = record.sid, show_sid(record.sid)
        self._steps = 0

    async def say(self, *words: str) -> Entry:
        """Appends one entry under the log's gen and tail, and publishes it if anybody follows here."""
        page = await self.world.journal.read(self.sid, -1, 1)
        entry = Entry.of(page.record.gen, page.tail + len(words), text(*words))
        outcomes: list[Any] = []
        self.world.journal.append(self.sid, entry, outcomes.append)
        assert [outcome.value for outcome in outcomes] == ["acked"]
        if (channel := self.world.hub.find(self.sid)) is not None:
            channel.publish(entry)
        return entry

    async def do(self, op: Op, **members: Any) -> None:
        """One control step by somebody of this process."""
        self._steps += 1
        _, entries = await self.world.journal.step(self.sid, Step(op=op, op_id=f"step-{self._steps}", **members))
        if (channel := self.world.hub.find(self.sid)) is not None:
            for entry in entries:
                channel.publish(entry)

    async def channel(self) -> Channel:
        """The channel that a reader here would join."""
        return self.world.hub.join(await self.world.journal.read(self.sid, -1, 1))

    async def reader(self, position: int = -1) -> Reader:
        """A reader of this stream."""
        return Reader(await self.channel(), self.world.hub, self.world.journal, position)

    async def events(self) -> list[Event]:
        """All events of the log."""
        page = await self.world.journal.read(self.sid, -1, 100_000_000)
        return [event for entry in page.entries for event in entry.events]

    async def state(self) -> str:
        """The record's state."""
        return str((await self.world.journal.known(self.sid)).record.state)


class Owned(Log):
    """A stream with a session whose task the test owns."""

    def __init__(self, world: World, session: Session, log: Log) -> None:
        super().__init__(world, log.record, log.start)
        self.session = session
        self.task: asyncio.Task[None]

    def start_task(self) -> None:
        """The session's task exists; it runs from the next turn of the loop on."""
        self.task = asyncio.get_running_loop().create_task(self.session.run(), name="session")

    async def go(self) -> None:
        """The session goes as far as it can."""
        self.start_task()
        await turns()

    async def over(self) -> End:
        """The session ends by itself; returns the log's end."""
        await asyncio.wait_for(asyncio.shield(self.task), PATIENCE_S)
        return await self.end()

    async def end(self) -> End:
        """The one terminal event of the log, which is last, and agrees with the record."""
        events = await self.events()
        ends = [event for event in events if isinstance(event, End)]
        assert len(ends) == 1, f"{len(ends)} ends"
        assert events[-1] is ends[0] or events[-1] == ends[0]
        record = (await self.world.journal.known(self.sid)).record
        assert record.state in TERMINAL
        assert record.state is ends[0].state
        return ends[0]

    async def words(self) -> str:
        """The text of the log."""
        return "".join(event.text for event in await self.events() if isinstance(event, Text))

    async def pause(self) -> None:
        await self.world.control.pause(self.shown, TENANT)
        await turns()

    async def resume(self) -> None:
        await self.world.control.resume(self.shown, TENANT)
        await turns()


async def follow(reader: Reader, n: int | None = None) -> list[tuple[int, int, Event]]:
    """What a reader is served without waiting, as (gen, seq, event); at most about `n` events."""
    applied: list[tuple[int, int, Event]] = []
    while reader.behind and (n is None or len(applied) < n):
        for entry, first, events in await reader.next():
            applied += [(entry.gen, seq, event) for seq, event in enumerate(events, start=first)]
    return applied


def words_of(applied: list[tuple[int, int, Event]]) -> str:
    """The text of what was served."""
    return "".join(event.text for _, _, event in applied if isinstance(event, Text))
