"""An agent that plans, lets workers do the steps side by side, and answers with what they found.

A step's result is data for those that wait for it: it never changes the plan, the workers or the limits. What workers
say is shown as nested progress; only the answer at the end is the run's own text.

Oddities, on purpose:
1. A step that fails is tried again, and then the policy decides: `report` goes on without it and says so, `replan` asks
   for one new plan for what is left, `fail` ends the run. Steps that waited for a failed one are told of the failure.
2. An empty purse ends the step that emptied it, like a failure; the answer is given from what is there.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agents.agent import Agent, AgentError
from agents.outbox import Outbox
from agents.plan import Plan, PlanError, Step, read, schema
from agents.profile import part_of, request_of, user_turn
from agents.prompts import PLANNER, REPAIR, SYNTHESISER, quoted, results
from agents.purse import OverBudget, least
from agents.task import asked_text
from gateway.core.errors import ProviderError
from gateway.core.events import Progress, Reasoning, Text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from agents.desk import Desk
    from agents.ports import Batch
    from agents.profile import Profile
    from agents.purse import Purse
    from gateway.core.chat import ChatRequest

RESULT_CHARACTERS = 32_768
"""Of a step's result that others are given."""


@dataclass(slots=True)
class _Work:
    """What became of the steps so far."""

    plan: Plan
    results: dict[str, str] = field(default_factory=dict[str, str])
    failures: dict[str, str] = field(default_factory=dict[str, str])
    begun: set[str] = field(default_factory=set[str])
    replanned: bool = False
    over_budget: bool = False
    share: tuple[int | None, float | None] = (None, None)

    @property
    def done(self) -> set[str]:
        """Steps that nobody has to wait for any more."""
        return self.results.keys() | self.failures.keys()

    @property
    def is_over(self) -> bool:
        return len(self.done) == len(self.plan.steps)

    def told(self, ids: tuple[str, ...] | None = None) -> str:
        """Results and failures of these steps (None: all), as data for a model."""
        found = [step for step in self.plan.steps if (ids is None or step.id in ids) and step.id in self.done]
        return results(
            (step.id, step.goal, self.results.get(step.id, f"(failed: {self.failures.get(step.id, '')})"))
            for step in found
        )


