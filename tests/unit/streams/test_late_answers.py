"""A journal that answers an append later than its call returns, as every journal over a network does."""

from collections.abc import Callable

from gateway.core.events import End, Finish, Pause, Start, State, Text
from gateway.streams.journal import Appended, Entry, JournalUnavailable, Page
from gateway.streams.journal_memory import MemoryJournal
from tests.unit.streams.world import TENANT, Owned, Said, World, looped, text, turns


class Late(MemoryJournal):
    """Appends when `arrive` is called."""

    failing = 0

    def append(self, sid: str, entry: Entry, settled: Callable[[Appended], None]) -> None:
        self.__dict__.setdefault("under_way", []).append((sid, entry, settled))

    def arrive(self) -> int:
        """Everything under way arrives; returns how much that was."""
        under_way, self.__dict__["under_way"] = self.__dict__.get("under_way", []), []
        for sid, entry, settled in under_way:
            super().append(sid, entry, settled)
        return len(under_way)

    async def read(self, sid: str, after: int, max_bytes: int) -> Page:
        if self.failing:
            self.failing -= 1
            raise JournalUnavailable
        return await super().read(sid, after, max_bytes)


async def arrive(stream: Owned) -> None:
    """Everything arrives, also what that leads to."""
    journal = stream.world.journal
    assert isinstance(journal, Late)
    while journal.arrive():
        await turns()


async def asked(*script: object) -> tuple[Owned, Said]:
    """A stream whose first words are under way."""
    source = Said(*script)  # type: ignore[arg-type]
    stream = await World(journal=Late).session(source)
    await stream.go()
    return stream, source


@looped
async def test_a_refusal_is_mended_though_the_source_is_silent() -> None:
    """Words that a pause overtook are in the log as soon as the journal says so, not with the provider's next word."""
    stream, _ = await asked(text("a"))
    await stream.pause()
    await arrive(stream)
    assert [type(event) for event in await stream.events()] == [Start, Pause, Text]
    await stream.resume()
    stream.session.source.say([Finish(0, "stop")], None)  # type: ignore[attr-defined]
    await turns()
    await arrive(stream)
    assert (await stream.over()).state is State.COMPLETED
    assert await stream.words() == "a"


@looped
async def test_a_refusal_by_a_cancel_closes_the_source() -> None:
    """Whoever cancels elsewhere stops a session that waits for its provider."""
    stream, source = await asked(text("a"))
    await stream.world.control.cancel(stream.shown, TENANT, wait_s=0)
    await arrive(stream)
    assert (await stream.over()).state is State.CANCELLED
    assert source.closed == 1
    assert await stream.words() == ""


@looped
async def test_the_end_waits_for_what_was_refused() -> None:
    """An answer that ends while its words are under way ends behind them, once."""
    stream, _ = await asked(text("a"), [Finish(0, "stop")], None)
    await stream.pause()
    await arrive(stream)
    await stream.resume()
    await arrive(stream)
    assert (await stream.over()).state is State.COMPLETED
    assert await stream.words() == "a"
    assert sum(isinstance(event, End) for event in await stream.events()) == 1


@looped
async def test_a_journal_that_is_away_while_a_refusal_is_mended() -> None:
    """A session that cannot learn whether it may write on closes its provider and says so; it does not wait."""
    stream, source = await asked(text("a"))
    await stream.pause()
    journal = stream.world.journal
    assert isinstance(journal, Late)
    journal.failing = 1
    await arrive(stream)
    await stream.resume()
    end = await stream.over()
    assert end.state is State.FAILED
    assert end.failure is not None
    assert end.failure.category == "journal"
    assert source.closed == 1
