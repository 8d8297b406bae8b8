"""The second's look at every connection, which holds nobody up, and which nobody holds up."""

import asyncio

import pytest

from gateway.api.serving import LONGEST_LOOK_S, LOOK_S, look_at_all
from tests.support.clock import ManualClock
from tests.support.run import run

ONE_S = 0.0001


class Slow:
    """A connection that takes its time to be looked at, as when it is parted from."""

    def __init__(self, clock: ManualClock) -> None:
        self._clock = clock
        self.looks = 0

    def look(self) -> None:
        """Once a second."""
        self.looks += 1
        self._clock.advance(ONE_S)


@pytest.mark.parametrize(
    ("others_s", "longest_s", "turns"),
    [(0.0, LOOK_S, 50), (0.001, LOOK_S, 50), (0.02, 0.01, 11), (5.0, LONGEST_LOOK_S, 3)],
    ids=["nobody", "little", "a busy loop", "a stuck loop"],
)
def test_others_have_their_turns(others_s: float, longest_s: float, turns: int) -> None:
    """A thousand that are parted from hold others up for moments, longer only where those take longer themselves."""
    clock = ManualClock()
    connections = [Slow(clock) for _ in range(1000)]
    held_up: list[float] = []

    async def scenario() -> None:
        looking = asyncio.ensure_future(look_at_all(connections, clock.monotonic))
        while not looking.done():
            clock.advance(others_s)
            before = clock.monotonic()
            await asyncio.sleep(0)
            held_up.append(clock.monotonic() - before)

    run(scenario())
    assert {connection.looks for connection in connections} == {1}
    assert max(held_up) == pytest.approx(longest_s, abs=2 * ONE_S)
    assert sum(each > 0 for each in held_up) == pytest.approx(turns, abs=2)
