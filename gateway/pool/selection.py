"""Which endpoints of a route answer a request, in which order, and why: one `Selector` a route.

Who lacks what the request needs is left out; if that is everybody the request is refused, with what is missing. Who
cannot be asked now (open, resting, full, disabled) is left out too, but stays known: its name and reason are part of
the explanation. The strategy orders the rest. The newest choices are kept for `/v1/pool`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gateway.pool.capability import NOTHING, UNBOUNDED, UNKNOWN, Needs, strictest
from gateway.pool.needs import needs_of, refuse_unmet

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from gateway.core.chat import ChatRequest
    from gateway.pool.candidate import Candidate
    from gateway.pool.strategies import Strategy

CHOICES_KEPT = 20
SIZED = frozenset({"cheapest", "task_aware"})
"""Strategies that look at the size of a request."""


@dataclass(frozen=True, slots=True)
class Choice:
    """An order of endpoints for one request, at monotonic `now`.

    `able` are all that meet its needs; `left_out` says of those that could not be asked why, and `first_why` what put
    the first one there.
    """

    strategy: str
    ranked: list[Candidate]
    able: Sequence[Candidate]
    needs: Needs
    now: float
    reasons: Strategy
    left_out: Mapping[str, str]
    first_why: str | None

    def why(self, candidate: Candidate) -> str:
        """A short reason for the place of a ranked candidate, by what is known now."""
        return self.reasons.why(self.needs, candidate, self.now)

    def shown(self) -> dict[str, Any]:
        """For the status object and `/v1/pool`: who was considered, and why the first one won."""
        ranked = self.ranked
        return {
            "strategy": self.strategy,
            "considered": [each.name for each in ranked],
            "chosen": ranked[0].name if ranked else None,
            "why": self.first_why,
            "left_out": dict(self.left_out),
        }


_NOBODY: Mapping[str, str] = MappingProxyType({})


def _left_out(able: Sequence[Candidate], ranked: list[Candidate], now: float) -> Mapping[str, str]:
    there = set(map(id, ranked))
    return {each.name: each.blocked(now)[0] for each in able if id(each) not in there}


class Selector:
    """The selection of one route."""

    def __init__(
        self, route: str, candidates: Sequence[Candidate], name: str, strategy: Strategy, rng: random.Random
    ) -> None:
        self.route, self.candidates, self.name = route, tuple(candidates), name
        self._strategy, self._rng = strategy, rng
        profiles = [each.profile for each in candidates]
        self._restricted = any(each != UNKNOWN for each in profiles)
        self._strictest = strictest(profiles)
        self.measures = name in SIZED or any(
            each.profile.context_tokens < UNBOUNDED or each.admission.counts_tokens for each in candidates
        )
        self._kept: deque[tuple[float, str, str, int]] = deque(maxlen=CHOICES_KEPT)

    def needs(self, request: ChatRequest, stated: Needs = NOTHING) -> Needs:
        """What a request needs, as far as it matters here."""
        if not self.measures and not self._restricted and stated is NOTHING:
            return NOTHING
        return needs_of(request, stated, sized=self.measures)

    def choose(self, needs: Needs, now: float) -> Choice:
        """Who is asked, in order; nobody, if all that could cannot be asked now.

        Raises:
            RequestError: 400, no endpoint of the route meets the needs.
        """
        able: Sequence[Candidate] = self.candidates
        if not needs.are_met_by(self._strictest):
            able = [each for each in able if needs.are_met_by(each.profile)]
            if not able:
                raise refuse_unmet(needs, [each.profile for each in self.candidates], self.route)
        ranked, first_why = self._rank(needs, able, now), None
        if ranked:
            first_why = self._strategy.why(needs, ranked[0], now)
            self._kept.append((now, ranked[0].name, first_why, len(ranked)))
        left_out = _NOBODY if len(ranked) == len(able) else _left_out(able, ranked, now)
        return Choice(self.name, ranked, able, needs, now, self._strategy, left_out, first_why)

    def again(self, choice: Choice, now: float) -> list[Candidate]:
        """The order for a request whose first choice is past, by what is known now."""
        return self._rank(choice.needs, choice.able, now)

    def _rank(self, needs: Needs, able: Sequence[Candidate], now: float) -> list[Candidate]:
        usable = [each for each in able if now >= each.rests_until and not each.admission.is_full]
        return self._strategy.rank(needs, usable, now, self._rng)

    def recent(self, now: float) -> list[dict[str, Any]]:
        """The newest choices, newest first."""
        return [
            {"ago_s": round(now - when, 3), "chosen": name, "why": why, "of": count}
            for when, name, why, count in reversed(self._kept)
        ]
