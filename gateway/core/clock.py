"""Time as a parameter: nothing else in Atlas asks the system what time it is."""

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of time; tests pass a clock that they turn by hand."""

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for deadlines and durations."""
        ...


class SystemClock:
    """The machine's own clocks."""

    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


def used_s() -> float:
    """Seconds of a processor that the calling thread has used."""
    return time.thread_time()
