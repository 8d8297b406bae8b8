"""The composition root: builds every object and owns the app's task group.

Nobody else reads settings or builds clients.
"""

from __future__ import annotations

import asyncio
import importlib
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from gateway import __version__
from gateway.api import errors, models, ops, streams
from gateway.api.auth import Key, Keyring, check_declared
from gateway.api.count_tokens import CountTokens
from gateway.api.deps import Limits, Services
from gateway.api.edge import Edge
from gateway.api.inference import Inference
from gateway.api.openapi import describe_hot
from gateway.api.paths import CHAT, COUNT_TOKENS, MESSAGES
from gateway.api.sse import Pace
from gateway.core.clock import Clock, SystemClock
from gateway.core.keys import parse_digest
from gateway.core.principal import Principal
from gateway.core.principal import Scope as KeyScope
from gateway.dialects.catalog import ANTHROPIC_MESSAGES, OPENAI_CHAT
from gateway.pipeline import Pipeline
from gateway.pool.endpoint import Endpoint
from gateway.pool.group import ProviderGroup
from gateway.pool.prices import FREE, Price, PriceList, Tariff
from gateway.pool.routes import RouteTable
from gateway.pool.settlement import Books
from gateway.providers.mock import MODELS as MOCK_MODELS
from gateway.providers.mock import MockProvider
from gateway.streams.control import StreamControl
from gateway.streams.ground import Policy
from gateway.streams.housekeeping import Housekeeper, Rhythm
from gateway.streams.hub import Hub
from gateway.streams.journal_memory import Bounds, MemoryJournal
from gateway.telemetry.metrics import Metrics
from gateway.upstream.contract import Timeouts
from gateway.upstream.fixed_headers import FixedHeaders
from gateway.upstream.transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from config.settings import Endpoint as EndpointSettings
    from config.settings import Key as KeySettings
    from config.settings import Settings
    from gateway.api.edge import HotRoute
    from gateway.api.exchange import Receive, Scope, Send
    from gateway.pool.settlement import OnSettled
    from gateway.upstream.contract import Provider

MOCK = "mock"


