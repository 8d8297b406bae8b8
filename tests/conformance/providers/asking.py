"""How the claims ask: requests of no particular dialect, and what came of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from gateway.core.chat import ChatRequest, Message, TextPart
from gateway.core.errors import ProviderError
from gateway.core.events import SourceEvent, Text, UsageReport
from gateway.core.usage import Usage
from gateway.upstream.contract import Batch
from tests.conformance.providers.subject import Subject
from tests.support.signals import eventually


def request(*, text: str = "Tell me about the sea.", **changes: Any) -> ChatRequest:
    """One user's turn; `changes` are members of the request.

    The dialect is nobody's, so that every provider builds its request from the canonical members.
    """
    messages = (Message(role="user", parts=(TextPart(text=text),)),)
    members: dict[str, Any] = {"dialect": "none", "model": "route", "messages": messages, "stream": True}
    return ChatRequest(**members | changes)


@dataclass(slots=True)
class Outcome:
    """What a call gave: its batches, and the error that ended it."""

    batches: list[Batch] = field(default_factory=list)
    error: ProviderError | None = None
    entered: bool = False

    @property
    def events(self) -> list[SourceEvent]:
        """All events in order."""
        return list(chain.from_iterable(self.batches))

    def of(self, kind: type, choice: int | None = None) -> list[Any]:
        """The events of one type, of one choice if given."""
        found = [event for event in self.events if isinstance(event, kind)]
        return found if choice is None else [event for event in found if getattr(event, "choice", None) == choice]

    def text(self, choice: int = 0) -> str:
        """The visible text of a choice."""
        return "".join(event.text for event in self.of(Text, choice))

    @property
    def usages(self) -> list[Usage]:
        """The reported usages in order."""
        return [event.usage for event in self.of(UsageReport)]


async def ask(subject: Subject, model: str, **changes: Any) -> Outcome:
    """One call to its end. Anything but a `ProviderError` is not caught: it breaks the contract."""
    outcome = Outcome()
    try:
        async with subject.provider.stream(request(**changes), model) as batches:
            outcome.entered = True
            async for batch in batches:
                outcome.batches.append(batch)
    except ProviderError as error:
        outcome.error = error
    return outcome


async def whole(subject: Subject, model: str, **changes: Any) -> Outcome:
    """One call that must not fail."""
    outcome = await ask(subject, model, **changes)
    assert outcome.error is None, f"a healthy upstream gave {outcome.error!r}"
    return outcome


async def until(true: Callable[[], bool], what: str) -> None:
    """Waits for what happens on the other end of a socket."""
    await eventually(true, what=what)


async def idle(subject: Subject) -> None:
    """Asserts that the upstream sees every exchange closed."""
    await until(lambda: subject.busy() == 0, f"an idle upstream, it is busy with {subject.busy()}")
