"""OpenAI's adapter, in front of a chaos provider that speaks its wire."""

from contextlib import AbstractAsyncContextManager

from gateway.core.clock import SystemClock
from gateway.providers.openai_chat import OpenAIProvider
from gateway.upstream.transport import Transport
from tests.conformance.providers import chaotic as upstream
from tests.conformance.providers.chaotic import KEY, chaotic
from tests.conformance.providers.subject import Subject
from tests.support.chaos import ChaosProvider, Plan
from tests.support.wires.openai import OPENAI

UNSUPPORTED = upstream.UNSUPPORTED
UNFINISHED = Plan(no_finish=True, no_done=True, usage="never")


def provider(up: ChaosProvider, transport: Transport) -> OpenAIProvider:
    """The adapter, with a key that no message may show."""
    return OpenAIProvider(base_url=up.base_url, key=KEY, transport=transport, clock=SystemClock())


def opened() -> AbstractAsyncContextManager[Subject]:
    """The adapter and its upstream."""
    return chaotic(OPENAI, provider, UNFINISHED)
