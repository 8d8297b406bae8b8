"""An agent that does one step of somebody's plan: one model call, with the role of a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.profile import request_of
from agents.prompts import WORKER
from agents.task import NEEDS, TaskType, classify

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from agents.desk import Desk
    from agents.ports import Batch
    from agents.profile import Profile
    from gateway.core.chat import ChatRequest


class WorkerAgent:
    """Asks for the strengths of its own task types; without any, for those of the step."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    async def run(self, request: ChatRequest, desk: Desk) -> AsyncGenerator[Batch]:
        """One model call."""
        types = tuple(map(TaskType, self.profile.task_types)) or (classify(request).type,)
        needs = {name: strength for kind in types for name, strength in NEEDS[kind].items()} | dict(self.profile.needs)
        asked = request_of(self.profile, request, WORKER)
        async with desk.ask(asked, self.profile.route, task=types[0], needs=needs) as answer:
            yield [desk.progress("selected", **answer.call.chosen)]
            async for batch in answer:
                yield batch
