"""The fleet: the replicas that share a journal, as one of them sees the others.

Everything here is about speed and about who is alive, never about what is true: the log says that. A hint that is lost
costs a poll (`poll_s`), nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.streams.journal import Entry, JournalError


def rid_of(owner: str) -> str:
    """The replica of an owner token, `<rid>-<session nonce>`."""
    return owner.partition("-")[0]


class Growing(Protocol):
    """A channel of the hub, as the fleet sees it: it grows by what others append.

    `tail` and `gen` are of the last entry that is known here, `owner` as far as it is known.
    """

    sid: str
    owner: str
    tail: int
    ended: bool

    @property
    def gen(self) -> int:
        """The generation of the last entry that is known here; before the first one, the record's."""
        ...

    def offer(self, entry: Entry) -> bool:
        """Publish an entry if it is the next one, ignore one that is known. False if one before it lacks."""
        ...

    def fail(self, error: JournalError) -> None:
        """Those who read it now get `error` once they were served what is known."""
        ...


class Fleet(Protocol):
    """The other replicas. `rid` is this one's id, new with every start of a process."""

    rid: str

    def follow(self, channel: Growing) -> None:
        """Keep a channel growing that somebody here reads and nobody here owns; safe to call twice."""
        ...

    def leave(self, sid: str) -> None:
        """Nobody here reads this stream any more, or it is owned here now; safe to call without `follow`."""
        ...

    def grown(self, sids: Iterable[str]) -> None:
        """Logs that are written here have grown: whoever reads them elsewhere should look."""
        ...

    def tell(self, owner: str, sid: str) -> None:
        """A control step from here changed a stream whose session is elsewhere: that one should look at the log."""
        ...

    def is_read_elsewhere(self, sid: str) -> bool:
        """Whether another replica has readers of a stream that is owned here, as far as it is known."""
        ...

    async def is_alive(self, owner: str) -> bool:
        """Whether that session's replica renews its lease; True if nobody can say."""
        ...

    async def run(self) -> None:
        """Keep the lease and listen, until cancelled."""
        ...


class Alone:
    """The only replica: nobody to tell, nobody to follow."""

    def __init__(self, rid: str) -> None:
        self.rid = rid

    def follow(self, channel: Growing) -> None:
        """Control steps here publish what there is to follow."""

    def leave(self, sid: str) -> None:
        """Nothing was followed."""

    def grown(self, sids: Iterable[str]) -> None:
        """Nobody reads elsewhere."""

    def tell(self, owner: str, sid: str) -> None:
        """Every session is here."""

    def is_read_elsewhere(self, sid: str) -> bool:  # noqa: ARG002
        """There is no elsewhere."""
        return False

    async def is_alive(self, owner: str) -> bool:
        """A session of an earlier process is not."""
        return rid_of(owner) == self.rid

    async def run(self) -> None:
        """Nothing to keep."""
