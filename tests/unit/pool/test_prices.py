"""What tokens cost."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from genai_prices import types as listed
from genai_prices.data import providers

from gateway.core.usage import Usage
from gateway.pool.prices import FREE, MODELS, Price, PriceList, Tariff

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp()
USED = Usage(input_tokens=1000, output_tokens=500, cached_tokens=100, cache_creation_tokens=200, reasoning_tokens=50)


def test_details_are_parts_of_the_sums() -> None:
    """Cached and written tokens are taken out of the input, reasoning out of the output, and priced apart."""
    price = Price(input=2, output=10, cached=0.5, cache_creation=2.5, reasoning=20)
    assert price.cost_usd(USED) == pytest.approx((700 * 2 + 100 * 0.5 + 200 * 2.5 + 450 * 10 + 50 * 20) / 1e6)


def test_what_has_no_price_of_its_own() -> None:
    """Without their own price, details count as what they are part of."""
    assert Price(input=2, output=10).cost_usd(USED) == pytest.approx((1000 * 2 + 500 * 10) / 1e6)


def test_free_is_free() -> None:
    """Nothing costs nothing."""
    assert FREE.cost_usd(USED) == 0.0


def test_unknown_is_not_free() -> None:
    """An unknown endpoint, vendor, address or model has no price."""
    prices = PriceList({
        "own": Tariff(base_url="http://127.0.0.1:8000/v1"),
        "odd": Tariff(vendor="nobody", base_url="https://api.nobody.example/v1"),
        "openai": Tariff(vendor="openai"),
    })  # fmt: skip
    for endpoint, model in (("none", "gpt-4o"), ("own", "gpt-4o"), ("odd", "gpt-4o"), ("openai", "never-heard-of")):
        assert prices.cost_usd(endpoint, model, USED, NOW) is None


def test_vendors_are_known_by_preset_and_by_address() -> None:
    """The preset's name finds the vendor, or else the address does; the operator's price goes before both."""
    prices = PriceList({
        "preset": Tariff(vendor="openai"),
        "address": Tariff(base_url="https://api.openai.com/v1"),
        "behind a proxy": Tariff(vendor="openai", base_url="http://10.0.0.1/v1"),
        "own": Tariff(price=Price(input=1, output=1), vendor="openai"),
    })  # fmt: skip
    usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
    costs = {name: prices.cost_usd(name, "gpt-4o-mini", usage, NOW) for name in ("preset", "address", "behind a proxy")}
    assert costs == dict.fromkeys(costs, pytest.approx(0.15 + 0.6))
    assert prices.cost_usd("own", "gpt-4o-mini", usage, NOW) == 2.0


def test_every_price_is_the_librarys() -> None:
    """For every text model of the list the cost is what the library itself calculates, flat or in tiers."""
    billed = listed.Usage(
        input_tokens=300_000, output_tokens=500, cache_read_tokens=100, cache_write_tokens=200,
        output_reasoning_tokens=50,
    )  # fmt: skip
    usage = Usage(
        input_tokens=300_000, output_tokens=500, cached_tokens=100, cache_creation_tokens=200, reasoning_tokens=50
    )
    when, seen, tiers = datetime.fromtimestamp(NOW, UTC), 0, 0
    for provider in providers:
        prices = PriceList({"it": Tariff(vendor=provider.id)})
        for model in provider.models:
            found = provider.find_model(model.id, all_providers=providers)
            cost = prices.cost_usd("it", model.id, usage, NOW)
            if found is None or cost is None:
                continue
            expected = found.calc_price(billed, provider, genai_request_timestamp=when)
            requests = getattr(found.get_prices(when), "requests_kcount", None)
            assert requests or cost == pytest.approx(float(expected.total_price), rel=1e-9), (provider.id, model.id)
            seen += 1
            tiers += isinstance(found.get_prices(when).input_mtok, listed.TieredPrices)
    assert seen > 1000
    assert tiers > 10


def test_models_are_bounded() -> None:
    """Names that clients make up do not fill the memory."""
    prices = PriceList({"it": Tariff(vendor="openai")})
    for number in range(MODELS + 50):
        prices.cost_usd("it", f"made-up-{number}", USED, NOW)
    assert len(prices._models) == MODELS


@pytest.mark.parametrize(("tariff", "loads"), [({"vendor": "openai"}, True), ({"price": 1}, False), ({}, False)])
def test_the_list_is_loaded_only_if_needed(tariff: dict[str, object], loads: bool) -> None:
    """A gateway whose endpoints have prices of their own, or none to find, never loads the list; none goes online."""
    code = f"""
import json, sys
from gateway.pool.prices import FREE, PriceList, Tariff
given = json.loads({json.dumps(json.dumps(tariff))})
if "price" in given: given["price"] = FREE
PriceList({{"it": Tariff(**given)}})
print(int("genai_prices.data" in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == str(int(loads))
