"""What the settings say of everything but providers, as the values and objects that the parts take."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

from agents.api import PREFIX
from gateway import __version__
from gateway.api.auth import Key, Keyring
from gateway.api.deps import Limits as RequestLimits
from gateway.api.overload import bounds
from gateway.backing import InMemory, InRedis, SharedJournal
from gateway.core.keys import parse_digest
from gateway.core.principal import Principal, Scope
from gateway.pool.plan import Limits, Plans, configured
from gateway.streams.ground import Policy
from gateway.streams.housekeeping import Rhythm
from gateway.streams.journal_memory import Bounds as JournalBounds
from gateway.telemetry.tracing import INSTALL, TRACES_PATH, Tracer, TracingOptions, is_installed

if TYPE_CHECKING:
    from collections.abc import Callable

    from config.keys import Tenant as TenantSettings
    from config.settings import Key as KeySettings
    from config.settings import Settings
    from gateway.api.overload import Bounds
    from gateway.backing import Backing
    from gateway.core.clock import Clock
    from gateway.pool.budget import Budget
    from gateway.telemetry.metrics import Metrics

ENDLESS_FILES = 1 << 20


def plans(settings: Settings) -> Plans:
    """Budgets and limits of keys and tenants."""
    rows: list[tuple[str, str | None, KeySettings | TenantSettings]] = [
        *((key.tenant, key.id, key) for key in settings.keys),
        *((row.id, None, row) for row in settings.tenants),
    ]
    found: list[Budget] = []
    for tenant, key, row in rows:
        for budget in row.budgets:
            found += configured(tenant, key, budget.per, budget.tokens, budget.usd)
        found += Limits(**row.limits.model_dump()).budgets(tenant, key)
    return Plans(found)


def keyring(settings: Settings, clock: Clock) -> Keyring:
    """The API keys and whose they are."""

    def key(row: KeySettings) -> Key:
        who = Principal(row.tenant, row.id, frozenset(map(Scope, row.scopes)))
        return Key(
            digest=parse_digest(row.hash),
            principal=who,
            expires=None if row.expires is None else row.expires.timestamp(),
        )

    pepper = "" if settings.key_pepper is None else settings.key_pepper.get_secret_value()
    return Keyring(map(key, settings.keys), pepper.encode(), clock)


def limits(settings: Settings) -> RequestLimits:
    """What every request is held to."""
    server = settings.server
    return RequestLimits(
        max_readers=server.max_readers, allowed_hosts=frozenset(server.allowed_hosts),
        cors_origins=frozenset(server.cors_origins),
    )  # fmt: skip


def overload_bounds(settings: Settings) -> Bounds:
    """How much this process takes in, by the settings and by what it may open."""
    server = settings.server
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return bounds(
        ENDLESS_FILES if files == resource.RLIM_INFINITY else files,
        max_streams=server.max_streams, max_connections=server.max_connections,
        several=len({key.tenant for key in settings.keys}) > 1, queue_s=server.queue_s, loop_s=server.max_loop_s,
    )  # fmt: skip


def tracer(settings: Settings) -> Tracer | None:
    """Where traces go; None while nobody wants them.

    Raises:
        ValueError: the extra is not installed.
    """
    found = settings.telemetry.tracing
    if found.endpoint is None:
        return None
    if not is_installed():
        msg = f"telemetry.tracing.endpoint is set, but {INSTALL}"
        raise ValueError(msg)
    headers = {name: value.get_secret_value() for name, value in found.headers.items()}
    url = found.endpoint.rstrip("/").removesuffix(TRACES_PATH) + TRACES_PATH
    options = TracingOptions(url=url, headers=headers, ratio=found.ratio, service=found.service)
    return Tracer(options, __version__)


def backing(settings: Settings, clock: Clock, metrics: Metrics) -> Backing:
    """The journal in this process, or the one that replicas share.

    Raises:
        ValueError: its URL is none.
    """
    journal = settings.journal
    if journal.kind == "memory" or journal.url is None:
        return InMemory(_bounds(settings), clock)
    place = SharedJournal(
        url=journal.url, degrade=journal.degrade, lease_s=journal.lease_s, poll_s=journal.poll_s,
        sweep_s=journal.sweep_s,
    )  # fmt: skip
    try:
        return InRedis(place, _bounds(settings), clock, metrics)
    except ValueError as error:
        raise ValueError(f"journal.url: {error}") from None


def recoverable(settings: Settings) -> Callable[[str], bool]:
    """Whether requests of a route are kept beside their logs; never an agent's: nobody else can go on with those."""
    by_route = {route.model: route.recovery for route in settings.routes if route.recovery is not None}
    by_route |= {PREFIX + agent.name: False for agent in settings.effective_agents}
    return lambda model: by_route.get(model, settings.streams.recovery)


def _bounds(settings: Settings) -> JournalBounds:
    return JournalBounds(
        max_total_bytes=settings.journal.max_total_bytes,
        ttl_live_s=settings.streams.ttl_live_s,
        ttl_terminal_s=settings.streams.ttl_terminal_s,
        ttl_record_s=settings.streams.ttl_record_s,
    )


def policy(settings: Settings) -> Policy:
    """Bounds of a stream."""
    return Policy(
        max_stream_bytes=settings.journal.max_stream_bytes,
        max_stream_events=settings.journal.max_stream_events,
        pause_hold_bytes=settings.streams.pause_hold_bytes,
        degrade=settings.journal.degrade,
        give_up_s=settings.streams.ttl_live_s,
    )


def rhythm(settings: Settings) -> Rhythm:
    """How often the housekeeper looks at what."""
    return Rhythm(
        tick_s=settings.streams.tick_s,
        pause_max_s=settings.streams.pause_max_s,
        client_send_s=settings.streams.client_send_s,
    )
