"""The contract of a provider, one claim a function; each is judged on every subject of the folder `subjects`."""

import asyncio
import copy
import json
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any, TypeAlias, get_args

import pytest

from gateway.core.chat import Message, OpaquePart, Tool
from gateway.core.errors import Category, ProviderError
from gateway.core.events import (
    SEMANTIC,
    Extra,
    Finish,
    Leg,
    Progress,
    SourceEvent,
    Text,
    ToolCall,
    UsageReport,
    decode,
    encode,
)
from tests.conformance.providers.asking import Outcome, ask, idle, request, until, whole
from tests.conformance.providers.subject import (
    CallsTools,
    CutAfter,
    Garbage,
    Healthy,
    NoEnd,
    Refuses,
    SilentHead,
    StallAfter,
    Subject,
    Unreachable,
)
from tests.support.signals import PATIENCE_S

Claim: TypeAlias = Callable[[Subject], Awaitable[None]]
CLAIMS: dict[str, Claim] = {}

WEATHER = Tool(
    name="weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
STATUSES = {
    400: Category.BAD_REQUEST,
    401: Category.PROVIDER_AUTH,
    402: Category.QUOTA,
    403: Category.PROVIDER_PERMISSION,
    404: Category.MODEL_NOT_FOUND,
    413: Category.TOO_LARGE,
    422: Category.BAD_REQUEST,
    429: Category.RATE_LIMITED,
    500: Category.UPSTREAM_5XX,
    502: Category.UPSTREAM_5XX,
    503: Category.OVERLOADED,
    529: Category.OVERLOADED,
}


def _claim(judge: Claim) -> Claim:
    CLAIMS[judge.__name__] = judge
    return judge


# The order of events.


@_claim
async def a_whole_answer_ends_without_error(subject: Subject) -> None:
    """A healthy answer has content and ends normally."""
    outcome = await whole(subject, subject.script(Healthy()).model)
    assert outcome.text()


@_claim
async def text_arrives_whole(subject: Subject) -> None:
    """The text of all deltas, joined, is what the upstream said, to the letter."""
    script = subject.script(Healthy(tokens=40))
    assert (await whole(subject, script.model)).text() == script.text


@_claim
async def every_choice_finishes_once(subject: Subject) -> None:
    """Each choice that has content has exactly one finish, and no other choice has one."""
    outcome = await whole(subject, subject.script(Healthy()).model)
    assert [finish.choice for finish in outcome.of(Finish)] == [0]


@_claim
async def nothing_of_a_choice_follows_its_finish(subject: Subject) -> None:
    """Content comes before the finish of its choice."""
    outcome = await whole(subject, subject.script(Healthy()).model, n=1)
    _assert_content_before_finish(outcome)


@_claim
async def a_whole_answer_finishes_with_stop(subject: Subject) -> None:
    """A model that said all it had to say finishes with `stop`."""
    outcome = await whole(subject, subject.script(Healthy()).model)
    assert [finish.reason for finish in outcome.of(Finish)] == ["stop"]


@_claim
async def usage_is_reported_once_a_change(subject: Subject) -> None:
    """No two reports are equal, and no count ever shrinks."""
    usages = (await whole(subject, subject.script(Healthy()).model)).usages
    for earlier, later in pairwise(usages):
        assert earlier != later
        assert earlier.input_tokens <= later.input_tokens
        assert earlier.output_tokens <= later.output_tokens


@_claim
async def the_last_usage_comes_after_the_last_content(subject: Subject) -> None:
    """What a whole answer cost is known when it ends, and not before."""
    outcome = await whole(subject, subject.script(Healthy()).model)
    assert outcome.usages, "no usage was reported"
    assert outcome.usages[-1].output_tokens > 0
    at = max(index for index, event in enumerate(outcome.events) if isinstance(event, UsageReport))
    assert not any(isinstance(event, SEMANTIC) for event in outcome.events[at:])


@_claim
async def batches_never_split_a_chunk(subject: Subject) -> None:
    """An event that says that more of its chunk follows is never the last one of its batch."""
    outcome = await whole(subject, subject.script(Healthy(tokens=100)).model)
    assert not any(batch[-1].more for batch in outcome.batches if batch)


@_claim
async def batches_are_lists_of_source_events(subject: Subject) -> None:
    """A batch is a list, and holds nothing that is the pool's, an agent's or a control step's to say."""
    outcome = await whole(subject, subject.script(Healthy()).model)
    theirs = tuple(kind for kind in get_args(SourceEvent) if kind not in (Leg, Progress))
    for batch in outcome.batches:
        assert isinstance(batch, list)
        assert all(isinstance(event, theirs) for event in batch), batch


@_claim
async def events_can_be_stored(subject: Subject) -> None:
    """Every batch comes back from the journal's format as it was."""
    for upstream in (Healthy(), CallsTools()):
        outcome = await whole(subject, subject.script(upstream).model, tools=(WEATHER,))
        for batch in outcome.batches:
            assert decode(encode(list(batch))) == batch


@_claim
async def any_split_of_the_bytes_gives_the_same_events(subject: Subject) -> None:
    """How the upstream's bytes fall into reads changes batches, never events."""
    scripts = [subject.script(Healthy(write_size=size)) for size in (None, 1, 2, 7, 64)]
    answers = [
        [event for event in (await whole(subject, script.model)).events if not _is_note(event)] for script in scripts
    ]
    assert all(answer == answers[0] for answer in answers)


# What the request asks for.


@_claim
async def the_limit_of_tokens_is_obeyed(subject: Subject) -> None:
    """An answer longer than `max_output_tokens` ends there and says `length`; the usage agrees."""
    outcome = await whole(subject, subject.script(Healthy(tokens=30)).model, max_output_tokens=5)
    assert len(outcome.of(Text)) <= 5
    assert [finish.reason for finish in outcome.of(Finish)] == ["length"]
    assert outcome.usages[-1].output_tokens == 5


@_claim
async def stop_strings_are_obeyed(subject: Subject) -> None:
    """The answer ends before the first stop string, also one that spans tokens, and says `stop`."""
    model = subject.script(Healthy(tokens=30)).model
    full = (await whole(subject, model)).text()
    middle = len(full) // 2
    stop = full[middle - 4 : middle + 4]
    outcome = await whole(subject, model, stop=(stop, "never said"))
    assert outcome.text() == full[: full.index(stop)]
    assert [finish.reason for finish in outcome.of(Finish)] == ["stop"]


@_claim
async def several_choices_are_told_apart(subject: Subject) -> None:
    """`n` choices are numbered from 0, and each has its own text and its own finish."""
    outcome = await whole(subject, subject.script(Healthy()).model, n=3)
    assert sorted(finish.choice for finish in outcome.of(Finish)) == [0, 1, 2]
    assert len({outcome.text(choice) for choice in range(3)}) == 3
    _assert_content_before_finish(outcome)


@_claim
async def a_tool_call_arrives_whole(subject: Subject) -> None:
    """The first fragment alone has id and name, the arguments join to JSON, and the finish is `tool_calls`."""
    outcome = await whole(subject, subject.script(CallsTools()).model, tools=(WEATHER,))
    _assert_calls(outcome, 1)


@_claim
async def parallel_tool_calls_stay_apart(subject: Subject) -> None:
    """The calls of one turn are numbered densely from 0 and never share a fragment."""
    outcome = await whole(subject, subject.script(CallsTools(calls=3)).model, tools=(WEATHER,))
    _assert_calls(outcome, 3)


@_claim
async def unknown_content_is_refused_before_a_byte_is_sent(subject: Subject) -> None:
    """What this wire cannot say is `untranslatable`, an error that the upstream never hears of."""
    model = subject.script(Healthy()).model
    hologram = Message(role="user", parts=(OpaquePart(kind="hologram", data={"depth": 3}),))
    outcome = await ask(subject, model, messages=(hologram,))
    assert outcome.error is not None
    assert outcome.error.category is Category.UNTRANSLATABLE
    assert not outcome.entered
    assert subject.asked() == 0
    await whole(subject, model)
    assert subject.asked() > 0, "the subject does not count requests"


@_claim
async def the_request_is_left_as_it_was(subject: Subject) -> None:
    """Fallback sends the same request elsewhere: a provider changes nothing in it."""
    asked = request(tools=(WEATHER,), body={"metadata": {"a": [1]}}, stop=("zzz",))
    before = copy.deepcopy(asked)
    async with subject.provider.stream(asked, subject.script(Healthy()).model) as batches:
        async for _ in batches:
            pass
    assert asked == before


# Failures.


@_claim
async def a_cut_is_a_broken_stream(subject: Subject) -> None:
    """What arrived before the connection broke is delivered; then comes `stream_broken`, and no finish."""
    outcome = await ask(subject, subject.script(CutAfter(tokens=5)).model)
    assert outcome.entered
    assert len(outcome.of(Text)) == 5
    assert not outcome.of(Finish)
    _assert_failed(outcome, Category.STREAM_BROKEN)


@_claim
async def an_end_without_terminal_marker_is_a_broken_stream(subject: Subject) -> None:
    """A body that ends too early, however tidily, is never taken for success."""
    outcome = await ask(subject, subject.script(NoEnd()).model)
    assert outcome.text()
    _assert_failed(outcome, Category.STREAM_BROKEN)


@_claim
async def garbage_is_a_protocol_error(subject: Subject) -> None:
    """Three malformed events in a row end the answer as `protocol`, without content."""
    outcome = await ask(subject, subject.script(Garbage()).model)
    assert not any(isinstance(event, SEMANTIC) for event in outcome.events)
    _assert_failed(outcome, Category.PROTOCOL)


@_claim
async def every_error_status_has_its_category(subject: Subject) -> None:
    """A status is raised on entering, as the category that pool.md section 2 gives it."""
    for status, category in STATUSES.items():
        outcome = await ask(subject, subject.script(Refuses(status=status)).model)
        assert not outcome.entered, f"{status} was entered"
        assert outcome.error is not None, f"{status} was no error"
        assert outcome.error.category is category, f"{status} is {outcome.error.category}, not {category}"
    await idle(subject)


@_claim
async def a_rate_limit_says_when_to_come_back(subject: Subject) -> None:
    """The upstream's Retry-After is passed on in seconds."""
    outcome = await ask(subject, subject.script(Refuses(status=429)).model)
    assert outcome.error is not None
    assert outcome.error.failure.retry_after_s == pytest.approx(1)


@_claim
async def nobody_listening_is_a_failed_connect(subject: Subject) -> None:
    """A refused connection is `connect`, raised on entering."""
    outcome = await ask(subject, subject.script(Unreachable()).model)
    assert not outcome.entered
    _assert_failed(outcome, Category.CONNECT)


@_claim
async def failures_keep_the_secret(subject: Subject) -> None:
    """No failure shows the key, in whatever way it is printed."""
    assert subject.secret
    for upstream in (Refuses(status=401), Refuses(status=500), CutAfter(tokens=2), Garbage(), Unreachable()):
        error = (await ask(subject, subject.script(upstream).model)).error
        assert error is not None
        assert subject.secret not in f"{error} {error!r} {error.failure} {error.__cause__!r} {error.__context__!r}"


@_claim
async def after_any_failure_the_provider_works(subject: Subject) -> None:
    """A failed call leaves nothing behind that the next one would meet."""
    for upstream in (CutAfter(tokens=2), NoEnd(), Garbage(), Refuses(status=500)):
        assert (await ask(subject, subject.script(upstream).model)).error is not None
        await whole(subject, subject.script(Healthy()).model)
    await idle(subject)


# Leaving and cancelling.


@_claim
async def leaving_early_is_clean(subject: Subject) -> None:
    """A reader may leave after any batch, without an error; the upstream sees the exchange end."""
    for upstream in (Healthy(tokens=200), StallAfter(tokens=3)):
        async with subject.provider.stream(request(), subject.script(upstream).model) as batches:
            async for batch in batches:
                if any(isinstance(event, Text) for event in batch):
                    break
        await idle(subject)


@_claim
async def leaving_unread_is_clean(subject: Subject) -> None:
    """A reader may enter and leave without a read."""
    for upstream in (Healthy(), StallAfter(tokens=0), CutAfter(tokens=0)):
        async with subject.provider.stream(request(), subject.script(upstream).model):
            pass
        await idle(subject)


@_claim
async def an_error_of_the_reader_passes_unchanged(subject: Subject) -> None:
    """What the reader raises inside the context is neither swallowed nor wrapped, and the exchange ends."""
    mine = LookupError("mine")

    async def read() -> None:
        async with subject.provider.stream(request(), subject.script(Healthy(tokens=200)).model) as batches:
            async for _ in batches:
                raise mine

    with pytest.raises(LookupError) as caught:
        await read()
    assert caught.value is mine
    await idle(subject)


@_claim
async def a_stalled_answer_can_be_cancelled(subject: Subject) -> None:
    """Cancelling a reader that waits for the next token ends it at once, and the upstream sees the exchange end."""
    outcome = Outcome()

    async def read() -> None:
        async with subject.provider.stream(request(), subject.script(StallAfter(tokens=3)).model) as batches:
            async for batch in batches:
                outcome.batches.append(batch)

    task = asyncio.ensure_future(read())
    await until(lambda: task.done() or len(outcome.of(Text)) == 3, "three tokens before the stall")
    assert not task.done(), "the answer ended where it should stall"
    assert subject.busy() > 0, "the subject does not count open exchanges"
    await _assert_cancels(task)
    await idle(subject)


@_claim
async def waiting_for_the_head_can_be_cancelled(subject: Subject) -> None:
    """Cancelling a call that was never answered ends it at once, and the upstream sees the exchange end."""
    before = subject.asked()
    task = asyncio.ensure_future(ask(subject, subject.script(SilentHead()).model))
    await until(lambda: task.done() or subject.asked() > before, "the request at the upstream")
    await _assert_cancels(task)
    await idle(subject)


@_claim
async def cancelling_at_any_moment_leaves_nothing(subject: Subject) -> None:
    """Cancelled after any number of the loop's turns, a call ends as cancelled or done, and nothing of it goes on."""
    model = subject.script(Healthy(tokens=80)).model
    tasks = asyncio.all_tasks()
    for turns in range(60):
        task = asyncio.ensure_future(ask(subject, model))
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.done():
            assert task.result().error is None
            break
        await _assert_cancels(task)
        await idle(subject)
        await until(lambda: asyncio.all_tasks() <= tasks, "the end of the call's tasks")
    await whole(subject, model)


@_claim
async def calls_are_independent(subject: Subject) -> None:
    """Eight calls side by side give what each gives alone, whatever happens to their neighbours."""
    healthy = subject.script(Healthy(tokens=40)).model
    alone = _said(await whole(subject, healthy))
    models = [healthy, subject.script(CutAfter(tokens=3)).model, healthy, subject.script(Refuses(status=500)).model] * 2
    outcomes = await asyncio.gather(*(ask(subject, model) for model in models))
    for model, outcome in zip(models, outcomes, strict=True):
        assert (outcome.error is None) == (model == healthy), (model, outcome.error)
        assert model != healthy or _said(outcome) == alone
    await idle(subject)


@_claim
async def closing_twice_is_harmless(subject: Subject) -> None:
    """An unused provider, a used one and a closed one can be closed."""
    await whole(subject, subject.script(Healthy()).model)
    await subject.provider.aclose()
    await subject.provider.aclose()


def _said(outcome: Outcome) -> tuple[str, list[Finish]]:
    return outcome.text(), outcome.of(Finish)


def _is_note(event: SourceEvent) -> bool:
    """An extra may hold the upstream's own ids and times, which differ from call to call."""
    return isinstance(event, Extra)


def _assert_content_before_finish(outcome: Outcome) -> None:
    done: set[int] = set()
    for event in outcome.events:
        if isinstance(event, SEMANTIC):
            assert event.choice not in done, f"content after the finish of choice {event.choice}"
        elif isinstance(event, Finish):
            done.add(event.choice)


def _assert_calls(outcome: Outcome, count: int) -> None:
    fragments: list[ToolCall] = outcome.of(ToolCall)
    calls: dict[int, list[ToolCall]] = {}
    for fragment in fragments:
        calls.setdefault(fragment.index, []).append(fragment)
    assert list(calls) == list(range(count))
    assert len({call[0].id for call in calls.values()}) == count
    for first, *others in calls.values():
        assert first.id
        assert first.name
        assert all(fragment.id is None and fragment.name is None for fragment in others)
        assert isinstance(json.loads("".join(part.arguments for part in (first, *others))), dict)
    assert [finish.reason for finish in outcome.of(Finish)] == ["tool_calls"]
    _assert_content_before_finish(outcome)


def _assert_failed(outcome: Outcome, category: Category) -> None:
    assert isinstance(outcome.error, ProviderError), "it ended as if all were well"
    assert outcome.error.category is category


async def _assert_cancels(task: "asyncio.Future[Any]") -> None:
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=PATIENCE_S)
    assert done, "the cancelled call goes on"
    assert task.cancelled(), "the call swallowed its cancellation"
