"""A pool for agents whose models say what a script tells them: ports.Pool without a gateway.

    pool = ScriptedPool(lambda question: "the answer")

A script returns text, a `Said` (pieces, a failure in the middle, a gate to wait at), or raises ProviderError. What was
asked is in `questions`, what runs now in `running`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from agents.ports import Batch, Question
from gateway.core.errors import ProviderError
from gateway.core.events import Finish, FinishReason, Text
from gateway.core.usage import Usage


@dataclass(kw_only=True)
class Said:
    """An answer in pieces; `gate` is waited for behind the first, `error` raised behind the last."""

    pieces: tuple[str, ...]
    gate: asyncio.Event | None = None
    error: ProviderError | None = None
    finish: FinishReason = "stop"
    tokens: int | None = None
    endpoint: str = "scripted"


@dataclass(eq=False)
class ScriptedCall:
    """ports.Call."""

    said: Said
    given: int = 0
    cost_usd: float | None = 0.001

    @property
    def endpoint(self) -> str:
        return self.said.endpoint

    @property
    def usage(self) -> Usage:
        return Usage(input_tokens=10, output_tokens=self.given if self.said.tokens is None else self.said.tokens)

    @property
    def chosen(self) -> dict[str, Any]:
        return {"endpoint": self.endpoint, "provider": "mock", "strategy": "priority", "why": "first in order",
                "attempts": [f"{self.endpoint}: ok"]}  # fmt: skip

    async def __aiter__(self) -> AsyncIterator[Batch]:
        for at, piece in enumerate(self.said.pieces):
            if at == 1 and self.said.gate is not None:
                await self.said.gate.wait()
            self.given += 1
            yield [Text(0, piece)]
        if self.said.error is not None:
            raise self.said.error
        yield [Finish(0, self.said.finish)]


Script = Callable[[Question], "str | Said"]


@dataclass(eq=False)
class ScriptedPool:
    """ports.Pool."""

    script: Script
    questions: list[Question] = field(default_factory=list)
    running: int = 0
    most: int = 0

    @asynccontextmanager
    async def ask(self, question: Question) -> AsyncGenerator[ScriptedCall]:
        self.questions.append(question)
        said = self.script(question)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            yield ScriptedCall(Said(pieces=(said,)) if isinstance(said, str) else said)
        finally:
            self.running -= 1
