"""What the settings say of providers, as objects of the pool: endpoints, routes, prices."""

from __future__ import annotations

import importlib
import random
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from config.endpoints import Health
from gateway.core.usage import Usage
from gateway.pool.admission import EndpointLimits
from gateway.pool.breaker import BreakerPolicy
from gateway.pool.candidate import Candidate, Standing
from gateway.pool.capability import FEATURES, UNBOUNDED, Capability
from gateway.pool.continuation import Fallback, Level
from gateway.pool.endpoint import Continuation, Endpoint
from gateway.pool.group import ProviderGroup
from gateway.pool.health import HealthCheck, HealthPolicy, ask_for
from gateway.pool.hedging import HedgePolicy
from gateway.pool.prices import FREE, Price, PriceList, Tariff
from gateway.pool.usage_drain import DrainPolicy, UsageDrain
from gateway.providers._account import request_headers, url_below
from gateway.providers.mock import MODELS as MOCK_MODELS
from gateway.providers.mock import MockProvider
from gateway.traced_streams import TracedStreams
from gateway.upstream.contract import Timeouts
from gateway.upstream.fixed_headers import FixedHeaders
from gateway.upstream.traced import Propagating, TracedProvider
from gateway.upstream.transport import Transport, Trust

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from config.settings import Endpoint as EndpointSettings
    from config.settings import Route as RouteSettings
    from config.settings import Settings
    from gateway.core.clock import Clock
    from gateway.core.errors import Category
    from gateway.pool.breaker import BreakerState
    from gateway.telemetry.metrics import Metrics
    from gateway.telemetry.tracing import Tracer
    from gateway.upstream.contract import Provider
    from gateway.upstream.transport import Headers, Url

MOCK = "mock"


@dataclass(frozen=True, slots=True)
class Upstreams:
    """What must be run with the app, by the endpoint's name, and closed at its end.

    With a `tracer` the calls of endpoints are traced; those that it `propagates` to are told the trace's id.
    """

    checks: dict[str, HealthCheck] = field(default_factory=dict[str, HealthCheck])
    trust: Trust = field(default_factory=Trust)
    providers: list[Provider] = field(default_factory=list["Provider"])
    replaced: list[Provider] = field(default_factory=list["Provider"])
    tracer: Tracer | None = None
    propagates: frozenset[str] = frozenset()
    watching: list[asyncio.Task[None]] = field(default_factory=list["asyncio.Task[None]"])

    def watch(self, tasks: asyncio.TaskGroup) -> None:
        """Begin the checks; until `stop`."""
        for name, check in self.checks.items():
            self.watching.append(tasks.create_task(check.run(random.Random()), name=f"health of {name}"))

    def stop(self) -> None:
        """End the checks."""
        while self.watching:
            self.watching.pop().cancel()

    def replace(self, others: Upstreams, tasks: asyncio.TaskGroup) -> None:
        """Run these instead; idle connections of the old ones are closed, those in use live on."""
        self.stop()
        self.replaced[:], self.providers[:] = self.providers, others.providers
        tasks.create_task(_close(tuple(self.replaced)), name="close replaced providers")
        self.checks.clear()
        self.checks.update(others.checks)
        self.watch(tasks)

    async def aclose(self) -> None:
        """Close every idle connection, also of what was replaced last."""
        await _close((*self.providers, *self.replaced))


async def _close(providers: tuple[Provider, ...]) -> None:
    for provider in providers:
        await provider.aclose()


def groups(settings: Settings, metrics: Metrics, clock: Clock, upstreams: Upstreams) -> list[ProviderGroup]:
    """The routes; checks and providers that are made are added to `upstreams`.

    Raises:
        ValueError: an endpoint names a kind that does not exist, a route such a strategy.
    """
    observers = _observers(metrics, upstreams.tracer)

    def group(model: str, endpoints: tuple[Endpoint, ...], **policy: Any) -> ProviderGroup:
        return ProviderGroup(
            model=model,
            endpoints=endpoints,
            rng=random.Random(),  # jitter and lots
            clock=clock.monotonic,
            **observers,
            **policy,
        )

    costs = prices(settings)
    drain = _usage_drain(settings)
    endpoints = {found.name: _endpoint(found, clock, upstreams, costs, drain) for found in settings.endpoints}
    for each in endpoints.values():
        each.candidate.breaker.on_move = partial(_count_move, metrics, each.name)
    groups = [
        group(
            route.model, tuple(endpoints[name] for name in route.endpoints),
            fallback=_fallback(route), strategy=route.strategy, hedge=_hedge(route),
        )
        for route in settings.routes
    ]  # fmt: skip
    if settings.mock.enabled:
        taken = {found.model for found in groups}
        groups += [group(model, (endpoint,)) for model, endpoint in _mocks(upstreams) if model not in taken]
    return groups


