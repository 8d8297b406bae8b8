"""Whether another request is taken in: what overload is, whom it hits first, and who begins next. Pure; `gate` acts.

Three things can be too much: streams at once (memory and file descriptors), work of streams that run (the loop comes
round too slowly, for too long), and requests that wait to begin. Of the last there is a line for each tenant, and they
take turns, so that a long line is its own tenant's trouble. Of the first two, those are refused who hold their fair
share already. Prior art: fair queueing of RFC 8290, the standing delay of RFC 8289.

Nothing of this is asked while there is no overload: see `gate.Gate.lets_in`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

FILES_KEPT = 64
"""File descriptors for everything but clients and providers: listeners, Redis, logs, name look-ups."""
STREAMS_SHARE = 0.45
"""Of the rest, what streams may use for their providers; the others are their clients', readers' and control's."""
MOST_STREAMS = 10_000
CONTROL_SHARE = 0.125
"""Of the connections, those on which no answers begin while the others are taken: for control, probes and readers."""
SPARE = 0.9
"""Of the streams at once, what tenants may take beyond their fair share, where there are several."""
SMOOTHING = 0.3
SLOWEST = 1.0
MEASURED_S = 0.1
STARVED = 10

T = TypeVar("T")


class Why(StrEnum):
    """Why a request, or a connection, was not taken in."""

    CONNECTIONS = "connections"
    STREAMS = "streams"
    LOOP = "loop"
    QUEUE = "queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much a process takes.

    `max_streams` at once, of which `shared` may be anybody's; `max_connections` open, on `plain` of which streams may
    begin. A request that would wait for longer than `queue_s` to begin is refused, and so are those of tenants with
    their fair share while the loop needs more than `loop_s` of a processor to come round, each time for `standing_s`.
    """

    max_streams: int
    shared: int
    max_connections: int
    plain: int
    queue_s: float = 1.0
    loop_s: float = 0.05
    standing_s: float = 1.0


def bounds(
    files: int, *, max_streams: int | None, max_connections: int | None, several: bool, queue_s: float, loop_s: float
) -> Bounds:
    """The bounds of a process that may open so many files; `several`: it serves more than one tenant."""
    usable = max(files - FILES_KEPT, 2)
    streams = max_streams or max(min(int(usable * STREAMS_SHARE), MOST_STREAMS), 1)
    connections = max_connections or max(usable - streams, 1)
    shared = max(int(streams * SPARE), 1) if several else streams
    plain = max(int(connections * (1 - CONTROL_SHARE)), 1)
    return Bounds(
        max_streams=streams, shared=shared, max_connections=connections, plain=plain, queue_s=queue_s, loop_s=loop_s
    )  # fmt: skip


class Strain:
    """Whether the loop is too slow for longer than a burst: each look for `standing_s` found it above `loop_s`.

    What counts is its own work. Where others use the processor it is slow for nothing that runs here, and refusing is
    right only once it is `STARVED`.
    """

    __slots__ = ("_bounds", "_since", "standing")

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._since: float | None = None
        self.standing = False

    def felt(self, now: float, took_s: float, used_s: float) -> None:
        """The loop needed so long to come round, and so much of a processor."""
        if used_s <= self._bounds.loop_s and took_s <= self._bounds.loop_s * STARVED:
            self._since, self.standing = None, False
        elif self._since is None:
            self._since = now
        else:
            self.standing = now - self._since >= self._bounds.standing_s


class Lines(Generic[T]):
    """Who waits to begin: a line for each tenant, which take turns."""

    def __init__(self) -> None:
        self._lines: dict[str, deque[T]] = {}
        self._begun, self._measured, self._rate = 0, 0.0, 0.0
        self.waiting = 0

    def join(self, tenant: str, item: T, now: float) -> None:
        """One more waits."""
        if not self.waiting:
            self._begun, self._measured = 0, now
        self._lines.setdefault(tenant, deque()).append(item)
        self.waiting += 1

    def next(self) -> T | None:
        """Whose turn it is; None where nobody waits."""
        if not self._lines:
            return None
        tenant = next(iter(self._lines))
        line = self._lines.pop(tenant)
        item = line.popleft()
        if line:
            self._lines[tenant] = line  # behind the others
        self.waiting -= 1
        self._begun += 1
        return item

    def measure(self, now: float) -> None:
        """Learn how many begin in a second; called now and then. A moment is too short to tell, and an idle one old."""
        if not self.waiting:
            self._rate = 0.0
        if not self.waiting or now - self._measured < MEASURED_S:
            return
        rate = self._begun / (now - self._measured)
        self._rate = max(rate if not self._rate else self._rate + SMOOTHING * (rate - self._rate), SLOWEST)
        self._begun, self._measured = 0, now

    def wait_s(self, tenant: str) -> float:
        """How long another one of this tenant would wait, as far as is known."""
        line = self._lines.get(tenant)
        if line is None or not self._rate:
            return 0.0
        return min(len(line) * len(self._lines), self.waiting) / self._rate


class Overload(Generic[T]):
    """The judgement of one process. `holdings` are open streams by tenant, counted now and then while it matters."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds, self.strain = bounds, Strain(bounds)
        self.lines: Lines[T] = Lines()
        self._holdings: dict[str, int] = {}
        self._held = 0

    def refusal(self, tenant: str, streams: int, connections: int = 0) -> Why | None:
        """Why another request of this tenant is refused, at so many open streams and connections; None: it is not."""
        bounds = self.bounds
        if connections > bounds.plain:
            return Why.CONNECTIONS
        if streams >= bounds.max_streams:
            return Why.STREAMS
        if streams >= bounds.shared and self._has_its_share(tenant):
            return Why.STREAMS
        if self.strain.standing and self._has_its_share(tenant):
            return Why.LOOP
        if self.lines.wait_s(tenant) > bounds.queue_s:
            return Why.QUEUE
        return None

    def counted(self, holdings: Mapping[str, int]) -> None:
        """The open streams by tenant, as they are now."""
        self._holdings, self._held = dict(holdings), sum(holdings.values())

    def taken(self, tenant: str) -> None:
        """One more was taken in since they were counted."""
        self._holdings[tenant] = self._holdings.get(tenant, 0) + 1
        self._held += 1

    def _has_its_share(self, tenant: str) -> bool:
        """Whether a tenant holds as much as it would if everybody who holds something held the same."""
        held = self._holdings.get(tenant, 0)
        tenants = len(self._holdings) + (not held)
        return held * tenants >= self._held
