"""Plans out of models' words."""

import json
from typing import Any

import pytest

from agents.plan import MAX_PLAN_BYTES, PlanError, read, schema
from gateway.providers._mock_schema import smallest

WORKERS = ("ada", "bob")


def step(id_: str, *after: str, worker: str = "ada", goal: str = "do it") -> dict[str, Any]:
    """One step as a model says it."""
    return {"id": id_, "goal": goal, "worker": worker, "after": list(after)}


def said(*steps: dict[str, Any]) -> str:
    """A plan as a model says it."""
    return json.dumps({"steps": steps})


def test_a_good_plan() -> None:
    """Steps become ready as those they wait for are done."""
    plan = read(said(step("a"), step("b"), step("c", "a", "b", worker="bob")), WORKERS, 5)
    assert [each.id for each in plan.ready(set(), set())] == ["a", "b"]
    assert plan.ready({"a"}, {"a", "b"}) == []
    assert [each.id for each in plan.ready({"a", "b"}, {"a", "b"})] == ["c"]


def test_words_around_it() -> None:
    """A fence and a remark around the JSON do not spoil a plan."""
    assert len(read(f"Here it is:\n```json\n{said(step('a'))}\n```\nGood luck!", WORKERS, 5).steps) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("I cannot plan.", "not JSON"),
        ("{}", "not JSON of the given schema"),
        ('{"steps": [], "x": 1}', "not JSON of the given schema"),
        (said(), "0 steps"),
        (said(*(step(str(n)) for n in range(6))), "6 steps; 1 to 5"),
        (said(step("a"), step("a")), "same id"),
        (said(step("")), "needs an id"),
        (said(step("a", goal="")), "and a goal"),
        (said(step("a", worker="eve")), "no worker 'eve'"),
        (said(step("a", "z")), "waits for 'z'"),
        (said(step("a", "a")), "circle"),
        (said(step("a", "b"), step("b", "a")), "circle"),
        ("{" * 100_000, "longer than"),
        ('{"steps":' + "[" * 60_000, "not JSON"),
        ("\ud800{}", "not JSON"),
    ],
)
def test_what_is_no_plan(text: str, problem: str) -> None:
    """Whatever a model says instead of a plan is refused with a reason that it can act on."""
    with pytest.raises(PlanError, match=problem):
        read(text, WORKERS, 5)


def test_the_bound_is_one_of_characters() -> None:
    """A plan of the largest size is still read."""
    assert read(said(step("a")) + " " * (MAX_PLAN_BYTES - 100), WORKERS, 5)


@pytest.mark.parametrize("most", [1, 2, 3, 12])
def test_the_mock_can_answer_the_schema(most: int) -> None:
    """The provider that needs no account gives plans that can be carried out."""
    assert read(json.dumps(smallest(schema(WORKERS, most))), WORKERS, most).steps
