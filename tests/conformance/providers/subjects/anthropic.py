"""Anthropic's adapter, in front of a chaos provider that speaks its wire."""

from contextlib import AbstractAsyncContextManager

from gateway.core.clock import SystemClock
from gateway.providers.anthropic import AnthropicProvider
from gateway.upstream.transport import Transport
from tests.conformance.providers import chaotic as upstream
from tests.conformance.providers.chaotic import KEY, ONE_CHOICE, chaotic
from tests.conformance.providers.subject import Subject
from tests.support.chaos import ANTHROPIC, ChaosProvider, Plan

UNSUPPORTED = upstream.UNSUPPORTED | ONE_CHOICE
UNFINISHED = Plan(no_finish=True, no_done=True)


def provider(up: ChaosProvider, transport: Transport) -> AnthropicProvider:
    """The adapter, with a key that no message may show."""
    return AnthropicProvider(base_url=up.root_url, key=KEY, transport=transport, clock=SystemClock())


def opened() -> AbstractAsyncContextManager[Subject]:
    """The adapter and its upstream."""
    return chaotic(ANTHROPIC, provider, UNFINISHED)
