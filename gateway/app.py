"""The composition root: builds every object and owns the app's task group.

Nobody else reads settings or builds clients.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

from agents import api as agents_api
from agents.board import Board
from gateway import __version__, from_settings
from gateway.agents_from_settings import catalog
from gateway.api import agent_runs, errors, keys, ops, streams
from gateway.api import models as model_list
from gateway.api import pool as pool_api
from gateway.api.agent_runs import AgentRuns
from gateway.api.auth import INFER, check_declared
from gateway.api.bodies import Bodies
from gateway.api.count_tokens import CountTokens
from gateway.api.cross_origin import for_browsers, readable_by
from gateway.api.deps import Services
from gateway.api.drain import Drain, Others
from gateway.api.edge import UNMATCHED, Edge
from gateway.api.gate import Gate
from gateway.api.inference import Inference
from gateway.api.openapi import complete, describe_hot
from gateway.api.paths import CHAT, COUNT_TOKENS, MESSAGES
from gateway.api.rates import Rate
from gateway.api.server import GATE
from gateway.api.sse import Pace
from gateway.api.stream_tokens import StreamTokens
from gateway.api.traced import Traced
from gateway.backing import StartRefused
from gateway.bookkeeping import Bookkeeping
from gateway.core.clock import Clock, SystemClock
from gateway.dialects.catalog import ANTHROPIC_MESSAGES, OPENAI_CHAT
from gateway.pipeline import Pipeline
from gateway.pool.budgets import Budgets
from gateway.pool.overview import Pool
from gateway.pool.routes import RouteTable
from gateway.pool.settlement import Books
from gateway.pool_from_settings import Upstreams, groups, prices
from gateway.recovery import Recovery
from gateway.reload import Reload
from gateway.runs import Runs
from gateway.streams.control import StreamControl
from gateway.streams.housekeeping import Housekeeper
from gateway.streams.hub import Hub
from gateway.telemetry.metrics import CIRCUIT_STATES, Metrics
from gateway.traced_streams import TracedStreams

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping

    from fastapi import APIRouter
    from starlette.types import ASGIApp

    from config.settings import Settings
    from gateway.api.auth import Keyring
    from gateway.api.edge import HotRoute
    from gateway.api.exchange import Receive, Scope, Send
    from gateway.api.overload import Why
    from gateway.backing import Backing
    from gateway.pool.settlement import OnSettled
    from gateway.streams.journal import Journal
    from gateway.streams.lifecycle import Record

    Beat = Callable[[], Coroutine[Any, Any, None]]

MOCK = "mock"


class Atlas(FastAPI):
    """The app. Requests enter by the edge; what is not a hot route goes on into the framework."""

    entrance: ASGIApp
    edge: Edge
    gate: Gate
    services: Services
    drain: Drain
    reload: Reload

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] == "http":
            await self.entrance(scope, receive, send)
        else:
            await self._live(scope, receive, send)

    async def _live(self, scope: Any, receive: Any, send: Any) -> None:
        """The lifespan. Why the gateway refuses to start is for its operator, without a traceback."""

        async def without_traceback(message: Any) -> None:
            if message["type"] != "lifespan.startup.failed":
                await send(message)

        scope.setdefault("state", {})[GATE] = self.gate
        try:
            await super().__call__(scope, receive, without_traceback)
        except* StartRefused as refused:
            why = "; ".join(map(str, refused.exceptions))
            await send({"type": "lifespan.startup.failed", "message": f"Atlas does not start: {why}"})

    async def framework(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The framework's own routes."""
        await super().__call__(scope, receive, send)


