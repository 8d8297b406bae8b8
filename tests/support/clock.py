"""Time that stands still until a test turns it."""


class ManualClock:
    """Implements `gateway.core.clock.Clock` by hand."""

    def __init__(self, now: float = 1_800_000_000.0, monotonic: float = 1_000.0) -> None:
        self._now, self._monotonic = now, monotonic

    def now(self) -> float:
        """Seconds since the Unix epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Both readings go on by `seconds`, which are not negative."""
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds!r}")
        self._now += seconds
        self._monotonic += seconds

    def jump(self, seconds: float) -> None:
        """The wall clock alone is set forward, or back, as an administrator or NTP does."""
        self._now += seconds
