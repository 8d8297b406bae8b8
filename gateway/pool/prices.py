"""What tokens cost, in USD: what the operator set, else a maintained price list that comes with a library, offline.

Nothing is ever fetched. A price that nobody knows is None, never 0. Prices are of tokens only: what vendors charge for
searches, storage or a better service tier is not in them, and a cache entry is priced at its shortest life.

Oddities, on purpose:
1. The library's data takes 45 ms and 5 MiB to load, so it is loaded with the app, and only if an endpoint needs it.
2. A flat price is computed here, with the library's figures: its own general calculation takes 0.1 ms, this one 1 us.
   A price in tiers (by the length of the prompt) is left to the library.
3. What a model costs may depend on the date or the hour; so the price is looked up anew for each leg.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from genai_prices.types import ModelInfo, ModelPrice, Provider

    from gateway.core.usage import Usage

MODELS = 256
_MILLION = 1_000_000
_FLAT = ("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "output_reasoning_mtok")


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """USD for a million tokens. What has no price of its own counts as input, reasoning as output."""

    input: float
    output: float
    cached: float | None = None
    cache_creation: float | None = None
    reasoning: float | None = None

    def cost_usd(self, usage: Usage) -> float:
        """What these tokens cost; the details are parts of the two sums."""
        cost = usage.input_tokens * self.input + usage.output_tokens * self.output
        for tokens, price, counted_as in (
            (usage.cached_tokens, self.cached, self.input),
            (usage.cache_creation_tokens, self.cache_creation, self.input),
            (usage.reasoning_tokens, self.reasoning, self.output),
        ):
            if tokens and price is not None:
                cost += tokens * (price - counted_as)
        return round(cost / _MILLION, 12)


FREE = Price(input=0.0, output=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tariff:
    """Where an endpoint's price comes from: `price` if the operator set one, else the list, by vendor or by address."""

    price: Price | None = None
    vendor: str | None = None
    base_url: str | None = None


class PriceList:
    """Prices by endpoint and model. Loads the library's list if a tariff needs it."""

    def __init__(self, tariffs: Mapping[str, Tariff]) -> None:
        self._set = {name: tariff.price for name, tariff in tariffs.items() if tariff.price is not None}
        self._vendors = {
            name: vendor
            for name, tariff in tariffs.items()
            if tariff.price is None and (vendor := _vendor(tariff)) is not None
        }
        self._models: dict[tuple[str, str], ModelInfo | None] = {}

    def cost_usd(self, endpoint: str, model: str, usage: Usage, now: float) -> float | None:
        """What a leg cost at Unix time `now`; None if the model's price is unknown."""
        fixed = self._set.get(endpoint)
        if fixed is not None:
            return fixed.cost_usd(usage)
        vendor = self._vendors.get(endpoint)
        if vendor is None or (found := self._model(endpoint, vendor, model)) is None:
            return None
        listed = found.get_prices(datetime.fromtimestamp(now, UTC))
        flat = _flat(listed)
        return flat.cost_usd(usage) if flat is not None else _by_tiers(listed, usage)

    def _model(self, endpoint: str, vendor: Provider, model: str) -> ModelInfo | None:
        key = (endpoint, model)
        if key not in self._models:
            while len(self._models) >= MODELS:
                del self._models[next(iter(self._models))]
            self._models[key] = vendor.find_model(model.lower(), all_providers=_vendors())
        return self._models[key]


def _vendor(tariff: Tariff) -> Provider | None:
    """Who bills this endpoint, if the list knows them."""
    if tariff.vendor is None and tariff.base_url is None:
        return None
    from genai_prices.data_snapshot import DataSnapshot, find_provider_by_id  # noqa: PLC0415  see oddity 1

    known = None if tariff.vendor is None else find_provider_by_id(_vendors(), tariff.vendor)
    if known is not None or tariff.base_url is None:
        return known
    try:
        return DataSnapshot(_vendors(), from_auto_update=False).find_provider(None, None, tariff.base_url)
    except LookupError:
        return None


@cache
def _vendors() -> list[Provider]:
    """The list as it was installed."""
    from genai_prices.data import providers  # noqa: PLC0415  see oddity 1

    return providers


def _flat(listed: ModelPrice) -> Price | None:
    """The listed price, if it is one figure for each kind of token; None if it has tiers, or lacks a figure."""
    figures: list[Any] = [getattr(listed, name) for name in _FLAT]
    if figures[0] is None or figures[1] is None:
        return None
    try:
        plain = [None if figure is None else float(figure) for figure in figures]
    except TypeError:
        return None
    return Price(
        input=plain[0] or 0.0, output=plain[1] or 0.0, cached=plain[2], cache_creation=plain[3], reasoning=plain[4]
    )


def _by_tiers(listed: ModelPrice, usage: Usage) -> float | None:
    from genai_prices.types import Usage as Billed  # noqa: PLC0415  see oddity 1

    if listed.input_mtok is None or listed.output_mtok is None:
        return None
    billed = Billed(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.cache_creation_tokens,
        output_reasoning_tokens=usage.reasoning_tokens,
    )
    return round(float(listed.calc_price(billed)["total_price"]), 12)
