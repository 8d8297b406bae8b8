"""What a log holds of an answer so far, as far as its continuation depends on it: folded from the events, read by read.

Bounded: beyond `MAX_KEPT` characters nothing more is kept, and the answer cannot be continued. Only choice 0 is kept;
of everything that no continuation can take up again it is only known that it was there.
"""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

from gateway.core.events import RESTART, Extra, Finish, Leg, Reasoning, Refusal, Text, ToolCall, UsageReport
from gateway.core.tokens import Counted, estimate_output_tokens, utf8_length

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.core.events import Event
    from gateway.core.usage import Usage

MAX_KEPT = 1_048_576
"""Characters of text and reasoning, as many as a log's bytes allow and more than models write."""


class Delivered:
    """Feed it every event of the log, control entries too; those it skips.

    `legs` are those so far, `usage` the last report (what clients were told). `calls` counts tool calls, whole or not;
    `finished` holds the choices that had their finish; `others` says whether another choice than 0 said anything,
    `refused` whether a refusal was said, `opaque` whether something that only its own dialect can say.
    """

    __slots__ = ("_reasoning", "_text", "calls", "events", "finished", "kept", "legs", "opaque", "others", "refused",
                 "usage")  # fmt: skip

    def __init__(self) -> None:
        self.legs: list[Leg] = []
        self._begin()

    def _begin(self) -> None:
        self._text, self._reasoning = StringIO(), StringIO()
        self.kept = self.events = self.calls = 0
        self.others = self.refused = self.opaque = False
        self.finished: set[int] = set()
        self.usage: Usage | None = None

    def add(self, events: Iterable[Event]) -> None:
        """Take further events in."""
        for event in events:
            if type(event) is Text and not event.choice:
                self.events += 1
                self.kept += len(event.text)
                if self.kept <= MAX_KEPT:
                    self._text.write(event.text)
            else:
                self._rarer(event)

    def _rarer(self, event: Event) -> None:
        match event:
            case Text() | Reasoning() | Refusal() | ToolCall() if event.choice:
                self.others = True
            case Reasoning(text=text):
                self.events += 1
                self.kept += len(text)
                if self.kept <= MAX_KEPT:
                    self._reasoning.write(text)
            case Refusal():
                self.refused = True
            case ToolCall(name=name):
                self.calls += name is not None
            case Extra(content=content, more=more):
                # With more behind it in its chunk, its meaning stands there in canonical form.
                self.opaque = self.opaque or (content and not more)
            case Finish(choice=choice):
                self.finished.add(choice)
            case UsageReport(usage=usage):
                self.usage = usage
            case Leg(strategy=strategy):
                if strategy == RESTART:
                    self._begin()
                self.legs.append(event)
            case _:
                pass

    @property
    def text(self) -> str:
        """The visible text of choice 0."""
        return self._text.getvalue()

    @property
    def reasoning(self) -> str:
        """The shown reasoning of choice 0."""
        return self._reasoning.getvalue()

    @property
    def is_whole(self) -> bool:
        """Whether all of the answer so far was kept."""
        return self.kept <= MAX_KEPT

    @property
    def has_content(self) -> bool:
        """Whether the commit point is behind."""
        return bool(self.events or self.calls or self.others or self.refused or self.opaque)

    @property
    def output_tokens(self) -> int:
        """Tokens of the answer so far: what was reported or what is estimated, whichever is more."""
        thought = self.reasoning
        size = utf8_length(self.text) + utf8_length(thought)
        counted = Counted(size=size, events=self.events, calls=self.calls, reasoning=utf8_length(thought))
        return max(0 if self.usage is None else self.usage.output_tokens, estimate_output_tokens(counted))
