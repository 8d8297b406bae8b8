"""How the streams of a process end: who is waited for, who is handed over, who is told."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from gateway.api.drain import END_S, Drain, Others
from gateway.core.errors import Category
from gateway.streams.hub import Channel, Hub, Owner
from gateway.streams.journal import HandedOver, JournalError, JournalUnavailable
from tests.support.clock import ManualClock
from tests.support.run import run
from tests.support.signals import eventually


class Entrance:
    """Where streams begin."""

    draining = False


class Session:
    """A session that ends when it is told to, unless it is `stuck`; `said` is what it was told."""

    def __init__(self, hub: Hub, sid: str, *, stuck: bool = False) -> None:
        self.sid, self._hub, self._stuck = sid, hub, stuck
        self.closed = asyncio.Event()
        self.said: list[str] = []
        self.channel = hub.open(sid)
        hub.own(self.channel, cast("Owner", self))

    def shut_down(self) -> None:
        """The process ends."""
        self.said.append("shut down")
        self.leave()

    def hand_over(self) -> None:
        """Another replica goes on."""
        self.said.append("handed over")
        self.leave()

    def leave(self) -> None:
        """It is over."""
        if not self._stuck:
            self.closed.set()
            self._hub.disown(self.channel)


class Reader:
    """A reader that keeps what it was failed with."""

    sending, sent_at, on_stuck = False, 0.0, None

    def __init__(self, channel: Channel) -> None:
        self.error: JournalError | None = None
        channel.attach(self)

    def published(self, entry: Any) -> bool:
        """Nothing is published here."""
        raise AssertionError(entry)

    def wake(self) -> None:
        """Nothing to look at."""

    def fail(self, error: JournalError) -> None:
        """The log cannot be followed on."""
        self.error = error


class Place:
    """A process with a drain of ten seconds by a clock turned by hand."""

    def __init__(self, others: Callable[["Place"], Others] | None = None) -> None:
        self.hub, self.entrance, self.clock = Hub(), Entrance(), ManualClock()
        self.left = 0
        self.stays = False
        self.drain = Drain(self.hub, self.entrance, self.clock, 10, None if others is None else others(self))

    def stay(self) -> None:
        """Nothing is taken over from others any more."""
        self.stays = True

    async def leave(self) -> None:
        """The fleet is left; no session may be owned any more."""
        assert self.hub.sessions() == []
        self.left += 1


def recoverable(it: Place) -> Others:
    """Other replicas take the streams whose id begins with `r`."""

    def hand_over(session: Owner) -> bool:
        if session.sid.startswith("r"):
            cast("Session", session).hand_over()
            return True
        return False

    return Others(hand_over=hand_over, leave=it.leave, stay=it.stay)


def test_nothing_is_open() -> None:
    """Without streams and requests nothing is waited for, and no stream may begin."""

    async def scenario() -> None:
        it = Place()
        it.drain.begin()
        assert it.entrance.draining
        await it.drain.wait(lambda: 0)
        await it.drain.end()

    run(scenario())


@pytest.mark.parametrize("what", ["stream", "request"])
def test_waits_for_what_is_open(what: str) -> None:
    """The wait lasts as long as a stream is owned, or a request is answered, and no longer."""

    async def scenario() -> None:
        it = Place()
        session = Session(it.hub, "a") if what == "stream" else None
        busy = [None] if what == "request" else []
        waiting = asyncio.ensure_future(it.drain.wait(busy.__len__))
        await asyncio.sleep(0)
        assert not waiting.done()
        busy.clear()
        if session is not None:
            session.leave()
        await waiting

    run(scenario())


def test_readers_of_streams_elsewhere_are_not_waited_for() -> None:
    """Once nothing is owned here, who reads what is owned elsewhere is reset at once, and comes back by cursor."""

    async def scenario() -> None:
        it = Place(recoverable)
        own, elsewhere = Session(it.hub, "a"), it.hub.open("elsewhere")
        reader, busy = Reader(elsewhere), [None]
        waiting = asyncio.ensure_future(it.drain.wait(busy.__len__))
        await asyncio.sleep(0)
        assert reader.error is None, "it is served on as long as this process is here anyhow"
        own.leave()
        await eventually(lambda: reader.error is not None)
        assert isinstance(reader.error, HandedOver)
        busy.clear()
        await waiting

    run(scenario())


def test_nothing_is_taken_over_while_it_drains() -> None:
    """From the first signal on, what dead replicas leave is left to those who stay: here it could only be ended."""

    async def scenario() -> None:
        it = Place(recoverable)
        it.drain.begin()
        assert it.stays

    run(scenario())


@pytest.mark.parametrize("how", ["time", "hurry"])
def test_wait_is_bounded(how: str) -> None:
    """The wait is over with the time of the drain, or when somebody is in a hurry; what is left is ended then."""

    async def scenario() -> None:
        it = Place()
        session = Session(it.hub, "a")
        waiting = asyncio.ensure_future(it.drain.wait(lambda: 1))
        await asyncio.sleep(0)
        if how == "time":
            it.clock.advance(10)
        else:
            it.drain.hurry()
        await waiting
        assert session.said == []
        await it.drain.end()
        await it.drain.end()
        assert session.said == ["shut down"]

    run(scenario())


def test_handing_over() -> None:
    """Where others can go on a stream is handed over, else ended; the fleet is left after all that, once."""

    async def scenario() -> None:
        it = Place(recoverable)
        assert it.drain.shared
        handed, ended = Session(it.hub, "r1"), Session(it.hub, "e1")
        reader = Reader(handed.channel)
        await it.drain.end()
        await it.drain.end()
        assert (handed.said, ended.said, it.left) == (["handed over"], ["shut down"], 1)
        assert isinstance(reader.error, HandedOver)

    run(scenario())


def test_reader_of_a_log_that_dies() -> None:
    """Who still reads a log that ends with the process is told so, whatever the stream's state."""

    async def scenario() -> None:
        it = Place()
        session = Session(it.hub, "paused")
        reader = Reader(session.channel)
        await it.drain.end()
        assert reader.error is not None
        assert reader.error.failure.category is Category.SHUTDOWN

    run(scenario())


