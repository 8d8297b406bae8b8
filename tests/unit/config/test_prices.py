"""Prices of endpoints in the configuration."""

from typing import Any

import pytest
from pydantic import ValidationError

from config.endpoints import Endpoint


def endpoint(price: Any) -> Endpoint:
    """An endpoint with this price."""
    return Endpoint(name="e", kind="mock", model="m", price=price)


def test_a_price_is_usd_for_a_million_tokens() -> None:
    """Input and output are needed, details may follow; without a price the list's holds."""
    found = endpoint({"input": "1.25", "output": 10, "cached": 0.125}).price
    assert found is not None
    assert (found.input, found.output, found.cached, found.cache_creation, found.reasoning) == (
        1.25,
        10,
        0.125,
        None,
        None,
    )
    assert endpoint(None).price is None


@pytest.mark.parametrize(
    "price",
    [{"input": 1}, {"input": -1, "output": 1}, {"input": 1, "output": "inf"}, {"input": 1, "output": 1, "imput": 2}, 3],
)
def test_nonsense_is_refused(price: Any) -> None:
    """Half a price, a negative or infinite one and unknown members are no price."""
    with pytest.raises(ValidationError):
        endpoint(price)
