"""What a session pumps: a provider group, an agent run, a test. The seam that makes all of them streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from gateway.core.errors import Category
from gateway.streams.stats import STALL_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from gateway.upstream.contract import Batch, Timeouts


class Source(Protocol):
    """Where a stream's events come from: entered once, iterated by one task, left in every case.

    `timeouts` are those of the leg that is running now; `attempts` one line for each upstream attempt so far.
    """

    @property
    def timeouts(self) -> Timeouts:
        """Deadlines between events, of the current leg."""
        ...

    @property
    def attempts(self) -> list[str]:
        """One line per attempt, for the status object."""
        ...

    def open(self) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Begin. Entering waits for the first content; leaving closes the upstream socket."""
        ...


class MovesOn(Protocol):
    """A source that can leave a leg that says nothing more, and go on with another one."""

    def overdue(self, category: Category, message: str) -> bool:
        """The leg that runs now is overdue: whether the source moves on by itself. Called again while it does."""
        ...


class Learns(Protocol):
    """A source that learns from the streams of its endpoints while they run, and knows why it asked whom."""

    @property
    def selection(self) -> dict[str, Any]:
        """Who was considered, and why the first one was asked first."""
        ...

    def quiet(self, seconds: float) -> None:
        """The leg that runs now has been silent for so long; told again while it stays silent."""
        ...


class ReadsOn(Protocol):
    """The leg that came to content last, a source's `last`. Leaving it takes longer if it `reads_on` for its bill."""

    reads_on: bool

    def hurry(self) -> None:
        """Do so no longer."""
        ...


class Conducts(Protocol):
    """A source that asks many upstreams, such as an agent's run: their deadlines and a pause are its own matter."""

    def hold(self) -> None:
        """The stream is paused: begin nothing new."""
        ...

    def go_on(self) -> None:
        """The pause is over."""
        ...

    def tick(self, now: float) -> None:
        """Enforce what is due at monotonic time `now`; called a few times a second."""
        ...


def hold(source: Source) -> None:
    """Tell a source that conducts that its stream is paused."""
    if hasattr(inner := _within(source), "hold"):
        cast("Conducts", inner).hold()


def go_on(source: Source) -> None:
    """Tell it that the pause is over."""
    if hasattr(inner := _within(source), "hold"):
        cast("Conducts", inner).go_on()


def beat(source: Source, now: float) -> None:
    """Let it look at its deadlines."""
    if hasattr(inner := _within(source), "hold"):
        cast("Conducts", inner).tick(now)


def _within(source: Source) -> Source:
    """The source that another one is around, such as the meter of a budget: its `source`."""
    return getattr(source, "source", source)


def overdue(source: Source, category: Category, message: str) -> bool:
    """Tell a source that it is overdue; False if it cannot move on."""
    return hasattr(source, "overdue") and cast("MovesOn", source).overdue(category, message)


def quiet(source: Source, seconds: float) -> None:
    """Tell a source that it has been silent for so long, if that is a stall."""
    if seconds >= STALL_S and hasattr(inner := _within(source), "quiet"):
        cast("Learns", inner).quiet(seconds)


def selection(source: Source) -> dict[str, Any] | None:
    """Why a source asked whom; None if it does not choose."""
    return getattr(_within(source), "selection", None)


def read_on(source: Source) -> None:
    """The stream is over, on its reader's word: before its upstream is closed, what it costs may be found out."""
    leg: ReadsOn | None = getattr(_within(source), "last", None)
    if leg is not None:
        leg.reads_on = True


def hurry(source: Source) -> None:
    """The process ends: close now what is read on."""
    leg: ReadsOn | None = getattr(_within(source), "last", None)
    if leg is not None:
        leg.hurry()


def stopped_by(source: Source) -> str | None:
    """Why a source ended its stream before the answer was over, in one word (`budget`); None if it did not."""
    word: str | None = getattr(source, "stopped_by", None) or getattr(_within(source), "stopped_by", None)
    return word


def lateness(timeouts: Timeouts, total_s: float, idle_s: float, progress_s: float) -> tuple[Category, str] | None:
    """What a source is late with, and how to say that; seconds since it began, since its last read, its last event."""
    if total_s > timeouts.total_s:
        return Category.TIMEOUT_TOTAL, f"the stream took longer than {timeouts.total_s:g} s"
    if idle_s > timeouts.idle_s:
        return Category.TIMEOUT_IDLE, f"no data from the provider for {timeouts.idle_s:g} s"
    if progress_s > timeouts.progress_s:
        return Category.TIMEOUT_IDLE, f"no progress from the provider for {timeouts.progress_s:g} s"
    return None
