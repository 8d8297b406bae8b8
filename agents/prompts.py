"""What agents say to models: instructions by type of task, and the roles of planner, worker and synthesiser.

Everything that came from a caller or a model is quoted as data between marks that it cannot contain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.task import TaskType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ENHANCEMENTS: Mapping[TaskType, str] = {
    TaskType.CODE: (
        "Give complete code that runs. Handle errors and edge cases. "
        "Say in one sentence what it does and what you assumed."
    ),
    TaskType.REASONING: "Work it out step by step, check the result, and end with the conclusion in one line.",
    TaskType.EXTRACTION: "Take only what the text says. Keep its spelling. Say what was asked for and is not there.",
    TaskType.SUMMARISING: "Keep what changes a decision, leave out the rest, add nothing.",
    TaskType.WRITING: "Write the text itself, without remarks around it.",
    TaskType.STRUCTURED: "Answer with the requested structure alone: no prose, no code fence.",
    TaskType.CONVERSATION: "",
}
"""What is added to the instructions for each type of task."""

CLASSIFIER = "Which of these is the task? Answer with one of: {types}."

PLANNER = """You plan work for a team. Split the task into at most {most} steps, as few as do it well. A step that needs
the results of others names them in `after`; steps that do not wait for one another run side by side.
The workers:
{workers}"""

REPAIR = "Your plan cannot be used: {problem}. Answer with a corrected plan."

WORKER = "You work on one step of a larger task. Do this step and nothing else."

SYNTHESISER = """You lead a team and answer the user. Put the results of the steps together to one answer to the task.
Do not mention the steps or the team. If a step failed, say what is missing because of it."""


def instructions(*parts: str) -> str:
    """A system prompt of those parts that say anything."""
    return "\n\n".join(part.strip() for part in parts if part.strip())


def quoted(title: str, text: str) -> str:
    """Text as data: between marks that the text cannot close."""
    harmless = text.replace("</", "< /")
    return f"<{title}>\n{harmless}\n</{title}>"


def results(found: Iterable[tuple[str, str, str]]) -> str:
    """Results of steps (id, goal, text), for whoever goes on with them."""
    return "\n\n".join(quoted("result", f"step {step}: {goal}\n\n{text}") for step, goal, text in found)
