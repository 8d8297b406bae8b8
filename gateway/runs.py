"""Agents as routes: a run is an event source like any other, and its model calls go through the pool like any request.

A run's stream has no legs of its own. Each call is settled when it is left, in the stream's name, with legs numbered
over the whole run. The housekeeper's beat, which the stream hands on, enforces deadlines of all calls: no timer a read.

Oddities, on purpose:
1. Agents look up routes in a table without agents. Agents work for agents as workers, within the bounds of depth.
2. Strengths that an agent asks for are leanings: they order the endpoints of a route and refuse none, since what kind
   of task it is was guessed.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

from msgspec import structs

from agents.api import PREFIX
from agents.controller import ControllerAgent
from agents.purse import least
from agents.run import Run
from gateway.core.errors import Category, ProviderError, RequestError
from gateway.core.events import End, Extra, Leg, State, UsageReport
from gateway.pool.capability import NOTHING, Needs
from gateway.pool.metered import BUDGET
from gateway.pool.needs import HEADER
from gateway.streams.source import lateness, overdue, quiet, selection
from gateway.streams.stats import Stats
from gateway.streams.tally import total_cost_usd
from gateway.upstream.contract import Timeouts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
    from contextlib import AbstractAsyncContextManager

    from agents.agent import Agent
    from agents.board import Board
    from agents.catalog import Catalog
    from agents.ports import Question
    from gateway.bookkeeping import Bookkeeping, Payer
    from gateway.core.chat import ChatRequest
    from gateway.core.clock import Clock
    from gateway.core.usage import Usage
    from gateway.pool.continuation import Level
    from gateway.pool.endpoint import Endpoint
    from gateway.pool.routes import RouteTable
    from gateway.upstream.contract import Batch

_ENVELOPE = frozenset({Leg, UsageReport, Extra})


class Runs:
    """What all runs of an app share. `models` is the table of routes without agents."""

    def __init__(
        self,
        models: RouteTable,
        bookkeeping: Bookkeeping,
        board: Board,
        clock: Clock,
        on_end: Callable[[str, str], None] = lambda _agent, _outcome: None,
    ) -> None:
        self.models, self.bookkeeping, self.board, self.clock, self.on_end = models, bookkeeping, board, clock, on_end

    def routes(self, catalog: Catalog) -> list[AgentRoute]:
        """A route for each agent.

        Raises:
            ValueError: an agent asks a route that does not exist.
        """
        for agent in catalog:
            profile = agent.profile
            for name in filter(None, (profile.route, profile.classifier)):
                try:
                    self.models.find(name)
                except RequestError as error:
                    msg = f"agent {profile.name!r}: its route cannot be asked: {error.message}"
                    raise ValueError(msg) from error
        return [AgentRoute(agent, self) for agent in catalog]


class AgentRoute:
    """An agent as clients name it, `agent/<name>`; to the pipeline what a provider group is."""

    def __init__(self, agent: Agent, runs: Runs) -> None:
        self.model, self.wildcard = PREFIX + agent.profile.name, False
        self._agent, self._runs = agent, runs
        self._group = runs.models.find(agent.profile.route)

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Those of the route that it asks itself: by them a run is estimated before it has asked anybody."""
        return self._group.endpoints

    def wanted(self, named: str) -> str:  # noqa: ARG002  it is the agent's own route that counts
        """What wildcard endpoints of that route are asked for."""
        return self._group.wanted(self._agent.profile.route)

    def attempt(self, request: ChatRequest, *, level: Level, needs: Needs = NOTHING) -> AgentSource:
        """A run that answers `request`.

        Raises:
            RequestError: 400, naming what an agent cannot be asked for.
        """
        _refuse_unsayable(request, self._agent)
        if needs is not NOTHING:
            msg = "an agent finds out by itself what each of its calls needs"
            raise RequestError(msg, param=HEADER, code="unsupported_parameter")
        return AgentSource(self._agent, request, self._runs, level)

    def continue_from(self, *_: object, **__: object) -> None:
        """A run cannot go on in another process: its workers were in the one that is gone."""


def _refuse_unsayable(request: ChatRequest, agent: Agent) -> None:
    if request.n > 1:
        raise RequestError("an agent gives one answer", param="n", code="unsupported_parameter")
    if request.own:
        msg = f"an agent cannot be asked with {request.own[0]}: it may ask providers that do not know it"
        raise RequestError(msg, param=request.own[0], code="unsupported_parameter")
    if request.tools and isinstance(agent, ControllerAgent):
        msg = "a controller answers with the work of its workers; the caller's tools are for task-aware agents"
        raise RequestError(msg, param="tools", code="unsupported_parameter")


