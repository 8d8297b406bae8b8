"""Budgets of a tree, and deadlines that a pause stops."""

import asyncio

import pytest

from agents.deadlines import Deadlines
from agents.purse import OverBudget, Purse
from tests.support.run import run as run_in_a_loop


def test_a_child_uses_its_parents_purse() -> None:
    """What a child uses is gone for its parent too, and no child has more than that has left."""
    root = Purse(tokens=100)
    child = root.part(80, None)
    child.spend(70)
    assert (child.tokens_left, root.tokens_left) == (10, 30)
    root.spend(25)
    assert child.tokens_left == 5
    with pytest.raises(OverBudget, match="tokens"):
        child.spend(6)
    assert root.tokens_left == 0


def test_what_was_used_is_taken_all_the_same() -> None:
    """An overdraft is counted in the whole line of purses, so that nobody goes on with what is not there."""
    root = Purse(usd=1.0)
    child = root.part(None, None)
    with pytest.raises(OverBudget, match="USD"):
        child.spend(0, 1.5)
    with pytest.raises(OverBudget):
        root.check()
    child.take(0, -1.0)
    root.check()
    assert root.usd_left == 0.5


def test_shares() -> None:
    """Equal parts of what is left; without a limit there is nothing to share."""
    assert Purse(tokens=100, usd=1.0).share(4) == (25, 0.25)
    assert Purse().share(4) == (None, None)


def test_deadlines_stand_still_while_held() -> None:
    """A step is late by the seconds in which its run was not held."""

    async def scenario() -> None:
        deadlines = Deadlines()
        async with deadlines.within(0.05):
            deadlines.hold()
            deadlines.hold()
            await asyncio.sleep(0.1)
            deadlines.go_on()
        with pytest.raises(TimeoutError):
            async with deadlines.within(0.02):
                await asyncio.sleep(1)
        deadlines.hold()
        async with deadlines.within(0.01):  # begun while held
            await asyncio.sleep(0.03)
            deadlines.go_on()

    run_in_a_loop(scenario())
