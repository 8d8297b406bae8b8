"""What the claims may know of a ledger under judgement.

A ledger joins by a file `subjects/<kind>.py` with

    @asynccontextmanager
    async def opened() -> AsyncIterator[Subject]: ...
"""

import importlib
import pkgutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeAlias, cast

from gateway.pool.ledger import Ledger
from tests.conformance.budgets import subjects

LEASE_S = 6.0


class Subject(Protocol):
    """One empty ledger, for one claim."""

    @property
    def ledger(self) -> Ledger: ...

    def now(self) -> float:
        """What time the ledger takes it to be, Unix seconds."""
        ...

    async def elapse(self, seconds: float) -> None:
        """Time passes."""
        ...

    def names(self) -> list[str]:
        """The keys that are left; empty for a ledger that has none."""
        ...


Opened: TypeAlias = Callable[[], AbstractAsyncContextManager[Subject]]
KINDS = tuple(sorted(module.name for module in pkgutil.iter_modules(subjects.__path__)))


def subject_of(kind: str) -> Opened:
    """How a subject is opened."""
    return cast("Opened", importlib.import_module(f"{subjects.__name__}.{kind}").opened)
