"""A ticket: what one stream holds of its budgets, from its admission until it is settled. Pure: `budgets` asks.

It turns tokens and money of the stream into what is asked of each budget: first the prompt and a block, then a block
each time the meter runs low, at last the bill of each leg against what is held.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from gateway.pool.budget import Per, Unit
from gateway.pool.ledger import Ask
from gateway.pool.meter import UNLIMITED, Spent

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from gateway.core.chat import ChatRequest
    from gateway.pool.budget import Budget
    from gateway.pool.ledger import Grant
    from gateway.pool.meter import Meter
    from gateway.pool.ratelimit import Headers, Standing

BLOCK = 512
"""Tokens that are reserved at once: seconds of any model, so that the next block is there long before."""

SMALLEST_MODEL_OUTPUT = 4096
"""Every model answers with so many tokens; asking an unknown one for more may be refused."""


@dataclass(slots=True)
class Share:
    """One budget of a stream: `held` of `window`, and what is `charged` already; `left` to others when last asked."""

    budget: Budget
    window: int = 0
    held: int = 0
    charged: int = 0
    left: int = 0
    reset: float = 0.0

    @property
    def allowed(self) -> int:
        """What the stream may take in all."""
        return self.charged + self.held

    def granted(self, grant: Grant, spent: int) -> None:
        """What was held counts as far as it was spent, and is replaced."""
        self.window, self.held, self.charged = grant.window, grant.amount, spent
        self.left, self.reset = grant.left, grant.reset


class Ticket:
    """One stream's. `headers` are those of its limits, for the answer.

    `meter` is None where nothing stops the stream. `legs` are the bills so far, by leg; `beyond` that one of them is a
    lower bound; `earlier` ones were another owner's. `due`: there is something to ask, `busy`: somebody does; `wanted`
    tokens are missing at least.
    """

    __slots__ = (
        "_cap_nano", "_cap_tokens", "beyond", "busy", "closed", "due", "earlier", "headers", "legs", "meter", "name",
        "shares", "tenant", "waiting", "wanted",
    )  # fmt: skip

    def __init__(self, name: str, budgets: Sequence[Budget], meter: Meter) -> None:
        self.name = name
        self.shares = [Share(budget) for budget in budgets if budget.per is not Per.REQUEST]
        self._cap_tokens = _least(budgets, Unit.TOKENS)
        self._cap_nano = _least(budgets, Unit.USD)
        self.meter = meter if any(budget.stops for budget in budgets) else None
        self.headers: Headers = []
        self.legs: dict[int, Spent] = {}
        self.earlier = 0
        self.beyond = self.busy = self.closed = self.due = False
        self.wanted = 0
        self.tenant = budgets[0].tenant
        self.waiting: asyncio.Future[bool] | None = None

    def first(self, meter: Meter, block: int) -> list[Ask]:
        """What is asked at admission: the prompt and one token must fit."""
        tokens, nano = self.prompt(meter)
        return [Ask(share.budget, *_first(share.budget, tokens, nano, block, meter.price)) for share in self.shares]

    def prompt(self, meter: Meter) -> tuple[int, int]:
        """Tokens and billionths of a dollar that the stream takes at least."""
        spent = meter.spent()
        return spent.tokens + 1, spent.nano + round(meter.price)

    def more(self, meter: Meter) -> list[Ask]:
        """What is asked when the meter runs low: what was spent is charged, and a block reserved where it stops."""
        spent, block = meter.spent(), max(BLOCK, self.wanted)
        asks: list[Ask] = []
        for share in self.shares:
            budget, used = share.budget, _of(share.budget.unit, spent, share)
            size = block if budget.unit is Unit.TOKENS else round(block * meter.price)
            asks.append(
                Ask(
                    budget,
                    share.window,
                    held=max(min(share.held, used - share.charged), 0),
                    spent=used - share.charged,
                    block=size if budget.stops else 0,
                )
            )
        return asks

    def last(self) -> list[Ask]:
        """What is asked in the end: everything held is given back, and the bill of all legs charged."""
        spent = self._billed()
        return [
            Ask(share.budget, share.window, share.held, _of(share.budget.unit, spent, share) - share.charged)
            for share in self.shares
        ]

    def settled(self) -> None:
        """The last step is on its way: what comes after it corrects it."""
        spent = self._billed()
        for share in self.shares:
            share.charged, share.held = _of(share.budget.unit, spent, share), 0

    def admitted(self, grants: Sequence[Grant]) -> None:
        """The first answer: the stream may begin."""
        for share, grant in zip(self.shares, grants, strict=True):
            share.granted(grant, 0)
        self.allow(rearm=True)

    def topped_up(self, asks: Sequence[Ask], grants: Sequence[Grant]) -> bool:
        """Another answer; False where some budget that stops the stream had nothing left."""
        more = True
        for share, ask, grant in zip(self.shares, asks, grants, strict=True):
            kept = share.held - ask.held if grant.window == share.window else 0
            share.granted(grant, share.charged + ask.spent)
            share.held += kept
            more = more and (grant.amount > 0 or not ask.block)
        self.allow(rearm=more)
        return more

    def forfeit(self, asks: Sequence[Ask]) -> None:
        """Nobody answered. What was asked may have happened or will: it counts as charged, and nothing as granted."""
        for share, ask in zip(self.shares, asks, strict=True):
            share.charged += ask.spent
            share.held -= ask.held
        self.allow(rearm=True)

    def allow(self, *, rearm: bool) -> None:
        """Tell the meter what the stream may take; `rearm`: and that it shall say when that runs low."""
        if self.meter is None:
            return
        tokens = min([self._cap_tokens, *self._of(Unit.TOKENS)])
        nano = min([self._cap_nano, *self._of(Unit.USD)])
        price = self.meter.price
        blocks = [
            share.held if share.budget.unit is Unit.TOKENS else int(share.held / price) if price else 2 * BLOCK
            for share in self.shares
            if share.budget.stops
        ]
        self.meter.allow(tokens, nano, min([BLOCK, *blocks]) // 2 if rearm and blocks else 0)

    def standings(self) -> list[Standing]:
        """What is left of each limit."""
        return [(share.budget, share.left, share.reset) for share in self.shares]

    def capped(self, request: ChatRequest) -> ChatRequest:
        """The request with the smaller one of the caller's limit and what is left, for each of its choices.

        A caller that set none gets one only where little is left, see `SMALLEST_MODEL_OUTPUT`; adapters know the name
        that their host has for it. The meter cuts in any case.
        """
        left = max(self._left() // max(request.n, 1), 1)
        wanted = request.max_output_tokens
        if left >= (SMALLEST_MODEL_OUTPUT if wanted is None else wanted):
            return request
        if request.thinking_tokens is not None and request.thinking_tokens >= left:
            return request  # a limit below the budget for thinking is refused
        names = [name for name in ("max_completion_tokens", "max_tokens") if name in request.body]
        body: dict[str, Any] = request.body | dict.fromkeys(names, left)
        return msgspec.structs.replace(request, max_output_tokens=left, body=body)

    @property
    def room(self) -> int | None:
        """Tokens that the stream may take in all, its prompt included, as far as is known now; None: any number."""
        left = self._left()
        return None if self.meter is None or left >= UNLIMITED // 2 else max(left, 0) + self.meter.spent().tokens

    def _left(self) -> int:
        """Tokens of an answer for which there is money and room, whoever else takes of it."""
        if self.meter is None:
            return UNLIMITED
        spent, price = self.meter.spent(), self.meter.price
        rooms = [self._cap_tokens - spent.tokens]
        nanos = [self._cap_nano - spent.nano]
        for share in self.shares:
            if share.budget.stops:
                unit = share.budget.unit
                (rooms if unit is Unit.TOKENS else nanos).append(share.allowed + share.left - _of(unit, spent, share))
        return min(*rooms, int(min(nanos) / price) if price else UNLIMITED)

    def _of(self, unit: Unit) -> list[int]:
        return [share.allowed for share in self.shares if share.budget.unit is unit and share.budget.stops]

    def _billed(self) -> Spent:
        return Spent(sum(leg.tokens for leg in self.legs.values()), sum(leg.nano for leg in self.legs.values()))


def _least(budgets: Sequence[Budget], unit: Unit) -> int:
    caps = [budget.limit for budget in budgets if budget.per is Per.REQUEST and budget.unit is unit]
    return min(caps, default=UNLIMITED)


def _of(unit: Unit, spent: Spent, share: Share) -> int:
    """What the stream took of a unit: one request, and no stream, which is only held."""
    match unit:
        case Unit.TOKENS:
            return spent.tokens
        case Unit.USD:
            return spent.nano
        case Unit.REQUESTS:
            return 1
        case Unit.STREAMS:
            return share.charged


def _first(budget: Budget, tokens: int, nano: int, block: int, price: float) -> tuple[int, int, int, int, int]:
    """Window, held, spent, need and block."""
    match budget.unit:
        case Unit.TOKENS:
            return 0, 0, 0, tokens, block
        case Unit.USD:
            return 0, 0, 0, max(nano, 1), round(block * price)
        case Unit.REQUESTS | Unit.STREAMS:
            return 0, 0, 0, 1, 0
