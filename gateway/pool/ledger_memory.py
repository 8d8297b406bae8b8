"""Budgets in memory: one process, or tests with several replicas in one. Every step is one synchronous function."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.pool.budget import Window, granted, window_of
from gateway.pool.ledger import Denial, Grant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.clock import Clock
    from gateway.pool.budget import Budget
    from gateway.pool.ledger import Answer, Ask

ANSWERS = 1024
"""Answers that are remembered of one replica and tenant."""

BOOKED = 10_000
"""Budgets that are looked through for forgotten ones when there are more."""


@dataclass(slots=True)
class _Account:
    """One budget as it stands. `held` is (amount, monotonic deadline) by replica."""

    window: Window
    spent: int = 0
    held: dict[str, tuple[int, float]] = field(default_factory=dict[str, tuple[int, float]])
    kept_until: float = 0.0


class MemoryLedger:
    """See `ledger.Ledger`."""

    def __init__(self, clock: Clock, *, lease_s: float = 6.0) -> None:
        self._clock, self.lease_s = clock, lease_s
        self._accounts: dict[tuple[str, str], _Account] = {}
        self._answers: dict[tuple[str, str], dict[int, Answer]] = {}

    async def move(self, rid: str, number: int, asks: Sequence[Ask]) -> Answer:
        """Give back, spend and reserve."""
        known = self._answers.setdefault((rid, asks[0].budget.tenant), {})
        if number and number in known:
            return known[number]
        answer = self._denial(asks) or [self._moved(rid, ask) for ask in asks]
        if number:
            known[number] = answer
            if len(known) > ANSWERS:
                del known[next(iter(known))]
        return answer

    async def renew(self, rid: str, held: Sequence[tuple[Budget, int, int]]) -> None:
        """The replica lives."""
        for budget, window, amount in held:
            account = self._account(budget)
            if account.window.start == window:
                known = account.held.get(rid, (amount, 0.0))[0]
                account.held[rid] = (known, self._clock.monotonic() + self.lease_s)

    async def spent(self, budget: Budget) -> tuple[int, int]:
        """Spent and held."""
        account = self._account(budget)
        return account.spent, _held(account)

    async def run(self) -> None:
        """There is nothing to serve."""
        await asyncio.get_running_loop().create_future()

    def _denial(self, asks: Sequence[Ask]) -> Denial | None:
        for ask in asks:
            if ask.need:
                account = self._account(ask.budget)
                left = ask.budget.limit - account.spent - _held(account)
                if left < ask.need:
                    return Denial(ask.budget, max(left, 0), account.window.end)
        return None

    def _moved(self, rid: str, ask: Ask) -> Grant:
        account = self._account(ask.budget)
        mine = account.held.get(rid, (0, 0.0))[0]
        if ask.window == account.window.start:
            mine = max(mine - ask.held, 0)
            account.spent = max(account.spent + ask.spent, 0)
        else:
            account.spent += max(ask.spent - ask.held, 0)
        self._hold(account, rid, mine)
        free = ask.budget.limit - account.spent - _held(account)
        amount = granted(free, ask.need, ask.block) or 0
        self._hold(account, rid, mine + amount)
        return Grant(account.window.start, amount, max(free - amount, 0), account.window.end)

    def _hold(self, account: _Account, rid: str, amount: int) -> None:
        if amount:
            account.held[rid] = (amount, self._clock.monotonic() + self.lease_s)
        else:
            account.held.pop(rid, None)

    def _account(self, budget: Budget) -> _Account:
        """As it stands now: in the window that it is, without what the dead hold."""
        now, window = self._clock.monotonic(), window_of(budget.per, self._clock.now())
        name = (budget.tenant, budget.name)
        account = self._accounts.get(name)
        if account is None or account.kept_until < now or account.window.start < window.start:
            if len(self._accounts) > BOOKED:
                self._forget(now)
            account = self._accounts[name] = _Account(window)
        for rid in [rid for rid, (_, deadline) in account.held.items() if deadline <= now]:
            del account.held[rid]
        account.kept_until = now + budget.kept_s
        return account

    def _forget(self, now: float) -> None:
        self._accounts = {name: account for name, account in self._accounts.items() if account.kept_until >= now}


def _held(account: _Account) -> int:
    return sum(amount for amount, _ in account.held.values())
