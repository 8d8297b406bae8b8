"""What an agent is, as its operator states it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from agents.prompts import instructions
from gateway.core.chat import ChatRequest, Message, TextPart

if TYPE_CHECKING:
    from collections.abc import Mapping

DIALECT = "agent"
"""Of the requests that agents make: no provider speaks it, so none sends on what a caller wrote."""
MAX_DEPTH = 3
"""Agents within agents: a controller's worker may be a controller, and no deeper than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one run. `step_s` and `run_s` in seconds; `tokens` and `usd` None: as much as the caller may use."""

    max_steps: int = 12
    max_workers: int = 4
    step_s: float = 120.0
    run_s: float = 900.0
    retries: int = 1
    tokens: int | None = None
    usd: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One agent. `options` are members of a chat request (temperature, max_output_tokens, effort) and win over theirs.

    `classifier` is a route that is asked for the type of a task where the rules are unsure.
    """

    name: str
    route: str
    description: str = ""
    instructions: str = ""
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    task_types: tuple[str, ...] = ()
    needs: Mapping[str, str] = field(default_factory=dict[str, str])
    workers: tuple[str, ...] = ()
    classifier: str | None = None
    on_failure: Literal["report", "replan", "fail"] = "report"
    limits: Limits = field(default_factory=Limits)


def request_of(profile: Profile, asked: ChatRequest, *system: str, **members: Any) -> ChatRequest:
    """What a model is asked in a caller's name: canonical members only, with the agent's instructions in front.

    The dialect is none, so that no adapter sends the caller's own body on.
    """
    said = instructions(profile.instructions, *system)
    own = (Message(role="system", parts=(TextPart(text=said),)),) if said else ()
    given: dict[str, Any] = {**{name: getattr(asked, name) for name in _KEPT}, **profile.options, **members}
    messages = (*own, *given.pop("messages", asked.messages))
    return ChatRequest(dialect=DIALECT, stream=True, model=asked.model, messages=messages, **given)


def part_of(asked: ChatRequest, messages: tuple[Message, ...]) -> ChatRequest:
    """What is asked on the way to an answer: how the answer must look and how long it may be is no matter there."""
    kept: dict[str, Any] = {name: getattr(asked, name) for name in ("temperature", "top_p", "seed", "effort")}
    return ChatRequest(dialect=DIALECT, stream=True, model=asked.model, messages=messages, **kept)


_KEPT = (
    "max_output_tokens", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "seed", "effort",
    "thinking_tokens", "stop", "tools", "tool_choice", "parallel_tool_calls", "schema",
)  # fmt: skip


def user_turn(text: str) -> tuple[Message, ...]:
    """One user turn, as messages."""
    return (Message(role="user", parts=(TextPart(text=text),)),)
