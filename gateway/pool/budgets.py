"""Budgets of a replica's streams: who is let in, who gets more while streaming, what is settled in the end.

Admission is one step of the ledger for all budgets and limits of a request. Then the meter draws from what was
reserved, and the task of `run` reserves the next block ahead of need; it settles and renews leases, too. Without any
budget for a caller nothing is asked and nothing is metered.

Oddities, on purpose:
1. An admission that was given up half-way (its caller hung up, the ledger did not answer) may have happened. It is
   asked again under its number, and given back if so.
2. A settlement that the ledger does not take is tried again until it does, with its number, so that it counts once.
3. A stream whose answer came to nothing is charged nothing but the request.
4. Money can only be held to a limit where the price is known: a caller with a budget in USD is refused models of which
   any endpoint has no price, rather than let through for free.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from gateway.core.errors import Category, ProviderError, RequestError
from gateway.core.ids import show_sid
from gateway.pool.budget import Per, Unit, to_nano
from gateway.pool.ledger import Ask, Denial, LedgerUnavailable
from gateway.pool.meter import Meter, Spent
from gateway.pool.metered import Metered
from gateway.pool.ratelimit import exceeded, refusal, standing_headers
from gateway.pool.ticket import BLOCK, Ticket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gateway.core.chat import ChatRequest
    from gateway.core.clock import Clock
    from gateway.core.principal import Principal
    from gateway.pool.budget import Budget
    from gateway.pool.ledger import Answer, Ledger
    from gateway.pool.metered import S
    from gateway.pool.plan import Plans
    from gateway.pool.settlement import Account, Settlement

log = logging.getLogger("atlas.budgets")

MORE_S = 5.0
"""The longest wait for the next block; longer than a ledger's own deadline."""
LATE = 10_000
"""Bills that wait for a ledger that is away, and reservations to be undone, each; of more the oldest are dropped."""
BEYOND = 1_000
"""Settled streams whose provider billed on after the end, and may still say how much."""


@dataclass(slots=True)
class _Step:
    """A step that has to happen: `undo` if what it grants is to be given back."""

    tenant: str
    asks: Sequence[Ask]
    number: int
    undo: bool = False


