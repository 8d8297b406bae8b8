"""Time stands still unless it is turned."""

from typing import TYPE_CHECKING

import pytest

from tests.support.clock import ManualClock

if TYPE_CHECKING:
    from gateway.core.clock import Clock


def test_turned_by_hand() -> None:
    """Both readings go on together; the wall clock alone can jump; monotonic time never goes back."""
    clock = ManualClock(now=100, monotonic=5)
    readings: Clock = clock
    clock.advance(2.5)
    assert (readings.now(), readings.monotonic()) == (102.5, 7.5)
    clock.jump(-50)
    assert (readings.now(), readings.monotonic()) == (52.5, 7.5)
    with pytest.raises(ValueError, match="back"):
        clock.advance(-1)