def create(
    settings: Settings, *, clock: Clock | None = None, on_settled: OnSettled = lambda _settlement: None
) -> Atlas:
    """Build an app. Two apps in one process share nothing. `on_settled` is told of each leg's bill.

    Raises:
        ValueError: an endpoint names a kind that does not exist, or an agent a route.
        TypeError: a route does not declare who may call it.
    """
    clock = clock or SystemClock()
    metrics = Metrics(__version__)
    backing = from_settings.backing(settings, clock, metrics)
    journal, hub = backing.journal, Hub(backing.fleet)
    tracer = from_settings.tracer(settings)
    upstreams = Upstreams(tracer=tracer, propagates=frozenset(settings.telemetry.tracing.propagate))
    models = groups(settings, metrics, clock, upstreams)
    pool = Pool(models, upstreams.checks)
    control = _control(journal, hub, clock, metrics)
    budgets = _budgets(settings, backing, clock, metrics)
    traced = None if tracer is None else TracedStreams(tracer)
    told = (budgets.on_settled, on_settled) if traced is None else (budgets.on_settled, on_settled, traced.settled)
    bookkeeping = Bookkeeping(Books(prices(settings), clock), metrics, clock, told)
    agents, board = catalog(settings), Board(lambda agent, seconds: metrics.agent_step_seconds(agent).observe(seconds))
    runs = Runs(RouteTable(models), bookkeeping, board, clock, lambda agent, end: metrics.agent_runs(agent, end).inc())
    routes = RouteTable([*models, *runs.routes(agents)])
    pipeline = Pipeline(
        routes=routes, journal=journal, hub=hub, policy=from_settings.policy(settings), clock=clock, metrics=metrics,
        bookkeeping=bookkeeping, budgets=budgets,
        on_pause_expiry=settings.streams.on_pause_expiry, recoverable=from_settings.recoverable(settings),
    )  # fmt: skip
    keyring = from_settings.keyring(settings, clock)
    revocations = keys.Revocations(keyring, pipeline, control)
    pipeline.on_owned = revocations.owned
    if traced is not None:
        _trace(pipeline, traced)
    backing.attach(hub, Recovery(pipeline), revocations.revoked)
    services = _services(settings, backing, pipeline, control, keyring, metrics)
    keeper = Housekeeper(hub, journal, control, clock, from_settings.rhythm(settings), metrics.loop_lag.set)
    _gauges(metrics, hub, backing, pool, clock)
    drain = Drain(hub, pipeline, clock, settings.server.drain_s, _others(backing))
    hot = _hot(services)
    gate = _gate(settings, services, hot)
    app = Atlas(
        title="Atlas", version=__version__, redirect_slashes=False,
        lifespan=_lifespan(pipeline, (keeper.run, gate.run), upstreams, drain, backing),
    )  # fmt: skip
    app.services, app.drain, app.gate = services, drain, gate
    app.reload = Reload(settings, services, pool, agents, runs, upstreams)
    app.edge = Edge(services, hot, app.framework)
    entrance = app.edge if tracer is None else Traced(app.edge, tracer, app.edge.hot)
    app.entrance = for_browsers(entrance, settings.server.cors_origins)
    _include(
        app,
        *_stream_routers(services),
        pool_api.router(pool, clock),
        keys.router(keyring, backing),
        agents_api.router(agents, board, INFER, partial(agent_runs.body, services=services), AgentRuns(services)),
        ops.router(services),
    )
    return app


def _include(app: Atlas, *routers: APIRouter) -> None:
    """Give the framework its routes; each has to declare who may call it."""
    for router in routers:
        app.include_router(router)
    errors.install(app)
    check_declared(app.routes)
    complete(app)


def _services(
    settings: Settings, backing: Backing, pipeline: Pipeline, control: StreamControl, keyring: Keyring, metrics: Metrics
) -> Services:
    """What the routes work with."""
    server, hub, clock = settings.server, pipeline.hub, pipeline.clock
    return Services(
        pipeline=pipeline,
        control=control,
        routes=pipeline.routes,
        keyring=keyring,
        tokens=StreamTokens(keyring, backing.secret, clock),
        metrics=metrics,
        clock=clock,
        pace=Pace(heartbeat_s=server.heartbeat_s, status_wait_s=settings.streams.status_wait_s),
        limits=from_settings.limits(settings),
        bodies=Bodies(server.max_body, server.max_bodies, lambda: hub.request_bytes),
        requests=Rate(server.requests_per_s, "requests", clock),
        controls=Rate(server.control_per_s, "control operations", clock),
    )


def _budgets(settings: Settings, backing: Backing, clock: Clock, metrics: Metrics) -> Budgets:
    return Budgets(
        backing.ledger, from_settings.plans(settings), clock, backing.fleet.rid,
        on_denied=lambda stage: metrics.budget_denials(stage).inc(),
    )  # fmt: skip


