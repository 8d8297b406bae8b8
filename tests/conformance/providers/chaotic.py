"""A provider whose upstream is a chaos provider behind a real socket: a script is a plan of its own."""

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import assert_never

from gateway.upstream.contract import Provider, Timeouts
from gateway.upstream.transport import Transport
from tests.conformance.providers.subject import (
    CallsTools,
    CutAfter,
    Garbage,
    Healthy,
    NoEnd,
    Refuses,
    Script,
    SilentHead,
    StallAfter,
    Subject,
    Unreachable,
    Upstream,
)
from tests.support import chaos
from tests.support.chaos import ChaosProvider, Gate, Plan, Tool, body_of, event_of, refusing
from tests.support.wires.seam import Wire

KEY = "sk-conformance-secret"
UNSUPPORTED = {
    "the_limit_of_tokens_is_obeyed": "the vendor obeys it, the chaos provider does not",
    "stop_strings_are_obeyed": "the vendor obeys them, the chaos provider does not",
}
ONE_CHOICE = {"several_choices_are_told_apart": "this wire has one choice; more are refused"}


class ChaoticSubject:
    """Each script is a model's name of its own. `unfinished` is a plan of an answer that ends without its marker."""

    secret: str | None = KEY

    def __init__(self, up: ChaosProvider, wire: Wire, provider: Provider, unfinished: Plan) -> None:
        self.provider = provider
        self._up, self._wire, self._unfinished = up, wire, unfinished
        self._names = (f"model-{number}" for number in itertools.count(1))

    def asked(self) -> int:
        return len(self._up.requests)

    def busy(self) -> int:
        return sum(request.outcome == "open" for request in self._up.requests)

    def script(self, upstream: Upstream) -> Script:
        if isinstance(upstream, Unreachable):
            self._up.leave()
            return Script(model="nobody")
        name = next(self._names)
        self._up.plans[name] = plan = self._plan(upstream, name)
        return Script(model=name, text=plan.text() if isinstance(upstream, Healthy) else None)

    def _plan(self, upstream: Upstream, name: str) -> Plan:
        match upstream:
            case Healthy(tokens=tokens, write_size=size):
                return Plan(tokens=tokens, chunking=size or "event")
            case CallsTools(calls=calls):
                tools = (Tool(id=f"call_{n}", name="weather", arguments='{"city": "Rome"}') for n in range(calls))
                return Plan(tokens=0, tools=tuple(tools))
            case CutAfter(tokens=tokens):
                said = self._unfinished.with_(tokens=tokens)
                head = len(body_of(said, {"model": name, "stream": True}, self._wire))
                return Plan(tokens=tokens, usage=said.usage, cut_at_byte=head)
            case StallAfter(tokens=tokens):
                stalls = Plan(tokens=tokens + 5)
                return stalls.with_(stall_at_event=event_of(stalls, "text", tokens, wire=self._wire))
            case SilentHead():
                return Plan(hold_headers=Gate())
            case NoEnd():
                return self._unfinished
            case Garbage():
                return Plan(garbage=chaos.Garbage(kind="json", at=0, count=3))
            case Refuses(status=status):
                return refusing(status, **({"retry_after": "1"} if status == 429 else {}))
            case Unreachable():
                raise NotImplementedError(upstream)
            case _:
                assert_never(upstream)


@asynccontextmanager
async def chaotic(
    wire: Wire, make: Callable[[ChaosProvider, Transport], Provider], unfinished: Plan
) -> AsyncIterator[Subject]:
    """The adapter that `make` builds, and its upstream."""
    async with ChaosProvider() as up:
        subject = ChaoticSubject(up, wire, make(up, Transport(Timeouts())), unfinished)
        try:
            yield subject
        finally:
            await subject.provider.aclose()
