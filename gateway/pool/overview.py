"""The pool as operators see it, and what they may do to an endpoint. Of this replica alone: nothing here is shared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.core.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.pool.candidate import Candidate
    from gateway.pool.health import HealthCheck
    from gateway.pool.route import Route


class Pool:
    """The routes, the endpoints of all routes, and the health checks by endpoint."""

    def __init__(self, routes: Iterable[Route], checks: Mapping[str, HealthCheck]) -> None:
        self.replace(routes, checks)

    def replace(self, routes: Iterable[Route], checks: Mapping[str, HealthCheck]) -> None:
        """Show and switch these from now on."""
        self._routes, self.checks = tuple(routes), checks
        self._candidates = {each.name: each for route in self._routes for each in route.selector.candidates}

    @property
    def candidates(self) -> Iterable[Candidate]:
        """Every endpoint once."""
        return self._candidates.values()

    def shown(self, now: float) -> dict[str, Any]:
        """Every endpoint and every route."""
        return {
            "endpoints": [self._endpoint(each, now) for each in self._candidates.values()],
            "routes": [_route(each, now) for each in self._routes],
        }

    def enable(self, name: str, now: float) -> dict[str, Any]:
        """Let requests go there again, with every key; its breaker stays as it is."""
        found = self._find(name)
        found.disabled = False
        found.keys.revive()
        return self._refreshed(found, now)

    def disable(self, name: str, now: float) -> dict[str, Any]:
        """No new requests; running ones go on."""
        found = self._find(name)
        found.disabled = True
        return self._refreshed(found, now)

    async def probe(self, name: str, now: float) -> dict[str, Any]:
        """Check its health now, if it has a check; the next request may be the breaker's probe."""
        found = self._find(name)
        found.breaker.probe_now(now)
        if (check := self.checks.get(name)) is not None:
            await check.once()
        return self._refreshed(found, now)

    def _find(self, name: str) -> Candidate:
        found = self._candidates.get(name)
        if found is None:
            msg = f"there is no endpoint {name!r:.80}; there are: {', '.join(self._candidates) or 'none'}"
            raise RequestError(msg, status=404, code="endpoint_not_found", param="endpoint")
        return found

    def _refreshed(self, found: Candidate, now: float) -> dict[str, Any]:
        found.refresh()
        return self._endpoint(found, now)

    def _endpoint(self, found: Candidate, now: float) -> dict[str, Any]:
        check = self.checks.get(found.name)
        return found.shown(now) | {"health": None if check is None else check.shown()}


def _route(route: Route, now: float) -> dict[str, Any]:
    selector = route.selector
    return {
        "model": selector.route,
        "strategy": selector.name,
        "candidates": [each.name for each in selector.candidates],
        "last_choices": selector.recent(now),
        "repeats_left": int(route.repeats.balance),
        "hedge": None if route.hedging is None else route.hedging.shown(),
    }
