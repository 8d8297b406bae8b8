"""How agents have done so far: by agent, type of task and endpoint. In memory, of this process, bounded."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.ports import Call

WEIGHT = 0.2
"""Of the newest value in a moving average."""
MAX_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Score:
    """How one call went; seconds since it was asked."""

    whole: bool
    first_token_s: float
    seconds: float


@dataclass(slots=True)
class Row:
    """One agent, type of task and endpoint. Seconds; averages are exponentially weighted."""

    calls: int = 0
    whole: int = 0
    first_token_s: float | None = None
    tokens_per_s: float | None = None
    cost_usd: float = 0.0

    def shown(self) -> dict[str, Any]:
        """As `GET /v1/agents/{name}` shows it."""
        return {
            "calls": self.calls,
            "success": round(self.whole / self.calls, 4) if self.calls else None,
            "first_token_ms": None if self.first_token_s is None else round(1000 * self.first_token_s, 1),
            "tokens_per_s": None if self.tokens_per_s is None else round(self.tokens_per_s, 1),
            "cost_usd": round(self.cost_usd, 8),
        }


NO_ENDPOINT = "none"
"""Where a call came to no content at any endpoint."""


def _nobody(_agent: str, _seconds: float) -> None:
    """Nobody is told."""


class Board:
    """All rows. `on_call(agent, seconds)` is told of each call when it is left, whatever came of it."""

    def __init__(self, on_call: Callable[[str, float], None] = _nobody) -> None:
        self._rows: OrderedDict[tuple[str, str, str], Row] = OrderedDict()
        self._on_call = on_call

    def count(self, agent: str, task: str, call: Call, score: Score) -> None:
        """A call is over."""
        row = self._row(agent, task, call.endpoint)
        row.calls += 1
        row.whole += score.whole
        row.cost_usd += call.cost_usd or 0.0
        row.first_token_s = _moved(row.first_token_s, score.first_token_s)
        if (streaming_s := score.seconds - score.first_token_s) > 0:
            row.tokens_per_s = _moved(row.tokens_per_s, call.usage.output_tokens / streaming_s)

        self._on_call(agent, score.seconds)

    def missed(self, agent: str, task: str, seconds: float) -> None:
        """A call came to nothing: no endpoint gave any content, or nobody waited for it."""
        self._row(agent, task, NO_ENDPOINT).calls += 1
        self._on_call(agent, seconds)

    def _row(self, agent: str, task: str, endpoint: str) -> Row:
        key = (agent, task, endpoint)
        row = self._rows.setdefault(key, Row())
        self._rows.move_to_end(key)
        if len(self._rows) > MAX_ROWS:
            self._rows.popitem(last=False)
        return row

    def shown(self, agent: str) -> list[dict[str, Any]]:
        """What is known of one agent."""
        return [
            {"task": task, "endpoint": endpoint, **row.shown()}
            for (name, task, endpoint), row in self._rows.items()
            if name == agent
        ]


def _moved(average: float | None, value: float) -> float:
    return value if average is None else average + WEIGHT * (value - average)
