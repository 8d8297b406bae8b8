"""Rate limits as callers see them: headers in the form of their dialect, and the refusals. Pure.

OpenAI's (platform.openai.com, guide "Rate limits", June 2026): `x-ratelimit-limit-requests`, `-remaining-requests`,
`-reset-requests` with a duration such as `6m0s`, and the same of tokens. Anthropic's (docs, "Rate limits", November
2026): `anthropic-ratelimit-requests-limit`, `-remaining`, `-reset` with a time by RFC 3339, and the same of tokens.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import ceil
from typing import TYPE_CHECKING, TypeAlias

from gateway.core.errors import Category, Declined, Failure, RequestError
from gateway.pool.budget import Per, Unit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.pool.budget import Budget
    from gateway.pool.ledger import Denial

Headers: TypeAlias = "list[tuple[bytes, bytes]]"
Standing: TypeAlias = "tuple[Budget, int, float]"
"""A limit, what is left of it, and when its window ends (Unix seconds)."""

FULL_RETRY_S = 1
"""After how long to come back where streams must end first."""
MAX_RETRY_S = 60


class BudgetExceeded(Declined):
    """A budget does not allow this request, and no repetition will help."""

    def __init__(self, message: str) -> None:
        super().__init__(Failure(Category.BUDGET, message))


def standing_headers(dialect: str, standings: Iterable[Standing], now: float) -> Headers:
    """What a caller is told of its limits, in the form of its dialect."""
    found: Headers = []
    for budget, left, reset in standings:
        if budget.stops or budget.unit not in {Unit.REQUESTS, Unit.TOKENS}:
            continue
        if dialect.startswith("anthropic"):
            when = datetime.fromtimestamp(reset, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            prefix = f"anthropic-ratelimit-{budget.unit}-"
            row = {"limit": str(budget.limit), "remaining": str(left), "reset": when}
            found += [((prefix + name).encode(), value.encode()) for name, value in row.items()]
        else:
            row = {"limit": str(budget.limit), "remaining": str(left), "reset": duration(reset - now)}
            found += [(f"x-ratelimit-{name}-{budget.unit}".encode(), value.encode()) for name, value in row.items()]
    return found


def duration(seconds: float) -> str:
    """As OpenAI writes it: `350ms`, `12s`, `6m0s`, `1h0m0s`."""
    if seconds < 1:
        return f"{max(ceil(seconds * 1000), 0)}ms"
    whole = ceil(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def refusal(denial: Denial, dialect: str, now: float) -> RequestError:
    """The answer to a request that a budget or a limit denied."""
    budget = denial.budget
    if budget.stops:
        return exceeded(budget, denial.left, denial.reset)
    wait_s = FULL_RETRY_S if budget.unit is Unit.STREAMS else min(max(ceil(denial.reset - now), 1), MAX_RETRY_S)
    headers = {"retry-after": str(wait_s)}
    for name, value in standing_headers(dialect, [(budget, denial.left, denial.reset)], now):
        headers[name.decode()] = value.decode()
    code = "concurrency_limit_exceeded" if budget.unit is Unit.STREAMS else "rate_limit_exceeded"
    return RequestError(
        f"rate limit reached ({budget.shown}; {denial.left} left); try again in {wait_s} s",
        status=429, code=code, type_="rate_limit_error", headers=headers,
    )  # fmt: skip


def exceeded(budget: Budget, left: int, reset: float) -> BudgetExceeded:
    """The answer to a request that a budget denied: names it, and when it is renewed."""
    when = "" if not reset else f"; it is renewed at {datetime.fromtimestamp(reset, UTC):%Y-%m-%dT%H:%M:%SZ}"
    if budget.per is Per.REQUEST:
        return BudgetExceeded(f"the prompt alone takes more than the budget of this request ({budget.shown})")
    rest = " is used up" if not left else " has too little left for this prompt"
    return BudgetExceeded(f"the budget of {budget.shown}{rest}{when}")
