"""Who did what: one line on the logger `atlas.audit` for each act that changes something, and for callers turned away.

A line names the act, its result, the key in whose name it was done (never the key itself), its tenant, and what it was
done to. Callers who are turned away cannot fill the disk: of those a few lines a second are written, and how many were
not.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from gateway.core.clock import Clock
    from gateway.core.principal import Principal

log = logging.getLogger("atlas.audit")

Act: TypeAlias = Literal[
    "stream.pause", "stream.resume", "stream.cancel", "stream.delete", "stream.token", "key.add", "key.change",
    "key.remove", "key.revoke", "pool.enable", "pool.disable", "pool.probe", "configuration.reload", "access.refused",
]  # fmt: skip
About: TypeAlias = str | int | None

REFUSALS_PER_S = 10


def record(act: Act, result: str, who: Principal | None = None, **about: About) -> None:
    """Something was done, or tried. `about` is what `telemetry.logs.FIELDS` lists, such as `stream` and `request`."""
    log.info(act, extra={"result": result, **_caller(who), **about})


class Refusals:
    """Callers that were turned away, at most `REFUSALS_PER_S` lines a second."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second, self._written, self._dropped = 0, 0, 0

    def record(self, code: str, who: Principal | None = None, **about: About) -> None:
        """One more, for the reason that it was told; `who` if its key is known and may not do this, or not any more."""
        if (second := int(self._clock.monotonic())) != self._second:
            self._second, self._written = second, 0
        if self._written >= REFUSALS_PER_S:
            self._dropped += 1
            return
        self._written += 1
        dropped, self._dropped = self._dropped or None, 0
        log.warning("access.refused", extra={"result": code, "unwritten": dropped, **_caller(who), **about})


def _caller(who: Principal | None) -> dict[str, About]:
    return {} if who is None else {"key": who.key_id, "tenant": who.tenant}
