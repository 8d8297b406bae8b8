"""The books: what every leg took becomes one settlement row, for the log, the metrics and whoever keeps budgets.

A stream settles its legs at its end. An agent's run settles each of its calls when that is left, in its stream's name;
its legs are numbered over the whole run, so that a settlement is one for each stream and leg.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from gateway.core.events import End, Leg, UsageReport
from gateway.core.ids import show_sid
from gateway.pool.group import Attempts
from gateway.pool.metered import unmetered
from gateway.pool.settlement import Account, Row, Settlement
from gateway.streams.status import end_word, left_word
from gateway.streams.tally import Ledger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.core.chat import ChatRequest
    from gateway.core.clock import Clock
    from gateway.pool.routes import Answering
    from gateway.pool.settlement import Books, OnSettled
    from gateway.streams.lifecycle import Record
    from gateway.streams.session import Session
    from gateway.streams.stats import Stats
    from gateway.telemetry.metrics import Metrics

settlements = logging.getLogger("atlas.settlements")


@dataclass(frozen=True, slots=True, kw_only=True)
class Payer:
    """In whose name something is settled: the stream as clients see it, its tenant, the name of its API key."""

    stream: str
    tenant: str
    key: str | None


def payer_of(record: Record) -> Payer:
    """Who pays for a stream."""
    return Payer(stream=show_sid(record.sid), tenant=record.tenant, key=record.key_id)


class OwnBooks(Ledger, Protocol):
    """A source that settles what it takes by itself, call by call: an agent's run. Its stream has no legs."""

    def settles_for(self, payer: Payer, /) -> None:
        """Told once, before it is entered."""
        ...

    def may_use(self, tokens: int, /) -> None:
        """Everything that it asks may take so many tokens in all."""
        ...

    def ended(self, end: End, /) -> None:
        """Told once: how its stream ended."""
        ...


def _own_books(source: object) -> OwnBooks | None:
    inner = unmetered(source)
    return cast("OwnBooks", inner) if hasattr(inner, "settles_for") else None


class Bookkeeping:
    """One an app. `books` are what estimates and prices are made from; `on_settled` are told of each row."""

    def __init__(self, books: Books, metrics: Metrics, clock: Clock, on_settled: tuple[OnSettled, ...] = ()) -> None:
        self.books = books
        self._metrics, self._clock, self._on_settled = metrics, clock, on_settled

    def begin(self, session: Session, account: Account) -> None:
        """A stream settles by this account, unless its source keeps books of its own."""
        own = _own_books(session.source)
        if own is None:
            session.stats.account = account
        else:
            own.settles_for(payer_of(session.record))
            session.stats.ledger = own

    def account(self, group: Answering, request: ChatRequest) -> Account:
        """The account of one stream or call."""
        return self.books.account(group, request)

    def settle(
        self, stats: Stats, source: object, payer: Payer, end: End, *, spare: Iterator[int] | None = None
    ) -> None:
        """Settle every leg of what is over; attempts that were still under way become legs of `spare` numbers."""
        if (own := _own_books(source)) is not None:
            own.ended(end)
        learns = not _note_drained(stats, source, self._clock.monotonic())
        _name_abandoned(stats, source, spare or count(), self._clock.monotonic())
        for settlement in _settled(stats, payer, end, self._clock.monotonic(), learns=learns):
            self._emit(settlement)

    def _emit(self, settlement: Settlement) -> None:
        """Send a row everywhere: log, metrics, and whoever keeps budgets."""
        usage, endpoint, tokens_of = settlement.usage, settlement.endpoint, self._metrics.tokens
        for type_, tokens in (
            ("input", usage.input_tokens),
            ("output", usage.output_tokens),
            ("cached", usage.cached_tokens),
            ("cache_creation", usage.cache_creation_tokens),
            ("reasoning", usage.reasoning_tokens),
        ):
            if tokens:
                tokens_of(endpoint, type_).inc(tokens)
        if settlement.cost_usd is not None:
            self._metrics.cost(endpoint).inc(settlement.cost_usd)
        if settlements.isEnabledFor(logging.INFO):
            settlements.info("leg settled", extra=_row(settlement))
        for told in self._on_settled:
            told(settlement)


def bound(source: object, tokens: int | None) -> None:
    """Hold a source with books of its own to what its budgets have left; others are held by a meter."""
    own = _own_books(source)
    if own is not None and tokens is not None:
        own.may_use(tokens)


def malformed(source: object) -> int:
    """Payloads that the source's attempts could not read and skipped."""
    inner = unmetered(source)
    return inner.malformed if isinstance(inner, Attempts) else 0


def _name_abandoned(stats: Stats, source: object, numbers: Iterator[int], now: float) -> None:
    """Attempts that were under way when the stream ended may be billed."""
    inner = unmetered(source)
    if stats.leg is not None or not isinstance(inner, Attempts):
        return
    for each in inner.trying:
        kind, strategy = each.provider.kind, inner.choice.strategy
        stats.observe([Leg(next(numbers), each.name, kind, strategy, "ended before its first content")], now)


def _note_drained(stats: Stats, source: object, now: float) -> bool:
    """Whether something was found out of the last leg after its stream was over."""
    inner = unmetered(source)
    if not isinstance(inner, Attempts) or inner.last is None or inner.last.drained.usage is None:
        return False
    stats.observe([UsageReport(inner.last.drained.usage)], now)
    if inner.last.drained.whole:
        stats.completed()
    return True


def _settled(stats: Stats, payer: Payer, end: End, now: float, *, learns: bool) -> list[Settlement]:
    """The bill of each leg; providers' own figures teach the estimates of later streams.

    Not that of the last one unless it `learns`: where more was generated than counted.
    """
    account = stats.account
    if not isinstance(account, Account):
        return []
    found: list[Settlement] = []
    tallies = stats.tallies()
    for at, tally in enumerate(tallies):
        if tally.leg is None:
            continue
        is_last = at + 1 == len(tallies)
        if tally.finished and not tally.usage.estimated and (learns or not is_last):
            account.learn(tally.leg, tally.counted, tally.usage)
        row = Row(
            stream=payer.stream,
            tenant=payer.tenant,
            key=payer.key,
            leg=tally.leg,
            usage=tally.usage,
            finished=tally.finished,
            end=end_word(end) if is_last else left_word(tally.leg),
            duration_s=round((now if is_last else tally.ended) - tally.begun, 6),
        )
        found.append(account.settle(row))
        account.teach(row, paused=stats.paused_s > 0.0)
    return found


def _row(settlement: Settlement) -> dict[str, Any]:
    """A settlement as the fields of a log line."""
    row = {name: getattr(settlement, name) for name in Settlement.__slots__ if name not in {"usage", "duration_s"}}
    return row | msgspec.structs.asdict(settlement.usage) | {"duration_ms": round(1000 * settlement.duration_s, 3)}
