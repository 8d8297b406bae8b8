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
        left = least(self.tokens, None if self.parent is None else self.parent.tokens_left)
        return None if left is None else max(0, left)

    @property
    def usd_left(self) -> float | None:
        """The same of USD."""
        left = least(self.usd, None if self.parent is None else self.parent.usd_left)
        return None if left is None else max(0.0, left)

    def share(self, parts: int) -> tuple[int | None, float | None]:
        """Tokens and USD of one of `parts` equal parts of what is left."""
        tokens, usd = self.tokens_left, self.usd_left
        return None if tokens is None else tokens // max(parts, 1), None if usd is None else usd / max(parts, 1)

    def part(self, tokens: int | None, usd: float | None) -> Purse:
        """A purse within this one."""
        return Purse(tokens, usd, self)

    def check(self) -> None:
        """Look whether anything is left.

        Raises:
            OverBudget: there is not.
        """
        if self.tokens_left == 0:
            raise OverBudget("the budget of tokens is used up")
        if self.usd_left == 0:
            raise OverBudget("the budget of USD is used up")

    def take(self, tokens: int, usd: float = 0.0) -> None:
        """Count what was used, here and in those above; a negative amount gives back. It may be more than was left."""
        if self.tokens is not None:
            self.tokens -= tokens
        if self.usd is not None:
            self.usd -= usd
        if self.parent is not None:
            self.parent.take(tokens, usd)

    def spend(self, tokens: int, usd: float = 0.0) -> None:
        """Use so much.

        Raises:
            OverBudget: there was not so much; it is taken all the same, because it has been used.
        """
        self.take(tokens, usd)
        if self._is_overdrawn:
            self.check()

    @property
    def _is_overdrawn(self) -> bool:
        overdrawn = (self.tokens is not None and self.tokens < 0) or (self.usd is not None and self.usd < 0)
        return overdrawn or (self.parent is not None and self.parent._is_overdrawn)  # noqa: SLF001  its own kind


def least(one: _Amount | None, other: _Amount | None) -> _Amount | None:
    """The smaller one, where None is no bound."""
    return other if one is None else one if other is None else min(one, other)
