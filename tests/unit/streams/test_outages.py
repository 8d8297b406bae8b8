"""A journal that does not answer, lost something, or was changed by others while answers were under way."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from gateway.core.errors import Category, ProviderError
from gateway.core.events import End, Finish, Pause, Resume, Start, State, Text
from gateway.streams.ground import Policy
from gateway.streams.journal import (
    Appended,
    Entry,
    HandedOver,
    JournalError,
    JournalLost,
    JournalRegressed,
    JournalUnavailable,
    Page,
)
from gateway.streams.journal_memory import MemoryJournal
from gateway.streams.lifecycle import Answer, Op, Step
from gateway.streams.session import Session
from gateway.upstream.contract import Batch, Timeouts
from tests.unit.streams.world import TENANT, Log, Owned, Said, World, follow, looped, text, turns, words_of

STOP: Batch = [Finish(0, "stop")]
QUICK = Policy(retry_s=0.001, retry_max_s=0.002)


class Far(MemoryJournal):
    """Answers appends when `arrive` is called, in whatever way; refuses everything while `is_away`."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.under_way: list[tuple[str, Entry, Callable[[Appended], None]]] = []
        self.is_away = False
        self.most_under_way = 0
        self.looks = 0

    def append(self, sid: str, entry: Entry, settled: Callable[[Appended], None]) -> None:
        self.under_way.append((sid, entry, settled))
        self.most_under_way = max(self.most_under_way, len(self.under_way))

    def arrive(self, *, acknowledge: bool = True) -> list[Callable[[], None]]:
        """All that is under way comes in; returns what tells the owners so."""
        under_way, self.under_way = self.under_way, []
        answers: list[Callable[[], None]] = []
        for sid, entry, settled in under_way:
            outcomes: list[Appended] = []
            super().append(sid, entry, outcomes.append)
            answers.append(partial(settled, outcomes[0]))
        if acknowledge:
            for answer in answers:
                answer()
        return answers

    def answer(self, outcome: Appended) -> None:
        """What is under way is answered without coming in."""
        under_way, self.under_way = self.under_way, []
        for _, _, settled in under_way:
            settled(outcome)

    async def step(self, sid: str, step: Step) -> tuple[Answer, list[Entry]]:
        self._reach()
        return await super().step(sid, step)

    async def read(self, sid: str, after: int, max_bytes: int) -> Page:
        self._reach()
        self.looks += 1
        return await super().read(sid, after, max_bytes)

    async def annotate(self, sid: str, facts: dict[str, Any], *, closed_by: str | None = None) -> None:
        self._reach()
        await super().annotate(sid, facts, closed_by=closed_by)

    async def moved(self, wanted: Sequence[tuple[str, int]]) -> list[bool]:
        self._reach()
        return [(await self.known(sid)).record.gen != gen for sid, gen in wanted]

    def _reach(self) -> None:
        if self.is_away:
            raise JournalUnavailable


async def begun(*script: Any, policy: Policy | None = None) -> tuple[Owned, Said, Far]:
    """A stream whose first words are under way."""
    world = World(policy or QUICK, journal=Far)
    source = Said(*script)
    stream = await world.session(source)
    await stream.go()
    journal = world.journal
    assert isinstance(journal, Far)
    return stream, source, journal


async def settled(stream: Owned) -> None:
    """Everything comes in, and what that leads to."""
    journal = stream.world.journal
    assert isinstance(journal, Far)
    for _ in range(20):
        journal.arrive()
        await turns()


async def elsewhere(stream: Log, op: Op, **members: Any) -> list[Entry]:
    """A control step by another replica: this one is not told."""
    return (await stream.world.journal.step(stream.sid, Step(op=op, op_id=f"there-{op}", **members)))[1]


def kinds(applied: list[tuple[int, int, Any]]) -> list[type]:
    """What was served, by kind."""
    return [type(event) for _, _, event in applied]


# Others change the log.


