"""A run: one agent at work on one request, as a source of events. Whoever pumps it makes it a stream.

    async with run.open() as batches:
        async for batch in batches: ...

Leaving ends everything that the run began: workers, calls, sockets.
"""

from __future__ import annotations

from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

from agents.agent import AgentError
from agents.desk import Desk, Floor, TooDeep
from agents.purse import OverBudget, Purse
from gateway.core.errors import Category, ProviderError
from gateway.core.events import Finish, UsageReport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from agents.agent import Agent
    from agents.board import Board
    from agents.ports import Batch, Pool
    from gateway.core.chat import ChatRequest


class Run:
    """One run. `hold` and `go_on` are the pause of its stream: while held, no new model call begins."""

    def __init__(
        self, agent: Agent, request: ChatRequest, pool: Pool, board: Board, monotonic: Callable[[], float]
    ) -> None:
        limits = agent.profile.limits
        self.agent, self._request = agent, request
        self.floor = Floor(pool, board, monotonic)
        self.purse = Purse(limits.tokens, limits.usd)
        self.over_budget = False

    @property
    def attempts(self) -> list[str]:
        """One line for each upstream attempt of the calls that are over."""
        return self.floor.attempts

    def hold(self) -> None:
        """No new model call begins from here on."""
        self.floor.open.clear()
        self.floor.deadlines.hold()

    def go_on(self) -> None:
        """After `hold`."""
        self.floor.deadlines.go_on()
        self.floor.open.set()

    def facts(self) -> dict[str, Any]:
        """What a status object shows of a run."""
        return {"agent": self.agent.profile.name, "calls": self.floor.calls, "cost_usd": self.floor.cost_usd}

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[AsyncIterator[Batch]]:
        """Begin; leaving cancels what still runs and waits until its sockets are closed.

        Raises:
            ProviderError: the run failed, for the reason of the call that failed it, or `protocol` where a model's
                answer was of no use.
        """
        try:
            async with aclosing(self._events()) as events:
                yield events
        finally:
            await self.floor.crew.disband()

    async def _events(self) -> AsyncGenerator[Batch]:
        desk = Desk(floor=self.floor, purse=self.purse, agent=self.agent.profile.name)
        try:
            async with aclosing(self.agent.run(self._request, desk)) as batches:
                async for batch in batches:
                    yield batch
        except OverBudget as error:
            self.over_budget = True
            yield [desk.progress("over_budget", why=str(error))]
        except (AgentError, TooDeep) as error:
            raise ProviderError(Category.PROTOCOL, f"agent {self.agent.profile.name}: {error}") from error
        finish: Batch = [] if self.over_budget else [Finish(0, self.floor.finish or "stop")]
        yield [*finish, UsageReport(self.floor.usage)]
