"""The claims find the bugs that they are there for: each is planted into an honest provider and must be caught."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TypeAlias

import pytest

from gateway.core.chat import ChatRequest, Message, TextPart
from gateway.core.errors import Category, ProviderError
from gateway.core.events import Finish, Text, UsageReport
from gateway.upstream.contract import Batch, Provider
from tests.conformance.providers.claims import CLAIMS
from tests.conformance.providers.subject import Opened, Subject
from tests.conformance.providers.subjects.mock import MockSubject
from tests.conformance.providers.test_providers import judge
from tests.support import baseline
from tests.support.run import run

Bug: TypeAlias = Callable[[AsyncIterator[Batch]], AsyncGenerator[Batch]]


async def success_on_eof(batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch]:
    """An end of the body is taken for the end of the answer."""
    try:
        async for batch in batches:
            yield batch
    except ProviderError as error:
        if error.category is not Category.STREAM_BROKEN:
            raise


async def foreign_errors(batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch]:
    """The transport's exception comes through."""
    try:
        async for batch in batches:
            yield batch
    except ProviderError as error:
        raise ConnectionResetError("by peer") from error


async def finish_twice(batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch]:
    """The finish is repeated with the usage, as one vendor does."""
    async for batch in batches:
        yield [*batch, *(event for event in batch if isinstance(event, Finish))]


async def finish_first(batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch]:
    """The finish of a chunk is put before its content."""
    async for batch in batches:
        yield sorted(batch, key=lambda event: not isinstance(event, Finish))


async def usage_twice(batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch]:
    """The same usage comes with every batch."""
    async for batch in batches:
        yield [*batch, *(event for event in batch if isinstance(event, UsageReport))]


async def split_chunks(batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch]:
    """Batches are cut by size, not by chunk."""
    async for batch in batches:
        for event in batch:
            if isinstance(event, Text):
                yield [Text(event.choice, event.text[:1], more=True)]
                yield [Text(event.choice, event.text[1:])]
            else:
                yield [event]


async def lost_tail(batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch]:
    """What arrived with the read before the cut is lost."""
    held: Batch = []
    async for batch in batches:
        if held:
            yield held
        held = batch
    yield held


async def swallowed_cancel(batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch]:
    """A cancellation is taken for the end."""
    try:
        async for batch in batches:
            yield batch
    except asyncio.CancelledError:
        return


async def leaked_task(batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch]:
    """A watchdog without an owner outlives the call."""
    _watchdog = asyncio.ensure_future(asyncio.sleep(60))  # noqa: RUF006 - that is the bug
    async for batch in batches:
        yield batch


class Bugged:
    """A provider whose batches pass through a bug."""

    kind = "bugged"

    def __init__(self, inner: Provider, bug: Bug) -> None:
        self._inner, self._bug = inner, bug

    @asynccontextmanager
    async def stream(self, request: ChatRequest, model: str) -> AsyncIterator[AsyncIterator[Batch]]:
        async with self._inner.stream(request, model) as honest, aclosing(self._bug(honest)) as batches:
            yield batches

    async def aclose(self) -> None:
        await self._inner.aclose()


class Forgetful(Bugged):
    """Drops the parts of a message that it does not know."""

    @asynccontextmanager
    async def stream(self, request: ChatRequest, model: str) -> AsyncIterator[AsyncIterator[Batch]]:
        known = tuple(
            Message(role=turn.role, parts=tuple(part for part in turn.parts if isinstance(part, TextPart)))
            for turn in request.messages
        )
        asked = ChatRequest(dialect=request.dialect, model=request.model, messages=known)
        async with self._inner.stream(asked, model) as batches:
            yield batches


async def honest(batches: AsyncIterator[Batch]) -> AsyncGenerator[Batch]:
    """Nothing is wrong."""
    async for batch in batches:
        yield batch


def _opened(bug: Bug, kind: type[Bugged] = Bugged) -> Opened:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Subject]:
        subject = MockSubject()
        subject.provider = kind(subject.provider, bug)
        yield subject

    return opened


@pytest.mark.parametrize(
    ("bug", "claim"),
    [
        (success_on_eof, "a_cut_is_a_broken_stream"),
        (success_on_eof, "an_end_without_terminal_marker_is_a_broken_stream"),
        (foreign_errors, "garbage_is_a_protocol_error"),
        (finish_twice, "every_choice_finishes_once"),
        (finish_first, "nothing_of_a_choice_follows_its_finish"),
        (usage_twice, "usage_is_reported_once_a_change"),
        (split_chunks, "batches_never_split_a_chunk"),
        (lost_tail, "a_cut_is_a_broken_stream"),
        (swallowed_cancel, "a_stalled_answer_can_be_cancelled"),
        (leaked_task, "leaving_early_is_clean"),
    ],
)
def test_claim_catches(bug: Bug, claim: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider with this bug does not keep this claim."""
    run(judge(CLAIMS[claim], _opened(honest)))
    monkeypatch.setattr(baseline, "_TRIES", 3)  # what stays need not be waited for
    with pytest.raises((AssertionError, ConnectionResetError)):
        run(judge(CLAIMS[claim], _opened(bug)))


def test_claim_catches_dropped_content() -> None:
    """A provider that sends what it understands and drops the rest is caught."""
    with pytest.raises(AssertionError):
        run(judge(CLAIMS["unknown_content_is_refused_before_a_byte_is_sent"], _opened(honest, Forgetful)))
