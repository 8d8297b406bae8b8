"""What the claims may know of a journal under judgement.

A journal joins by a file `subjects/<kind>.py` with

    UNSUPPORTED: dict[str, str] = {"claim_name": "why this journal cannot show it"}

    @asynccontextmanager
    async def opened() -> AsyncIterator[Subject]: ...
"""

import importlib
import pkgutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast

from gateway.streams.journal import Journal
from tests.conformance.journal import subjects


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a claim may set: bytes of all logs together, and times to live in seconds."""

    total_bytes: int = 16_777_216
    ttl_live_s: float = 1800.0
    ttl_terminal_s: float = 900.0
    ttl_record_s: float = 86_400.0
    ttl_idempotency_s: float = 86_400.0


class Subject(Protocol):
    """One kind of journal, for one claim."""

    async def open(self, limits: Limits | None = None) -> Journal:
        """An empty journal in place of the one before; closed when the subject is left."""
        ...

    def now(self) -> float:
        """What time the journal takes it to be, Unix seconds."""
        ...

    async def elapse(self, seconds: float) -> None:
        """Time passes, and the journal drops what is due."""
        ...

    def used(self) -> int | None:
        """Bytes or keys that the journal holds; None if it cannot tell."""
        ...


Opened: TypeAlias = Callable[[], AbstractAsyncContextManager[Subject]]

KINDS = tuple(sorted(module.name for module in pkgutil.iter_modules(subjects.__path__)))


def subject_of(kind: str) -> tuple[Opened, dict[str, str]]:
    """How a subject is opened, and which claims it cannot show."""
    module = importlib.import_module(f"{subjects.__name__}.{kind}")
    return cast("Opened", module.opened), cast("dict[str, str]", module.UNSUPPORTED)
