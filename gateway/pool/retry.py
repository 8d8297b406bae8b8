"""Whether a failed attempt may be repeated on the same endpoint, and after how long. Pure."""

import random

from gateway.core.errors import Category, Failure

MAX_ATTEMPTS = 3
"""Upstream attempts of one request in total, over all endpoints; a stale connection's repeat is not counted."""

BACKOFF_S = 0.25
OVERLOADED_S = (1.0, 2.0)
SHORT_RETRY_AFTER_S = 2.0


def repeat_after_s(failure: Failure, *, others: bool, rng: random.Random) -> float | None:
    """Seconds to wait before asking the same endpoint once more; None: do not.

    With another endpoint at hand only what may succeed at once is repeated; Retry-After is a minimum.
    """
    wait = failure.retry_after_s or 0.0
    match failure.category:
        case Category.CONNECT | Category.STALE_CONNECTION:
            return 0.0
        case Category.RATE_LIMITED:
            asked = failure.retry_after_s is not None and wait <= SHORT_RETRY_AFTER_S
            return wait if asked and not others else None
        case Category.OVERLOADED:
            return None if others or wait > SHORT_RETRY_AFTER_S else max(wait, rng.uniform(*OVERLOADED_S))
        case _:
            if not failure.consequence.same or wait > SHORT_RETRY_AFTER_S:
                return None
            return max(wait, rng.uniform(0, BACKOFF_S))
