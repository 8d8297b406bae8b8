"""The events of a leg that continues an answer -> those that go on in the same log. Sans-IO.

Clients see one answer: canonical events go on where the earlier leg stopped, and what a source event says beyond them
(roles, envelopes, beginnings of blocks) is left out, because the answer has begun. A part of the answer that only its
own dialect can say cannot be joined to it: then the continuation fails. So does a replay at the first difference.

What clients are told of usage is the whole; what the leg itself took stands beside it, as `billed`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway.core.events import Extra, Finish, Leg, Reasoning, Refusal, SourceEvent, Text, ToolCall, UsageReport
from gateway.core.tokens import Counted, estimate_input_tokens, estimate_output_tokens, utf8_length
from gateway.core.usage import Usage

if TYPE_CHECKING:
    from gateway.core.chat import ChatRequest
    from gateway.pool.delivered import Delivered
    from gateway.pool.seam import Seam
    from gateway.upstream.contract import Batch


class Joint(Protocol):
    """How a leg is joined to what was delivered.

    `fault` says why it cannot be; `over` that the answer ends here, whatever the provider says further.
    """

    fault: str | None
    over: bool

    def feed(self, batch: Batch) -> Batch:
        """What goes on in the log of one read; empty for a read that gave nothing new."""
        ...

    def finish(self) -> Batch:
        """What is still due at the end of the leg."""
        ...


class Going:
    """A leg that was asked to go on: its text begins behind the delivered one, `seam` says where.

    Its thoughts are left out: an answer that has begun has none.
    """

    def __init__(self, seam: Seam, request: ChatRequest, delivered: Delivered) -> None:
        self.fault: str | None = None
        self.over = False
        self._seam = seam
        self._has_spoken = False
        self._spent = delivered.output_tokens
        self._first = delivered.usage or Usage(input_tokens=estimate_input_tokens(request))

    def feed(self, batch: Batch) -> Batch:
        """See `Joint`."""
        out: Batch = []
        for event in batch:
            self._one(event, out)
            if self.over or self.fault is not None:
                break
        return out

    def finish(self) -> Batch:
        """See `Joint`."""
        text = self._seam.finish()
        return [Text(0, text)] if text else []

    def _one(self, event: SourceEvent, out: Batch) -> None:
        match event:
            case Text(choice=0, text=text):
                self._has_spoken = True
                if shown := self._seam.feed(text):
                    out.append(Text(0, shown))
                if self._seam.stopped:
                    self.over = True
                    out.append(Finish(0, "stop_sequence"))
            case Finish(choice=0) | ToolCall(choice=0) | Refusal(choice=0):
                self._has_spoken = True
                out += self.finish()
                out.append(_alone(event))
            case UsageReport(usage=usage):
                out.append(UsageReport(self._shown(usage), billed=usage))
            case Extra(content=True, more=False) if self._has_spoken:
                self.fault = "the continuation says what only its own dialect can say"
            case Leg():
                out.append(event)
            case _:
                pass

    def _shown(self, usage: Usage) -> Usage:
        """Usage of the whole: the first leg's prompt, and all that was said but the echo."""
        echoed = Counted(size=self._seam.echoed, events=1 if self._seam.echoed else 0)
        said = max(0, usage.output_tokens - estimate_output_tokens(echoed))
        return msgspec.structs.replace(self._first, output_tokens=self._spent + said, estimated=True)


class Replayed:
    """A leg that was asked the same again: nothing is shown until it has said all that was delivered."""

    def __init__(self, delivered: Delivered) -> None:
        self.fault: str | None = None
        self.over = False
        self._text, self._reasoning = delivered.text, delivered.reasoning
        self._text_at = self._reasoning_at = 0

    def feed(self, batch: Batch) -> Batch:
        """See `Joint`."""
        out: Batch = []
        for event in batch:
            self._one(event, out)
            if self.fault is not None:
                break
        return out

    def finish(self) -> Batch:
        """See `Joint`."""
        if not self._has_said_all:
            self._differs()
        return []

    @property
    def _has_said_all(self) -> bool:
        return self._text_at >= len(self._text) and self._reasoning_at >= len(self._reasoning)

    def _differs(self) -> None:
        self.fault = "the same request had another answer"

    def _one(self, event: SourceEvent, out: Batch) -> None:
        match event:
            case Text(choice=0, text=text):
                self._say(text, out)
            case Reasoning(choice=0, text=text):
                self._think(text, event.key, out)
            case Finish(choice=0) | ToolCall(choice=0) | Refusal(choice=0):
                if self._has_said_all:
                    out.append(_alone(event))
                else:
                    self._differs()
            case Extra(content=True, more=False) if self._has_said_all and self._text_at:
                self.fault = "the continuation says what only its own dialect can say"
            case UsageReport() | Leg():
                out.append(_alone(event))
            case _:
                pass

    def _say(self, text: str, out: Batch) -> None:
        known = self._text[self._text_at : self._text_at + len(text)]
        if not text.startswith(known) or self._reasoning_at < len(self._reasoning):
            self._differs()
            return
        self._text_at += len(known)
        if len(known) < len(text):
            out.append(Text(0, text[len(known) :]))

    def _think(self, text: str, key: str, out: Batch) -> None:
        known = self._reasoning[self._reasoning_at : self._reasoning_at + len(text)]
        new = text[len(known) :]
        if not text.startswith(known) or (new and self._text and self._text_at < len(self._text)):
            self._differs()
            return
        self._reasoning_at += len(known)
        if new:
            out.append(Reasoning(0, new, key))


def replay_bill(delivered: Delivered, request: ChatRequest) -> UsageReport:
    """What a replay took that said something else and was left, as far as it is known: what had been delivered."""
    size = utf8_length(delivered.text) + utf8_length(delivered.reasoning)
    output = estimate_output_tokens(Counted(size=size, events=delivered.events))
    usage = Usage(input_tokens=estimate_input_tokens(request), output_tokens=output, estimated=True)
    return UsageReport(usage, billed=usage)


def _alone(event: SourceEvent) -> SourceEvent:
    """The event as a chunk of its own, in words of every dialect: nothing beside it says whose it was."""
    if isinstance(event, Finish):
        return Finish(event.choice, event.reason)
    return msgspec.structs.replace(event, more=False) if event.more else event
