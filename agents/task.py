"""What kind of task a request is: rules with an explanation, pure. A model may be asked where the rules are unsure.

A rule is a pattern with a weight; what matched is the explanation. Only the last user turn counts, and of a long one
its beginning and its end: that is where people say what they want.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.core.chat import ChatRequest

LOOKED_AT = 4_000
"""Characters of a long turn that are looked at, at either end."""

SURE = 2.0
"""From this lead over the next best type on, nobody else is asked."""


class TaskType(StrEnum):
    """What is asked for."""

    CODE = "code"
    REASONING = "reasoning"
    EXTRACTION = "extraction"
    SUMMARISING = "summarising"
    WRITING = "writing"
    STRUCTURED = "structured"
    CONVERSATION = "conversation"


@dataclass(frozen=True, slots=True)
class Task:
    """A classified request. `scores` are of all types that matched, `why` says by what."""

    type: TaskType
    why: str
    scores: Mapping[str, float]

    @property
    def is_sure(self) -> bool:
        """Whether the rules leave no doubt."""
        best, second = (*sorted(self.scores.values(), reverse=True), 0.0, 0.0)[:2]
        return best - second >= SURE


_T = TaskType
# (type, weight, name of the cue, pattern); searched in lower-case text.
_RULES: tuple[tuple[TaskType, float, str, re.Pattern[str]], ...] = tuple(
    (kind, weight, cue, re.compile(pattern, re.MULTILINE))
    for kind, weight, cue, pattern in (
        (_T.CODE, 3.0, "a code block", r"```|^[ \t]*(?:def|class|import|func|fn|public|#include)\b"),
        (_T.CODE, 2.0, "a programming language", (r"\b(?:python|javascript|typescript|rust|golang|java|c\+\+|sql|bash"
                                                 r"|html|css|regex|kotlin|swift)\b")),
        (_T.CODE, 2.5, "a programming task", (r"\b(?:implement|refactor|debug|unit tests?|stack ?trace|compile|function"
                                             r"|bug|api endpoint|pull request|code review)\b")),
        (_T.CODE, 1.0, "the word code", r"\b(?:code|script|program)\b"),
        (_T.REASONING, 2.5, "asked to reason", (r"\b(?:prove|proof|derive|step by step|reason(?:ing)? through|how many"
                                               r"|the probability|solve|calculate|optimi[sz]e|trade-?offs?)\b")),
        (_T.REASONING, 1.5, "a comparison or a cause", r"\b(?:why|compare|versus|vs\.?|evaluate|analy[sz]e)\b"),
        (_T.REASONING, 1.5, "an equation", r"\d\s*[-+*/^=]\s*\d|\\frac|\bx\s*="),
        (_T.EXTRACTION, 3.0, "asked to extract", (r"\b(?:extract|pull out|list all|find all|identify (?:all|every|the)"
                                                 r"|parse|scrape)\b")),
        (_T.EXTRACTION, 1.5, "fields to find", (r"\b(?:names?|dates?|e-?mail(?:s| addresses)?|amounts?|entities|field)"
                                               r"\b.{0,80}\b(?:from|in) (?:the|this|these|following)\b")),
        (_T.SUMMARISING, 3.5, "asked to summarise", (r"\b(?:summar(?:y|i[sz]e)|tl;?dr|key points|condense|in brief"
                                                    r"|main takeaways|abstract of)\b")),
        (_T.WRITING, 3.0, "asked to write a text", (r"\b(?:write|draft|compose|rewrite|rephrase)\b.{0,40}\b(?:e-?mail"
                                                   r"|letter|essay|poem|story|article|blog|post|speech|haiku|text"
                                                   r"|announcement|description)\b")),
        (_T.WRITING, 1.5, "a matter of style", r"\b(?:tone|style|polish|proofread|creative|translate)\b"),
        (_T.STRUCTURED, 2.5, "asked for a format", (r"\b(?:as|in|valid|return(?: only)?) (?:a )?(?:json|yaml|xml|csv"
                                                   r"|table)\b")),
        (_T.CONVERSATION, 2.0, "a greeting", r"\A\s*(?:hi|hello|hey|thanks|thank you|good (?:morning|evening))\b"),
    )
)  # fmt: skip


def classify(request: ChatRequest) -> Task:
    """The type of a request, by rules."""
    scores: dict[str, float] = {}
    cues: dict[str, list[str]] = {}

    def count(kind: TaskType, weight: float, cue: str) -> None:
        scores[kind] = scores.get(kind, 0.0) + weight
        cues.setdefault(kind, []).append(cue)

    if request.schema is not None:
        count(TaskType.STRUCTURED, 5.0, "a schema for the answer")
    text = asked_text(request).lower()
    for kind, weight, cue, pattern in _RULES:
        if pattern.search(text):
            count(kind, weight, cue)
    if not scores:
        return Task(TaskType.CONVERSATION, "nothing says otherwise", {})
    best = max(scores, key=scores.__getitem__)
    return Task(TaskType(best), ", ".join(cues[best]), scores)


def asked_text(request: ChatRequest) -> str:
    """What the user said last, of a long text the two ends."""
    text = next((turn.text for turn in reversed(request.messages) if turn.role == "user" and turn.text), "")
    return text if len(text) <= 2 * LOOKED_AT else f"{text[:LOOKED_AT]}\n{text[-LOOKED_AT:]}"


NEEDS: Mapping[TaskType, Mapping[str, str]] = {
    TaskType.CODE: {"coding": "strong"},
    TaskType.REASONING: {"reasoning": "strong"},
    TaskType.EXTRACTION: {"extraction": "strong"},
    TaskType.SUMMARISING: {"summarising": "fair"},
    TaskType.WRITING: {"writing": "strong"},
    TaskType.STRUCTURED: {"structured": "strong"},
    TaskType.CONVERSATION: {},
}
"""The strengths that each type of task asks for: `weak`, `fair` or `strong`."""
