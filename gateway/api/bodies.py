"""How many bytes of requests' bodies a process holds at once: of those that arrive, and of those whose streams run.

A bound of each body alone is none: what is a few percent of a machine's memory for one client is all of it for thirty.
Bodies of up to `SMALL` bytes are never refused; their number is bounded elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.errors import Category, Declined, Failure

if TYPE_CHECKING:
    from collections.abc import Callable

SMALL = 65_536
RETRY_S = 2.0


class Bodies:
    """At most `each` bytes of one body, and `total` of all; `of_streams` says how many the streams that run hold.

    `arriving` are those of requests that have no stream yet.
    """

    def __init__(self, each: int, total: int, of_streams: Callable[[], int]) -> None:
        self.each, self._total, self._of_streams = each, max(total, each), of_streams
        self.arriving = 0

    def take(self, size: int) -> None:
        """So many more have arrived.

        Raises:
            Declined: they are too many, and none of these is counted.
        """
        if self.arriving + size + self._of_streams() > self._total:
            raise Declined(
                Failure(Category.GATEWAY_OVERLOADED, "too many large requests are under way; try again", RETRY_S)
            )
        self.arriving += size

    def give_back(self, size: int) -> None:
        """So many are held no more, or counted with their stream from now on."""
        self.arriving -= size
