"""The table of repeats on the same endpoint."""

import random

import pytest

from gateway.core.errors import Category, Failure
from gateway.pool.retry import repeat_after_s

C = Category
ALONE = {C.CONNECT, C.STALE_CONNECTION, C.OVERLOADED, C.UPSTREAM_5XX, C.TIMEOUT_IDLE, C.STREAM_BROKEN, C.STREAM_ERROR}
ALONE |= {C.EMPTY}


def repeat(category: Category, wait: float | None = None, *, others: bool = False, seed: int = 1) -> float | None:
    """The decision about a failure of this category with this Retry-After."""
    return repeat_after_s(Failure(category, "", wait), others=others, rng=random.Random(seed))


@pytest.mark.parametrize("category", Category)
def test_which(category: Category) -> None:
    """What may be repeated is repeated, and nothing else: never what was refused, timed out or was no protocol."""
    assert (repeat(category) is not None) == (category in ALONE)


@pytest.mark.parametrize(
    ("category", "wait", "others", "low", "high"),
    [
        (C.CONNECT, None, False, 0, 0),
        (C.CONNECT, None, True, 0, 0),
        (C.STALE_CONNECTION, None, True, 0, 0),
        (C.RATE_LIMITED, 1.5, False, 1.5, 1.5),
        (C.RATE_LIMITED, 2.0, False, 2.0, 2.0),
        (C.RATE_LIMITED, 0.0, False, 0.0, 0.0),
        (C.OVERLOADED, None, False, 1, 2),
        (C.OVERLOADED, 2.0, False, 2, 2),
        (C.UPSTREAM_5XX, None, False, 0, 0.25),
        (C.UPSTREAM_5XX, 1.0, False, 1, 1),
        (C.EMPTY, None, True, 0, 0.25),
    ],
)
def test_wait(category: Category, wait: float | None, others: bool, low: float, high: float) -> None:
    """The wait is jittered within its bounds, and what the provider asked for is a minimum."""
    waits = {repeat(category, wait, others=others, seed=seed) for seed in range(50)}
    assert all(found is not None and low <= found <= high for found in waits)
    assert len(waits) > 1 or low == high


@pytest.mark.parametrize(
    ("category", "wait", "others"),
    [
        (C.RATE_LIMITED, None, False),
        (C.RATE_LIMITED, 2.1, False),
        (C.RATE_LIMITED, 1.0, True),
        (C.OVERLOADED, 2.1, False),
        (C.OVERLOADED, None, True),
        (C.UPSTREAM_5XX, 2.1, False),
        (C.QUOTA, 1.0, False),
        (C.QUOTA, None, False),
    ],
)
def test_not(category: Category, wait: float | None, others: bool) -> None:
    """Nobody waits long for the same endpoint, nor waits at all where another one is at hand; money is not retried."""
    assert repeat(category, wait, others=others) is None