def _observers(metrics: Metrics, tracer: Tracer | None) -> dict[str, Any]:
    """Who is told how a route's attempts fare, as `pool.route.Route` names them."""

    def on_attempt(endpoint: str, outcome: str, seconds: float) -> None:
        metrics.upstream_requests(endpoint, outcome).inc()
        metrics.upstream_seconds(endpoint).observe(seconds)

    def on_unmapped(endpoint: str, status: int) -> None:
        metrics.unmapped_errors(endpoint, str(status)).inc()

    def on_malformed(endpoint: str, count: int) -> None:
        metrics.malformed_events(endpoint).inc(count)

    def on_retry(endpoint: str, category: Category) -> None:
        metrics.retries(endpoint, category).inc()

    def on_fallback(*labels: str) -> None:
        metrics.fallbacks(*labels).inc()

    def on_hedge(endpoint: str, result: str) -> None:
        metrics.hedges(endpoint, result).inc()

    traced = None if tracer is None else TracedStreams(tracer)
    return {
        "on_attempt": on_attempt if traced is None else _both(on_attempt, traced.attempted),
        "on_hedge": on_hedge,
        "on_unmapped": on_unmapped,
        "on_malformed": on_malformed,
        "on_retry": on_retry,
        "on_fallback": on_fallback if traced is None else _both(on_fallback, traced.fell_back),
    }


def _both(first: Callable[..., None], second: Callable[..., None]) -> Callable[..., None]:
    def told(*what: Any) -> None:
        first(*what)
        second(*what)

    return told


def _traced(name: str, keyed: tuple[Provider, ...], upstreams: Upstreams) -> tuple[Provider, ...]:
    """The adapters of an endpoint, told to the trace where there are traces."""
    return keyed if upstreams.tracer is None else tuple(TracedProvider(each, name) for each in keyed)


def _mocks(upstreams: Upstreams) -> Iterator[tuple[str, Endpoint]]:
    """The mock's models. Its faults are what it is asked for: it is never given a rest for them."""
    mock = MockProvider()
    known = {name: Candidate(name, random.Random(), Standing(rests=False)) for name in (*MOCK_MODELS, MOCK)}
    for name in MOCK_MODELS:
        keyed = _traced(name, (mock,), upstreams)
        yield name, Endpoint(name=name, provider=mock, keyed=keyed, model=name, candidate=known[name])
    # Fault names carry numbers, so any of them must be found; the ones above are those that are listed.
    keyed = _traced(MOCK, (by_name := _MockByName(mock),), upstreams)
    yield "mock-*", Endpoint(name=MOCK, provider=by_name, keyed=keyed, model="*", candidate=known[MOCK])


def _count_move(metrics: Metrics, endpoint: str, state: BreakerState) -> None:
    metrics.circuit_transitions(endpoint, state).inc()


def _fallback(route: RouteSettings) -> Fallback:
    found = route.fallback
    return Fallback(
        level=Level(found.mid_stream),
        replay_max_chars=found.replay_max_chars,
        atomic_tools=found.tool_delivery == "atomic",
    )


def _hedge(route: RouteSettings) -> HedgePolicy | None:
    found = route.hedge
    return HedgePolicy(**found.model_dump(exclude={"enabled"})) if found.enabled else None


def prices(settings: Settings) -> PriceList:
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


def _usage_drain(settings: Settings) -> UsageDrain | None:
    found = settings.usage_drain
    return UsageDrain(DrainPolicy(**found.model_dump(exclude={"enabled"}))) if found.enabled else None


