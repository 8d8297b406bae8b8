"""Statistics of one stream."""

import pytest

from gateway.core.events import End, Extra, Finish, Leg, Reasoning, Refusal, State, Text, ToolCall, UsageReport
from gateway.core.tokens import Counted
from gateway.core.usage import Usage
from gateway.streams.stats import Stats


def _gaps(*seconds: float) -> Stats:
    """A stream whose content came with these gaps after the first."""
    stats, now = Stats(0.0), 1.0
    stats.observe([Text(0, "a")], now)
    for gap in seconds:
        now += gap
        stats.observe([Text(0, "a")], now)
    return stats


def test_nothing_was_seen() -> None:
    """A stream without content has no times, and makes none up."""
    facts = Stats(5.0).facts(7.0, [])
    assert facts["metrics"] == {
        "ttft_ms": None,
        "inter_token_ms": {"p50": None, "p95": None, "max": None},
        "tokens_per_s": None,
        "stalls": 0,
        "paused_ms": 0.0,
        "duration_ms": 2000.0,
        "events": 0,
        "queue_ms": None,
        "wasted_tokens": 0,
        "cancel_to_close_ms": None,
    }


def test_the_first_content_counts_not_the_first_byte() -> None:
    """Time to first token ends with text, reasoning, a refusal or a tool call; not with a leg or a role chunk."""
    for content in (Text(0, "a"), Reasoning(0, "a"), Refusal(0, "a"), ToolCall(0, 0, "")):
        stats = Stats(10.0)
        stats.observe([Leg(1, "e", "p", "s", "")], 11.0)
        stats.observe([Extra("openai_chat", {"a": 1})], 12.0)
        assert stats.first_content is None
        stats.observe([content], 13.5)
        stats.observe([content], 14.5)
        assert stats.facts(20.0, [])["metrics"]["ttft_ms"] == 3500.0


def test_what_was_read_from_a_log_has_no_times() -> None:
    """Who goes on with a dead replica's stream knows what came, not when: it measures its own leg, and no more."""
    stats = Stats(0.0)
    stats.observe([Leg(1, "a", "p", "s", ""), Text(0, "x" * 420)], 6.0)
    stats.observe([Text(0, "x")], 9.0)
    stats.retold()
    stats.observe([Leg(2, "b", "p", "replay", "")], 9.0)
    for now in (10.0, 10.5):
        stats.observe([Text(0, "y")], now)
    facts = stats.facts(11.0, [])
    assert [leg["ttft_ms"] for leg in facts["legs"]] == [None, 1000.0]
    assert [facts["metrics"][name] for name in ("ttft_ms", "tokens_per_s", "stalls")] == [None, None, 0]
    assert facts["metrics"]["inter_token_ms"]["max"] == 500.0
    unheard = Stats(0.0)
    unheard.observe([Leg(1, "a", "p", "s", "")], 6.0)
    unheard.retold()
    unheard.observe([Leg(2, "b", "p", "replay", ""), Text(0, "y")], 8.0)
    assert unheard.facts(9.0, [])["metrics"]["ttft_ms"] == 8000.0


@pytest.mark.parametrize("gap", [0.0004, 0.003, 0.02, 0.13, 1.1, 9.0, 250.0])
def test_percentiles_are_close(gap: float) -> None:
    """A percentile is never below the truth, at most 25 % above it, and never above the greatest gap."""
    stats = _gaps(*[gap] * 90, *[gap * 3] * 10)
    assert gap * 0.9999 <= (stats.percentile_s(0.5) or 0) <= gap * 1.2501
    assert gap * 2.9999 <= (stats.percentile_s(0.95) or 0) <= gap * 3.0001
    assert stats.percentile_s(1.0) == pytest.approx(gap * 3, rel=1e-6)


def test_gaps_beyond_the_histogram_count() -> None:
    """A gap of an hour is the maximum and a percentile, not lost."""
    stats = _gaps(0.01, 3600.0)
    assert stats.percentile_s(0.99) == stats.gap_max == pytest.approx(3600.0)


def test_one_read_has_no_gap() -> None:
    """Percentiles need two reads."""
    assert _gaps().percentile_s(0.5) is None
    assert _gaps(0.1).percentile_s(0.5) is not None


def test_long_gaps_are_stalls() -> None:
    """Each gap of two seconds or more is one stall, in whatever order they come."""
    assert _gaps(1.99, 2.5, 2.5, 9.0, 3.0, 0.1).stalls == 4


def test_a_silence_counts_while_it_lasts() -> None:
    """A stream that never goes on has stalled, too; one that goes on after all has not stalled twice."""
    stats = _gaps(0.1)
    for silent_s in (1.9, 2.1, 60.0):
        stats.silent(silent_s)
    assert stats.stalls == 1
    stats.observe([Text(0, "a")], stats.last_batch + 61.0)
    assert stats.stalls == 1
    stats.silent(2.0)
    assert stats.stalls == 2


def test_before_the_first_content_nothing_stalls() -> None:
    """The wait for the first token is no stall."""
    stats = Stats(0.0)
    stats.observe([Leg(1, "e", "p", "s", "")], 1.0)
    stats.silent(50.0)
    stats.observe([Text(0, "a")], 60.0)
    assert (stats.stalls, stats.reads) == (0, 0)


