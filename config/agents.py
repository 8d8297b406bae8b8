"""Agents: what they are called, whom they ask, and what they may use.

Two are there without any configuration, on the mock: `assistant`, which looks what kind of task it is given, and
`team`, which plans and lets two workers do the steps. A list of one's own replaces them, an empty one has none.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from config.problems import Loc, did_you_mean
from config.section import Section
from config.values import Name, Seconds, Word

Count: TypeAlias = Annotated[int, Field(ge=1)]
Strength: TypeAlias = Literal["weak", "fair", "strong"]
TaskType: TypeAlias = Literal[
    "code", "reasoning", "extraction", "summarising", "writing", "structured", "conversation"
]  # fmt: skip


class AgentLimits(Section):
    """Bounds of one run: steps of a plan, workers at once, seconds, retries of a step, tokens and USD over the tree."""

    max_steps: Annotated[int, Field(ge=1, le=100)] = 12
    max_workers: Annotated[int, Field(ge=1, le=100)] = 4
    step_s: Seconds = 120.0
    run_s: Seconds = 900.0
    retries: Annotated[int, Field(ge=0, le=5)] = 1
    tokens: Count | None = None
    usd: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None


class AgentOptions(Section):
    """Members of the requests that an agent makes; they win over the caller's."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    max_output_tokens: Count | None = None
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    seed: int | None = None


class Agent(Section):
    """One agent.

    `kind` is `task_aware`, `controller`, `worker`, or the dotted path of a class. `route` is a model name of this
    gateway. `classifier` is one that is asked for the type of a task where the rules doubt.
    """

    name: Name
    kind: Word
    route: Word
    description: str = ""
    instructions: str = ""
    options: AgentOptions = AgentOptions()
    task_types: tuple[TaskType, ...] = ()
    needs: dict[str, Strength] = Field(default_factory=dict)
    workers: tuple[Name, ...] = ()
    classifier: Word | None = None
    on_failure: Literal["report", "replan", "fail"] = "report"
    limits: AgentLimits = AgentLimits()


DEFAULT_AGENTS = (
    Agent(
        name="assistant",
        kind="task_aware",
        route="mock-fast",
        description="Looks what kind of task it is given and asks for a model that is good at it.",
    ),
    Agent(
        name="team",
        kind="controller",
        route="mock-fast",
        description="Plans, lets a researcher and a writer do the steps, and puts their results together.",
        workers=("researcher", "writer"),
    ),
    Agent(
        name="researcher",
        kind="worker",
        route="mock-fast",
        description="finds and checks facts",
        instructions="You are a careful researcher. Say what you are not sure of.",
        task_types=("extraction",),
    ),
    Agent(
        name="writer",
        kind="worker",
        route="mock-fast",
        description="writes clear text from given facts",
        instructions="You are a writer. Use the given facts and no others.",
        task_types=("writing",),
    ),
)


def agent_contradictions(agents: Sequence[Agent], models: Sequence[str]) -> Iterator[tuple[Loc, str]]:
    """What does not go together in a list of agents, with its place; `models` may end in `*`."""
    names = [agent.name for agent in agents]
    team = {agent.name: agent.workers for agent in agents}
    for at, agent in enumerate(agents):
        if agent.name in names[:at]:
            yield ("agents", at, "name"), f"{agent.name!r} is taken by agents[{names.index(agent.name)}]"
        for member in ("route", "classifier"):
            model = getattr(agent, member)
            if model is not None and not _is_served(model, models):
                yield ("agents", at, member), f"there is no route {model!r}{did_you_mean(model, models)}"
        for number, worker in enumerate(agent.workers):
            if worker not in names:
                yield ("agents", at, "workers", number), f"there is no agent {worker!r}{did_you_mean(worker, names)}"
        if agent.kind == "controller" and not agent.workers:
            yield ("agents", at, "workers"), "a controller needs workers"
        if circle := _circle(agent.name, team):
            yield ("agents", at, "workers"), f"{agent.name!r} works for itself: {' -> '.join(circle)}"


def _is_served(model: str, models: Sequence[str]) -> bool:
    return any(model == known or (known.endswith("*") and model.startswith(known[:-1])) for known in models)


def _circle(name: str, team: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The way from an agent through its workers back to it, the shortest; empty if there is none."""
    ways: list[tuple[str, ...]] = [(name,)]
    seen = set[str]()
    while ways:
        way = ways.pop(0)
        for worker in team.get(way[-1], ()):
            if worker == name:
                return (*way, name)
            if worker not in seen:
                seen.add(worker)
                ways.append((*way, worker))
    return ()
