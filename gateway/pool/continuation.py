"""How an answer that broke off after its commit point goes on elsewhere: what each kind of endpoint is asked. Pure.

| strategy | the endpoint is sent | its output |
|---|---|---|
| prefill | the request, and the partial answer as an open turn of the assistant | goes on from there |
| replay | the original request again | must begin with exactly what was delivered |
| instruct | the partial answer as a turn, and a user's turn that asks to go on | goes on, probably |

An endpoint's strategy is configured by what its model is known to do, never guessed. `resume` needs the Responses API.

Stricter than necessary, on purpose: any tool call that was delivered, whole or in part, disqualifies, since no host
goes on behind a call that nobody has answered; and so does any turn of the assistant at the end of the caller's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from gateway.core.chat import Message, TextPart
from gateway.pool.endpoint import Continuation
from gateway.pool.seam import OVERLAP_WINDOW, instruct_seam, prefill_seam

if TYPE_CHECKING:
    from gateway.core.chat import ChatRequest
    from gateway.pool.delivered import Delivered
    from gateway.pool.endpoint import Endpoint
    from gateway.pool.seam import Seam

MAX_LEGS = 3
REPLAY_MAX_CHARS = 16_384


class Level(StrEnum):
    """How much may be done to hide a failure, in rising order; see `at_most`.

    `off`: the same endpoint once more before content, nothing else. `safe`: others before content, and afterwards those
    that continue exactly. `continue`: afterwards also those that are asked to go on in words.
    """

    OFF = "off"
    SAFE = "safe"
    CONTINUE = "continue"

    def at_most(self, other: Level) -> Level:
        """The lower one: a caller may lower its route's level, never raise it."""
        order = tuple(Level)
        return min(self, other, key=order.index)

    def allows(self, strategy: Continuation) -> bool:
        """Whether a strategy may be used after the commit point."""
        match strategy:
            case Continuation.NONE:
                return False
            case Continuation.INSTRUCT:
                return self is Level.CONTINUE
            case _:
                return self is not Level.OFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """A route's policy. `atomic_tools`: tool calls are delivered when they are whole, so that none is cut in two."""

    level: Level = Level.SAFE
    replay_max_chars: int = REPLAY_MAX_CHARS
    atomic_tools: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one endpoint is asked, and how its output is joined: by a seam, or by comparing what is said again."""

    endpoint: Endpoint
    strategy: Continuation
    request: ChatRequest
    seam: Seam | None = None


_DISQUALIFYING = frozenset({"logprobs", "top_logprobs", "audio", "modalities"})


def may_continue(request: ChatRequest, strategy: Continuation) -> bool:
    """Whether answers to this request can be continued at all, as far as the request says."""
    forced = bool(request.tools) and request.tool_choice not in {"auto", "none"}
    if request.n != 1 or request.schema is not None or forced or not _DISQUALIFYING.isdisjoint(request.own):
        return False
    return strategy is Continuation.REPLAY or not request.messages or request.messages[-1].role != "assistant"


def plan(
    request: ChatRequest, delivered: Delivered, endpoint: Endpoint, *, level: Level, replay_max_chars: int
) -> Plan | None:
    """How `endpoint` would continue the answer; None if it cannot, or what was delivered disqualifies."""
    strategy = endpoint.continuation
    if not level.allows(strategy) or not may_continue(request, strategy) or _disqualifies(delivered):
        return None
    if strategy is Continuation.REPLAY:
        fits = delivered.kept <= replay_max_chars
        return Plan(endpoint=endpoint, strategy=strategy, request=request) if fits else None
    text = delivered.text
    if delivered.reasoning or not text.strip():
        return None
    asked = _less_room(request, delivered.output_tokens)
    if strategy is Continuation.PREFILL:
        seam = prefill_seam(text, echoes=endpoint.echoes, stops=request.stop)
        asked = msgspec.structs.replace(asked, tail=(_turn("assistant", text.rstrip()),))
    else:
        seam = instruct_seam(text, stops=request.stop)
        asked = msgspec.structs.replace(asked, tail=(_turn("assistant", text.rstrip()), _turn("user", _ask(text))))
    return Plan(endpoint=endpoint, strategy=strategy, request=asked, seam=seam)


def _disqualifies(delivered: Delivered) -> bool:
    """What no continuation could take up again, or an answer that is over."""
    unfit = delivered.calls or delivered.others or delivered.refused or delivered.opaque or delivered.finished
    return bool(unfit) or not delivered.is_whole


def _less_room(request: ChatRequest, spent: int) -> ChatRequest:
    """The same with what is left of its limit of tokens: at least one, or hosts refuse."""
    limit = request.max_output_tokens
    return request if limit is None else msgspec.structs.replace(request, max_output_tokens=max(1, limit - spent))


def _turn(role: str, text: str) -> Message:
    return Message(role="user" if role == "user" else "assistant", parts=(TextPart(text=text),))


_QUOTED = OVERLAP_WINDOW // 2


def _ask(text: str) -> str:
    """The words that ask a model to go on."""
    return (
        "Your last message was cut off by a broken connection. It ended with:\n\n"
        f"{text.rstrip()[-_QUOTED:]}\n\n"
        "Go on exactly where it ended, in the middle of the sentence or word if need be. Write only what is missing: "
        "no introduction, no apology, and nothing that was said already."
    )