@dataclass(slots=True)
class Budgets:
    """One a replica, over one ledger. `on_denied` is told the stage of each denial: `admission`, `limit`, `stream`.

    `waits` is how often a stream had to wait for its next block: hardly ever, as it is reserved ahead of need.
    """

    ledger: Ledger
    plans: Plans
    clock: Clock
    rid: str
    on_denied: Callable[[str], None] = lambda _stage: None
    waits: int = 0
    _open: dict[str, Ticket] = field(default_factory=dict[str, Ticket])
    _numbers: dict[str, Iterator[int]] = field(default_factory=dict[str, "Iterator[int]"])
    _due: deque[Ticket] = field(default_factory=deque[Ticket])
    _beyond: dict[str, Ticket] = field(default_factory=dict[str, Ticket])
    _late: deque[_Step] = field(default_factory=lambda: deque[_Step](maxlen=LATE))
    _undone: deque[_Step] = field(default_factory=lambda: deque[_Step](maxlen=LATE))  # by any number of refusals
    _at_work: int = 0
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    async def admit(
        self, sid: str, who: Principal, request: ChatRequest, account: Account, own: tuple[Budget, ...] = ()
    ) -> Ticket | None:
        """Let a request in and reserve its first block; None where nothing limits this caller.

        The ticket is open until `close`, whatever becomes of the stream.

        Raises:
            BudgetExceeded: a budget is used up, or has too little left for the prompt.
            RequestError: 429 a rate limit, 403 the price of the model is not known, 503 the ledger does not answer.
        """
        return await self._let_in(sid, (*self.plans.of(who), *own), request, account)

    async def readmit(
        self, sid: str, who: Principal, request: ChatRequest, account: Account, legs: int
    ) -> Ticket | None:
        """Let a stream go on that lost its owner after so many legs; what further ones take is charged.

        Limits of how many may begin do not hold it up. What the owner took and had not charged is charged to nobody:
        a prompt and a block at most.

        Raises:
            BudgetExceeded: a budget is used up, or has too little left for the prompt.
            RequestError: as `admit`.
        """
        budgets = tuple(budget for budget in self.plans.of(who) if budget.stops)
        ticket = await self._let_in(sid, budgets, request, account)
        if ticket is not None:
            ticket.earlier = legs
        return ticket

    async def _let_in(
        self, sid: str, budgets: tuple[Budget, ...], request: ChatRequest, account: Account
    ) -> Ticket | None:
        if not budgets:
            return None
        counts_usd = any(budget.unit is Unit.USD for budget in budgets)
        if counts_usd:
            _check_priced(account, request)
        meter = Meter(account, counts_usd=counts_usd)
        ticket = Ticket(show_sid(sid), budgets, meter)
        self._check_own(ticket, budgets, meter)
        if ticket.shares:
            meter.on_low = lambda: self._attend_soon(ticket)
            await self._reserve(ticket, meter, request)
        else:
            ticket.allow(rearm=False)
        self._open[ticket.name] = ticket
        return ticket

    def metered(self, source: S, ticket: Ticket) -> S | Metered[S]:
        """The source of an admitted stream, held to what the ticket allows."""
        if ticket.meter is None:
            return source
        return Metered(source, ticket.meter, lambda tokens: self._more(ticket, tokens))

    def on_settled(self, settlement: Settlement) -> None:
        """The bill of one leg; a later one of the same leg replaces it.

        After `close` only what corrects a leg that was billed beyond its end, once the provider's figure is known.
        """
        name = settlement.stream
        ticket = self._open.get(name) or self._beyond.get(name)
        if ticket is None or 1 <= settlement.leg <= ticket.earlier:
            return
        if ticket.closed and (name in self._open or settlement.leg not in ticket.legs):
            return
        ticket.beyond = ticket.beyond or settlement.billed_beyond
        usage, cost = settlement.usage, settlement.cost_usd
        ticket.legs[settlement.leg] = Spent(
            usage.input_tokens + usage.output_tokens, 0 if cost is None else to_nano(cost)
        )
        if ticket.closed:
            self._attend_soon(ticket)

    def close(self, sid: str) -> None:
        """The stream is over and its legs were settled: give back what is left. Safe to call twice."""
        ticket = self._open.get(show_sid(sid))
        if ticket is None or ticket.closed:
            return
        ticket.closed = True
        if ticket.meter is not None and ticket.meter.stopped:
            self.on_denied("stream")
        if ticket.shares:
            self._attend_soon(ticket)
        else:
            del self._open[ticket.name]

    @property
    def open(self) -> int:
        """Streams that hold something, and steps that the ledger has not taken yet."""
        return len(self._open) + len(self._late) + len(self._undone)

    async def run(self) -> None:
        """Reserve ahead, settle and renew, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.ledger.run(), name="ledger")
            tasks.create_task(self._beat(), name="budget leases")
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._due:
                    ticket = self._due.popleft()
                    if not ticket.busy:
                        ticket.busy = True
                        self._at_work += 1
                        tasks.create_task(self._attend(ticket), name=f"budget of {ticket.name}")

    async def flush(self, within_s: float = 2.0) -> bool:
        """Wait until everything is settled, before `run` is cancelled; False if it was not in time."""
        try:
            async with asyncio.timeout(within_s):
                while self._due or self._at_work or self._late or self._undone:
                    await self._try_late()
                    await asyncio.sleep(0.005)
        except (TimeoutError, LedgerUnavailable):
            log.warning("%d settlements did not reach the budgets", self.open)
            return False
        return True

    # -- admission

    def _check_own(self, ticket: Ticket, budgets: Sequence[Budget], meter: Meter) -> None:
        """Budgets of the request itself need nobody's answer."""
        tokens, nano = ticket.prompt(meter)
        for budget in budgets:
            if budget.per is Per.REQUEST and budget.limit < (tokens if budget.unit is Unit.TOKENS else nano):
                self.on_denied("admission")
                raise exceeded(budget, budget.limit, 0)

    async def _reserve(self, ticket: Ticket, meter: Meter, request: ChatRequest) -> None:
        wanted = request.max_output_tokens
        block = BLOCK if wanted is None else min(BLOCK, wanted * max(request.n, 1))
        step = _Step(ticket.tenant, ticket.first(meter, block), self._number(ticket.tenant), undo=True)
        try:
            answer = await self._move(step)
        except LedgerUnavailable as error:
            self._undone.append(step)
            raise _unavailable() from error
        except asyncio.CancelledError:
            self._undone.append(step)
            raise
        now = self.clock.now()
        if isinstance(answer, Denial):
            self.on_denied("admission" if answer.budget.stops else "limit")
            raise refusal(answer, request.dialect, now)
        ticket.admitted(answer)
        ticket.headers = standing_headers(request.dialect, ticket.standings(), now)

    # -- while streaming

    async def _more(self, ticket: Ticket, tokens: int) -> bool:
        """Whether more was allowed; waits for the ledger's answer.

        Raises:
            ProviderError: the ledger did not answer.
        """
        if ticket.closed or not ticket.shares:
            return False
        ticket.wanted = tokens
        self.waits += 1
        if ticket.waiting is None:
            ticket.waiting = asyncio.get_running_loop().create_future()
        self._attend_soon(ticket)
        try:
            async with asyncio.timeout(MORE_S):
                return await asyncio.shield(ticket.waiting)
        except (TimeoutError, LedgerUnavailable) as error:
            raise ProviderError(Category.JOURNAL, "the budget cannot be looked up") from error

    def _attend_soon(self, ticket: Ticket) -> None:
        ticket.due = True
        self._due.append(ticket)
        self._wake.set()

    async def _attend(self, ticket: Ticket) -> None:
        """Everything that a ticket waits for, in order; one at a time for each ticket."""
        try:
            while ticket.due:
                ticket.due = False
                if ticket.closed:
                    _answer(ticket, more=False)
                    await self._settle(ticket)
                else:
                    await self._top_up(ticket)
        finally:
            ticket.busy = False
            self._at_work -= 1

    async def _top_up(self, ticket: Ticket) -> None:
        if ticket.meter is None:
            return
        asks = ticket.more(ticket.meter)
        ticket.wanted = 0
        step = _Step(ticket.tenant, asks, self._number(ticket.tenant))
        try:
            answer = await self._move(step)
        except LedgerUnavailable as error:
            self._undone.append(_Step(step.tenant, step.asks, step.number, undo=True))  # it may have happened
            ticket.forfeit(asks)
            _answer(ticket, error)
            return
        if not isinstance(answer, Denial):
            _answer(ticket, more=ticket.topped_up(asks, answer))

    # -- in the end

    async def _settle(self, ticket: Ticket) -> None:
        step = _Step(ticket.tenant, ticket.last(), self._number(ticket.tenant))
        ticket.settled()
        self._open.pop(ticket.name, None)
        if ticket.beyond:
            self._beyond[ticket.name] = ticket
            if len(self._beyond) > BEYOND:
                del self._beyond[next(iter(self._beyond))]
        try:
            await self._move(step)
        except LedgerUnavailable:
            self._late.append(step)

    async def _try_late(self) -> None:
        while waiting := self._late or self._undone:
            step = waiting.popleft()
            try:
                answer = await self._move(step)
            except (LedgerUnavailable, asyncio.CancelledError):
                waiting.appendleft(step)
                raise
            if step.undo and not isinstance(answer, Denial):
                asks = [
                    Ask(ask.budget, grant.window, grant.amount) for ask, grant in zip(step.asks, answer, strict=True)
                ]
                self._late.append(_Step(step.tenant, asks, self._number(step.tenant)))

    async def _beat(self) -> None:
        """Renew what is held, and try again what is late."""
        while True:
            await asyncio.sleep(self.ledger.lease_s / 3)
            try:
                await self._try_late()
                await self.ledger.renew(self.rid, self._held())
            except LedgerUnavailable as error:
                log.warning("%s; %d steps wait", error, len(self._late) + len(self._undone))

    def _held(self) -> list[tuple[Budget, int, int]]:
        held: dict[tuple[Budget, int], int] = {}
        for ticket in self._open.values():
            for share in ticket.shares:
                if share.held:
                    at = (share.budget, share.window)
                    held[at] = held.get(at, 0) + share.held
        return [(budget, window, amount) for (budget, window), amount in held.items()]

    def _number(self, tenant: str) -> int:
        return next(self._numbers.setdefault(tenant, count(1)))

    async def _move(self, step: _Step) -> Answer:
        return await self.ledger.move(self.rid, step.number, step.asks)


def _answer(ticket: Ticket, error: LedgerUnavailable | None = None, *, more: bool = False) -> None:
    """Tell who waits for more."""
    waiting, ticket.waiting = ticket.waiting, None
    if waiting is None or waiting.done():
        return
    if error is None:
        waiting.set_result(more)
    else:
        waiting.set_exception(error)


def _check_priced(account: Account, request: ChatRequest) -> None:
    if (endpoint := account.unpriced()) is not None:
        msg = (
            f"this key has a budget in USD, and the price of {request.model!r} at {endpoint!r} is not known; "
            "the operator can set it as the endpoint's price"
        )
        raise RequestError(msg, status=403, code="price_unknown", param="model")


def _unavailable() -> RequestError:
    return RequestError(
        "the budgets cannot be looked up at the moment", status=503, code="budget_unavailable", type_="server_error",
        headers={"retry-after": "1"},
    )  # fmt: skip
