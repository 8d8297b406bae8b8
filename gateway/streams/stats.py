"""What is measured of one stream while it runs: constant memory, a few additions per read.

Percentiles come from a histogram with bounds a factor of 1.25 apart, and are its upper bounds: at most 25 % too high.
"""

from bisect import bisect_right
from typing import Any

from gateway.core.events import Extra, Finish, Leg, Reasoning, Refusal, Text, ToolCall, UsageReport
from gateway.core.usage import Usage
from gateway.upstream.contract import Batch

STALL_S = 2.0
"""A gap between two reads of the upstream that counts as a stall, seconds."""

# 0.1 ms to about 5 minutes.
BOUNDS_S: tuple[float, ...] = tuple(0.0001 * 1.25**step for step in range(68))


class Stats:
    """Counters of one stream. Times are monotonic seconds."""

    __slots__ = (
        "buckets",
        "characters",
        "content_events",
        "created",
        "events",
        "finishes",
        "first_content",
        "gap_max",
        "last_batch",
        "legs",
        "paused_s",
        "reads",
        "stalls",
        "usage",
    )

    def __init__(self, created: float) -> None:
        self.created = created
        self.first_content: float | None = None
        self.last_batch = created
        self.events = self.reads = self.characters = self.content_events = self.stalls = 0
        self.gap_max = self.paused_s = 0.0
        self.buckets: list[int] | None = None
        self.legs: list[Leg] = []
        self.usage: Usage | None = None
        self.finishes: list[Finish] = []

    def observe(self, batch: Batch, now: float) -> None:
        """Count one read of the upstream."""
        self.events += len(batch)
        for event in batch:
            kind = type(event)
            if kind is Text:
                self.characters += len(event.text)  # type: ignore[union-attr]
                self.content_events += 1
            elif kind is not Extra:
                self._rarer(event)
        if self.first_content is not None:
            gap = now - self.last_batch
            if self.buckets is None:
                self.buckets = [0] * (len(BOUNDS_S) + 1)
            self.buckets[bisect_right(BOUNDS_S, gap)] += 1
            self.reads += 1
            if gap > self.gap_max:  # noqa: PLR1730  half the cost of max(), once per read
                self.gap_max = gap
            if gap >= STALL_S:
                self.stalls += 1
        elif self.content_events:
            self.first_content = now
        self.last_batch = now

    def _rarer(self, event: Any) -> None:
        match event:
            case Reasoning(text=text) | Refusal(text=text) | ToolCall(arguments=text):
                self.characters += len(text)
                self.content_events += 1
            case UsageReport(usage=usage):
                self.usage = usage
            case Finish():
                self.finishes.append(event)
            case Leg():
                self.legs.append(event)
            case _:
                pass

    def percentile_s(self, share: float) -> float | None:
        """The upper bound of the bucket that holds the given share of gaps; None without two reads."""
        if self.buckets is None:
            return None
        wanted, seen = share * self.reads, 0
        for bound, count in zip(BOUNDS_S, self.buckets, strict=False):
            seen += count
            if seen >= wanted:
                return min(bound, self.gap_max)
        return self.gap_max

    def effective_usage(self) -> Usage:
        """The provider's usage, or an estimate from what was seen (about four characters a token)."""
        if self.usage is not None:
            return self.usage
        return Usage(output_tokens=max(self.content_events, self.characters // 4), estimated=True)

    def facts(self, now: float, attempts: list[str]) -> dict[str, Any]:
        """The part of a status object that only the owner knows."""
        ttft_ms = _ms(None if self.first_content is None else self.first_content - self.created)
        streaming_s = 0.0 if self.first_content is None else self.last_batch - self.first_content
        usage = self.effective_usage()
        rate = None if streaming_s <= 0 else round(usage.output_tokens / streaming_s, 1)
        return {
            "attempts": list(attempts),
            "legs": [
                {
                    "leg": leg.leg,
                    "endpoint": leg.endpoint,
                    "provider": leg.provider,
                    "strategy": leg.strategy,
                    "ttft_ms": ttft_ms,
                }
                for leg in self.legs
            ],
            "usage": {
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cached_tokens": usage.cached_tokens,
                "reasoning_tokens": usage.reasoning_tokens,
                "estimated": usage.estimated,
            },
            "metrics": {
                "ttft_ms": ttft_ms,
                "inter_token_ms": {
                    "p50": _ms(self.percentile_s(0.5)),
                    "p95": _ms(self.percentile_s(0.95)),
                    "max": _ms(self.gap_max if self.reads else None),
                },
                "tokens_per_s": rate,
                "stalls": self.stalls,
                "paused_ms": _ms(self.paused_s),
                "duration_ms": _ms(now - self.created),
                "events": self.events,
            },
        }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