class AgentSource:
    """One run as a stream's source; see `streams.source.Source` and `Conducts`, `bookkeeping.OwnBooks`."""

    def __init__(self, agent: Agent, request: ChatRequest, runs: Runs, level: Level) -> None:
        whole = agent.profile.limits.run_s
        self.timeouts = Timeouts(first_token_s=whole, idle_s=whole, progress_s=whole, total_s=whole)
        self._calls = Calls(runs, level)
        self._run = Run(agent, request, self._calls, runs.board, runs.clock.monotonic)
        self._on_end = runs.on_end

    @property
    def attempts(self) -> list[str]:
        """One line for each upstream attempt of the calls that are over."""
        return self._run.attempts

    @property
    def stopped_by(self) -> str | None:
        """Why the run ended before its answer was whole."""
        return BUDGET if self._run.over_budget else None

    @property
    def usage(self) -> Usage:
        """Of all calls so far."""
        return self._run.floor.usage

    def open(self) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """Begin; leaving ends every call and waits until its socket is closed."""
        return self._run.open()

    def hold(self) -> None:
        """No new model call begins."""
        self._calls.is_held = True
        self._run.hold()

    def go_on(self) -> None:
        """The pause is over."""
        self._calls.is_held = False
        self._run.go_on()

    def tick(self, now: float) -> None:
        """Enforce the deadlines of the calls."""
        self._calls.tick(now)

    def facts(self) -> dict[str, Any]:
        """What a status object shows of a run."""
        facts = self._run.facts()
        return {"cost_usd": facts.pop("cost_usd"), "run": facts}

    def may_use(self, tokens: int) -> None:
        """The whole tree may use so many tokens, or as many as the agent's own limits let it."""
        purse = self._run.purse
        purse.tokens = least(purse.tokens, tokens)

    def settles_for(self, payer: Payer) -> None:
        """In whose name calls are settled."""
        self._calls.payer = payer

    def ended(self, end: End) -> None:
        """How its stream ended."""
        self._on_end(self._run.agent.profile.name, str(end.state))


class Calls:
    """The model calls of one run: `agents.ports.Pool`."""

    def __init__(self, runs: Runs, level: Level) -> None:
        self._runs, self._level = runs, level
        self._open: set[ModelCall] = set()
        self._last_tick = runs.clock.monotonic()
        self.legs = count(1)
        self.payer: Payer | None = None
        self.is_held = False

    @asynccontextmanager
    async def ask(self, question: Question) -> AsyncGenerator[ModelCall]:
        """Ask a route of the pool; see `agents.ports.Pool.ask`."""
        runs = self._runs
        request = structs.replace(question.request, model=question.route)
        try:
            group = runs.models.find(question.route)
            source = group.attempt(request, level=self._level, needs=needs_of(question))
        except RequestError as error:
            raise ProviderError(Category.BAD_REQUEST, error.message, param=error.param) from error
        stats = Stats(runs.clock.monotonic())
        stats.account = runs.bookkeeping.account(group, request)
        call = ModelCall(source, stats, self.legs, runs.clock.monotonic)
        end = End(State.CANCELLED, "left")
        try:
            async with source.open() as batches:
                await call.begin(batches)
                self._open.add(call)
                yield call
            end = call.end() or end
        except ProviderError as error:
            end = End(State.FAILED, str(error.category))
            raise
        finally:
            self._open.discard(call)
            if self.payer is not None:
                runs.bookkeeping.settle(stats, source, self.payer, end, spare=self.legs)

    def tick(self, now: float) -> None:
        """Look at every call's deadlines."""
        elapsed, self._last_tick = now - self._last_tick, now
        for call in tuple(self._open):
            call.tick(now, 0.0 if self.is_held else elapsed)


def needs_of(question: Question) -> Needs:
    """What an agent asks for, in the pool's words."""
    wanted = frozenset(name for name, strength in question.needs.items() if strength != "weak")
    return Needs(leanings=wanted) if wanted else NOTHING


