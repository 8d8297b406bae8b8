"""A controller's plan: steps that wait for one another. Read from a model's words, which may be anything.

What a plan may be is said twice, for the model as a JSON schema, and here as checks: a model's word is not trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ID = 64
MAX_GOAL = 4_000
MAX_PLAN_BYTES = 65_536


class PlanError(Exception):
    """A plan that cannot be used; the message is one that a model can act on."""


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One piece of work for one worker; `after` names the steps whose results it needs."""

    id: str
    goal: str
    worker: str
    after: tuple[str, ...] = ()


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Steps in an order in which they can be done."""

    steps: tuple[Step, ...]

    def ready(self, done: set[str], begun: set[str]) -> list[Step]:
        """Steps that nobody has begun and whose results are there."""
        return [step for step in self.steps if step.id not in begun and done.issuperset(step.after)]


def schema(workers: Sequence[str], most: int) -> dict[str, Any]:
    """The JSON schema of a plan, with an example: one step for each of two workers, then one that joins them."""
    words = {"type": "string", "minLength": 1, "maxLength": MAX_ID}
    step = {
        "type": "object",
        "properties": {
            "id": words,
            "goal": {"type": "string", "minLength": 1, "maxLength": MAX_GOAL},
            "worker": {"type": "string", "enum": list(workers)},
            "after": {"type": "array", "items": words},
        },
        "required": ["id", "goal", "worker", "after"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"steps": {"type": "array", "items": step, "minItems": 1, "maxItems": most,
                                 "examples": [_example(workers, most)]}},
        "required": ["steps"],
        "additionalProperties": False,
    }  # fmt: skip


def _example(workers: Sequence[str], most: int) -> list[dict[str, Any]]:
    first = [
        {"id": f"part-{number}", "goal": f"Do part {number} of the task.", "worker": worker, "after": []}
        for number, worker in enumerate(workers[: max(1, min(2, most - 1))], start=1)
    ]
    if most < 3:
        return first[:most]
    named = [step["id"] for step in first]
    return [*first, {"id": "check", "goal": "Check the parts.", "worker": workers[-1], "after": named}]


def read(text: str, workers: Sequence[str], most: int) -> Plan:
    """The plan in a model's answer.

    Raises:
        PlanError: it is none, or not one that can be carried out.
    """
    if len(text) > MAX_PLAN_BYTES:
        raise PlanError(f"it is longer than {MAX_PLAN_BYTES} characters")
    try:
        plan = msgspec.json.decode(_json(text).encode(), type=Plan)
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise PlanError(f"it is not JSON of the given schema ({error})") from error
    _check(plan, workers, most)
    return plan


def _json(text: str) -> str:
    """Without a code fence or words around it: models are asked for JSON alone and add them all the same."""
    begin, end = text.find("{"), text.rfind("}")
    return text if begin < 0 or end < begin else text[begin : end + 1]


def _check(plan: Plan, workers: Sequence[str], most: int) -> None:
    ids = [step.id for step in plan.steps]
    if not 1 <= len(ids) <= most:
        raise PlanError(f"it has {len(ids)} steps; 1 to {most} are allowed")
    if len(set(ids)) != len(ids):
        raise PlanError("two steps have the same id")
    for step in plan.steps:
        if not 0 < len(step.id) <= MAX_ID or not 0 < len(step.goal) <= MAX_GOAL:
            raise PlanError(f"step {step.id[:MAX_ID]!r} needs an id of at most {MAX_ID} characters and a goal")
        if step.worker not in workers:
            raise PlanError(f"there is no worker {step.worker[:MAX_ID]!r}; there are: {', '.join(workers)}")
        if missing := [name for name in step.after if name not in ids]:
            raise PlanError(f"step {step.id!r} waits for {missing[0][:MAX_ID]!r}, which is no step")
    _check_order(plan)


def _check_order(plan: Plan) -> None:
    done: set[str] = set()
    while len(done) < len(plan.steps):
        ready = plan.ready(done, done)
        if not ready:
            stuck = next(step.id for step in plan.steps if step.id not in done)
            raise PlanError(f"steps wait for one another in a circle, among them {stuck!r}")
        done.update(step.id for step in ready)