class Atlas(FastAPI):
    """The app. Requests enter by the edge; what is not a hot route goes on into the framework."""

    edge: Edge
    services: Services

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] == "http":
            await self.edge(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The framework's own routes."""
        await super().__call__(scope, receive, send)


def create(
    settings: Settings, *, clock: Clock | None = None, on_settled: OnSettled = lambda _settlement: None
) -> Atlas:
    """Build an app. Two apps in one process share nothing. `on_settled` is told of each leg's bill.

    Raises:
        ValueError: an endpoint names a kind that does not exist.
        TypeError: a route does not declare who may call it.
    """
    clock = clock or SystemClock()
    metrics, hub = Metrics(), Hub()
    journal = MemoryJournal(_bounds(settings), clock)
    providers: list[Provider] = []
    routes = RouteTable(_groups(settings, metrics, clock, providers))
    control = StreamControl(
        journal, hub, clock,
        on_control=lambda op, result: metrics.control(op, result).inc(),
        on_close=metrics.cancel_to_close.observe,
        on_wasted=metrics.wasted_tokens.inc,
    )  # fmt: skip
    pipeline = Pipeline(
        routes=routes, journal=journal, hub=hub, policy=_policy(settings), clock=clock, metrics=metrics,
        books=Books(_prices(settings), clock), on_settled=on_settled,
        on_pause_expiry=settings.streams.on_pause_expiry,
    )  # fmt: skip
    services = Services(
        pipeline=pipeline,
        control=control,
        routes=routes,
        keyring=_keyring(settings, clock),
        metrics=metrics,
        clock=clock,
        pace=Pace(heartbeat_s=settings.server.heartbeat_s, status_wait_s=settings.streams.status_wait_s),
        limits=Limits(max_body=settings.server.max_body, allowed_hosts=frozenset(settings.server.allowed_hosts)),
    )
    keeper = Housekeeper(hub, journal, control, clock, _rhythm(settings), metrics.loop_lag.set)
    _gauges(metrics, hub, journal)
    app = Atlas(
        title="Atlas", version=__version__, redirect_slashes=False, lifespan=_lifespan(pipeline, keeper, providers)
    )
    app.services = services
    app.edge = Edge(services, _hot(services), app.framework)
    for router in (
        describe_hot(),
        streams.StreamRoutes(services).router(),
        models.router(services),
        ops.router(services),
    ):
        app.include_router(router)
    errors.install(app)
    check_declared(app.routes)
    return app


def _hot(services: Services) -> dict[tuple[str, str], HotRoute]:
    """The routes that the edge answers itself."""
    return {
        ("POST", CHAT): Inference(services, OPENAI_CHAT),
        ("POST", MESSAGES): Inference(services, ANTHROPIC_MESSAGES),
        ("POST", COUNT_TOKENS): CountTokens(services),
    }


def _keyring(settings: Settings, clock: Clock) -> Keyring:
    def key(row: KeySettings) -> Key:
        who = Principal(row.tenant, row.id, frozenset(map(KeyScope, row.scopes)))
        return Key(
            digest=parse_digest(row.hash),
            principal=who,
            expires=None if row.expires is None else row.expires.timestamp(),
        )

    pepper = "" if settings.key_pepper is None else settings.key_pepper.get_secret_value()
    return Keyring(map(key, settings.keys), pepper.encode(), clock)


def _lifespan(pipeline: Pipeline, keeper: Housekeeper, providers: list[Provider]) -> Any:
    """The app's life: its task group, and what happens to streams when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with asyncio.TaskGroup() as tasks:
            pipeline.tasks = tasks
            beat = tasks.create_task(keeper.run(), name="housekeeper")
            yield
            pipeline.draining = True
            for session in pipeline.hub.sessions():
                session.shut_down()
            beat.cancel()
        pipeline.tasks = None
        for provider in providers:
            await provider.aclose()

    return lifespan


def _groups(settings: Settings, metrics: Metrics, clock: Clock, providers: list[Provider]) -> list[ProviderGroup]:
    def on_attempt(endpoint: str, outcome: str, seconds: float) -> None:
        metrics.upstream_requests(endpoint, outcome).inc()
        metrics.upstream_seconds(endpoint).observe(seconds)

    def on_unmapped(endpoint: str, status: int) -> None:
        metrics.unmapped_errors(endpoint, str(status)).inc()

    def on_malformed(endpoint: str, count: int) -> None:
        metrics.malformed_events(endpoint).inc(count)

    def group(model: str, endpoints: tuple[Endpoint, ...]) -> ProviderGroup:
        return ProviderGroup(
            model=model,
            endpoints=endpoints,
            rng=random.Random(),  # jitter only
            clock=clock.monotonic,
            on_attempt=on_attempt,
            on_unmapped=on_unmapped,
            on_malformed=on_malformed,
        )

    endpoints = {found.name: _endpoint(found, clock, providers) for found in settings.endpoints}
    groups = [group(route.model, tuple(endpoints[name] for name in route.endpoints)) for route in settings.routes]
    if settings.mock.enabled:
        taken = {found.model for found in groups}
        mock = MockProvider()
        names = [name for name in MOCK_MODELS if name not in taken]
        groups += [group(name, (Endpoint(name=name, provider=mock, model=name),)) for name in names]
        # Fault names carry numbers, so any of them must be found; the ones above are those that are listed.
        groups.append(group("mock-*", (Endpoint(name=MOCK, provider=_MockByName(mock), model="*"),)))
    return groups


def _prices(settings: Settings) -> PriceList:
    """The mock costs nothing; servers of one's own have no price unless one is set."""

    def tariff(found: EndpointSettings) -> Tariff:
        if found.price is not None:
            return Tariff(price=Price(**found.price.model_dump()))
        return Tariff(price=FREE) if found.kind == MOCK else Tariff(vendor=found.preset, base_url=found.base_url)

    free = dict.fromkeys((*MOCK_MODELS, MOCK), Tariff(price=FREE))
    return PriceList({**free, **{found.name: tariff(found) for found in settings.endpoints}})


class _MockByName(MockProvider):
    """The mock behind `mock-*`: the part behind the prefix is the model's name without it."""

    def __init__(self, mock: MockProvider) -> None:
        super().__init__()
        self._mock = mock

    def stream(self, request: Any, model: str) -> Any:
        """Ask the mock for `mock-<model>`."""
        return self._mock.stream(request, f"mock-{model}")


def _endpoint(found: EndpointSettings, clock: Clock, providers: list[Provider]) -> Endpoint:
    timeouts = Timeouts(**found.timeouts.model_dump())
    provider = _provider(found, timeouts, clock)
    providers.append(provider)
    return Endpoint(
        name=found.name, provider=provider, model=found.model, timeouts=timeouts, stops_on_close=found.stops_on_close
    )


def _provider(found: EndpointSettings, timeouts: Timeouts, clock: Clock) -> Provider:
    """The adapter of an endpoint: its kind *is* a module of `gateway.providers`."""
    try:
        module = importlib.import_module(f"gateway.providers.{found.kind}")
    except ModuleNotFoundError as error:
        msg = f"endpoint {found.name!r}: there is no provider kind {found.kind!r}"
        raise ValueError(msg) from error
    if found.kind == MOCK:
        return MockProvider()
    key = found.keys[0].get_secret_value() if found.keys else None
    special: dict[str, Any] = {} if found.auth is None else {"auth": found.auth}
    if found.quirks:
        special["quirks"] = module.Quirks(**found.quirks)
    transport = _transport(found, timeouts)
    provider: Provider = module.PROVIDER(
        base_url=found.base_url or "", key=key, transport=transport, clock=clock, **special
    )
    return provider


def _transport(found: EndpointSettings, timeouts: Timeouts) -> Transport:
    tls = (found.base_url or "").startswith("https:")
    headers = {name: value.get_secret_value() for name, value in found.headers.items()}
    if headers:
        return FixedHeaders(timeouts, headers, tls=tls, proxy=found.proxy, ca_file=found.ca_file)
    return Transport(timeouts, tls=tls, proxy=found.proxy, ca_file=found.ca_file)


def _gauges(metrics: Metrics, hub: Hub, journal: MemoryJournal) -> None:
    def refresh() -> None:
        owned = [channel for channel in hub.channels.values() if channel.session is not None]
        paused = sum(channel.hold is not None for channel in owned)
        metrics.streams("running").set(len(owned) - paused)
        metrics.streams("paused").set(paused)
        metrics.buffer_bytes.set(journal.total_bytes)

    metrics.before_scrape(refresh)


def _bounds(settings: Settings) -> Bounds:
    return Bounds(
        max_total_bytes=settings.journal.max_total_bytes,
        ttl_live_s=settings.streams.ttl_live_s,
        ttl_terminal_s=settings.streams.ttl_terminal_s,
        ttl_record_s=settings.streams.ttl_record_s,
    )


def _policy(settings: Settings) -> Policy:
    return Policy(
        max_stream_bytes=settings.journal.max_stream_bytes,
        max_stream_events=settings.journal.max_stream_events,
        pause_hold_bytes=settings.streams.pause_hold_bytes,
    )


def _rhythm(settings: Settings) -> Rhythm:
    return Rhythm(
        tick_s=settings.streams.tick_s,
        pause_max_s=settings.streams.pause_max_s,
        client_send_s=settings.streams.client_send_s,
    )