def _endpoint(
    found: EndpointSettings, clock: Clock, upstreams: Upstreams, costs: PriceList, drain: UsageDrain | None
) -> Endpoint:
    timeouts = Timeouts(**found.timeouts.model_dump())
    transport = _transport(found, timeouts, upstreams.trust, propagates=found.name in upstreams.propagates)
    secrets: list[str | None] = [key.get_secret_value() for key in found.keys]
    secrets = secrets or [None]
    keyed = tuple(_provider(found, secret, transport, clock) for secret in secrets)
    upstreams.providers.append(keyed[0])  # the others have the same transport
    breaker = BreakerPolicy(**found.breaker.model_dump(exclude={"enabled"}))
    candidate = Candidate(found.name, random.Random(), _standing(found, costs, clock), breaker=breaker)
    if found.health is not None and found.base_url is not None:
        asked = _health_request(found, found.health, found.base_url, secrets[0])
        policy = HealthPolicy(**found.health.model_dump(exclude={"path"}))
        upstreams.checks[found.name] = HealthCheck(candidate, partial(ask_for, transport, *asked), policy, clock)
    return Endpoint(
        name=found.name, provider=keyed[0], keyed=_traced(found.name, keyed, upstreams), candidate=candidate,
        model=found.model, timeouts=timeouts, stops_on_close=found.stops_on_close,
        usage_drain=None if found.stops_on_close else drain,
        continuation=Continuation(found.continuation), echoes=bool(found.quirks.get("echoes")),
    )  # fmt: skip


def _standing(found: EndpointSettings, costs: PriceList, clock: Clock) -> Standing:
    def price(usage: Usage) -> float | None:
        is_known = found.model != "*" or found.price is not None
        return None if not is_known else costs.cost_usd(found.name, found.model, usage, clock.now())

    given = found.profile
    return Standing(
        weight=found.weight,
        priority=found.priority,
        profile=Capability(
            strengths=given.strengths,
            context_tokens=given.context_tokens or UNBOUNDED,
            output_tokens=given.output_tokens or UNBOUNDED,
            lacks=sum(FEATURES[name] for name in set(given.lacks)),
            availability=given.availability,
        ),
        limits=EndpointLimits(**found.limits.model_dump()),
        keys=len(found.keys),
        rests=found.breaker.enabled,
        input_usd=price(Usage(input_tokens=1_000_000)),
        output_usd=price(Usage(output_tokens=1_000_000)),
    )


def _health_request(found: EndpointSettings, health: Health, base_url: str, key: str | None) -> tuple[Url, Headers]:
    """The list of models, unless another path is set: vendors do not charge for it."""
    path = health.path or {"ollama": "/api/tags", "anthropic": "/v1/models"}.get(found.kind, "/models")
    auth = found.auth or ("x-api-key" if found.kind == "anthropic" else "bearer")
    return url_below(base_url, path), request_headers("application/json", key, auth)


async def reach(found: EndpointSettings) -> list[int]:
    """Ask an endpoint for its list of models, which costs nothing: the status for each of its keys.

    Raises:
        ProviderError: it does not answer.
    """
    transport = _transport(found, Timeouts(**found.timeouts.model_dump()), Trust())
    secrets: list[str | None] = [key.get_secret_value() for key in found.keys]
    statuses: list[int] = []
    try:
        for secret in secrets or [None]:
            url, headers = _health_request(found, found.health or Health(), found.base_url or "", secret)
            async with transport.get(url, headers) as answer:
                statuses.append(answer.status)
    finally:
        await transport.aclose()
    return statuses


def _provider(found: EndpointSettings, key: str | None, transport: Transport, clock: Clock) -> Provider:
    """The adapter of an endpoint, with one of its keys: its kind *is* a module of `gateway.providers`."""
    try:
        module = importlib.import_module(f"gateway.providers.{found.kind}")
    except ModuleNotFoundError as error:
        msg = f"endpoint {found.name!r}: there is no provider kind {found.kind!r}"
        raise ValueError(msg) from error
    if found.kind == MOCK:
        return MockProvider()
    special: dict[str, Any] = {} if found.auth is None else {"auth": found.auth}
    if found.quirks:
        special["quirks"] = module.Quirks(**found.quirks)
    provider: Provider = module.PROVIDER(
        base_url=found.base_url or "", key=key, transport=transport, clock=clock, **special
    )
    return provider


def _transport(found: EndpointSettings, timeouts: Timeouts, trust: Trust, *, propagates: bool = False) -> Transport:
    try:
        tls = trust.of(found.ca_file) if (found.base_url or "").startswith("https:") else None
    except OSError as error:
        msg = f"endpoint {found.name!r}: ca_file {found.ca_file!r} cannot be used: {error.strerror or error}"
        raise ValueError(msg) from None
    headers = {name: value.get_secret_value() for name, value in found.headers.items()}
    if headers or propagates:
        kind = Propagating if propagates else FixedHeaders
        return kind(timeouts, headers, tls=tls, proxy=found.proxy)
    return Transport(timeouts, tls=tls, proxy=found.proxy)
