"""The meter of one stream: what passes, what is cut, and what it says it took."""

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.events import Extra, Finish, Reasoning, Text, ToolCall, UsageReport
from gateway.core.tokens import Counted, Ratio, estimate_output_tokens
from gateway.core.usage import Usage
from gateway.pool.budget import NANO
from gateway.pool.meter import UNLIMITED, Meter, Spent, safe
from gateway.upstream.contract import Batch
from tests.unit.pool.budget_world import EveryEventIsAToken, FourBytesAToken, leg


def allowed(tokens: int, account: EveryEventIsAToken | None = None, *, usd: float | None = None) -> Meter:
    """A meter of the first leg."""
    meter = Meter(account or FourBytesAToken(), counts_usd=usd is not None)
    meter.allow(tokens, UNLIMITED if usd is None else round(usd * NANO), 0)
    assert meter.passes([leg()])
    return meter


def text_of(batch: Batch) -> str:
    """All text of a batch."""
    return "".join(event.text for event in batch if isinstance(event, (Text, Reasoning)))


def test_a_delta_is_cut_at_the_limit() -> None:
    """Of the delta that crosses the limit passes what fits, in whole code points, and nothing after it."""
    meter = allowed(10 + 2)
    batch: Batch = [Text(0, "ab"), Text(0, "ééé…"), Text(0, "x"), Finish(0, "stop")]
    assert not meter.passes(batch)
    assert meter.cut(batch) == [Text(0, "ab"), Text(0, "ééé")]
    assert meter.stopped
    assert meter.spent() == Spent(12)


def test_what_does_not_fit_at_all_is_left_out() -> None:
    """At the very limit nothing passes, not even a character."""
    meter = allowed(11)
    assert meter.passes([Text(0, "abcde")])
    assert not meter.passes([Text(0, "f")])
    assert meter.missing == 1
    assert meter.cut([Text(0, "f")]) == []


def test_a_fragment_of_a_call_is_not_cut() -> None:
    """Half a fragment of a tool call is of no use to anybody."""
    meter = allowed(11)
    batch: Batch = [ToolCall(0, 0, '{"a": 1}', "c", "f")]
    assert not meter.passes(batch)
    assert meter.cut(batch) == []


def test_a_cut_chunk_ends() -> None:
    """The last event that passes ends its chunk, and what belonged to the delta that was left out goes with it."""
    meter = allowed(11)
    batch: Batch = [Reasoning(0, "abcde", more=True), Extra("openai_chat", {}, 0, more=True), Text(0, "f")]
    assert meter.cut(batch) == [Reasoning(0, "abcde")]


def test_the_providers_own_word_passes_a_cut() -> None:
    """A usage report in the same read as the cut tells what is billed."""
    meter = allowed(11)
    report = UsageReport(Usage(input_tokens=10, output_tokens=7))
    assert meter.cut([Text(0, "abcdefgh"), Finish(0, "stop", more=True), report]) == [Text(0, "abcde"), report]
    assert meter.spent() == Spent(17)


def test_an_end_is_never_cut() -> None:
    """An answer that fits is whole, though the provider bills more than was seen."""
    meter = allowed(11)
    assert meter.passes([Text(0, "abcd")])
    assert meter.passes([Finish(0, "stop"), UsageReport(Usage(input_tokens=10, output_tokens=500))])
    assert meter.spent() == Spent(510)
    assert not meter.stopped


def test_a_prompt_that_was_larger_leaves_less() -> None:
    """The provider's figure for the prompt replaces the estimate as soon as it is there."""
    meter = allowed(20)
    assert meter.passes([UsageReport(Usage(input_tokens=19, output_tokens=0))])
    assert meter.passes([Text(0, "abcde")])
    assert not meter.passes([Text(0, "f")])


