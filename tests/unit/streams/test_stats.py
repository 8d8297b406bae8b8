"""Statistics of one stream."""

import pytest

from gateway.core.events import Extra, Finish, Leg, Reasoning, Refusal, Text, ToolCall, UsageReport
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


def test_before_the_first_content_nothing_stalls() -> None:
    """The wait for the first token is no stall."""
    stats = Stats(0.0)
    stats.observe([Leg(1, "e", "p", "s", "")], 1.0)
    stats.observe([Text(0, "a")], 60.0)
    assert (stats.stalls, stats.reads) == (0, 0)


def test_usage_is_the_providers_or_an_estimate() -> None:
    """The provider's last report counts; without one there are about four characters a token, one an event at least."""
    stats = Stats(0.0)
    stats.observe([Text(0, "x" * 30), Reasoning(0, "y" * 9), ToolCall(0, 0, "z")], 1.0)
    assert stats.effective_usage() == Usage(output_tokens=10, estimated=True)
    few = Stats(0.0)
    few.observe([Text(0, "a"), Text(0, "b")], 1.0)
    assert few.effective_usage().output_tokens == 2
    for tokens in (3, 8):
        stats.observe([UsageReport(Usage(input_tokens=2, output_tokens=tokens))], 2.0)
    assert stats.effective_usage() == Usage(input_tokens=2, output_tokens=8)


def test_facts_show_what_was_seen() -> None:
    """Legs, attempts, usage and rates are in the facts."""
    stats = Stats(0.0)
    stats.observe([Leg(1, "gpu-1", "openai_chat", "first", "")], 0.2)
    stats.observe([Text(0, "a")], 0.5)
    stats.observe([Text(0, "b"), Finish(0, "stop"), UsageReport(Usage(input_tokens=1, output_tokens=20))], 2.5)
    stats.paused_s = 0.25
    facts = stats.facts(3.0, ["gpu-1: ok"])
    assert facts["attempts"] == ["gpu-1: ok"]
    assert facts["legs"] == [
        {"leg": 1, "endpoint": "gpu-1", "provider": "openai_chat", "strategy": "first", "ttft_ms": 500.0}
    ]
    assert facts["usage"]["output_tokens"] == 20
    assert facts["usage"]["estimated"] is False
    metrics = facts["metrics"]
    assert (metrics["tokens_per_s"], metrics["paused_ms"], metrics["stalls"]) == (10.0, 250.0, 1)
    assert (metrics["duration_ms"], metrics["events"]) == (3000.0, 5)
    assert [finish.reason for finish in stats.finishes] == ["stop"]
