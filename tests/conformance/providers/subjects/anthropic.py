"""Anthropic's adapter: its upstream is a chaos provider behind a real socket, and a script is a plan of its own."""

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, assert_never

from gateway.core.clock import SystemClock
from gateway.providers.anthropic import AnthropicProvider
from gateway.upstream.contract import Timeouts
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
from tests.support.chaos import ANTHROPIC, ChaosProvider, Gate, Plan, Tool, body_of, event_of, refusing

if TYPE_CHECKING:
    from gateway.upstream.contract import Provider

UNSUPPORTED = {
    "the_limit_of_tokens_is_obeyed": "the vendor obeys it, the chaos provider does not",
    "stop_strings_are_obeyed": "the vendor obeys them, the chaos provider does not",
    "several_choices_are_told_apart": "this wire has one choice; more are refused",
}
KEY = "sk-ant-conformance-secret"
_UNFINISHED = Plan(no_finish=True, no_done=True)


class AnthropicSubject:
    """Each script is a model's name of its own."""

    secret: str | None = KEY

    def __init__(self, up: ChaosProvider) -> None:
        transport = Transport(Timeouts(), tls=False)
        self.provider: Provider = AnthropicProvider(
            base_url=up.root_url, key=KEY, transport=transport, clock=SystemClock()
        )
        self._up = up
        self._names = (f"model-{number}" for number in itertools.count(1))

    def asked(self) -> int:
        return len(self._up.requests)

    def busy(self) -> int:
        return sum(request.outcome == "open" for request in self._up.requests)

    def script(self, upstream: Upstream) -> Script:
        if isinstance(upstream, Unreachable):
            self._up.refuse()
            self._up.close_idle()
            return Script(model="nobody")
        name = next(self._names)
        self._up.plans[name] = plan = _plan(upstream, name)
        return Script(model=name, text=plan.text() if isinstance(upstream, Healthy) else None)


def _plan(upstream: Upstream, name: str) -> Plan:
    match upstream:
        case Healthy(tokens=tokens, write_size=size):
            return Plan(tokens=tokens, chunking=size or "event")
        case CallsTools(calls=calls):
            tools = (Tool(id=f"toolu_{n}", name="weather", arguments='{"city": "Rome"}') for n in range(calls))
            return Plan(tokens=0, tools=tuple(tools))
        case CutAfter(tokens=tokens):
            said = _UNFINISHED.with_(tokens=tokens)
            head = len(body_of(said, {"model": name, "stream": True}, ANTHROPIC))
            return said.with_(no_done=False, no_finish=False, cut_at_byte=head)
        case StallAfter(tokens=tokens):
            stalls = Plan(tokens=tokens + 5)
            return stalls.with_(stall_at_event=event_of(stalls, "text", tokens, wire=ANTHROPIC))
        case SilentHead():
            return Plan(hold_headers=Gate())
        case NoEnd():
            return _UNFINISHED
        case Garbage():
            return Plan(garbage=chaos.Garbage(kind="json", at=1, count=3))
        case Refuses(status=status):
            return refusing(status, **({"retry_after": "1"} if status == 429 else {}))
        case Unreachable():
            raise NotImplementedError(upstream)
        case _:
            assert_never(upstream)


@asynccontextmanager
async def opened() -> AsyncIterator[Subject]:
    """The adapter and its upstream."""
    async with ChaosProvider() as up:
        subject = AnthropicSubject(up)
        try:
            yield subject
        finally:
            await subject.provider.aclose()