@looped
async def test_a_step_that_overtakes_an_acknowledgement_is_served_behind_it() -> None:
    """A pause whose reply comes before the answer to the words in front of it makes no gap and loses nothing."""
    stream, source, journal = await begun(text("a"))
    reader = await stream.reader()
    answers = journal.arrive(acknowledge=False)
    await stream.pause()
    assert stream.session.channel.tail == 0
    source.say(text("b"))
    await turns()
    for answer in answers:
        answer()
    await turns()
    assert kinds(await follow(reader)) == [Start, Text, Pause]
    await settled(stream)
    await stream.resume()
    source.say(STOP, None)
    await settled(stream)
    assert (await stream.over()).state is State.COMPLETED
    assert [seq for _, seq, _ in await follow(reader)] == list(range(3, 3 + 5))
    assert await stream.words() == "ab"
    reader.detach()


@looped
async def test_a_cancel_that_overtakes_an_acknowledgement_ends_the_session() -> None:
    """The end is served behind the words that were in the log before it, and the upstream is closed."""
    stream, source, journal = await begun(text("a"))
    reader = await stream.reader()
    answers = journal.arrive(acknowledge=False)
    await stream.world.control.cancel(stream.shown, TENANT, wait_s=0)
    for answer in answers:
        answer()
    await turns()
    assert kinds(await follow(reader)) == [Start, Text, End]
    assert (await stream.over()).state is State.CANCELLED
    assert source.closed == 1
    reader.detach()


@looped
async def test_control_elsewhere_reaches_a_session_that_is_silent() -> None:
    """Pause, resume and cancel by other replicas reach readers here and the upstream, though nothing is appended."""
    stream, source, _ = await begun(text("a"))
    await settled(stream)
    reader = await stream.reader()
    for op, kind in ((Op.PAUSE, Pause), (Op.RESUME, Resume)):
        await elsewhere(stream, op)
        assert not stream.session.channel.tail > 3
        await stream.world.beat(2.0)
        await turns()
        assert kinds(await follow(reader))[-1] is kind
    await elsewhere(stream, Op.CANCEL, end=End(State.CANCELLED, "control"))
    stream.session.nudge()
    await turns()
    assert kinds(await follow(reader)) == [End]
    assert source.closed == 1
    assert (await stream.world.journal.known(stream.sid)).closed_by == stream.record.owner
    await stream.over()
    reader.detach()


@looped
async def test_a_nudge_without_news_costs_one_look() -> None:
    """Many hints are one look at a time, and change nothing."""
    stream, source, journal = await begun(text("a"))
    await settled(stream)
    before = journal.looks
    for _ in range(10):
        stream.session.nudge()
    await turns()
    assert journal.looks - before == 1
    source.say(text("b"), STOP, None)
    await settled(stream)
    assert (await stream.over()).state is State.COMPLETED
    assert await stream.words() == "ab"


@looped
async def test_nothing_is_appended_while_somebody_looks() -> None:
    """Words that come during a look wait for it, so that what is read can not be under way as well."""
    stream, source, journal = await begun(text("a"))
    await settled(stream)
    may = asyncio.Event()
    read = journal.read

    async def slow(sid: str, after: int, max_bytes: int) -> Page:
        await may.wait()
        return await read(sid, after, max_bytes)

    journal.read = slow  # type: ignore[method-assign]
    stream.session.nudge()
    await turns()
    source.say(text("b"))
    await turns()
    assert journal.under_way == []
    may.set()
    await settled(stream)
    assert await stream.words() == "ab"
    stream.session.shut_down()
    await settled(stream)
    await stream.over()


@looped
async def test_one_append_is_under_way_at_most() -> None:
    """[!] The next entry is made when the last one was answered, however much is said meanwhile."""
    stream, source, journal = await begun(text("a"))
    source.say(text("b"), text("c"), text("d"))
    await turns()
    assert len(journal.under_way) == 1
    source.say(STOP, None)
    await settled(stream)
    assert (await stream.over()).state is State.COMPLETED
    assert journal.most_under_way == 1
    assert await stream.words() == "abcd"


