"""Recovery: this replica goes on with a stream whose owner is gone.

find        the request that was stored beside the log, and a route that can go on from what the log holds
claim       compare-and-set on gen and tail: what was read is what is claimed, and of several claimants one wins
go on       a session like any other, whose source continues the partial answer; no upstream is asked before the claim

What the dead owner's legs took is counted from the log, and billed with the rest, or alone where nobody goes on.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from gateway.bookkeeping import payer_of
from gateway.core.chat import ChatRequest
from gateway.core.errors import Category, ProviderError, RequestError
from gateway.core.ids import show_sid
from gateway.core.principal import Principal
from gateway.pool.continuation import Level
from gateway.pool.delivered import Delivered
from gateway.streams.journal import ExpiredStream, UnknownStream
from gateway.streams.lifecycle import Op, Outcome, Step
from gateway.streams.stats import Stats
from gateway.streams.stored import decode

if TYPE_CHECKING:
    from gateway.core.events import End
    from gateway.core.usage import Usage
    from gateway.pipeline import Pipeline
    from gateway.streams.lifecycle import Record
    from gateway.streams.source import Source
    from gateway.upstream.contract import Batch

log = logging.getLogger("atlas.streams")

PAGE_BYTES = 262_144
LOST = "the replica that served this stream is gone, and nobody could go on with it"


class Recovery:
    """Takes streams over from dead replicas."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    async def revive(self, record: Record) -> bool:
        """Claim a stream and go on with it; False if nobody can.

        Raises:
            JournalUnavailable: it was claimed, or not; it is looked at again.
        """
        pipeline = self._pipeline
        kept = await pipeline.journal.request(record.sid)
        if kept is None or pipeline.draining:
            return False
        memo = decode(kept)
        request = memo.request
        try:
            group = pipeline.routes.find(request.model)
            delivered, stats, tail = await self._read(record)
        except (RequestError, UnknownStream, ExpiredStream):
            return False
        lost = ProviderError(Category.OWNER_LOST, LOST)
        source = group.continue_from(request, delivered, lost, level=Level(memo.fallback))
        if source is None:
            return False
        adopted = False
        try:
            source = await self._held_to_budgets(record, request, source, len(stats.legs))
            if not await self._claim(record, tail, owner := pipeline.new_owner()):
                return False
            page = await pipeline.journal.read(record.sid, tail, 1)
            if page.record.owner != owner:
                return True  # it ended, or somebody claimed it from us
            session = pipeline.adopt(page, source, request, stats)
            session.request_id, session.key, session.recoverable = memo.request_id, memo.key, True
            adopted = True
        except RequestError as refused:
            log.warning("is not gone on with: %s", refused.message, extra={"stream": show_sid(record.sid)})
            return False
        finally:
            if not adopted:
                pipeline.budgets.close(record.sid)
        log.warning("goes on with the stream of a replica that is gone", extra={"stream": show_sid(record.sid)})
        return True

    async def _held_to_budgets(self, record: Record, request: ChatRequest, source: Source, legs: int) -> Source:
        """The source, held to what the budgets of the stream's key and tenant have left; its own was with its owner.

        Raises:
            RequestError: nothing is left, or nobody knows.
        """
        pipeline = self._pipeline
        account = pipeline.bookkeeping.account(pipeline.routes.find(request.model), request)
        payer = Principal(tenant=record.tenant, key_id=record.key_id)
        ticket = await pipeline.budgets.readmit(record.sid, payer, request, account, legs)
        return source if ticket is None else pipeline.budgets.metered(source, ticket)

    async def took(self, record: Record) -> Took | None:
        """What the log says of a stream that only ends here; None if its route or its log is gone.

        The prompt is known if the request was kept, or its provider said how long it is.

        Raises:
            JournalUnavailable: it is looked at again.
        """
        pipeline = self._pipeline
        kept = await pipeline.journal.request(record.sid)
        request = ChatRequest(record.dialect, record.model, ()) if kept is None else decode(kept).request
        try:
            account = pipeline.bookkeeping.account(pipeline.routes.find(record.model), request)
            _, stats, _ = await self._read(record)
        except (RequestError, UnknownStream, ExpiredStream):
            return None
        stats.account = account
        return Took(stats, record, pipeline)

    async def _read(self, record: Record) -> tuple[Delivered, Stats, int]:
        """What the log holds, what its legs took so far, and the seq of its last event."""
        clock = self._pipeline.clock
        stats = Stats(clock.monotonic() - max(0.0, clock.now() - record.created))
        delivered, seq = Delivered(), -1
        while True:
            page = await self._pipeline.journal.read(record.sid, seq, PAGE_BYTES)
            for entry in page.entries:
                events = entry.after(seq)
                delivered.add(events)
                if entry.control is None:
                    stats.observe(cast("Batch", events), clock.monotonic())
                seq = entry.seq
            if seq >= page.tail or not page.entries:
                stats.retold()
                return delivered, stats, seq

    async def _claim(self, record: Record, tail: int, owner: str) -> bool:
        """Whether the stream is this replica's now: nothing may have changed since its log was read."""
        step = Step(op=Op.CLAIM, op_id=f"claim:{owner}", expect_gen=record.gen, expect_seq=tail, owner=owner)
        answer, _ = await self._pipeline.journal.step(record.sid, step)
        return answer.outcome is Outcome.CHANGED


class Took:
    """What the legs of a stream took whose owner is gone, counted from its log."""

    def __init__(self, stats: Stats, record: Record, pipeline: Pipeline) -> None:
        self._stats, self._record, self._pipeline = stats, record, pipeline

    def usage(self) -> tuple[Usage, int]:
        """Usage of all legs, and how many they were."""
        return self._stats.effective_usage(), len(self._stats.legs)

    def settle(self, end: End) -> dict[str, Any]:
        """Bill each leg; what the status shows of them."""
        pipeline = self._pipeline
        pipeline.bookkeeping.settle(self._stats, None, payer_of(self._record), end)
        facts = self._stats.facts(pipeline.clock.monotonic(), [], end)
        return {name: facts[name] for name in ("legs", "usage", "cost_usd")}
