"""The narrow waist: what agents need of the gateway. They know `gateway.core` and this file, nothing else of it.

`Pool` asks models, `Call` is one such question. Whoever implements them settles each call when it is left, in whatever
way: agents never see a bill, only what they have used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from gateway.core.chat import ChatRequest
    from gateway.core.events import SourceEvent
    from gateway.core.usage import Usage

Batch: TypeAlias = "list[SourceEvent]"
"""What one read of a model's answer gave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A request with what the pool should know beside it.

    `route` is the model name that the pool looks up; the request names the caller's own. `needs` are strengths by name
    (`{"coding": "strong"}`). `agent`, `step` and `task` are for statistics.
    """

    request: ChatRequest
    route: str
    agent: str
    step: str
    task: str = "conversation"
    needs: Mapping[str, str] = field(default_factory=dict[str, str])


class Call(Protocol):
    """One model call that gave its first content. Its batches hold content and finishes, nothing of the envelope."""

    def __aiter__(self) -> AsyncIterator[Batch]:
        """The batches of the answer."""
        ...

    @property
    def usage(self) -> Usage:
        """Tokens so far, estimated until the provider said."""
        ...

    @property
    def cost_usd(self) -> float | None:
        """What they cost; None where the price is unknown."""
        ...

    @property
    def endpoint(self) -> str:
        """Who answers now."""
        ...

    @property
    def chosen(self) -> dict[str, Any]:
        """Why: `endpoint`, `provider`, `strategy`, `why`, `attempts`, one line each; and against whom: `considered`.

        Without any content there are `attempts` only.
        """
        ...


class Pool(Protocol):
    """Asks models on behalf of one run."""

    def ask(self, question: Question) -> AbstractAsyncContextManager[Call]:
        """Ask; entering waits for the first content, leaving closes the socket and settles the bill.

        Raises:
            ProviderError: on entering or while iterating: no endpoint gave a whole answer.
        """
        ...