@looped
async def test_a_zombie_does_not_adopt_its_claimants_gen() -> None:
    """[!] A fenced owner whose stream was claimed writes nothing more, settles its bill and says nothing else."""
    stream, source, journal = await begun(text("a"))
    await elsewhere(stream, Op.CLAIM, owner="other-1")
    before = await stream.events()
    journal.arrive()
    await turns()
    source.say(text("b"))
    await turns()
    assert stream.task.done()
    assert journal.under_way == []
    assert await stream.events() == before
    assert [(end.state, end.reason) for end in stream.world.settled] == [(State.FAILED, "superseded")]
    known = await journal.known(stream.sid)
    assert (known.facts, known.closed_by) == ({}, None)
    assert source.closed == 1


@looped
async def test_the_end_waits_for_the_last_acknowledgement() -> None:
    """[!] An end is not sent while an append is unanswered."""
    stream, _, journal = await begun(text("a"), STOP, None)
    assert await stream.state() == "running"
    assert len(journal.under_way) == 1
    await settled(stream)
    assert (await stream.over()).state is State.COMPLETED
    assert await stream.words() == "a"


@pytest.mark.parametrize("late", ["deadline", "shutdown"])
@looped
async def test_nothing_comes_between_a_stream_and_its_end(late: str) -> None:
    """A deadline or a shutdown while an end waits for the journal leaves no record that runs for ever without owner."""
    stream, source, _ = await begun(text("a"), ProviderError(Category.STREAM_BROKEN, "the connection broke"))
    source.timeouts = Timeouts(idle_s=1)
    if late == "deadline":
        await stream.world.beat(2)
    else:
        stream.session.shut_down()
    await settled(stream)
    end = await stream.over()
    assert (end.state, end.reason) == (State.FAILED, "stream_broken")
    assert [each.reason for each in stream.world.settled] == ["stream_broken"]


@looped
async def test_an_end_that_is_stale_is_tried_again() -> None:
    """[!] A pause elsewhere between the last words and the end moves the end behind it; it stands once."""
    stream, source, _ = await begun(text("a"))
    await settled(stream)
    await elsewhere(stream, Op.PAUSE)
    await elsewhere(stream, Op.RESUME)
    source.say(None)
    await settled(stream)
    assert (await stream.over()).state is State.COMPLETED
    assert kinds([(0, 0, event) for event in await stream.events()])[:4] == [Start, Text, Pause, Resume]


@looped
async def test_a_zombie_does_not_end_its_claimants_stream() -> None:
    """[!] An end stands under the gen and seq that its owner knows only: a claimed stream goes on."""
    stream, source, _ = await begun(STOP)
    await settled(stream)
    await elsewhere(stream, Op.CLAIM, owner="other-1")
    source.say(None)
    await settled(stream)
    assert stream.task.done()
    assert await stream.state() == "running"
    assert [end.reason for end in stream.world.settled] == ["superseded"]


# The journal does not answer.


@looped
async def test_no_answer_closes_the_upstream_and_tells_readers() -> None:
    """[!] Behind an unanswered append nothing is sent; readers get the error; the record ends when that can be."""
    stream, source, journal = await begun(text("a"))
    reader = await stream.reader()
    await follow(reader)
    journal.is_away = True
    source.say(text("b"))
    await turns()
    journal.answer(Appended.UNKNOWN)
    await turns()
    with pytest.raises(JournalUnavailable):
        await reader.next()
    reader.detach()
    assert (source.closed, journal.under_way) == (1, [])
    assert stream.session.closed.is_set()
    journal.is_away = False
    end = await stream.over()
    assert (end.state, end.reason) == (State.FAILED, "journal_unavailable")
    assert await stream.words() == ""
    assert (await journal.known(stream.sid)).closed_by == stream.record.owner
    assert stream.world.hub.channels == {}


