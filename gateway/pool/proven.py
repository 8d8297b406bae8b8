"""What an endpoint has proven of its strengths: how often it came to a whole answer when one was asked for.

What a profile declares is a claim; this is what became of it, and `task_aware` weighs the one with the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

WEIGHT = 0.1
"""Of the newest outcome: the last 20 or so decide."""
WORDS = 64
"""Strengths that are kept: callers may name any."""


class Proven:
    """Shares of whole answers by strength, exponentially weighted; 1 where nothing is known."""

    __slots__ = ("rates",)

    def __init__(self) -> None:
        self.rates: dict[str, float] = {}

    def note(self, words: Iterable[str], *, whole: bool) -> None:
        """An answer that asked for these strengths came to its end, or failed."""
        for word in words:
            rate = self.rates.get(word, 1.0)
            if word in self.rates or len(self.rates) < WORDS:
                self.rates[word] = rate + WEIGHT * (float(whole) - rate)

    def rate(self, word: str) -> float:
        """How often it held."""
        return self.rates.get(word, 1.0)
