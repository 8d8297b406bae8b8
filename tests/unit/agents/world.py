"""Runs of agents on a scripted pool."""

import json
from typing import TYPE_CHECKING, Any

from agents.board import Board
from agents.catalog import Catalog
from agents.profile import Limits, Profile
from agents.run import Run
from gateway.core.chat import ChatRequest, Message, TextPart
from gateway.core.events import Progress, SourceEvent, Text
from tests.support.scripted_pool import Script, ScriptedPool

if TYPE_CHECKING:
    from agents.ports import Batch


def asked(text: str = "Build a boat and a sail.", **members: Any) -> ChatRequest:
    """A request of one turn."""
    message = Message(role="user", parts=(TextPart(text=text),))
    return ChatRequest(**{"dialect": "openai_chat", "model": "agent/team", "messages": (message,), **members})


def team(
    script: Script, *, board: Board | None = None, request: ChatRequest | None = None, **profile: Any
) -> tuple[Run, ScriptedPool]:
    """A run of a controller with the workers ada and bob."""
    limits = profile.pop("limits", Limits())
    catalog = Catalog(
        [
            ("controller", Profile(name="team", route="boss", workers=("ada", "bob"), limits=limits, **profile)),
            ("worker", Profile(name="ada", route="hand", description="writes")),
            ("worker", Profile(name="bob", route="hand", description="checks")),
        ]
    )
    pool = ScriptedPool(script)
    return Run(catalog.find("team"), request or asked(), pool, board or Board(), lambda: 0.0), pool


def plan(*steps: tuple[str, tuple[str, ...]], worker: str = "ada") -> str:
    """A plan of (id, after)."""
    rows = [{"id": id_, "goal": f"goal of {id_}", "worker": worker, "after": list(after)} for id_, after in steps]
    return json.dumps({"steps": rows})


async def events(run: Run) -> list[SourceEvent]:
    """Everything that a run yields."""
    found: Batch = []
    async with run.open() as batches:
        async for batch in batches:
            found += batch
    return found


def text_of(found: list[SourceEvent]) -> str:
    """The run's own text."""
    return "".join(event.text for event in found if isinstance(event, Text))


def kinds(found: list[SourceEvent]) -> list[str]:
    """What progress was made, by kind."""
    return [event.kind for event in found if isinstance(event, Progress)]


def told(question: Any) -> str:
    """Everything that a model was told."""
    return "\n".join(message.text for message in question.request.messages)
