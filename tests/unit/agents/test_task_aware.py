"""A task-aware agent: classified, needs stated, the prompt enhanced, the choice explained."""

from typing import Any

import pytest

from agents.board import Board
from agents.catalog import Catalog
from agents.profile import Profile
from agents.run import Run
from gateway.core.chat import Tool
from gateway.core.errors import Category, ProviderError
from gateway.core.events import Progress
from tests.support.run import run as run_in_a_loop
from tests.support.scripted_pool import Said, Script, ScriptedPool
from tests.unit.agents.world import asked, events, text_of, told


def one(
    script: Script, text: str, *, members: dict[str, Any] | None = None, **profile: Any
) -> tuple[Run, ScriptedPool]:
    """A run of a task-aware agent."""
    given = {"name": "sage", "route": "any", "instructions": "Be brief.", **profile}
    catalog = Catalog([("task_aware", Profile(**given))])
    pool = ScriptedPool(script)
    return Run(catalog.find("sage"), asked(text, **(members or {})), pool, Board(), lambda: 0.0), pool


def test_needs_and_enhancement() -> None:
    """A coding task asks for a strong coder, with the agent's instructions and those for code before the turns."""

    async def scenario() -> None:
        run, pool = one(lambda _: "done", "Implement quicksort in Python", needs={"context": "fair"})
        found = await events(run)
        assert text_of(found) == "done"
        (question,) = pool.questions
        assert dict(question.needs) == {"coding": "strong", "context": "fair"}
        assert (question.route, question.task) == ("any", "code")
        assert told(question).startswith("Be brief.\n\nGive complete code that runs.")
        assert question.request.dialect == "agent"  # so no adapter sends the caller's own body on
        task, selected = [event for event in found if isinstance(event, Progress)]
        assert (task.kind, task.data["type"]) == ("task", "code")
        assert (selected.kind, selected.data["why"]) == ("selected", "first in order")

    run_in_a_loop(scenario())


def test_options_of_the_agent_win() -> None:
    """What the operator sets for an agent holds whatever the caller asks; the rest of the request goes on."""

    async def scenario() -> None:
        tool = Tool(name="look")
        members = {"temperature": 2.0, "max_output_tokens": 9, "tools": (tool,), "body": {"x": 1}, "stop": ("END",)}
        run, pool = one(lambda _: "done", "Hello", members=members, options={"temperature": 0.1})
        await events(run)
        request = pool.questions[0].request
        assert (request.temperature, request.max_output_tokens, request.stop) == (0.1, 9, ("END",))
        assert request.tools == (tool,)
        assert request.body == {}

    run_in_a_loop(scenario())


@pytest.mark.parametrize(
    ("said", "type_", "why"),
    [("extraction", "extraction", "cheap says so"), ("dunno", "reasoning", "the classifier named no type")],
)
def test_a_model_decides_where_rules_doubt(said: str, type_: str, why: str) -> None:
    """An unsure classification asks the cheap model; what that says must be a type, or the rules hold."""

    async def scenario() -> None:
        run, pool = one(
            lambda question: said if question.task == "classification" else "done",
            "Compare these styles", classifier="cheap",
        )  # fmt: skip
        task = next(event for event in await events(run) if isinstance(event, Progress))
        assert (task.data["type"], why in task.data["why"]) == (type_, True)
        assert [question.route for question in pool.questions] == ["cheap", "any"]

    run_in_a_loop(scenario())


def test_a_failing_classifier_harms_nobody() -> None:
    """If the cheap model is away the rules decide."""

    async def scenario() -> None:
        broken = Said(pieces=("x",), error=ProviderError(Category.STREAM_BROKEN, "cut"))
        run, _ = one(
            lambda question: broken if question.task == "classification" else "done",
            "Compare these styles", classifier="cheap",
        )  # fmt: skip
        assert text_of(await events(run)) == "done"

    run_in_a_loop(scenario())


@pytest.mark.parametrize(
    ("profiles", "problem"),
    [
        ([("wizard", Profile(name="a", route="r"))], "neither task_aware, controller, worker nor"),
        ([("os.path.join", Profile(name="a", route="r"))], "neither"),
        ([("controller", Profile(name="a", route="r", workers=("b",)))], "no agent 'b'"),
        ([("controller", Profile(name="a", route="r", workers=("a",)))], "works for itself"),
    ],
)
def test_bad_profiles(profiles: Any, problem: str) -> None:
    """A catalog that cannot work is refused when it is built, naming the agent."""
    with pytest.raises(ValueError, match=problem):
        Catalog(profiles)
