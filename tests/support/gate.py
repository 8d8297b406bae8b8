"""A hand on the provider's tap: events flow one by one, when the test says so."""

from tests.support.signals import PATIENCE_S, Signal


class Gate:
    """Lets as many events go as it was given permits; several streams of one plan share them.

    One permit lets one event of the answer (see `plan.Plan`) go. The test's calls wait at most `timeout` seconds.
    """

    def __init__(self, permits: int = 0, *, timeout: float = PATIENCE_S) -> None:
        self._permits, self._timeout = permits, timeout
        self._free = False
        self._waiting = self._entered = self._passed = 0
        self._signal = Signal()

    @property
    def passed(self) -> int:
        """Events that were let go and written."""
        return self._passed

    def open(self) -> None:
        """From here on nothing is held."""
        self._free = True
        self._signal.ring()

    def allow(self, n: int = 1) -> None:
        """Lets `n` more events go, also before anybody waits for them."""
        self._permits += n
        self._signal.ring()

    async def release(self, n: int = 1) -> None:
        """Lets `n` more events go and returns when they were written.

        Raises:
            TimeoutError: when the provider did not write as many.
        """
        goal = self._entered + self._permits + n
        self.allow(n)
        await self._signal.until(lambda: self._passed >= goal, self._timeout, f"the provider to write event {goal}")

    async def held(self) -> None:
        """Returns when a stream stands at the closed gate.

        Raises:
            TimeoutError: when none came.
        """
        await self._signal.until(
            lambda: self._waiting > 0 and self._permits == 0, self._timeout, "a stream at the closed gate"
        )

    async def enter(self) -> None:
        """The provider's side: returns when one event may go."""
        self._waiting += 1
        self._signal.ring()
        try:
            await self._signal.until(lambda: self._free or self._permits > 0, None)
        finally:
            self._waiting -= 1
        self._entered += 1
        if not self._free:
            self._permits -= 1

    def leave(self) -> None:
        """The provider's side: that event was written."""
        self._passed += 1
        self._signal.ring()
