"""The meter of one stream: counts what passes against what may, and cuts the delta that would cross the limit.

Pure: what may pass is told to it (`allow`), and it says when more should be asked for (`on_low`). Tokens are those of
the prompt, as estimated until the provider says it, and of the answer: what the provider reported on the way or the
estimate of what was counted, whichever is more, so as the settlement counts them.

Oddities, on purpose:
1. A look at the estimate costs more than a chunk, so after each look so many bytes and events go by unlooked as cannot
   reach the limit, whichever way they are counted (`safe`).
2. Only content is held to the limit. What ends an answer, and the provider's own word on its usage, always passes.
3. Texts are cut between code points, by the estimate. A fragment of a tool call that does not fit is left out whole.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway.core.events import Extra, Leg, Reasoning, Refusal, Text, ToolCall, UsageReport, is_content
from gateway.core.tokens import UNKNOWN, Counted, Ratio, estimate_output_tokens, utf8_length
from gateway.core.usage import Usage
from gateway.pool.budget import to_nano

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.upstream.contract import Batch

MILLION = 1_000_000
UNLIMITED = 1 << 62


class Account(Protocol):
    """Who estimates and knows prices: `settlement.Account`."""

    def input_tokens(self, leg: Leg | None, /) -> int:
        """Tokens of the prompt, estimated."""
        ...

    def ratio(self, leg: Leg | None, /) -> Ratio:
        """How tokens of an answer relate to what can be counted, as the settlement will estimate them."""
        ...

    def cost_usd(self, leg: Leg | None, usage: Usage, /) -> float | None:
        """The price of a leg; None where it is unknown."""
        ...


class Spent(msgspec.Struct, frozen=True):
    """Tokens, and billionths of a dollar where money is counted."""

    tokens: int
    nano: int = 0


class Meter:
    """Counts one stream. `low` is how many tokens before the limit `on_low` is called, once for each `allow`.

    `missing` is how many tokens the batch that did not pass lacked; `stopped` that it was cut and nothing follows.
    """

    __slots__ = (
        "_account", "_asked", "_calls", "_earlier", "_events", "_input", "_leg", "_low", "_most", "_opaque", "_price",
        "_ratio", "_reasoning", "_reported", "_safe_events", "_safe_size", "_size", "_tokens", "_usd", "counts_usd",
        "missing", "on_low", "stopped",
    )  # fmt: skip

    def __init__(self, account: Account, *, counts_usd: bool) -> None:
        self._account, self.counts_usd = account, counts_usd
        self.on_low: Callable[[], None] = lambda: None
        self._tokens = self._usd = 0
        self._low = 0
        self._asked = True
        self._earlier = Spent(0)
        self._price = 0.0
        self.missing, self.stopped = 0, False
        self._size = self._events = self._calls = self._reasoning = self._opaque = 0
        self._safe_size = self._safe_events = -1
        self._most = self._input = 0
        self._leg: Leg | None = None
        self._ratio = UNKNOWN
        self._reported: Usage | None = None
        self._begin(None)

    def allow(self, tokens: int, nano: int, low: int) -> None:
        """From now on the whole stream may take so much in all, its prompt included."""
        self._tokens, self._usd, self._low, self._asked = tokens, nano, low, False
        self._limit()

    @property
    def price(self) -> float:
        """Billionths of a dollar for a token of the answer, of the leg that runs."""
        return self._price

    @property
    def input_tokens(self) -> int:
        """The prompt's, of the leg that runs."""
        return self._input

    def spent(self) -> Spent:
        """What all legs took so far."""
        usage = self._usage()
        nano = self._cost(usage) if self.counts_usd else 0
        return Spent(self._earlier.tokens + usage.input_tokens + usage.output_tokens, self._earlier.nano + nano)

    def passes(self, batch: Batch) -> bool:
        """Count a batch and let it pass, all of it; False, and nothing is counted, where it would cross the limit."""
        size, count = self._size, self._events
        for event in batch:
            if type(event) is not Text:
                return self._look(batch)
            text = event.text
            size += len(text) if text.isascii() else utf8_length(text)
            count += 1
        if size > self._safe_size or count > self._safe_events:
            output = self._output_of(size, count)
            if output > self._most and batch:
                self.missing = output - self._most
                return False
            self._size, self._events = size, count
            self._schedule(output)
            return True
        self._size, self._events = size, count
        return True

    def cut(self, batch: Batch) -> Batch:
        """What of a batch may pass, now that there will be no more; from here on the stream is over."""
        passed: Batch = []
        for event in batch:
            if self.stopped:
                if isinstance(event, UsageReport):
                    self._report(event.billed or event.usage)
                    passed.append(event)
            elif self.passes([event]):
                passed.append(event)
            else:
                self.stopped = True
                while passed and passed[-1].more and isinstance(passed[-1], Extra):
                    passed.pop()  # it belongs to the delta that is left out
                passed += self._piece(event)
        self.stopped = True
        if passed:
            passed[-1] = msgspec.structs.replace(passed[-1], more=False)
        return passed

    def _piece(self, event: Any) -> Batch:
        """The longest beginning of a delta that fits, if any."""
        if not isinstance(event, (Text, Reasoning, Refusal)):
            return []
        fits, above = 0, len(event.text)
        while above - fits > 1:
            middle = (fits + above) // 2
            piece = msgspec.structs.replace(event, text=event.text[:middle])
            if self._estimate(piece) <= self._most:
                fits = middle
            else:
                above = middle
        if not fits:
            return []
        piece = msgspec.structs.replace(event, text=event.text[:fits])
        self._count(piece)
        return [piece]

    def _look(self, batch: Batch) -> bool:
        """Count a batch event by event, and compare; as it was before if it does not fit."""
        before = self._state()
        asks = False
        reported: Usage | None = None
        for event in batch:
            if isinstance(event, Leg):
                self._next(event)
            elif isinstance(event, UsageReport):
                reported = event.billed or event.usage
            else:
                self._count(event)
                asks = asks or is_content(event)
        output = self._output()
        if asks and output > self._most:
            self.missing = output - self._most
            self._restore(before)
            return False
        if reported is not None:
            self._report(reported)
            output = self._output()
        self._schedule(output)
        return True

    def _count(self, event: Any) -> None:
        match event:
            case Text(text=text) | Refusal(text=text):
                self._add(text)
            case Reasoning(text=text):
                self._reasoning += utf8_length(text)
                self._add(text)
            case ToolCall(arguments=arguments, name=name):
                self._calls += name is not None
                self._add(arguments if name is None else name + arguments)
            case Extra(content=content, more=more):
                self._opaque += content and not more
            case _:
                pass

    def _add(self, text: str) -> None:
        self._size += utf8_length(text)
        self._events += 1

    def _estimate(self, event: Any) -> int:
        before = self._state()
        self._count(event)
        output = self._output()
        self._restore(before)
        return output

    def _schedule(self, output: int) -> None:
        """When to look again, and whether more is to be asked for."""
        left = self._most - output
        if not self._asked and left < self._low:
            self._asked = True
            self.on_low()
        target = self._most if self._asked else self._most - self._low
        self._safe_size, self._safe_events = safe(self._size, self._events, self._calls, target, self._ratio)

    def _begin(self, leg: Leg | None) -> None:
        self._leg, self._reported = leg, None
        self._size = self._events = self._calls = self._reasoning = self._opaque = 0
        self._safe_size = self._safe_events = -1
        self._input = self._account.input_tokens(leg)
        self._ratio = self._account.ratio(leg)
        self._limit()

    def _next(self, leg: Leg) -> None:
        """Another leg: the prompt is paid for once more."""
        if self._leg is not None:
            self._earlier = self.spent()
        self._begin(leg)

    def _report(self, usage: Usage) -> None:
        self._reported, self._input = usage, usage.input_tokens
        self._limit()

    def _limit(self) -> None:
        """The most tokens of the answer that this leg may give."""
        self._most = self._tokens - self._earlier.tokens - self._input
        if self.counts_usd:
            prompt = self._reported_prompt()
            begun = self._cost(prompt)
            dear = self._cost(msgspec.structs.replace(prompt, output_tokens=MILLION))
            self._price = (dear - begun) / MILLION
            if self._price:
                self._most = min(self._most, int((self._usd - self._earlier.nano - begun) / self._price))
        self._safe_size = self._safe_events = -1  # look with the next delta

    def _reported_prompt(self) -> Usage:
        if self._reported is None:
            return Usage(input_tokens=self._input)
        return msgspec.structs.replace(self._reported, output_tokens=0, reasoning_tokens=None)

    def _cost(self, usage: Usage) -> int:
        cost = self._account.cost_usd(self._leg, usage)
        return 0 if cost is None else to_nano(cost)

    def _usage(self) -> Usage:
        output = self._output()
        if self._reported is None:
            return Usage(input_tokens=self._input, output_tokens=output)
        return msgspec.structs.replace(self._reported, output_tokens=output)

    def _output(self) -> int:
        return self._output_of(self._size, self._events)

    def _output_of(self, size: int, events: int) -> int:
        counted = Counted(size=size, events=events, calls=self._calls, reasoning=self._reasoning, opaque=self._opaque)
        output = estimate_output_tokens(counted, self._ratio)
        return output if self._reported is None else max(output, self._reported.output_tokens)

    def _state(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in _STATE)

    def _restore(self, state: tuple[Any, ...]) -> None:
        for name, value in zip(_STATE, state, strict=True):
            setattr(self, name, value)


_STATE = (
    "_leg", "_reported", "_input", "_earlier", "_size", "_events", "_calls", "_reasoning", "_opaque", "_most", "_price",
    "_ratio", "_safe_size", "_safe_events",
)  # fmt: skip


def safe(size: int, events: int, calls: int, target: int, ratio: Ratio) -> tuple[int, int]:
    """Up to which size and number of events the estimate stays within `target`, from here on, calls being equal.

    Texts count by bytes or by events, as their average length says. So the bounds are those of the way in which they
    count now, and end where they might begin to count the other way and for more.
    """
    tokens = target - ratio.call_tokens * calls
    by_size = int(tokens * ratio.bytes_per_token)
    if ratio.events_per_token is None:
        return by_size, UNLIMITED
    by_events = int(tokens * ratio.events_per_token)
    low, high = ratio.event_bytes
    average = size / max(events, 1)
    if average < low:
        return min(by_size, ceil(low * events) - 1), UNLIMITED
    if average > high:
        return by_size, by_events
    longest = int(high * events)
    if low and by_size < longest:  # then shorter texts must not make them count by bytes again
        by_events = min(by_events, int(size / low))
    return longest, by_events
