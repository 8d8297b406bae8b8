"""What is held back so that an answer can be continued well if its provider fails: half words, unfinished tool calls.

Nothing of this is done for answers that cannot be continued. Sans-IO but for `AtomicTools`, which wraps batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.core.events import Finish, Text, ToolCall
from gateway.upstream.contract import pump, skipped

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.upstream.contract import Accept, Batch

WORD_CHARS = 16
HOLD_S = 0.05
"""A word waits no longer than this for its end, seconds."""

MAX_HELD_EVENTS = 50_000


class HoldBack:
    """Holds the last word of choice 0, at most 16 characters of it, until what follows shows that it is whole.

    Only chunks of nothing but text take part; before any other what is held goes out.
    """

    __slots__ = ("held",)

    def __init__(self) -> None:
        self.held = ""

    def feed(self, batch: Batch) -> Batch:
        """What goes out after one more read; empty if all of it waits."""
        pieces = [self.held]
        for event in batch:
            if type(event) is not Text or event.choice or event.more:
                return self._with_all(batch)
            pieces.append(event.text)
        said = "".join(pieces)
        self.held = last_word(said)
        out = said[: len(said) - len(self.held)]
        return [Text(0, out)] if out else []

    def flush(self) -> Batch:
        """What was held."""
        return self._with_all([])

    def _with_all(self, batch: Batch) -> Batch:
        held, self.held = self.held, ""
        return [Text(0, held), *batch] if held else batch


def last_word(text: str) -> str:
    """The word at the end that may go on: its last 16 characters at most, none behind white space."""
    end = text[-WORD_CHARS - 1 :]
    return "" if not end or end[-1].isspace() else end.split()[-1][-WORD_CHARS:]


class AtomicTools:
    """Batches in which tool calls come when they are whole, which is known at the answer's finish.

    From the first tool call on everything is held until then, so that the order stays; a failure in between leaves
    nothing of it. At a bound of events they go out as they come. Reads that gave nothing to hand on are empty batches.
    """

    def __init__(self, batches: AsyncIterator[Batch]) -> None:
        self._batches = batches
        self._held: Batch = []
        self.is_holding = self._released = False

    @property
    def malformed(self) -> int:
        """Payloads that were skipped so far."""
        return skipped(self._batches)

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        try:
            return self._take(await self._batches.__anext__())
        except StopAsyncIteration:
            if not self._held:
                raise
            return self._release()

    async def pump(self, accept: Accept) -> bool:
        """Give every batch to `accept`; see `upstream.contract.Pumped`."""
        if await pump(self._batches, lambda batch: accept(self._take(batch))):
            return True
        return bool(self._held) and not accept(self._release())

    def _take(self, batch: Batch) -> Batch:
        if self._released:
            return batch
        if not self.is_holding:
            at = _first_call(batch)
            if at is None:
                return batch
            self.is_holding = True
            batch, self._held = batch[:at], batch[at:]
            return batch + self._release() if any(type(event) is Finish for event in self._held) else batch
        self._held += batch
        over = len(self._held) > MAX_HELD_EVENTS or any(type(event) is Finish for event in batch)
        return self._release() if over else []

    def _release(self) -> Batch:
        self._released, self.is_holding = True, False
        held, self._held = self._held, []
        return held


def _first_call(batch: Batch) -> int | None:
    """Where the first chunk begins that has a tool call in it."""
    begin = 0
    for at, event in enumerate(batch):
        if type(event) is ToolCall:
            return begin
        if not event.more:
            begin = at + 1
    return None
