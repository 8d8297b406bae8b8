"""What the claims may know of a provider under judgement.

A provider joins by a file `subjects/<kind>.py` with

    UNSUPPORTED: dict[str, str] = {"claim_name": "why this provider or its upstream cannot show it"}

    @asynccontextmanager
    async def opened() -> AsyncIterator[Subject]: ...

A subject is a provider and a hand on its upstream. `script` says what the upstream shall do when it is asked for the
model that `script` returns; several scripts stand side by side. A token is one content event of the provider.
"""

import importlib
import pkgutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

from gateway.upstream.contract import Provider
from tests.conformance.providers import subjects


@dataclass(frozen=True, slots=True, kw_only=True)
class Healthy:
    """An answer of about `tokens` tokens, whole; written `write_size` bytes at a time, if the upstream writes bytes."""

    tokens: int = 12
    write_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallsTools:
    """An answer that calls `calls` tools, each with a JSON object, and says nothing."""

    calls: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CutAfter:
    """The connection breaks after `tokens` tokens."""

    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StallAfter:
    """After `tokens` tokens nothing comes any more."""

    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SilentHead:
    """The request is taken, and no answer begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoEnd:
    """All tokens, then a tidy end of the body without finish and without terminal marker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """Three malformed events in a row, before any content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuses:
    """An answer with an error status; for 429 with the advice to come back after one second."""

    status: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """Nobody listens."""


Upstream: TypeAlias = (
    Healthy | CallsTools | CutAfter | StallAfter | SilentHead | NoEnd | Garbage | Refuses | Unreachable
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The model to ask for, and the text of choice 0 where the upstream's script fixes it."""

    model: str
    text: str | None = None


class Subject(Protocol):
    """One provider under judgement, for one claim.

    `secret` is what no message may show: the key, if there is one.
    """

    provider: Provider
    secret: str | None

    def script(self, upstream: Upstream) -> Script:
        """Prepares the upstream."""
        ...

    def asked(self) -> int:
        """Requests, or whatever first leaves the provider, that the upstream saw so far."""
        ...

    def busy(self) -> int:
        """Exchanges that the upstream still holds open."""
        ...


Opened: TypeAlias = Callable[[], AbstractAsyncContextManager[Subject]]

KINDS = tuple(sorted(module.name for module in pkgutil.iter_modules(subjects.__path__)))


def subject_of(kind: str) -> tuple[Opened, dict[str, str]]:
    """How a subject is opened, and which claims it cannot show."""
    module = importlib.import_module(f"{subjects.__name__}.{kind}")
    return cast("Opened", module.opened), cast("dict[str, str]", module.UNSUPPORTED)