@looped
async def test_what_came_in_unanswered_stays_and_is_served() -> None:
    """Words that nobody answered and that are in the log are in front of the end, densely."""
    stream, _, journal = await begun(text("a"))
    journal.arrive(acknowledge=False)
    journal.is_away = True
    journal.under_way = [(stream.sid, Entry.of(1, 1, [Text(0, "a")]), stream.session._appender._settled)]
    journal.answer(Appended.UNKNOWN)
    await turns()
    journal.is_away = False
    assert (await stream.over()).reason == "journal_unavailable"
    assert await stream.words() == "a"


@looped
async def test_an_end_that_cannot_be_written_is_written_later() -> None:
    """All words are in the log and acknowledged: when the journal is back, the record says what happened."""
    stream, source, journal = await begun(text("a"))
    await settled(stream)
    reader = await stream.reader()
    await follow(reader)
    journal.is_away = True
    source.say(None)
    await turns()
    journal.arrive()
    await turns()
    await follow(reader)
    with pytest.raises(JournalUnavailable):
        await reader.next()
    reader.detach()
    journal.is_away = False
    assert (await stream.over()).state is State.COMPLETED


@looped
async def test_a_log_that_regressed_fails_its_stream() -> None:
    """A log that lost what was acknowledged ends there; who comes later reads what it holds."""
    stream, source, journal = await begun(text("a"))
    reader = await stream.reader()
    await follow(reader)
    journal.answer(Appended.ACKED)  # and lost
    await turns()
    assert words_of(await follow(reader)) == "a"
    stream.session.nudge()
    await turns()
    with pytest.raises(JournalRegressed):
        await reader.next()
    reader.detach()
    end = await stream.over()
    assert (end.state, end.reason) == (State.FAILED, "journal_regressed")
    assert await stream.words() == ""
    assert source.closed == 1
    later = await stream.reader()
    assert kinds(await follow(later)) == [Start, End]
    later.detach()


@looped
async def test_what_others_wrote_over_lost_words_is_no_continuation() -> None:
    """Control entries in the place of words that were served and lost are not taken for the words themselves."""
    stream, _, journal = await begun(text("a"))
    reader = await stream.reader()
    await follow(reader)
    journal.answer(Appended.ACKED)  # and lost
    await turns()
    assert words_of(await follow(reader)) == "a"
    await elsewhere(stream, Op.PAUSE)
    await elsewhere(stream, Op.RESUME)
    stream.session.nudge()
    await turns()
    with pytest.raises(JournalRegressed):
        await reader.next()
    reader.detach()
    assert (await stream.over()).reason == "journal_regressed"


@looped
async def test_a_lost_log_is_told_in_band() -> None:
    """A log that is gone stops its session; readers are told, and nothing waits for it."""
    stream, source, journal = await begun(text("a"))
    reader = await stream.reader()
    await follow(reader)
    stream.world.clock.advance(2_000)
    await journal.sweep()
    journal.arrive()
    await turns()
    with pytest.raises(JournalLost):
        await reader.next()
    reader.detach()
    assert (stream.task.done(), source.closed) == (True, 1)
    assert stream.world.hub.channels == {}


@looped
async def test_a_log_that_expires_under_readers_ends_them() -> None:
    """Readers of a stream that nobody owns here are not kept by heartbeats when its log is gone."""
    log = await World().log()
    reader = await log.reader()
    await follow(reader)
    waiting = asyncio.ensure_future(reader.wait())
    await turns()
    await log.world.beat(2_000.0)
    await log.world.beat(40.0)
    with pytest.raises(JournalLost):
        await waiting
    reader.detach()


@looped
async def test_what_waits_for_the_journal_is_bounded() -> None:
    """At the bound the upstream is not read on, its silence is not held against it, and it goes on when answered."""
    policy = replace(QUICK, unacked_bytes=20_000)
    stream, source, journal = await begun(text("a"), policy=policy)
    source.say(*[text("x" * 100) for _ in range(1_000)])
    await turns(2_000)
    assert source.read < 400
    assert stream.world.ground.unacked.bytes >= 20_000
    read = source.read
    journal.arrive()
    await settled(stream)
    assert source.read > read
    source.say(STOP, None)
    for _ in range(50):
        journal.arrive()
        await turns(100)
    assert (await stream.over()).state is State.COMPLETED
    assert len(await stream.words()) == 100_001
    assert stream.world.ground.unacked.bytes == 0


