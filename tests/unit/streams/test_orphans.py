"""Who is held for dead, on a clock that is turned by hand."""

from typing import Any, cast

from gateway.streams.orphans_redis import BIRTH_S, RedisOrphans
from gateway.streams.replicas_redis import Overdue
from tests.support.clock import ManualClock
from tests.support.run import run


class World:
    """One replica's view: its own lease, and who is overdue in Redis."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.held_s = 100.0
        self.held_after_s = 100.0
        self.late = [Overdue("r", 0.0, has_left=False)]
        self.orphans = RedisOrphans(
            "me", cast("Any", self), cast("Any", self), cast("Any", None), self.clock, lease_s=6.0
        )  # fmt: skip

    async def overdue(self) -> list[Overdue]:
        self.held_s = self.held_after_s
        return self.late

    def dead(self) -> list[str]:
        """One look."""
        return run(self.orphans.dead())


def test_a_lease_that_is_gone_is_looked_at_twice() -> None:
    """Only who is overdue at two looks, a sixth of a lease apart, is dead; a renewal between them clears it."""
    it = World()
    assert it.dead() == []
    it.clock.advance(1.0)
    assert it.dead() == ["r"]
    it.late = []
    assert it.dead() == []
    it.late = [Overdue("r", 0.0, has_left=False)]
    assert it.dead() == []


def test_who_left_is_believed_at_once() -> None:
    """A lease that was given up needs no second look, and nobody who has been there for long."""
    it = World()
    it.late = [Overdue("r", 0.0, has_left=True)]
    assert it.dead() == ["r"]
    it.held_s = it.held_after_s = 0.1
    assert it.dead() == ["r"]


def test_nobody_judges_without_a_lease_of_his_own() -> None:
    """Who has not held his own lease for a whole lease holds nobody who is silent for dead, and without one nobody."""
    it = World()
    it.dead()
    it.clock.advance(1.0)
    it.held_s = it.held_after_s = 5.9
    assert it.dead() == []
    it.held_s = it.held_after_s = 100.0
    assert it.dead() == []  # looked at twice from here on
    it.clock.advance(1.0)
    assert it.dead() == ["r"]
    it.late = [Overdue("r", 0.0, has_left=True)]
    it.held_after_s = 0.0
    assert it.dead() == []


def test_a_stream_without_record_is_unborn_for_a_while() -> None:
    """It may be created by a replica that was only stopped, but not by one that left, nor after a minute."""
    it = World()
    it.late = [
        Overdue("young", 1.0, has_left=False),
        Overdue("left", 1.0, has_left=True),
        Overdue("old", BIRTH_S, has_left=False),
    ]
    it.dead()
    it.clock.advance(1.0)
    it.dead()
    assert [rid for rid in ("young", "left", "old") if it.orphans.is_unborn(rid)] == ["young"]
