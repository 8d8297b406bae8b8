"""The desk: what an agent works at. It asks models, says what it does, and never takes more than it was given.

One `Floor` is shared by all desks of a run: the gate that a pause closes, what was used so far, who works in parallel.

Oddities, on purpose:
1. A pause closes the gate for the *next* model call; those that run go on into the log, as the pause of a stream does.
2. Calls are charged while they pass by what can be counted, and corrected when they end by what the provider says.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from agents.board import Score
from agents.crew import Crew
from agents.ports import Question
from agents.profile import MAX_DEPTH
from gateway.core.events import Finish, Progress, Reasoning, Refusal, Text, ToolCall
from gateway.core.tokens import BYTES_PER_TOKEN, estimate_input_tokens, utf8_length
from gateway.core.usage import Usage, total

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping

    from agents.board import Board
    from agents.ports import Batch, Call, Pool
    from agents.purse import Purse
    from gateway.core.chat import ChatRequest


class TooDeep(Exception):
    """Agents call agents call agents."""


class Floor:
    """What all desks of one run share."""

    def __init__(self, pool: Pool, board: Board, monotonic: Callable[[], float]) -> None:
        self.pool, self.board, self.monotonic = pool, board, monotonic
        self.crew = Crew()
        self.open = asyncio.Event()
        self.open.set()
        self.chosen: list[dict[str, Any]] = []
        self.attempts: list[str] = []
        self._running: list[Call] = []
        self._used: list[Usage] = []
        self._costs: list[float | None] = []

    @property
    def usage(self) -> Usage:
        """Of all calls so far."""
        return total([*self._used, *(call.usage for call in self._running)])

    @property
    def cost_usd(self) -> float | None:
        """Of all calls so far; None as soon as one price is unknown, or where nothing was asked."""
        costs = [*self._costs, *(call.cost_usd for call in self._running)]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if known and len(known) == len(costs) else None

    def began(self, call: Call) -> None:
        """A call gave its first content."""
        self._running.append(call)

    def ended(self, call: Call) -> None:
        """A call was left."""
        self._running.remove(call)
        self._used.append(call.usage)
        self._costs.append(call.cost_usd)
        self.chosen.append(call.chosen)
        self.attempts += call.chosen["attempts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """One agent's place in a run. `parent` is the step that this one is a part of."""

    floor: Floor
    purse: Purse
    agent: str
    step: str = "run"
    parent: str | None = None
    depth: int = 1

    def within(self, agent: str, step: str, purse: Purse) -> Desk:
        """A place for an agent that works on a step of this one.

        Raises:
            TooDeep: that would be one within too many.
        """
        if self.depth >= MAX_DEPTH:
            msg = f"agents may be nested {MAX_DEPTH} deep"
            raise TooDeep(msg)
        return Desk(floor=self.floor, purse=purse, agent=agent, step=step, parent=self.step, depth=self.depth + 1)

    def progress(self, kind: str, **data: Any) -> Progress:
        """Something that happened at this desk, for whoever watches the run."""
        return Progress(self.agent, self.step, kind, self.parent, data)

    @asynccontextmanager
    async def ask(
        self, request: ChatRequest, route: str, *, task: str = "conversation", needs: Mapping[str, str] | None = None
    ) -> AsyncGenerator[Answer]:
        """Ask a model, once the run is not paused; leaving closes the call.

        Raises:
            ProviderError: no endpoint gave a whole answer.
            OverBudget: nothing is left.
        """
        await self.floor.open.wait()
        floor, begun = self.floor, self.floor.monotonic()
        prompt = estimate_input_tokens(request)
        self.purse.spend(prompt)
        question = Question(
            request=_bounded(request, self.purse.tokens_left), route=route, agent=self.agent, step=self.step,
            task=task, needs=needs or {},
        )  # fmt: skip
        async with floor.pool.ask(question) as call:
            floor.began(call)
            answer, first_s = Answer(call, self.purse), floor.monotonic() - begun
            try:
                yield answer
            finally:
                floor.ended(call)
                score = Score(whole=answer.is_whole, first_token_s=first_s, seconds=floor.monotonic() - begun)
                floor.board.count(self.agent, task, call, score)
        answer.settle(prompt)


class Answer:
    """A model's answer while it comes. `text` is what it said so far, up to `keep` characters."""

    def __init__(self, call: Call, purse: Purse, keep: int = 262_144) -> None:
        self.call = call
        self.finish: str | None = None
        self.is_whole = False
        self._purse, self._keep = purse, keep
        self._kept = self._counted = 0
        self._rest = 0.0
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """What it said."""
        return "".join(self._parts)

    async def __aiter__(self) -> AsyncIterator[Batch]:
        """The batches of content; finishes are kept back, a run has one of its own.

        Raises:
            ProviderError: the answer broke off.
            OverBudget: it took more than was left.
        """
        async for batch in self.call:
            content: Batch = [event for event in batch if not isinstance(event, Finish)]
            if len(content) != len(batch):
                self.finish = next((event.reason for event in reversed(batch) if isinstance(event, Finish)), None)
            if content:
                self._count(content)
                yield content
        self.is_whole = True

    async def whole(self) -> str:
        """Wait for all of it."""
        async for _ in self:
            pass
        return self.text

    def settle(self, prompt: int) -> None:
        """The provider's own figures instead of what was counted; what was counted too much is given back."""
        usage = self.call.usage
        self._purse.spend(usage.input_tokens + usage.output_tokens - prompt - self._counted, self.call.cost_usd or 0.0)

    def _count(self, batch: Batch) -> None:
        size = 0
        for event in batch:
            match event:
                case Text(text=text):
                    size += utf8_length(text)
                    if self._kept < self._keep:
                        self._parts.append(text[: self._keep - self._kept])
                        self._kept += len(text)
                case Reasoning(text=text) | Refusal(text=text) | ToolCall(arguments=text):
                    size += utf8_length(text)
                case _:
                    pass
        self._rest += size / BYTES_PER_TOKEN
        tokens = int(self._rest)
        self._rest -= tokens
        self._counted += tokens
        if tokens:
            self._purse.spend(tokens)


def _bounded(request: ChatRequest, left: int | None) -> ChatRequest:
    """No answer may be longer than what is left for it."""
    if left is None or (request.max_output_tokens is not None and request.max_output_tokens <= left):
        return request
    return msgspec.structs.replace(request, max_output_tokens=max(1, left))
