"""The desk: what an agent works at. It asks models, says what it does, and never takes more than it was given.

One `Floor` is shared by all desks of a run: the gate that a pause closes, what was used so far, who works in parallel.

Oddities, on purpose:
1. A pause closes the gate for the *next* model call; those that run go on into the log, as the pause of a stream does.
2. Calls are charged while they pass by what can be counted, and corrected when they end by what the provider says.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from agents.board import Score
from agents.crew import Crew
from agents.deadlines import Deadlines
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
    from gateway.core.events import FinishReason, SourceEvent


CALLS_SHOWN = 200
"""Calls of a run that its status object tells of, the newest ones."""
PRICED_EVERY = 128
"""Tokens of an answer after which its price is looked at."""


class TooDeep(Exception):
    """Agents call agents call agents."""


class Floor:
    """What all desks of one run share. `finish` is why the last answer at the run's own desk ended."""

    def __init__(self, pool: Pool, board: Board, monotonic: Callable[[], float]) -> None:
        self.pool, self.board, self.monotonic = pool, board, monotonic
        self.crew, self.deadlines = Crew(), Deadlines()
        self.open = asyncio.Event()
        self.open.set()
        self.attempts: list[str] = []
        self.finish: FinishReason | None = None
        self._running: dict[Call, Question] = {}
        self._over: deque[dict[str, Any]] = deque(maxlen=CALLS_SHOWN)
        self._used: Usage | None = None
        self._cost_usd: float | None = 0.0

    @property
    def usage(self) -> Usage:
        """Of all calls so far."""
        used = () if self._used is None else (self._used,)
        return total([*used, *(call.usage for call in self._running)])

    @property
    def cost_usd(self) -> float | None:
        """Of all calls so far; None as soon as one price is unknown, or where nothing was asked."""
        costs = [self._cost_usd, *(call.cost_usd for call in self._running)]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) and (self._used or self._running) else None

    @property
    def calls(self) -> list[dict[str, Any]]:
        """Who was asked for what, and why: the newest calls that are over, then those that run."""
        return [*self._over, *({**_asked(question), **call.chosen} for call, question in self._running.items())]

    def began(self, call: Call, question: Question) -> None:
        """A call gave its first content."""
        self._running[call] = question

    def ended(self, call: Call) -> None:
        """A call was left."""
        chosen = {**_asked(self._running.pop(call)), **call.chosen}
        self._used = call.usage if self._used is None else total([self._used, call.usage])
        cost = call.cost_usd
        self._cost_usd = None if self._cost_usd is None or cost is None else self._cost_usd + cost
        self._over.append(chosen)
        self.attempts += call.chosen["attempts"]


def _asked(question: Question) -> dict[str, Any]:
    return {"agent": question.agent, "step": question.step, "task": question.task}


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
        floor, purse, begun = self.floor, self.purse, self.floor.monotonic()
        purse.check()
        is_bounded = purse.tokens_left is not None or purse.usd_left is not None
        prompt = estimate_input_tokens(request) if is_bounded else 0
        purse.spend(prompt)
        question = Question(
            request=_bounded(request, purse.tokens_left), route=route, agent=self.agent, step=self.step, task=task,
            needs=needs or {},
        )  # fmt: skip
        answer: Answer | None = None
        first_s = 0.0
        try:
            async with floor.pool.ask(question) as call:
                floor.began(call, question)
                answer, first_s = Answer(call, purse if is_bounded else None), floor.monotonic() - begun
                yield answer
        finally:
            if answer is None:
                purse.take(-prompt)
                floor.board.missed(self.agent, task, floor.monotonic() - begun)
            else:
                self._close(answer, prompt, task, first_s, floor.monotonic() - begun)

    def _close(self, answer: Answer, prompt: int, task: str, first_s: float, seconds: float) -> None:
        """A call was left: its place in statistics, usage and purse."""
        floor = self.floor
        floor.ended(answer.call)
        floor.board.count(self.agent, task, answer.call, Score(answer.is_whole, first_s, seconds))
        answer.settle(prompt)
        if self.depth == 1:
            floor.finish = answer.finish


class Answer:
    """A model's answer while it comes. `text` is what it said so far, up to `keep` characters.

    Without a `purse` nothing is counted.
    """

    def __init__(self, call: Call, purse: Purse | None = None, keep: int = 262_144) -> None:
        self.call = call
        self.finish: FinishReason | None = None
        self.is_whole = False
        self._purse, self._keep = purse, keep
        self._kept = self._counted = self._priced = 0
        self._rest = self._paid = 0.0
        self._parts: list[str] = []

    @property
    def text(self) -> str:
        """What it said."""
        return "".join(self._parts)[: self._keep]

    async def __aiter__(self) -> AsyncIterator[Batch]:
        """The batches of content; finishes are kept back, a run has one of its own.

        Raises:
            ProviderError: the answer broke off.
            OverBudget: it took more than was left.
        """
        parts, purse = self._parts, self._purse
        async for batch in self.call:
            for event in batch:
                kind = type(event)  # once for each token: isinstance takes twice as long
                if kind is Text:
                    if self._kept < self._keep:
                        parts.append(event.text)  # type: ignore[union-attr]
                        self._kept += len(event.text)  # type: ignore[union-attr]
                elif kind is Finish:
                    self.finish = event.reason  # type: ignore[union-attr]
                    batch = _unfinished(batch)  # noqa: PLW2901
            if batch:
                if purse is not None:
                    self._spend(batch, purse)
                yield batch
        self.is_whole = True

    async def whole(self) -> str:
        """Wait for all of it."""
        async for _ in self:
            pass
        return self.text

    def settle(self, prompt: int) -> None:
        """The provider's own figures instead of what was counted; what was counted too much is given back."""
        if self._purse is not None:
            usage, cost = self.call.usage, self.call.cost_usd or 0.0
            tokens = usage.input_tokens + usage.output_tokens - prompt - self._counted
            self._purse.take(tokens, cost - self._paid)

    def _spend(self, batch: Batch, purse: Purse) -> None:
        size = sum(utf8_length(_said(event)) for event in batch)
        self._rest += size / BYTES_PER_TOKEN
        tokens = int(self._rest)
        self._rest -= tokens
        self._counted += tokens
        paid = 0.0
        if self._counted >= self._priced + PRICED_EVERY:
            self._priced = self._counted
            paid = (self.call.cost_usd or 0.0) - self._paid
            self._paid += paid
        if tokens or paid:
            purse.spend(tokens, paid)


def _unfinished(batch: Batch) -> Batch:
    """Without finishes; what stood before one is the end of its chunk now."""
    found: Batch = [event for event in batch if not isinstance(event, Finish)]
    if found and found[-1].more:
        found[-1] = msgspec.structs.replace(found[-1], more=False)
    return found


def _said(event: SourceEvent) -> str:
    match event:
        case Text(text=text) | Reasoning(text=text) | Refusal(text=text) | ToolCall(arguments=text):
            return text
        case _:
            return ""


def _bounded(request: ChatRequest, left: int | None) -> ChatRequest:
    """No answer may be longer than what is left for it."""
    if left is None or (request.max_output_tokens is not None and request.max_output_tokens <= left):
        return request
    return msgspec.structs.replace(request, max_output_tokens=max(1, left))
