"""The claims find the bugs that they are there for: each is planted into an honest ledger and must be caught."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from gateway.pool.budget import Budget, Window
from gateway.pool.ledger import Answer, Ask, Denial, Grant
from gateway.pool.ledger_memory import MemoryLedger
from tests.conformance.budgets.claims import CLAIMS
from tests.conformance.budgets.subject import Opened, Subject
from tests.conformance.budgets.subjects.memory import MemorySubject
from tests.conformance.budgets.test_ledgers import judge
from tests.support.run import run


class NotAtomic(MemoryLedger):
    """Looks what is left, and reserves a moment later."""

    async def move(self, rid: str, number: int, asks: Sequence[Ask]) -> Answer:
        if (denial := self._denial(asks)) is not None:
            return denial
        await asyncio.sleep(0)
        grants: list[Grant] = []
        for ask in asks:
            grant = self._moved(rid, ask._replace(need=0, block=0))
            account = self._account(ask.budget)
            self._hold(account, rid, account.held.get(rid, (0, 0.0))[0] + ask.need)
            grants.append(grant._replace(amount=ask.need))
        return grants


class OneByOne(MemoryLedger):
    """Reserves from the first budget before it looks at the second."""

    async def move(self, rid: str, number: int, asks: Sequence[Ask]) -> Answer:
        found: list[Grant] = []
        for ask in asks:
            answer = await super().move(rid, 0, [ask])
            if isinstance(answer, Denial):
                return answer
            found += answer
        return found


class LostRefund(MemoryLedger):
    """Charges what was reserved, not what was used."""

    async def move(self, rid: str, number: int, asks: Sequence[Ask]) -> Answer:
        return await super().move(rid, number, [ask._replace(spent=max(ask.held, ask.spent)) for ask in asks])


class DoubleSettle(MemoryLedger):
    """Forgets numbers."""

    async def move(self, rid: str, number: int, asks: Sequence[Ask]) -> Answer:
        return await super().move(rid, 0, asks)


class RemembersTheLast(MemoryLedger):
    """Knows the newest number only."""

    async def move(self, rid: str, number: int, asks: Sequence[Ask]) -> Answer:
        known = self._answers.setdefault((rid, asks[0].budget.tenant), {})
        if number not in known:
            known.clear()
        return await super().move(rid, number, asks)


class SharedNumbers(MemoryLedger):
    """Takes every replica for the same one when it remembers."""

    async def move(self, rid: str, number: int, asks: Sequence[Ask]) -> Answer:
        known = self._answers.setdefault(("all", ""), {})
        if number in known:
            return known[number]
        answer = known[number] = await super().move(rid, 0, asks)
        if not number:
            del known[number]
        return answer


class NoLease(MemoryLedger):
    """The dead hold what they held for ever."""

    def _hold(self, account: object, rid: str, amount: int) -> None:
        account.held[rid] = (amount, float("inf"))  # type: ignore[attr-defined]


class DeafToRenewal(MemoryLedger):
    """Renewing does nothing."""

    async def renew(self, rid: str, held: Sequence[tuple[Budget, int, int]]) -> None:
        pass


class NoWindows(MemoryLedger):
    """A budget is never renewed."""

    def _account(self, budget: Budget) -> object:  # type: ignore[override]
        account = super()._account(budget)
        account.window = Window(account.window.start, account.window.end + 10**9)
        known = self._accounts[budget.tenant, budget.name]
        known.window = Window(known.window.start + 10**9, known.window.end)
        return account


class GivesToTheNewWindow(MemoryLedger):
    """Takes what was held in an older window off the new one."""

    def _moved(self, rid: str, ask: Ask) -> Grant:
        return super()._moved(rid, ask._replace(window=self._account(ask.budget).window.start))


class IgnoresOverspending(MemoryLedger):
    """Charges at most what was reserved."""

    async def move(self, rid: str, number: int, asks: Sequence[Ask]) -> Answer:
        return await super().move(rid, number, [ask._replace(spent=min(ask.held, ask.spent)) for ask in asks])


def _opened(kind: type[MemoryLedger]) -> Opened:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Subject]:
        yield MemorySubject(kind)

    return opened


@pytest.mark.parametrize(
    ("kind", "claim"),
    [
        (NotAtomic, "many_at_once_never_reserve_more_than_there_is"),
        (OneByOne, "one_denial_changes_nothing"),
        (LostRefund, "what_was_not_spent_comes_back"),
        (DoubleSettle, "a_repeated_settlement_counts_once"),
        (DoubleSettle, "a_repeated_reservation_holds_once"),
        (RemembersTheLast, "a_repeated_settlement_counts_once"),
        (SharedNumbers, "numbers_of_replicas_are_their_own"),
        (NoLease, "what_the_dead_held_is_free_again"),
        (DeafToRenewal, "renewing_keeps_what_is_held"),
        (DeafToRenewal, "a_replica_that_was_stopped_holds_again"),
        (NoWindows, "windows_follow_the_calendar"),
        (GivesToTheNewWindow, "what_comes_late_is_not_given_to_the_new_window"),
        (IgnoresOverspending, "what_was_overspent_counts"),
    ],
)
def test_claim_catches(kind: type[MemoryLedger], claim: str) -> None:
    """A ledger with this bug does not keep this claim."""
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        run(judge(CLAIMS[claim], _opened(kind)))
