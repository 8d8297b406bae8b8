"""What is measured of one stream while it runs: constant memory, a few additions per read.

Percentiles come from a histogram with bounds a factor of 1.25 apart, and are its upper bounds: at most 25 % too high.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.core.events import (
    OUTRUN,
    RESTART,
    Extra,
    Finish,
    Leg,
    Reasoning,
    Refusal,
    State,
    Text,
    ToolCall,
    UsageReport,
)
from gateway.core.tokens import Counted, utf8_length
from gateway.core.usage import Usage
from gateway.streams.status import left_word, leg_object, usage_object
from gateway.streams.tally import NO_ACCOUNT, Account, Ledger, Tally, total_cost_usd, total_usage

if TYPE_CHECKING:
    from gateway.core.events import End
    from gateway.upstream.contract import Batch

STALL_S = 2.0
"""A gap between two reads of the upstream that counts as a stall, seconds."""

_FROM_THE_START = frozenset({RESTART, "replay"})
"""Strategies of legs that say all of the answer."""

# 0.1 ms to about 5 minutes.
BOUNDS_S: tuple[float, ...] = tuple(0.0001 * 1.25**step for step in range(68))


class Stats:
    """Counters of one stream. Times are monotonic seconds.

    `size` (UTF-8 bytes of content), `content_events`, `calls`, `thought`, `opaque` and `usage` are those of the leg
    that runs now; `silent_events` are all other events of the stream. A usage report is the last word on a leg if it
    has finished and nothing came after the report; otherwise it is a lower bound, because some vendors report the
    prompt first and count on.
    """

    __slots__ = (
        "account",
        "begun",
        "buckets",
        "calls",
        "cancel_to_close_s",
        "content_events",
        "created",
        "dropped_from",
        "earlier",
        "finishes",
        "first_content",
        "gap_max",
        "last_batch",
        "ledger",
        "leg",
        "leg_content",
        "leg_finished",
        "opaque",
        "opened",
        "paused_s",
        "reported_at",
        "silent_events",
        "size",
        "stalled_from",
        "stalls",
        "thought",
        "usage",
    )

    def __init__(self, created: float) -> None:
        self.account: Account = NO_ACCOUNT
        self.ledger: Ledger | None = None
        self.created = self.last_batch = created
        self.opened: float | None = None
        self.first_content: float | None = None
        self.cancel_to_close_s: float | None = None
        self.stalls = self.silent_events = self.content_events = 0
        self.gap_max = self.paused_s = 0.0
        self.stalled_from = float("-inf")
        self.buckets: list[int] = []
        self.finishes: list[Finish] = []
        self.earlier: tuple[Tally, ...] = ()
        self.dropped_from: tuple[int, int] | None = None
        self._begin(None, created)

    def _begin(self, leg: Leg | None, begun: float) -> None:
        """Count from zero for a leg."""
        self.silent_events += self.content_events  # of the leg before
        self.leg, self.begun = leg, begun
        self.size = self.content_events = self.calls = self.thought = self.opaque = 0
        self.usage: Usage | None = None
        self.leg_content: float | None = None
        self.leg_finished = False
        self.reported_at = -1

    def observe(self, batch: Batch, now: float) -> None:
        """Count one read of the upstream."""
        size = count = 0  # locals cost a third of attributes
        for event in batch:
            kind = type(event)
            if kind is Text:
                text = event.text  # type: ignore[union-attr]
                size += len(text) if text.isascii() else utf8_length(text)
                count += 1
            elif kind is not Extra:
                self.size += size
                self.content_events += count
                size = count = 0
                self._rarer(event)
            else:
                self.silent_events += 1
                self.opaque += event.content and not event.more  # type: ignore[union-attr]
        self.size += size
        self.content_events += count
        if self.leg_content is not None:
            gap = now - self.last_batch
            self.buckets[bisect_right(BOUNDS_S, gap)] += 1
            if gap > self.gap_max:  # noqa: PLR1730  half the cost of max(), once per read
                self.gap_max = gap
            if gap >= STALL_S:
                self.silent(gap)
        elif self.content_events or self.opaque:
            self.leg_content = now
            if not self.buckets:
                self.first_content = now
                self.buckets = [0] * (len(BOUNDS_S) + 1)
        self.last_batch = now

    def silent(self, seconds: float) -> None:
        """The upstream has been silent for so long since its last read; each silence is one stall at most."""
        if seconds >= STALL_S and self.leg_content is not None and self.stalled_from != self.last_batch:
            self.stalled_from = self.last_batch
            self.stalls += 1

    def _rarer(self, event: Any) -> None:
        self.silent_events += 1
        match event:
            case Reasoning(text=text):
                self.thought += utf8_length(text)
                self._count(text)
            case Refusal(text=text):
                self._count(text)
            case ToolCall(arguments=arguments, name=name):
                self.calls += name is not None
                self._count(arguments if name is None else name + arguments)
            case UsageReport(usage=usage, billed=billed):
                self.usage, self.reported_at = billed or usage, self.content_events
            case Finish():
                self.finishes.append(event)
                self.leg_finished = True
            case Leg():
                if self.leg is not None:
                    self.earlier = (*self.earlier, self._tally())
                if event.strategy == RESTART:
                    self.finishes.clear()
                self._begin(event, self.created if self.leg is None else self.last_batch)
            case _:
                pass

    def _count(self, text: str) -> None:
        self.size += utf8_length(text)
        self.content_events += 1
        self.silent_events -= 1

    def retold(self) -> None:
        """All of it so far was read from a log, which knows what came and not when: no time of it was measured."""
        self.earlier = tuple(msgspec.structs.replace(tally, first_content=None) for tally in self.earlier)
        self.first_content = self.leg_content = None
        self.buckets = [0] * len(self.buckets)
        self.stalls, self.gap_max = 0, 0.0

    @property
    def events(self) -> int:
        """Events of the source, whatever they say."""
        return self.content_events + self.silent_events

    @property
    def reads(self) -> int:
        """Reads after the first content, of which each ended a gap."""
        return sum(self.buckets)

    @property
    def legs(self) -> list[Leg]:
        """The legs so far."""
        return [tally.leg for tally in self.tallies() if tally.leg is not None]

    def tallies(self) -> tuple[Tally, ...]:
        """What each leg took; one without a leg where the source has none."""
        return (*self.earlier, self._tally())

    def completed(self) -> None:
        """The provider said that the answer is whole: what it reported last is its last word."""
        self.leg_finished, self.reported_at = True, self.content_events

    def _tally(self) -> Tally:
        counted = Counted(
            size=self.size,
            events=self.content_events,
            calls=self.calls,
            reasoning=self.thought,
            opaque=self.opaque,
        )
        return Tally(
            leg=self.leg,
            counted=counted,
            usage=self._usage(counted),
            finished=self.leg_finished,
            begun=self.begun,
            ended=self.last_batch,
            first_content=self.leg_content,
        )

    def _usage(self, counted: Counted) -> Usage:
        reported, account = self.usage, self.account
        if reported is not None and self.leg_finished and self.reported_at == self.content_events:
            return reported
        if self.leg is None and not counted.events and reported is None:
            return Usage(estimated=True)
        output = account.output_tokens(self.leg, counted)
        if reported is None:
            return Usage(input_tokens=account.input_tokens(self.leg), output_tokens=output, estimated=True)
        output = max(reported.output_tokens, output)
        return msgspec.structs.replace(reported, output_tokens=output, estimated=True)

    def held_back(self) -> None:
        """From here on nobody is served what comes, for the time being."""
        if self.dropped_from is None:
            self.dropped_from = (self.size, len(self.earlier))

    def served_again(self) -> None:
        """What was held back is served after all."""
        self.dropped_from = None

    def held_tokens(self) -> int:
        """Output tokens that came while nothing was served, by their share of the leg's bytes; a cancel wastes them."""
        if self.dropped_from is None or not self.size:
            return 0
        size, legs = self.dropped_from
        if legs != len(self.earlier):
            size = 0
        return round(self._tally().usage.output_tokens * (self.size - size) / self.size)

    def percentile_s(self, share: float) -> float | None:
        """The upper bound of the bucket that holds the given share of gaps; None without two reads."""
        reads = self.reads
        if not reads:
            return None
        wanted, seen = share * reads, 0
        for bound, count in zip(BOUNDS_S, self.buckets, strict=False):
            seen += count
            if seen >= wanted:
                return min(bound, self.gap_max)
        return self.gap_max

    def effective_usage(self) -> Usage:
        """The sum over all legs: the providers' own usage, or estimates where they did not say."""
        if self.ledger is not None:
            return self.ledger.usage
        return total_usage(self.tallies())

    def shown_usage(self) -> Usage:
        """What a client is told of an answer whose provider said nothing: the answer once, not every leg's bill."""
        if self.ledger is not None:
            return self.ledger.usage
        tallies = [each for each in self.tallies() if each.leg is None or each.leg.strategy != OUTRUN]
        shown = tallies[0].usage
        for leg, usage in ((each.leg, each.usage) for each in tallies[1:]):
            if leg is not None and leg.strategy in _FROM_THE_START:
                shown = usage
            else:
                output = shown.output_tokens + usage.output_tokens
                shown = msgspec.structs.replace(shown, output_tokens=output, estimated=True)
        return shown

    def facts(self, now: float, attempts: list[str], end: End | None = None) -> dict[str, Any]:
        """The part of a status object that only the owner knows."""
        all_tallies = self.tallies()
        tallies = [tally for tally in all_tallies if tally.leg is not None]
        costs = [self.account.cost_usd(tally.leg, tally.usage) for tally in tallies]
        usage = total_usage(all_tallies) if self.ledger is None else self.ledger.usage
        metrics = self._metrics(now, usage)
        if end is not None and end.state is State.CANCELLED:
            metrics["wasted_tokens"] = self.held_tokens()
        ledger = {} if self.ledger is None else self.ledger.facts()
        return {
            "attempts": list(attempts),
            "legs": [
                leg_object(tally, cost, end if tally is tallies[-1] else left_word(tally.leg))
                for tally, cost in zip(tallies, costs, strict=True)
            ],
            "usage": usage_object(usage),
            "cost_usd": total_cost_usd(costs),
            "held_tokens": self.held_tokens(),
            "metrics": metrics,
            **ledger,
        }

    def _metrics(self, now: float, usage: Usage) -> dict[str, Any]:
        streaming_s = 0.0 if self.first_content is None else self.last_batch - self.first_content
        return {
            "queue_ms": _ms(None if self.opened is None else self.opened - self.created),
            "ttft_ms": _ms(None if self.first_content is None else self.first_content - self.created),
            "inter_token_ms": {
                "p50": _ms(self.percentile_s(0.5)),
                "p95": _ms(self.percentile_s(0.95)),
                "max": _ms(self.gap_max if self.reads else None),
            },
            "tokens_per_s": None if streaming_s <= 0 else round(usage.output_tokens / streaming_s, 1),
            "stalls": self.stalls,
            "paused_ms": _ms(self.paused_s),
            "duration_ms": _ms(now - self.created),
            "events": self.events,
            "wasted_tokens": 0,
            "cancel_to_close_ms": _ms(self.cancel_to_close_s),
        }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