def test_session_that_begins_meanwhile() -> None:
    """A stream that was just being created when the end began is ended like the others."""

    async def scenario() -> None:
        it = Place()
        first = Session(it.hub, "a", stuck=True)
        ending = asyncio.ensure_future(it.drain.end())
        await asyncio.sleep(0)
        assert first.said == ["shut down"]
        late = Session(it.hub, "b")
        first.closed.set()
        it.hub.disown(first.channel)
        await ending
        assert late.said == ["shut down"]

    run(scenario())


def test_session_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that does not end is not waited for longer than the bound; the fleet is left all the same."""
    monkeypatch.setattr("gateway.api.drain.END_S", 0.05)
    assert END_S == 4

    async def scenario() -> None:
        it = Place(lambda it: Others(hand_over=lambda _: False, leave=lambda: count(it)))
        Session(it.hub, "a", stuck=True)
        await it.drain.end()
        assert it.left == 1

    async def count(it: Place) -> None:
        it.left += 1

    run(scenario())


@pytest.mark.parametrize("how", ["hangs", "is away"])
def test_leaving_that_fails(how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A fleet that cannot be told is left without a word: the others see the silence."""
    monkeypatch.setattr("gateway.api.drain.LEAVE_S", 0.05)

    async def leave() -> None:
        if how == "hangs":
            await asyncio.Event().wait()
        raise JournalUnavailable

    async def scenario() -> None:
        await Place(lambda _: Others(hand_over=lambda _: False, leave=leave)).drain.end()

    run(scenario())
    assert "will see that this one is silent" in caplog.text
