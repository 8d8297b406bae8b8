"""A route: what clients name as `model`, and the endpoints that may answer it.

How they are tried is in `attempts`, how a partial answer goes on elsewhere in `continuation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.pool.attempts import Attempts
from gateway.pool.capability import NOTHING, Needs
from gateway.pool.continuation import MAX_LEGS, Level, plan
from gateway.pool.hedged import Hedged
from gateway.pool.route import Route
from gateway.pool.whole import Whole

if TYPE_CHECKING:
    from gateway.core.chat import ChatRequest
    from gateway.core.errors import ProviderError
    from gateway.pool.delivered import Delivered
    from gateway.pool.endpoint import Endpoint
    from gateway.pool.selection import Choice

__all__ = ["Attempts", "ProviderGroup"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderGroup(Route):
    """A route that requests are put to."""

    def attempt(self, request: ChatRequest, *, level: Level = Level.CONTINUE, needs: Needs = NOTHING) -> Attempts:
        """An event source that answers `request`.

        `level` is what the caller lets be done, at most the route's; `needs` is what it states to need.

        Raises:
            RequestError: 400, no endpoint of the route meets the needs.
        """
        level = level.at_most(self.fallback.level)
        choice = self.selector.choose(self.selector.needs(request, needs), self.clock())
        self.repeats.earn()
        kind = Attempts
        if self.hedging is not None:
            kind = Hedged
            self.hedging.earn()
        return kind(self, request, self._asked(choice, level), level=level, choice=choice)

    def continue_from(
        self, request: ChatRequest, delivered: Delivered, lost: ProviderError, *, level: Level = Level.CONTINUE
    ) -> Attempts | Whole | None:
        """An event source for the rest of an answer whose owner was lost; None if nobody can continue it.

        `delivered` holds all of its log, `lost` is what entering raises if those that can are asked in vain. What had
        no content yet, and an answer with `stream: false`, is attempted anew.
        """
        level = level.at_most(self.fallback.level)
        choice = self.selector.choose(NOTHING, self.clock())
        endpoints = self._asked(choice, level)
        if delivered.finished and len(delivered.finished) == request.n:
            return Whole(endpoints[0].timeouts)
        if not delivered.has_content or not request.stream:
            return Attempts(self, request, endpoints, level=level, delivered=delivered, choice=choice)
        chars = self.fallback.replay_max_chars
        plans = (plan(request, delivered, each, level=level, replay_max_chars=chars) for each in endpoints)
        if len(delivered.legs) >= MAX_LEGS or not any(plans):
            return None
        return Attempts(self, request, endpoints, level=level, delivered=delivered, lost=lost, choice=choice)

    def _asked(self, choice: Choice, level: Level) -> tuple[Endpoint, ...]:
        """Who is asked, in order; if nobody can be now, everybody, so that each says why not."""
        endpoints = self.endpoints_of(choice.ranked or list(choice.able))
        return endpoints[:1] if level is Level.OFF and choice.ranked else endpoints