def test_usage_is_the_providers_or_an_estimate() -> None:
    """A finished leg took what the provider reported last; one without a report what its bytes say."""
    stats = Stats(0.0)
    stats.observe([Text(0, "x" * 60), Reasoning(0, "y" * 20), ToolCall(0, 0, "z" * 3, name="f")], 1.0)
    assert stats.effective_usage() == Usage(output_tokens=round(84 / 4.2) + 13, estimated=True)
    stats.observe([Finish(0, "stop")], 2.0)
    for tokens in (3, 8):
        stats.observe([UsageReport(Usage(input_tokens=2, output_tokens=tokens))], 2.0)
    assert stats.effective_usage() == Usage(input_tokens=2, output_tokens=8)


def test_what_is_reported_on_the_way_is_a_lower_bound() -> None:
    """A leg that was cut has the prompt that the provider reported, and no fewer tokens than were counted since."""
    stats = Stats(0.0)
    stats.observe([UsageReport(Usage(input_tokens=25, output_tokens=1, cached_tokens=5))], 1.0)
    stats.observe([Text(0, "x" * 420)], 2.0)
    assert stats.effective_usage() == Usage(input_tokens=25, output_tokens=100, cached_tokens=5, estimated=True)
    stats.observe([UsageReport(Usage(input_tokens=25, output_tokens=160))], 3.0)
    assert stats.effective_usage() == Usage(input_tokens=25, output_tokens=160, estimated=True)


def test_a_completed_leg_took_what_was_reported_last() -> None:
    """Once the provider has said that the answer is whole, its last report counts even if content came behind it."""
    stats = Stats(0.0)
    stats.observe([UsageReport(Usage(input_tokens=2, output_tokens=3)), Text(0, "x" * 400)], 1.0)
    stats.completed()
    assert stats.effective_usage() == Usage(input_tokens=2, output_tokens=3)


def test_every_kind_of_content_is_counted() -> None:
    """Text, reasoning, refusals, tool names and arguments count by their bytes in UTF-8, whatever the script."""
    stats = Stats(0.0)
    stats.observe([Text(0, "é你😀"), Refusal(0, "no"), ToolCall(0, 0, "{}", "id", "näme"), ToolCall(0, 0, "{}")], 1.0)
    stats.observe([Reasoning(0, "hm"), Extra("anthropic_messages", {"citation": 1}, content=True)], 1.0)
    (tally,) = stats.tallies()
    assert tally.counted == Counted(size=9 + 2 + 7 + 2 + 2, events=5, calls=1, reasoning=2, opaque=1)


def test_each_leg_is_counted_by_itself() -> None:
    """A second leg begins from zero, the first keeps what it took, and the stream took both."""
    stats = Stats(0.0)
    stats.observe([Leg(1, "a", "p", "s", ""), Text(0, "x" * 420)], 1.0)
    stats.observe([Leg(2, "b", "p", "s", ""), Text(0, "y" * 42)], 3.0)
    stats.observe([Finish(0, "stop"), UsageReport(Usage(input_tokens=7, output_tokens=11, reasoning_tokens=4))], 4.0)
    first, second = stats.tallies()
    assert (first.usage, first.finished) == (Usage(output_tokens=100, estimated=True), False)
    assert (second.usage.output_tokens, second.finished, second.ttft_ms) == (11, True, 2000.0)
    assert stats.effective_usage() == Usage(input_tokens=7, output_tokens=111, reasoning_tokens=4, estimated=True)
    assert stats.events == 6
    assert stats.facts(5.0, [], End(State.COMPLETED))["legs"][0]["end"] == "replaced"


def test_what_a_cancel_drops_is_wasted() -> None:
    """Tokens that came while nothing was served are wasted if a cancel ends it, by their share of the bytes."""
    stats = Stats(0.0)
    stats.observe([Leg(1, "a", "p", "s", ""), Text(0, "x" * 420)], 1.0)
    stats.held_back()
    stats.observe([Text(0, "x" * 420)], 2.0)
    stats.held_back()
    cancelled = End(State.CANCELLED, "control")
    assert stats.facts(3.0, [], cancelled)["metrics"]["wasted_tokens"] == 100
    assert stats.facts(3.0, [])["metrics"]["wasted_tokens"] == 0
    stats.served_again()
    assert stats.facts(3.0, [], cancelled)["metrics"]["wasted_tokens"] == 0


def test_facts_show_what_was_seen() -> None:
    """Legs, attempts, usage and rates are in the facts."""
    stats = Stats(0.0)
    stats.observe([Leg(1, "gpu-1", "openai_chat", "first", "")], 0.2)
    stats.observe([Text(0, "a")], 0.5)
    stats.observe([Text(0, "b"), Finish(0, "stop"), UsageReport(Usage(input_tokens=1, output_tokens=20))], 2.5)
    stats.paused_s = 0.25
    facts = stats.facts(3.0, ["gpu-1: ok"])
    assert facts["attempts"] == ["gpu-1: ok"]
    (leg,) = facts["legs"]
    assert (leg["leg"], leg["endpoint"], leg["provider"], leg["strategy"]) == (1, "gpu-1", "openai_chat", "first")
    assert (leg["ttft_ms"], leg["usage"], leg["cost_usd"], leg["end"]) == (500.0, facts["usage"], None, None)
    assert facts["usage"]["output_tokens"] == 20
    assert facts["usage"]["estimated"] is False
    metrics = facts["metrics"]
    assert (metrics["tokens_per_s"], metrics["paused_ms"], metrics["stalls"]) == (10.0, 250.0, 1)
    assert (metrics["duration_ms"], metrics["events"]) == (3000.0, 5)
    assert [finish.reason for finish in stats.finishes] == ["stop"]
