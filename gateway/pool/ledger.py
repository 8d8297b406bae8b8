"""The ledger: where budgets are kept. What is asked of it, what it answers, and what every kind of it promises.

Judged by `tests/conformance/budgets`, in memory and on Redis:
- `move` is one atomic step over all its budgets, which are of one tenant: all or nothing is denied.
- What is spent and what all live replicas hold is never more than the limit, but for what was spent without a hold.
- A repeated `move` (same replica, same number) changes nothing and answers what it answered.
- What a replica holds is its own until `lease_s` after its last `move` or `renew`; then it is free again.
- A new window begins with nothing spent and nothing held, and what is given back of an older one does not count in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from gateway.core.errors import AtlasError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.pool.budget import Budget


class LedgerUnavailable(AtlasError):
    """The ledger did not answer: what was asked has happened, or has not; asking again with the same number is safe."""


class Ask(NamedTuple):
    """What a stream asks of one budget.

    `held` is given back of what was granted in the window that began at `window`, and `spent` of it was used: more than
    `held` if it went over, less than 0 where an estimate was too high. `need` must be granted, `block` as far as there
    is anything.
    """

    budget: Budget
    window: int = 0
    held: int = 0
    spent: int = 0
    need: int = 0
    block: int = 0


class Grant(NamedTuple):
    """`amount` is held from now on, in the window that began at `window`; `left` is what others may still take.

    `reset` is when the window ends, Unix seconds; 0: never.
    """

    window: int
    amount: int
    left: int
    reset: float


class Denial(NamedTuple):
    """The need of `budget` cannot be met: nothing was changed."""

    budget: Budget
    left: int
    reset: float


Answer: TypeAlias = "list[Grant] | Denial"


class Ledger(Protocol):
    """Budgets of all tenants, shared by replicas."""

    lease_s: float

    async def move(self, rid: str, number: int, asks: Sequence[Ask]) -> Answer:
        """Give back, spend and reserve, for the replica `rid`. Numbers of a replica and tenant grow; 0: not repeated.

        Raises:
            LedgerUnavailable: no answer in time.
        """
        ...

    async def renew(self, rid: str, held: Sequence[tuple[Budget, int, int]]) -> None:
        """The replica lives: (budget, window, amount) of all that it holds; given again where it was taken for dead.

        Raises:
            LedgerUnavailable: no answer in time.
        """
        ...

    async def spent(self, budget: Budget) -> tuple[int, int]:
        """What is spent and what is held in the window that it is.

        Raises:
            LedgerUnavailable: no answer in time.
        """
        ...

    async def run(self) -> None:
        """Serve until cancelled."""
        ...
