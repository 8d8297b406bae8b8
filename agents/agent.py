"""What an agent is: one method. Everything else (log, control, replay, metrics) it gets because a run is a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from agents.desk import Desk
    from agents.ports import Batch
    from agents.profile import Profile
    from gateway.core.chat import ChatRequest


class Agent(Protocol):
    """An agent, made once and used by many runs at a time: a run's state belongs into `run`.

    A Python agent is a class that is constructed with its `Profile` and a function that finds other agents by name.
    """

    profile: Profile

    def run(self, request: ChatRequest, desk: Desk) -> AsyncGenerator[Batch]:
        """Answer a request: yields batches of content for the caller and of `desk.progress(...)` for whoever watches.

        Raises:
            ProviderError: it cannot be answered; that ends the run as failed.
            OverBudget: the run ends as incomplete.
        """
        ...


class AgentError(Exception):
    """An agent cannot go on: what a model gave it is of no use. The message is safe to show."""
