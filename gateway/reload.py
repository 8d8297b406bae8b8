"""A new configuration for a gateway that runs: what it names is built anew, and takes the place of the old at once.

Requests that begin afterwards meet the new objects; streams that run finish on the endpoints, agents and prices with
which they began. Everything is built before anything is replaced, so a configuration that cannot be used changes
nothing. New endpoints begin without history: breakers closed, rates at zero.

What is bound at the start (address, journal, bounds of streams) cannot be replaced; `needs_restart` names it.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from gateway import from_settings
from gateway.agents_from_settings import catalog
from gateway.pool.routes import RouteTable
from gateway.pool_from_settings import Upstreams, groups, prices

if TYPE_CHECKING:
    from agents.catalog import Catalog
    from config.settings import Settings
    from gateway.api.deps import Services
    from gateway.pool.overview import Pool
    from gateway.pool.routes import Answering
    from gateway.runs import Runs

BOUND = ("server", "journal", "streams", "telemetry")
APPLIED = frozenset({"server.log_level"})
"""Of these sections, what whoever runs the process applies by itself."""


class Reload:
    """What of an app can be replaced; `settings` are those in force."""

    def __init__(
        self, settings: Settings, services: Services, pool: Pool, agents: Catalog, runs: Runs, upstreams: Upstreams
    ) -> None:
        self.settings, self._services, self._pool = settings, services, pool
        self._agents, self._runs, self._upstreams = agents, runs, upstreams

    def apply(self, settings: Settings) -> list[str]:
        """Put these settings in force; returns what of them waits for the next start, as `server.port`.

        Raises:
            ValueError: they cannot be used, and nothing was changed.
        """
        services, pipeline, old = self._services, self._services.pipeline, self._upstreams
        upstreams = Upstreams(tracer=old.tracer, propagates=old.propagates)
        models = groups(settings, services.metrics, services.clock, upstreams)
        agents, runs = catalog(settings), copy(self._runs)
        runs.models = RouteTable(models)
        routes: list[Answering] = [*models, *runs.routes(agents)]
        keyring, plans = from_settings.keyring(settings, services.clock), from_settings.plans(settings)
        books = copy(pipeline.bookkeeping.books)
        books.prices = prices(settings)
        # Nothing below fails or waits: no request meets a half of it.
        services.keyring.replace(keyring)
        services.routes.replace(routes)
        self._agents.replace(agents)
        old.replace(upstreams, services.tasks)
        self._pool.replace(models, upstreams.checks)
        pipeline.bookkeeping.books, pipeline.budgets.plans = books, plans
        pipeline.recoverable = from_settings.recoverable(settings)
        self._runs = runs
        names = {endpoint.name for endpoint in settings.endpoints}
        for gone in [endpoint.name for endpoint in self.settings.endpoints if endpoint.name not in names]:
            services.metrics.forget(gone)
        waiting = needs_restart(self.settings, settings)
        self.settings = settings
        return waiting


def needs_restart(old: Settings, new: Settings) -> list[str]:
    """The members that differ and are bound at the start."""
    return [
        f"{section}.{name}"
        for section in BOUND
        for name in type(getattr(new, section)).model_fields
        if getattr(getattr(old, section), name) != getattr(getattr(new, section), name)
        and f"{section}.{name}" not in APPLIED
    ]