def test_another_leg_pays_its_prompt() -> None:
    """After a fallback both prompts count, and the price is that of whoever answers."""
    account = EveryEventIsAToken(usd=0.001, usd_of={"dear": 0.01})
    meter = allowed(1000, account, usd=1.0)
    assert meter.passes([Text(0, "x")] * 5)
    assert meter.spent() == Spent(15, NANO * 15 // 1000)
    assert meter.passes([leg(2, "dear"), Text(0, "x")])
    assert meter.spent() == Spent(26, NANO * (15 + 110) // 1000)
    assert not meter.passes([Text(0, "x")] * 88)
    assert meter.passes([Text(0, "x")] * 87)


def test_more_is_asked_for_once_and_in_time() -> None:
    """Running low is said once, before the limit, and again after more was allowed."""
    meter = Meter(EveryEventIsAToken(), counts_usd=False)
    calls: list[int] = []
    meter.on_low = lambda: calls.append(meter.spent().tokens)
    meter.allow(10 + 512, UNLIMITED, 256)
    while meter.passes([Text(0, "word ")]):
        pass
    assert len(calls) == 1
    assert 266 <= calls[0] <= 300
    meter.allow(10 + 1024, UNLIMITED, 256)
    while meter.passes([Text(0, "word ")]):
        pass
    assert len(calls) == 2


_texts = st.lists(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=5), max_size=30)


@given(texts=_texts, limit=st.integers(0, 120), every=st.booleans())
def test_what_passes_is_the_longest_beginning_that_fits(texts: list[list[str]], limit: int, every: bool) -> None:
    """In whatever pieces it is read: the text passed is a beginning, fits the limit, and a character more would not."""
    account = EveryEventIsAToken() if every else FourBytesAToken()
    meter = allowed(10 + limit, account)
    passed, whole = "", "".join(text for piece in texts for text in piece)
    for piece in texts:
        batch: Batch = [Text(0, text) for text in piece]
        if not meter.passes(batch):
            batch = meter.cut(batch)
        passed += text_of(batch)
        if meter.stopped:
            break
    assert whole.startswith(passed)
    assert meter.spent().tokens <= 10 + limit
    if passed != whole:
        size = len((passed + whole[len(passed)]).encode("utf-8", "surrogatepass"))
        assert every or max(1, round(size / 4)) > limit


@given(texts=_texts, limit=st.integers(1, 120))
def test_what_does_not_pass_is_not_counted(texts: list[list[str]], limit: int) -> None:
    """A batch that must wait leaves the meter as it was, and passes when more is allowed."""
    meter = allowed(10 + limit)
    for piece in texts:
        before, batch = meter.spent(), [Text(0, text) for text in piece]
        if not meter.passes([*batch]):
            assert meter.spent() == before
            meter.allow(before.tokens + meter.missing + 10_000, UNLIMITED, 0)
            assert meter.passes([*batch])
    size = sum(len(text.encode("utf-8", "surrogatepass")) for piece in texts for text in piece)
    assert meter.spent() == Spent(10 + (max(1, round(size / 4)) if size else 0))


@example(  # from counting by events back to counting by bytes
    sizes=[(3, 1), (1, 1)],
    target=2,
    ratio=Ratio(bytes_per_token=1.47, events_per_token=1.14, event_bytes=(2.5, 6.5)),
)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 12), st.integers(1, 40)), max_size=40),
    target=st.integers(0, 400),
    ratio=st.builds(
        Ratio,
        bytes_per_token=st.floats(0.5, 16),
        events_per_token=st.none() | st.floats(0.8, 1.2),
        event_bytes=st.sampled_from([(2.5, 6.5), (1.5, 9.0)]),
    ),
)
def test_what_goes_by_unlooked_cannot_reach_the_target(sizes: list[tuple[int, int]], target: int, ratio: Ratio) -> None:
    """From wherever a look was, within the bounds that it set the estimate stays within the target, at every step."""
    size = events = 0
    bounds = (-1, -1)
    for length, count in sizes:
        for _ in range(count):
            size, events = size + length, events + 1
            output = estimate_output_tokens(Counted(size=size, events=events), ratio)
            if size <= bounds[0] and events <= bounds[1]:
                assert output <= max(target, 1)
            elif output > target:
                return
            else:
                bounds = safe(size, events, 0, target, ratio)
