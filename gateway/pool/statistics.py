"""What is known of an endpoint's behaviour now: time to first token, tokens per second, stalls, errors, load.

Feeds selection, `/v1/pool` and metrics. It learns from streams while they run: a wait for the first token that is
already longer than the average counts at once (`waiting_since`), so do the first token and each stall. Averages are
exponentially weighted (EWMA). The peak-EWMA of `fastest` is Finagle's: a slower answer counts at once and in full,
faster ones over time; unseen endpoints fade to 0, so that they are tried again. All times are monotonic seconds.
"""

from __future__ import annotations

from math import exp
from typing import Any

PEAK_DECAY_S = 30.0
WEIGHT = 0.15
"""Of the newest sample in an average: the last 12 or so decide."""

RECENT = 64
"""Times to first token that are kept for percentiles."""

REFUSED_S = 5.0
"""What a failure before the content costs, beside its own time, in the eyes of `adaptive`. That of a 429 too: fast
refusals would attract traffic otherwise."""

CUT_S = 20.0
"""What a failure after the content costs: the caller sees that one."""

_NOBODY = float("inf")
TYPICAL_TOKENS = 300
"""Of an answer, where tokens per second are weighed against the time to first token."""


class Statistics:
    """Of one endpoint. Begin an attempt, then say once each what became of it, by the number that `begin` gave.

    `waiting_since`: when the oldest attempt without content began, `inf` if there is none. `delay_s`: what an answer of
    typical length takes; `expected_s`: with what may go wrong. `availability` is what is expected before the first
    attempt.
    """

    __slots__ = (
        "_at", "_number", "_peak", "_peaked", "_recent", "_waiting", "answers", "attempts", "cut_rate", "delay_s",
        "error_rate", "expected_s", "failures", "first_token_s", "in_flight", "penalty_s", "stalled_s", "stalls",
        "tokens_per_s", "waiting_since",
    )  # fmt: skip

    def __init__(self, availability: float = 1.0) -> None:
        self._number = self._at = 0
        self._peak, self._peaked = 0.0, 0.0
        self._recent: list[float] = []
        self._waiting: dict[int, float] = {}
        self.attempts = self.answers = self.failures = self.in_flight = self.stalls = 0
        self.first_token_s: float | None = None
        self.tokens_per_s: float | None = None
        self.error_rate = self.cut_rate = 0.0
        self.delay_s = self.stalled_s = 0.0
        self.penalty_s = self.expected_s = REFUSED_S * (1.0 - availability)
        self.waiting_since = _NOBODY

    def begin(self, now: float) -> int:
        """An attempt begins."""
        self.attempts += 1
        self.in_flight += 1
        self._number += 1
        if not self._waiting:
            self.waiting_since = now
        self._waiting[self._number] = now
        return self._number

    def first_token(self, number: int, now: float) -> None:
        """Its first content arrived."""
        begun = self._answered(number)
        if begun is None:
            return
        self.answers += 1
        self._note_first(now, now - begun)
        self.error_rate -= WEIGHT * self.error_rate
        self.penalty_s -= WEIGHT * self.penalty_s
        self._weigh()

    def outrun(self, number: int, now: float) -> None:
        """It is left without a verdict after so long a wait: a lower bound, which counts if it is above the average.

        Else an endpoint whose slow answers are hedged would seem as quick as its quick ones.
        """
        begun, average = self._waiting.get(number), self.first_token_s
        if begun is not None and average is not None and now - begun > average:
            self._note_first(now, now - begun)
            self._weigh()

    def stalled(self, seconds: float, *, is_new: bool = True) -> None:
        """A running stream was silent for `seconds` more than was said before; `is_new`: nothing was said before."""
        self.stalls += is_new
        self.stalled_s += WEIGHT * seconds
        self._weigh()

    def finished(self, number: int) -> None:
        """It came to its end."""
        self._leave(number)
        self.cut_rate -= WEIGHT * self.cut_rate
        self.stalled_s -= WEIGHT * self.stalled_s
        self._weigh()

    def paced(self, tokens: int, seconds: float) -> None:
        """An answer had so many tokens in the seconds after its first one."""
        if tokens > 1 and seconds > 0.0:
            rate, old = (tokens - 1) / seconds, self.tokens_per_s
            self.tokens_per_s = rate if old is None else old + WEIGHT * (rate - old)
            self._weigh()

    def failed(self, number: int, now: float) -> None:
        """It failed, before its content or after it."""
        begun = self._leave(number)
        self.failures += 1
        if begun is None:
            self.cut_rate += WEIGHT * (1.0 - self.cut_rate)
            self.penalty_s += WEIGHT * (CUT_S - self.penalty_s)
        else:
            self.error_rate += WEIGHT * (1.0 - self.error_rate)
            self.penalty_s += WEIGHT * (now - begun + REFUSED_S - self.penalty_s)
        self._weigh()

    def released(self, number: int) -> None:
        """It was left without a verdict on the endpoint."""
        self._leave(number)

    def peak_s(self, now: float) -> float:
        """Time to first token as the pessimist sees it; 0 where nothing is known."""
        faded = self._peak * exp((self._peaked - now) / PEAK_DECAY_S) if self._peak else 0.0
        return max(faded, now - self.waiting_since)

    def first_token_percentile_s(self, share: float) -> float | None:
        """Of the newest answers, by nearest rank; None before the first."""
        ordered = sorted(self._recent)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None

    def shown(self, now: float) -> dict[str, Any]:
        """For `/v1/pool`: milliseconds, shares of 1."""
        return {
            "attempts": self.attempts,
            "answers": self.answers,
            "failures": self.failures,
            "in_flight": self.in_flight,
            "first_token_ms": _ms(self.first_token_s),
            "first_token_p95_ms": _ms(self.first_token_percentile_s(0.95)),
            "first_token_peak_ms": _ms(self.peak_s(now)),
            "tokens_per_s": None if self.tokens_per_s is None else round(self.tokens_per_s, 2),
            "error_rate": round(self.error_rate, 4),
            "cut_rate": round(self.cut_rate, 4),
            "stalls": self.stalls,
        }

    def _note_first(self, now: float, seconds: float) -> None:
        old = self.first_token_s
        self.first_token_s = seconds if old is None else old + WEIGHT * (seconds - old)
        self._note_peak(now, seconds)
        if len(self._recent) < RECENT:
            self._recent.append(seconds)
        else:
            self._recent[self._at] = seconds
            self._at = (self._at + 1) % RECENT

    def _note_peak(self, now: float, seconds: float) -> None:
        share = exp((self._peaked - now) / PEAK_DECAY_S)
        faded = self._peak * share
        self._peak = max(seconds, faded + seconds * (1.0 - share))
        self._peaked = now

    def _weigh(self) -> None:
        """What an answer of typical length takes, and what it costs with all that may go wrong."""
        rate = self.tokens_per_s
        self.delay_s = (self.first_token_s or 0.0) + (TYPICAL_TOKENS / rate if rate else 0.0)
        self.expected_s = self.delay_s + self.penalty_s + self.stalled_s

    def _leave(self, number: int) -> float | None:
        self.in_flight -= 1
        return self._answered(number)

    def _answered(self, number: int) -> float | None:
        """When an attempt that waits for its content began; it waits no more."""
        begun = self._waiting.pop(number, None)
        if begun is not None and begun == self.waiting_since:
            self.waiting_since = next(iter(self._waiting.values())) if self._waiting else _NOBODY
        return begun


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000.0 * seconds, 3)
