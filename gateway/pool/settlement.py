"""The bill of a leg: one frozen row for each, whatever became of it. Where the rows go is the pipeline's business.

An attempt that came to no content has no row, because no vendor says what it bills for one; what it may have billed
(the prompt of an attempt that timed out, a whole answer without content) is in no figure here. Exactly one such attempt
gets a row, as leg 0 with an estimate: the one under way when the stream was cancelled or interrupted.

Closing the socket does not stop every vendor's bill. Where it does not and the answer was cut, what was generated
afterwards is unknown, unless somebody read on (`usage_drain`): such a row is `billed_beyond`, its usage a lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from gateway.core.tokens import estimate_input_tokens, estimate_output_tokens
from gateway.core.usage import Usage
from gateway.pool.tokens import Kind, TokenRatios

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.core.chat import ChatRequest
    from gateway.core.clock import Clock
    from gateway.core.events import Leg
    from gateway.core.tokens import Counted, Ratio
    from gateway.pool.endpoint import Endpoint
    from gateway.pool.prices import PriceList
    from gateway.pool.routes import Answering


_ONE_EACH = Usage(input_tokens=1, output_tokens=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settlement:
    """What one leg took. `key` is the API key's name; `model` the provider's; `end` state and reason in one word."""

    stream: str
    tenant: str
    key: str | None
    route: str
    endpoint: str
    provider: str
    model: str
    leg: int
    usage: Usage
    cost_usd: float | None
    end: str
    stops_on_close: bool
    billed_beyond: bool
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What the stream knows of a leg that is over; `finished` if the provider said that the answer was."""

    stream: str
    tenant: str
    key: str | None
    leg: Leg
    usage: Usage
    finished: bool
    end: str
    duration_s: float


OnSettled: TypeAlias = "Callable[[Settlement], None]"
"""Told once of each leg, at the end of its stream; must not raise and must not wait."""


class Books:
    """What all streams of an app share: learnt ratios and prices."""

    def __init__(self, prices: PriceList, clock: Clock) -> None:
        self.ratios, self.prices, self.clock = TokenRatios(), prices, clock

    def account(self, group: Answering, request: ChatRequest) -> Account:
        """The account of one stream."""
        return Account(self, group, request)


class Account:
    """Estimates and prices of one stream: see `streams.tally.Account`."""

    __slots__ = ("_books", "_found", "_group", "_input", "_request")

    def __init__(self, books: Books, group: Answering, request: ChatRequest) -> None:
        self._books, self._group, self._request = books, group, request
        self._input: int | None = None
        self._found: dict[str | None, tuple[Endpoint, str]] = {}

    def input_tokens(self, leg: Leg | None, /) -> int:
        """The prompt, estimated once."""
        if self._input is None:
            ratio = self._books.ratios.of(self._kind(leg, structured=False))
            self._input = estimate_input_tokens(self._request, ratio.bytes_per_token)
        return self._input

    def output_tokens(self, leg: Leg | None, counted: Counted, /) -> int:
        """What was counted, by what is known of the model."""
        structured = self._request.schema is not None
        return estimate_output_tokens(counted, self._books.ratios.of(self._kind(leg, structured=structured)))

    def cost_usd(self, leg: Leg | None, usage: Usage, /) -> float | None:
        """By the endpoint's price; None if unknown."""
        endpoint, model = self._billed(leg)
        return self._books.prices.cost_usd(endpoint.name, model, usage, self._books.clock.now())

    def ratio(self, leg: Leg | None, /) -> Ratio:
        """By what `output_tokens` estimates."""
        return self._books.ratios.of(self._kind(leg, structured=self._request.schema is not None))

    def unpriced(self) -> str | None:
        """The name of an endpoint that may answer and whose price nobody knows, if there is one."""
        for endpoint in self._group.endpoints:
            model = endpoint.model_for(self._group.wanted(self._request.model))
            if self._books.prices.cost_usd(endpoint.name, model, _ONE_EACH, self._books.clock.now()) is None:
                return endpoint.name
        return None

    def learn(self, leg: Leg | None, counted: Counted, usage: Usage) -> None:
        """The provider said what a finished leg took."""
        hidden = 0 if counted.reasoning else usage.reasoning_tokens or 0
        kind = self._kind(leg, structured=self._request.schema is not None)
        self._books.ratios.learn(kind, counted, usage.output_tokens - hidden)

    def settle(self, row: Row) -> Settlement:
        """The bill of a leg."""
        endpoint, model = self._billed(row.leg)
        beyond = not row.finished and not endpoint.stops_on_close
        usage = msgspec.structs.replace(row.usage, estimated=True) if beyond else row.usage
        return Settlement(
            stream=row.stream,
            tenant=row.tenant,
            key=row.key,
            route=self._group.model,
            endpoint=endpoint.name,
            provider=endpoint.provider.kind,
            model=model,
            leg=row.leg.leg,
            usage=usage,
            cost_usd=self.cost_usd(row.leg, usage),
            end=row.end,
            stops_on_close=endpoint.stops_on_close,
            billed_beyond=beyond,
            duration_s=row.duration_s,
        )

    def teach(self, row: Row, *, paused: bool) -> None:
        """Selection learns how fast a leg was, and the limits how much it took; a pause makes it no slower."""
        seconds = row.duration_s if row.finished and not paused else 0.0
        endpoint, _ = self._billed(row.leg)
        endpoint.candidate.settled(self._books.clock.monotonic(), row.usage.output_tokens, seconds)

    def _kind(self, leg: Leg | None, *, structured: bool) -> Kind:
        endpoint, model = self._billed(leg)
        return Kind(endpoint.name, model, structured)

    def _billed(self, leg: Leg | None) -> tuple[Endpoint, str]:
        """Who bills, and the provider's name of the model; the first in order before anybody answered."""
        name = None if leg is None else leg.endpoint
        if (found := self._found.get(name)) is None:
            endpoints = self._group.endpoints
            endpoint = next((each for each in endpoints if each.name == name), endpoints[0])
            found = self._found[name] = endpoint, endpoint.model_for(self._group.wanted(self._request.model))
        return found