def _gate(settings: Settings, services: Services, hot: Mapping[tuple[str, str], HotRoute]) -> Gate:
    """What guards the hot routes, and the bound of streams behind it."""
    bounds, pipeline = from_settings.overload_bounds(settings), services.pipeline
    gate = Gate(bounds, frozenset(path for _, path in hot), pipeline.hub, services.keyring, services.clock)
    gate.on_refused = partial(_count_refused, services.metrics)
    gate.extra_fields = partial(readable_by, settings.server.cors_origins)
    pipeline.max_streams = bounds.max_streams
    return gate


def _trace(pipeline: Pipeline, traced: TracedStreams) -> None:
    """Let the traces know what becomes of streams."""
    on_owned = pipeline.on_owned

    def owned(record: Record) -> None:
        traced.owned(record)
        on_owned(record)

    pipeline.on_owned, pipeline.on_ended, pipeline.on_control = owned, traced.ended, traced.controlled


def _control(journal: Journal, hub: Hub, clock: Clock, metrics: Metrics) -> StreamControl:
    return StreamControl(
        journal, hub, clock,
        on_control=lambda op, result: metrics.control(op, result).inc(),
        on_close=metrics.cancel_to_close.observe,
        on_wasted=metrics.wasted_tokens.inc,
    )  # fmt: skip


def _stream_routers(services: Services) -> tuple[APIRouter, ...]:
    """The description of the hot routes, streams and models."""
    return describe_hot(), streams.StreamRoutes(services).router(), model_list.router(services)


def _hot(services: Services) -> dict[tuple[str, str], HotRoute]:
    """The routes that the edge answers itself."""
    return {
        ("POST", CHAT): Inference(services, OPENAI_CHAT),
        ("POST", MESSAGES): Inference(services, ANTHROPIC_MESSAGES),
        ("POST", COUNT_TOKENS): CountTokens(services),
    }


def _others(backing: Backing) -> Others | None:
    """What a shutdown leaves to the other replicas: streams that they can go on with."""
    if not backing.shared:
        return None
    return Others(
        hand_over=lambda session: session.recoverable and session.hand_over(), leave=backing.leave, stay=backing.stay
    )  # fmt: skip


def _lifespan(pipeline: Pipeline, beats: tuple[Beat, ...], upstreams: Upstreams, drain: Drain, backing: Backing) -> Any:
    """The app's life: its task groups, and what happens to streams when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await backing.check()
        if upstreams.tracer is not None:
            upstreams.tracer.start()
        async with asyncio.TaskGroup() as below:
            standing = [
                below.create_task(backing.run(), name="backing"),
                below.create_task(pipeline.budgets.run(), name="budgets"),
            ]
            await backing.load()
            async with asyncio.TaskGroup() as tasks:
                pipeline.tasks = tasks
                beating = [tasks.create_task(beat()) for beat in beats]
                upstreams.watch(tasks)
                yield
                await drain.end()
                upstreams.stop()
                for beat in beating:
                    beat.cancel()
            await pipeline.budgets.flush()
            for task in standing:
                task.cancel()
        pipeline.tasks = None
        await upstreams.aclose()
        if upstreams.tracer is not None:
            await upstreams.tracer.stop()

    return lifespan


def _count_refused(metrics: Metrics, why: Why, path: str, status: int) -> None:
    metrics.refusals(why).inc()
    metrics.http_requests(path or UNMATCHED, "POST", str(status)).inc()


def _endpoint_gauges(metrics: Metrics, pool: Pool, clock: Clock) -> None:
    now = clock.monotonic()
    for each in pool.candidates:
        metrics.circuit_state(each.name).set(CIRCUIT_STATES[each.breaker.state(now)])
        metrics.endpoint_up(each.name).set(now >= each.rests_until)
        metrics.endpoint_inflight(each.name).set(each.statistics.in_flight)


def _gauges(metrics: Metrics, hub: Hub, backing: Backing, pool: Pool, clock: Clock) -> None:
    def refresh() -> None:
        owned = [channel for channel in hub.channels.values() if channel.session is not None]
        paused = sum(channel.hold is not None for channel in owned)
        metrics.streams("running").set(len(owned) - paused)
        metrics.streams("paused").set(paused)
        metrics.buffer_bytes.set(backing.buffer_bytes())

    metrics.before_scrape(refresh)
    metrics.before_scrape(partial(_endpoint_gauges, metrics, pool, clock))