class ControllerAgent:
    """Plans, dispatches, synthesises."""

    def __init__(self, profile: Profile, find: Callable[[str], Agent]) -> None:
        self.profile, self._find = profile, find

    async def run(self, request: ChatRequest, desk: Desk) -> AsyncGenerator[Batch]:
        """A plan, its steps, an answer."""
        plan = await self._plan(request, desk, asked_text(request))
        yield [_shown(desk, "plan", plan)]
        work, outbox = _Work(plan, share=desk.purse.share(len(plan.steps) + 1)), Outbox()
        while not work.is_over:
            self._dispatch(work, request, desk, outbox)
            yield await outbox.take()
            if self._wants_new_plan(work):
                await self._replan(work, request, desk)
                yield [_shown(desk, "replanned", work.plan)]
        self._refuse_failure(work)
        async with aclosing(self._answer(work, request, desk)) as batches:
            async for batch in batches:
                yield batch

    async def _plan(self, request: ChatRequest, desk: Desk, task: str) -> Plan:
        """A plan that can be carried out; a model gets one chance to repair it."""
        profile = self.profile
        workers = "\n".join(f"- {name}: {self._find(name).profile.description}" for name in profile.workers)
        turns = user_turn(quoted("task", task))
        said = PLANNER.format(most=profile.limits.max_steps, workers=workers)
        for attempt in range(2):
            wanted = schema(profile.workers, profile.limits.max_steps)
            asked = request_of(profile, part_of(request, turns), said, schema=wanted)
            async with desk.ask(asked, profile.route, task="planning", needs={"reasoning": "fair"}) as answer:
                text = await answer.whole()
            try:
                return read(text, profile.workers, profile.limits.max_steps)
            except PlanError as error:
                if attempt:
                    raise AgentError(f"the model gave no usable plan: {error}") from error
                turns = (*turns, *user_turn(f"{quoted('plan', text)}\n\n{REPAIR.format(problem=error)}"))
        raise AssertionError("unreachable")

    def _dispatch(self, work: _Work, request: ChatRequest, desk: Desk, outbox: Outbox) -> None:
        """Begin what is ready, as far as there are hands."""
        free = self.profile.limits.max_workers - len(work.begun - work.done)
        for step in work.plan.ready(work.done, work.begun)[: max(0, free)]:
            work.begun.add(step.id)
            desk.floor.crew.spawn(self._carry_out(step, work, request, desk, outbox), outbox.fail)

    async def _carry_out(self, step: Step, work: _Work, request: ChatRequest, desk: Desk, outbox: Outbox) -> None:
        """One step, tried as often as the limits allow; whatever comes of it is noted and said."""
        await desk.floor.open.wait()
        own = desk.within(step.worker, step.id, self._purse(step, work, desk))
        why = await self._tried(step, work, request, own, outbox)
        if why is None:
            await outbox.put([own.progress("step_done", characters=len(work.results[step.id]))])
        else:
            work.failures[step.id] = why
            await outbox.put([own.progress("step_failed", error=why)])

    async def _tried(self, step: Step, work: _Work, request: ChatRequest, own: Desk, outbox: Outbox) -> str | None:
        """Try a step until there is a result; why there is none, else None."""
        limits = self.profile.limits
        why = ""
        for attempt in range(1 + limits.retries):
            await outbox.put([own.progress("step_started", goal=step.goal, attempt=attempt + 1, after=step.after)])
            try:
                async with own.floor.deadlines.within(limits.step_s):
                    text = await self._result(step, work, request, own, outbox)
            except TimeoutError:
                why = f"no answer within {limits.step_s:g} s"
            except OverBudget as error:
                work.over_budget = True
                return str(error)
            except (ProviderError, AgentError) as error:
                why = str(error)
            else:
                work.results[step.id] = text[:RESULT_CHARACTERS]
                return None
        return why

    def _purse(self, step: Step, work: _Work, desk: Desk) -> Purse:
        """A step's part of the budget, at most what its worker may use."""
        limits, (tokens, usd) = self._find(step.worker).profile.limits, work.share
        return desk.purse.part(least(tokens, limits.tokens), least(usd, limits.usd))

    async def _result(self, step: Step, work: _Work, request: ChatRequest, desk: Desk, outbox: Outbox) -> str:
        """Let the worker work; its words go out as they come."""
        before = work.told(step.after)
        content = user_turn("\n\n".join(part for part in (quoted("step", step.goal), before) if part))
        asked = part_of(request, content)
        parts: list[str] = []
        async with aclosing(self._find(step.worker).run(asked, desk)) as batches:
            async for batch in batches:
                parts += [event.text for event in batch if isinstance(event, Text)]
                if said := _nested(batch, desk):
                    await outbox.put(said)
        return "".join(parts)

    def _wants_new_plan(self, work: _Work) -> bool:
        return self.profile.on_failure == "replan" and bool(work.failures) and not work.replanned

    async def _replan(self, work: _Work, request: ChatRequest, desk: Desk) -> None:
        """A new plan for what is left; steps that run go on and are told to nobody."""
        task = f"{asked_text(request)}\n\nSo far:\n\n{work.told()}\n\nPlan only what is still to be done."
        plan = await self._plan(request, desk, task)
        work.replanned = True
        kept = [step for step in work.plan.steps if step.id in work.begun]
        prefix = "again-"
        while any(step.id.startswith(prefix) for step in kept):  # ids are a model's words
            prefix += "again-"
        fresh = [Step(prefix + step.id, step.goal, step.worker, tuple(prefix + name for name in step.after))
                 for step in plan.steps]  # fmt: skip
        work.plan, work.share = Plan((*kept, *fresh)), desk.purse.share(len(fresh) + 1)

    def _refuse_failure(self, work: _Work) -> None:
        failed = work.failures if self.profile.on_failure == "fail" or not work.results else {}
        if failed:
            name, why = next(iter(failed.items()))
            if work.over_budget:
                raise OverBudget(f"step {name!r}: {why}")
            raise AgentError(f"step {name!r} failed: {why}")

    async def _answer(self, work: _Work, request: ChatRequest, desk: Desk) -> AsyncGenerator[Batch]:
        task = quoted("task", asked_text(request))
        asked = request_of(self.profile, request, SYNTHESISER, messages=user_turn(f"{task}\n\n{work.told()}"))
        async with desk.ask(asked, self.profile.route, task="synthesis", needs={"writing": "fair"}) as answer:
            yield [desk.progress("synthesis", **answer.call.chosen)]
            async for batch in answer:
                yield batch


def _nested(batch: Batch, desk: Desk) -> Batch:
    """A worker's batch as progress at its desk, one event for each kind of words; its own workers' are that already."""
    found: Batch = []
    for kind, type_ in (("reasoning", Reasoning), ("text", Text)):
        words = "".join(event.text for event in batch if isinstance(event, type_))
        if words:
            found.append(desk.progress(kind, text=words))
    return [*found, *(event for event in batch if isinstance(event, Progress))]


def _shown(desk: Desk, kind: str, plan: Plan) -> Progress:
    steps: list[dict[str, Any]] = [
        {"id": step.id, "goal": step.goal, "worker": step.worker, "after": list(step.after)} for step in plan.steps
    ]
    return desk.progress(kind, steps=steps)
