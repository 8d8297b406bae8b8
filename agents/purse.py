"""What a run may use: tokens and USD. A child's purse is a part of its parent's, so no tree uses more than its root."""

from __future__ import annotations

from typing import TypeVar

_Amount = TypeVar("_Amount", int, float)


class OverBudget(Exception):
    """The purse is empty; the message says of what."""


class Purse:
    """Tokens and USD that are left; None: no limit of its own."""

    __slots__ = ("parent", "tokens", "usd")

    def __init__(self, tokens: int | None = None, usd: float | None = None, parent: Purse | None = None) -> None:
        self.tokens, self.usd, self.parent = tokens, usd, parent

    @property
    def tokens_left(self) -> int | None:
        """The least of its own and its parents'; None: no limit anywhere."""
        above = None if self.parent is None else self.parent.tokens_left
        found = [each for each in (self.tokens, above) if each is not None]
        return max(0, min(found)) if found else None

    def share(self, parts: int, tokens: int | None = None, usd: float | None = None) -> Purse:
        """One of `parts` equal parts of what is left, at most `tokens` and `usd`."""
        left = self.tokens_left
        most = None if left is None else left // max(parts, 1)
        money = None if self.usd is None else self.usd / max(parts, 1)
        return Purse(_least(most, tokens), _least(money, usd), self)

    def spend(self, tokens: int, usd: float = 0.0) -> None:
        """Take from this purse and from those above it; a negative amount gives back.

        Raises:
            OverBudget: there was not so much; it is taken all the same, because it has been used.
        """
        if self.parent is not None:
            self.parent.spend(tokens, usd)
        if self.tokens is not None:
            self.tokens -= tokens
            if self.tokens < 0 < tokens:
                msg = "the budget of tokens is used up"
                raise OverBudget(msg)
        if self.usd is not None:
            self.usd -= usd
            if self.usd < 0 < usd:
                msg = "the budget of USD is used up"
                raise OverBudget(msg)


def _least(one: _Amount | None, other: _Amount | None) -> _Amount | None:
    return other if one is None else one if other is None else min(one, other)
