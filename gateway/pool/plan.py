"""What is configured of budgets: which of them a request falls under. Values only; `budgets` keeps them.

A key has its own budgets and limits, and shares those of its tenant. A caller may allow its own stream less.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from gateway.pool.budget import Budget, Per, Unit, to_nano

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.principal import Principal

MAX_TOKENS = 10**15
MAX_USD = 1_000_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Rate limits of one key or tenant; None: unlimited."""

    rpm: int | None = None
    tpm: int | None = None
    max_concurrent_streams: int | None = None

    def budgets(self, tenant: str, key: str | None) -> list[Budget]:
        """As budgets that stop no stream."""
        rows = (
            (Unit.REQUESTS, self.rpm, Per.MINUTE),
            (Unit.TOKENS, self.tpm, Per.MINUTE),
            (Unit.STREAMS, self.max_concurrent_streams, Per.TOTAL),
        )
        return [
            Budget(tenant=tenant, key=key, unit=unit, limit=limit, per=per, stops=False)
            for unit, limit, per in rows
            if limit is not None
        ]


def configured(tenant: str, key: str | None, per: str, tokens: int | None, usd: float | None) -> list[Budget]:
    """One row of the configuration as budgets."""
    rows = ((Unit.TOKENS, tokens), (Unit.USD, None if usd is None else max(to_nano(usd), 1)))
    return [
        Budget(tenant=tenant, key=key, unit=unit, limit=limit, per=Per(per))
        for unit, limit in rows
        if limit is not None
    ]


class Plans:
    """All configured budgets, by tenant and by key."""

    def __init__(self, budgets: Iterable[Budget] = ()) -> None:
        self._found: dict[tuple[str, str | None], tuple[Budget, ...]] = {}
        for budget in budgets:
            at = (budget.tenant, budget.key)
            self._found[at] = (*self._found.get(at, ()), budget)

    def of(self, who: Principal) -> tuple[Budget, ...]:
        """Those that a request of this caller falls under: what stops streams first, limits last."""
        if not self._found:
            return ()
        shared = self._found.get((who.tenant, None), ())
        own = self._found.get((who.tenant, who.key_id), ()) if who.key_id is not None else ()
        return tuple(sorted((*own, *shared), key=lambda budget: not budget.stops)) if own or shared else ()


def own_budgets(text: str, tenant: str) -> tuple[Budget, ...]:
    """What a caller allows its own stream: `tokens=500,usd=0.05`, either or both.

    Raises:
        ValueError: it says anything else.
    """
    found: dict[Unit, Budget] = {}
    for part in text.split(","):
        name, _, value = part.strip().partition("=")
        unit = Unit(name)
        if unit not in {Unit.TOKENS, Unit.USD} or unit in found:
            raise ValueError(text)
        limit = _tokens(value) if unit is Unit.TOKENS else _nano(value)
        found[unit] = Budget(tenant=tenant, unit=unit, limit=limit, per=Per.REQUEST)
    return tuple(found.values())


def _tokens(value: str) -> int:
    tokens = int(value) if value.isascii() and value.isdigit() and len(value) < 17 else 0
    if not 1 <= tokens <= MAX_TOKENS:
        raise ValueError(value)
    return tokens


def _nano(value: str) -> int:
    usd = float(value)
    if not isfinite(usd) or not 0 < usd <= MAX_USD:
        raise ValueError(value)
    return max(to_nano(usd), 1)
