"""A new configuration for a gateway that runs: what it names is built anew, and takes the place of the old at once.

Requests that begin afterwards meet the new objects; streams that run finish on the endpoints, agents and prices with
which they began. Everything is built before anything is replaced, so a configuration that cannot be used changes
nothing. New endpoints begin without history: breakers closed, rates at zero.

What is bound at the start (address, journal, bounds of streams) cannot be replaced; `needs_restart` names it.

Keys may come and go, but not all of them: without any everybody is let in, and a file that was emptied, or is just
being written, looks like that. Whoever means it restarts.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Literal, TypeAlias

from gateway import from_settings
from gateway.agents_from_settings import catalog
from gateway.pool.routes import RouteTable
from gateway.pool_from_settings import Upstreams, groups, prices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agents.catalog import Catalog
    from config.settings import Settings
    from gateway.api.deps import Services
    from gateway.pool.overview import Pool
    from gateway.pool.routes import Answering
    from gateway.runs import Runs

BOUND = ("server", "journal", "streams", "telemetry")
APPLIED = frozenset({"server.log_level"})
"""Of these sections, what whoever runs the process applies by itself."""
KeyChange: TypeAlias = Literal["key.add", "key.change", "key.remove"]


class Reload:
    """What of an app can be replaced; `settings` were applied last, over those that it was built with."""

    def __init__(
        self, settings: Settings, services: Services, pool: Pool, agents: Catalog, runs: Runs, upstreams: Upstreams
    ) -> None:
        self.settings, self._bound, self._services, self._pool = settings, settings, services, pool
        self._agents, self._runs, self._upstreams = agents, runs, upstreams

    def apply(self, settings: Settings) -> list[str]:
        """Put these settings in force; returns what of them waits for the next start, as `server.port`.

        Raises:
            ValueError: they cannot be used, or would let everybody in, and nothing was changed.
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
        if self.settings.keys and not settings.keys:
            raise ValueError("keys: all of them are gone, and without any everybody is let in; restart if you mean it")
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
        self.settings = settings
        return needs_restart(self._bound, settings)


def key_changes(old: Settings, new: Settings) -> Iterator[tuple[KeyChange, str]]:
    """What becomes of which key, by its name, when these settings follow those."""
    before, after = ({key.id: key for key in settings.keys} for settings in (old, new))
    for name in before.keys() - after.keys():
        yield "key.remove", name
    for name in after.keys() - before.keys():
        yield "key.add", name
    for name in after.keys() & before.keys():
        if after[name] != before[name]:
            yield "key.change", name


def needs_restart(old: Settings, new: Settings) -> list[str]:
    """The members that differ and are bound at the start."""
    return [
        f"{section}.{name}"
        for section in BOUND
        for name in type(getattr(new, section)).model_fields
        if getattr(getattr(old, section), name) != getattr(getattr(new, section), name)
        and f"{section}.{name}" not in APPLIED
    ]