class ModelCall:
    """One call: `agents.ports.Call`. Its batches are the answer's content and finishes; `stats` counts all of it."""

    __slots__ = (
        "_active_s", "_batches", "_error", "_head", "_is_reading", "_is_whole", "_legs", "_monotonic", "_progress_at",
        "_read_at", "_source", "_stats", "_task",
    )  # fmt: skip

    def __init__(self, source: Any, stats: Stats, legs: count[int], monotonic: Callable[[], float]) -> None:
        self._source, self._stats, self._legs, self._monotonic = source, stats, legs, monotonic
        self._batches: Any = None
        self._head: Batch = []
        self._task: asyncio.Task[Any] | None = None
        self._error: ProviderError | None = None
        self._is_reading = self._is_whole = False
        self._active_s = 0.0
        self._read_at = self._progress_at = stats.created

    async def begin(self, batches: AsyncIterator[Batch]) -> None:
        """Take in what is there already: the leg, and the first content."""
        self._batches = batches
        self._head = await self.__anext__()

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        """What the next read gave, without the envelope; the call's own deadlines are errors of the provider's."""
        if self._head:
            batch, self._head = self._head, []
            return batch
        read = self._batches.__anext__
        self._task, self._is_reading = asyncio.current_task(), True
        try:
            while True:
                batch = await read()
                self._read_at = now = self._monotonic()
                if batch and (content := self._take(batch, now)):
                    return content
        except StopAsyncIteration:
            self._is_whole = True
            self._stats.completed()
            raise
        except asyncio.CancelledError:
            if self._error is None or self._task is None or self._task.uncancel() > 0:
                raise
            raise self._error from None
        finally:
            self._is_reading = False

    def _take(self, batch: Batch, now: float) -> Batch:
        """Count a batch; the content of it."""
        self._progress_at = now
        for event in batch:
            if type(event) in _ENVELOPE:
                batch, content = self._numbered(batch), _content(batch)
                self._stats.observe(batch, now)
                return content
        self._stats.observe(batch, now)
        return batch

    def _numbered(self, batch: Batch) -> Batch:
        return [structs.replace(event, leg=next(self._legs)) if isinstance(event, Leg) else event for event in batch]

    def end(self) -> End | None:
        """How it ended by itself; None: it was left before."""
        if not self._is_whole:
            return None
        length = any(finish.reason == "length" for finish in self._stats.finishes)
        return End(State.INCOMPLETE, "length") if length else End(State.COMPLETED)

    def tick(self, now: float, active_s: float) -> None:
        """Fail it if it is overdue; while nobody reads it, that is nobody's fault."""
        self._active_s += active_s
        if not self._is_reading:
            self._read_at = self._progress_at = now
            return
        quiet(self._source, now - self._read_at)
        late = lateness(self._source.timeouts, self._active_s, now - self._read_at, now - self._progress_at)
        if late is None or self._error is not None or self._task is None:
            return
        if late[0] is Category.TIMEOUT_TOTAL or not overdue(self._source, *late):
            self._error = ProviderError(*late)
            self._task.cancel()

    @property
    def usage(self) -> Usage:
        """Tokens of all legs so far."""
        return self._stats.effective_usage()

    @property
    def cost_usd(self) -> float | None:
        """What they cost; None where the price is unknown."""
        account = self._stats.account
        tallies = [tally for tally in self._stats.tallies() if tally.leg is not None]
        return total_cost_usd([account.cost_usd(tally.leg, tally.usage) for tally in tallies])

    @property
    def endpoint(self) -> str:
        """Who answers now."""
        leg = self._stats.leg
        return "" if leg is None else leg.endpoint

    @property
    def chosen(self) -> dict[str, Any]:
        """Who answers and why."""
        leg, attempts = self._stats.leg, list(self._source.attempts)
        if leg is None:
            return {"attempts": attempts}
        chosen = selection(self._source) or {}
        return {
            "endpoint": leg.endpoint,
            "provider": leg.provider,
            "strategy": leg.strategy,
            "why": leg.why,
            "considered": chosen.get("considered", [leg.endpoint]),
            "left_out": chosen.get("left_out", {}),
            "leg": leg.leg,
            "attempts": attempts,
        }


def _content(batch: Iterable[Any]) -> Batch:
    """Without the envelope; what stood before a part of it is the end of its chunk now."""
    found: Batch = [event for event in batch if type(event) not in _ENVELOPE]
    if found and found[-1].more:
        found[-1] = structs.replace(found[-1], more=False)
    return found