@looped
async def test_who_reads_is_served_on_undurably_if_that_is_wanted() -> None:
    """With `degrade` the client that reads gets the whole answer; the record fails, and nothing is appended again."""
    stream, source, journal = await begun(text("a"), policy=replace(QUICK, degrade=True))
    reader = await stream.reader()
    journal.is_away = True
    journal.answer(Appended.UNKNOWN)
    source.say(text("b"), STOP)
    await turns()
    assert words_of(await follow(reader)) == "ab"
    assert (source.closed, journal.under_way) == (0, [])
    journal.is_away = False
    assert (await stream.world.control.status(stream.shown, TENANT))["resumable"] is False
    source.say(None)
    await turns(100)
    assert isinstance((await follow(reader))[-1][2], End)
    assert reader.done
    end = await stream.over()
    assert (end.state, end.reason) == (State.FAILED, "journal_unavailable")
    assert await stream.words() == ""
    reader.detach()
    assert stream.world.hub.channels == {}


@looped
async def test_a_client_that_leaves_ends_what_is_undurable() -> None:
    """A degraded stream that nobody reads any more is closed, with the journal or without."""
    stream, source, journal = await begun(text("a"), policy=replace(QUICK, degrade=True))
    reader = await stream.reader()
    journal.is_away = True
    journal.answer(Appended.UNKNOWN)
    reader.detach()
    await stream.world.beat()
    await turns()
    assert source.closed == 1
    journal.is_away = False
    assert (await stream.over()).state is State.FAILED


# Owners come and go.


@looped
async def test_a_stream_is_handed_over_without_an_end() -> None:
    """What is under way comes in, nothing more, no end, and readers here are told to come back."""
    stream, source, journal = await begun(text("a"))
    reader = await stream.reader()
    source.say(text("b"))
    await turns()
    assert stream.session.hand_over()
    await turns()
    journal.arrive()
    await turns()
    assert words_of(await follow(reader)) == "a"
    with pytest.raises(HandedOver):
        await reader.next()
    reader.detach()
    assert (stream.task.done(), source.closed, await stream.state()) == (True, 1, "running")
    assert (await journal.known(stream.sid)).closed_by is None
    assert not stream.session.hand_over()


@looped
async def test_a_claimed_stream_goes_on_where_its_log_is() -> None:
    """A session on a stream that was read here before it was claimed appends behind the claim; readers stay."""
    world = World(QUICK)
    log = await world.log(owner="other-1")
    await log.say("a")
    reader = await log.reader()
    await elsewhere(log, Op.PAUSE)
    await elsewhere(log, Op.RESUME)
    await elsewhere(log, Op.CLAIM, owner="replica-9")
    page = await world.journal.read(log.sid, -1, 1)
    session = Session(page.record, source := Said(text("b"), STOP, None), reader._channel, world.ground)
    world.hub.own(reader._channel, session)
    stream = Owned(world, session, log)
    await stream.go()
    assert (await stream.over()).state is State.COMPLETED
    assert [seq for _, seq, _ in await follow(reader)] == list(range(9))
    assert (await stream.words(), source.closed) == ("ab", 1)
    reader.detach()


class Many:
    """Replicas that are alive or not; notes whom it followed and told."""

    def __init__(self, rid: str, *alive: str) -> None:
        self.rid, self.alive = rid, {rid, *alive}
        self.followed: set[str] = set()
        self.told: list[tuple[str, str]] = []

    def follow(self, channel: Any) -> None:
        self.followed.add(channel.sid)

    def leave(self, sid: str) -> None:
        self.followed.discard(sid)

    def grown(self, sids: Any) -> None:
        """Nobody."""

    def tell(self, owner: str, sid: str) -> None:
        self.told.append((owner, sid))

    def is_read_elsewhere(self, sid: str) -> bool:
        return False

    async def is_alive(self, owner: str) -> bool:
        return owner.partition("-")[0] in self.alive

    async def run(self) -> None:
        """Nothing to keep."""


