"""The hub: channels live as long as somebody needs them, and a reader harms nobody else."""

import asyncio

from gateway.core.events import Claim, End, Pause, Resume, State, Text
from gateway.streams.hub import Channel
from gateway.streams.journal import Entry
from gateway.streams.lifecycle import Op
from tests.unit.streams.world import TENANT, Said, World, follow, looped, text, turns


@looped
async def test_a_channel_lives_while_it_is_needed() -> None:
    """A channel stays while an owner or a reader is there, is shared, and is forgotten with the last of them."""
    world = World()
    stream = await world.session(Said(text("a"), None))
    channel = stream.session.channel
    first, second = await stream.reader(), await stream.reader()
    assert world.hub.find(stream.sid) is channel
    assert world.hub.sessions() == [stream.session]
    await stream.go()
    assert world.hub.sessions() == []
    first.detach()
    assert world.hub.find(stream.sid) is channel
    second.detach()
    assert world.hub.find(stream.sid) is None


@looped
async def test_an_owner_without_readers_keeps_its_channel() -> None:
    """The last reader's leaving does not take the owner's channel away."""
    world = World()
    stream = await world.session(Said(text("a")))
    await stream.go()
    (await stream.reader()).detach()
    assert world.hub.find(stream.sid) is stream.session.channel
    stream.task.cancel()
    await stream.over()
    assert world.hub.channels == {}


@looped
async def test_an_old_channel_does_not_take_a_new_one_away() -> None:
    """A reader of a channel that was replaced leaves without harm to its successor."""
    world = World()
    log = await world.log()
    reader = await log.reader()
    world.hub.channels.clear()
    successor = await log.reader()
    reader.detach()
    assert world.hub.find(log.sid) is await log.channel()
    successor.detach()
    assert world.hub.channels == {}


@looped
async def test_a_reader_may_be_quicker_than_the_owner() -> None:
    """Who finds a log and joins before its owner has opened the channel reads on when the owner has."""
    world = World()
    log = await world.log()
    reader = await log.reader()
    assert len(await reader.next()) == 1
    channel = world.hub.open(log.sid)
    channel.offer(Entry.of(1, 1, [Text(0, "a")]))
    assert [events for _, _, events in reader.take()] == [[Text(0, "a")]]


@looped
async def test_readers_are_counted() -> None:
    """The channel knows how many readers there were at most."""
    log = await World().log()
    readers = [await log.reader() for _ in range(3)]
    channel = await log.channel()
    assert [reader.alone for reader in readers] == [False] * 3
    for reader in readers[:2]:
        reader.detach()
    assert readers[2].alone
    assert (channel.reader_peak, len(channel.readers)) == (3, 1)
    readers[2].detach()


def test_a_channel_folds_control_entries() -> None:
    """Limit, skip and end follow from the log's control entries alone; a claim changes none of them."""
    channel = Channel("sid")

    def publish(seq: int, event: Pause | Resume | Claim | End) -> tuple[int, object, bool]:
        channel.publish(Entry.of_control(seq, seq, event))
        return channel.limit, channel.skip, channel.ended

    channel.publish(Entry.of(0, 0, text("a")))
    assert publish(1, Pause()) == (1, None, False)
    channel.publish(Entry.of(1, 3, text("b", "c")))
    assert publish(4, Claim("b")) == (1, None, False)
    assert publish(5, Resume()) == (5, None, False)
    assert publish(6, Pause()) == (6, None, False)
    channel.publish(Entry.of(6, 7, text("d")))
    assert publish(8, End(State.CANCELLED)) == (8, (6, 8), True)


@looped
async def test_what_is_published_is_pushed() -> None:
    """A waiting reader that sends for itself is handed each entry at once, no task in between, until it is done."""
    world = World()
    log = await world.log()
    reader = await log.reader()
    await follow(reader)
    got: list[str] = []

    def push(entry: Entry, shared: bool) -> bool:
        got.extend(event.text for event in entry.events if isinstance(event, Text))
        return True

    waiting = asyncio.ensure_future(reader.wait(push))
    await turns()
    for word in "abc":
        await log.say(word)
        assert got[-1] == word
    assert not waiting.done()
    await log.do(Op.PAUSE)  # a control entry is for the reader's task
    await turns()
    assert waiting.done()
    await follow(reader)
    waiting = asyncio.ensure_future(reader.wait(push))
    await turns()
    await log.say("d")
    await turns()
    assert not waiting.done()
    assert got == ["a", "b", "c"]
    await log.do(Op.RESUME)
    await turns()
    assert waiting.done()
    assert [event.text for _, _, events in reader.take() for event in events if isinstance(event, Text)] == ["d"]
    reader.detach()


@looped
async def test_a_reader_that_fails_fails_alone() -> None:
    """An error of one reader's push is raised in its own task: owner, control and the other readers go on."""
    source = Said()
    world = World()
    stream = await world.session(source)
    await stream.go()
    bad, good = await stream.reader(), await stream.reader()
    for reader in (bad, good):
        await follow(reader)
    got: list[str] = []

    def explode(entry: Entry, shared: bool) -> bool:
        raise KeyError("a bug in a renderer")

    def push(entry: Entry, shared: bool) -> bool:
        got.extend(event.text for event in entry.events if isinstance(event, Text))
        return True

    waits = [asyncio.ensure_future(bad.wait(explode)), asyncio.ensure_future(good.wait(push))]
    await turns()
    source.say(text("a"))
    await turns()
    assert got == ["a"]
    assert isinstance(waits[0].exception(), KeyError)
    assert (await world.control.cancel(stream.shown, TENANT)).upstream == "closed"
    await turns()
    assert (await stream.end()).state is State.CANCELLED
    assert waits[1].done()
    for reader in (bad, good):
        reader.detach()
    assert world.hub.channels == {}


@looped
async def test_a_failed_push_is_not_lost_to_a_beat() -> None:
    """A push that fails in the turn of a beat still ends the wait with its error: what it had taken is not skipped."""
    world = World()
    log = await world.log()
    reader = await log.reader()
    await follow(reader)

    def explode(entry: Entry, shared: bool) -> bool:
        raise KeyError("a bug")

    waiting = asyncio.ensure_future(reader.wait(explode))
    await turns()
    reader.wake()
    await log.say("a")
    await turns()
    assert isinstance(waiting.exception(), KeyError)
    reader.detach()


@looped
async def test_readers_are_equal() -> None:
    """Two readers of one stream are served the same, though one reads each entry and the other all at once."""
    world = World()
    log = await world.log()
    eager, lazy = await log.reader(), await log.reader()
    seen = await follow(eager)
    for step in range(6):
        await log.say(f"{step}", "x")
        if step % 2:
            await log.do(Op.PAUSE)
            seen += await follow(eager)
            await log.do(Op.RESUME)
        seen += await follow(eager)
    await log.do(Op.FINISH, end=End(State.COMPLETED))
    seen += await follow(eager)
    assert await follow(lazy) == seen
    for reader in (eager, lazy):
        assert reader.done
        reader.detach()
