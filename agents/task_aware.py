"""An agent that looks what kind of task it is given, and asks for a model that is good at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import structs

from agents.profile import part_of, request_of, user_turn
from agents.prompts import CLASSIFIER, ENHANCEMENTS, quoted
from agents.task import NEEDS, Task, TaskType, asked_text, classify
from gateway.core.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from agents.desk import Desk
    from agents.ports import Batch
    from agents.profile import Profile
    from gateway.core.chat import ChatRequest

_CLASSIFIER_TOKENS = 8


class TaskAwareAgent:
    """Classifies, states needs, adds what helps with this type of task, and says who was chosen and why."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    async def run(self, request: ChatRequest, desk: Desk) -> AsyncGenerator[Batch]:
        """One model call."""
        task = await self.classified(request, desk)
        needs = {**NEEDS[task.type], **self.profile.needs}
        yield [desk.progress("task", type=str(task.type), why=task.why, scores=dict(task.scores), needs=needs)]
        asked = request_of(self.profile, request, ENHANCEMENTS[task.type])
        async with desk.ask(asked, self.profile.route, task=task.type, needs=needs) as answer:
            yield [desk.progress("selected", **answer.call.chosen)]
            async for batch in answer:
                yield batch

    async def classified(self, request: ChatRequest, desk: Desk) -> Task:
        """By rules, and by a model where they leave a doubt and the profile names one."""
        task = classify(request)
        if self.profile.classifier is None or task.is_sure:
            return task
        types = ", ".join(TaskType)
        said = f"{CLASSIFIER.format(types=types)}\n\n{quoted('task', asked_text(request))}"
        question = structs.replace(
            part_of(request, user_turn(said)), max_output_tokens=_CLASSIFIER_TOKENS, temperature=None, effort=None
        )
        try:
            async with desk.ask(question, self.profile.classifier, task="classification") as answer:
                said = (await answer.whole()).strip().lower()
        except ProviderError as error:
            return Task(task.type, f"{task.why}; the classifier failed ({error.category})", task.scores)
        found = next((kind for kind in TaskType if kind in said), None)
        if found is None:
            return Task(task.type, f"{task.why}; the classifier named no type", task.scores)
        return Task(found, f"{self.profile.classifier} says so", task.scores)