@looped
async def test_channels_without_an_owner_here_are_followed() -> None:
    """Who reads what is owned elsewhere is kept up to date from the first reader to the last."""
    world = World(fleet=(fleet := Many("replica")))
    log = await world.log(owner="other-1")
    reader = await log.reader()
    assert fleet.followed == {log.sid}
    reader.detach()
    assert fleet.followed == set()
    stream = await world.session(Said(text("a"), None))
    reader = await stream.reader()
    await stream.pause()
    await stream.go()
    assert fleet.followed == {stream.sid}  # its end is kept: anybody may let it go on
    await stream.resume()
    assert isinstance((await follow(reader))[-1][2], End)
    reader.detach()
    assert fleet.followed == set()


@looped
async def test_a_cancel_elsewhere_waits_for_the_owners_word() -> None:
    """`closed` is the word of that very owner, `closing` its silence, `unknown` that of one that is not alive."""
    world = World(fleet=(fleet := Many("replica", "other")))
    log = await world.log(owner="other-1")
    answer = await world.control.cancel(log.shown, TENANT, wait_s=0.02)
    assert (answer.changed, answer.upstream) == (True, "closing")
    assert fleet.told == [("other-1", log.sid)]
    await world.journal.annotate(log.sid, {}, closed_by="other-0")
    assert (await world.control.cancel(log.shown, TENANT, wait_s=0.02)).upstream == "closing"
    call = asyncio.ensure_future(world.control.cancel(log.shown, TENANT, wait_s=5))
    await turns()
    await world.journal.annotate(log.sid, {}, closed_by="other-1")
    assert (await call).upstream == "closed"
    dead = await world.log(owner="gone-1")
    assert (await world.control.status(dead.shown, TENANT))["recovering"] is True
    assert (await world.control.cancel(dead.shown, TENANT, wait_s=5)).upstream == "unknown"
    dying = await world.log(owner="other-2")
    call = asyncio.ensure_future(world.control.cancel(dying.shown, TENANT, wait_s=5))
    await turns()
    fleet.alive.discard("other")
    assert (await call).upstream == "unknown"


@looped
async def test_a_listing_says_whose_owner_is_gone() -> None:
    """`recovering` is shown of every stream whose owner does not live, and of no other, ended ones included."""
    world = World(fleet=Many("replica", "other"))
    owned = {name: (await world.log(owner=f"{name}-1")).shown for name in ("replica", "other", "gone", "lost")}
    await world.control.cancel(owned["lost"], TENANT, wait_s=0)
    found = await world.journal.listing(TENANT, after=None, limit=10, state=None)
    shown = {row["id"]: row["recovering"] for row in await world.control.describe(found)}
    assert shown[owned["gone"]] is True
    assert [shown[owned[name]] for name in ("other", "lost")] == [False, False]


@looped
async def test_no_control_succeeds_without_the_journal() -> None:
    """Every control call and the status raise while the journal is away."""
    stream, _, journal = await begun(text("a"))
    await settled(stream)
    journal.is_away = True
    control = stream.world.control
    for call in (control.pause, control.resume, control.cancel):
        with pytest.raises(JournalError):
            await call(stream.shown, TENANT)
    journal.is_away = False
    await control.cancel(stream.shown, TENANT)
    await stream.over()


@looped
async def test_the_lag_of_the_journal_is_shown() -> None:
    """How long an append took to be acknowledged is in the status object."""
    stream, _, journal = await begun(text("a"))
    stream.world.clock.advance(0.25)
    journal.arrive()
    await turns()
    assert (await stream.world.control.status(stream.shown, TENANT))["metrics"]["journal_lag_ms"] == 250.0
    stream.session.shut_down()
    await settled(stream)
    await stream.over()
