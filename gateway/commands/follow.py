"""A stream's native events, one after the other, for as long as it lives: by cursor, over lost connections.

Every event has an id, and asking on after the last one that came misses none and repeats none. After a lost connection
it is tried again, at longer and longer intervals, for `PATIENCE_S` without any event: a replica that is gone is
replaced in less than that.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.commands.client import below
from gateway.commands.errors import Broken, Garbage, Refused, Unreachable
from gateway.commands.terminal import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from gateway.commands.client import Client
    from gateway.commands.terminal import Terminal

PATIENCE_S = 60.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
AGAIN = frozenset({429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Told:
    """One event of a log: its cursor, its kind and what it holds."""

    id: str
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Waiting:
    """How the follower waits: `sleep` and `monotonic` of the machine, `lost` is told of each lost connection.

    `quiet` is called at each heartbeat, while nothing else comes.
    """

    sleep: Callable[[float], None]
    monotonic: Callable[[], float]
    lost: Callable[[str], None] = lambda _why: None
    patience_s: float = PATIENCE_S
    quiet: Callable[[], None] = lambda: None


def patient(terminal: Terminal) -> Waiting:
    """The machine's own clock; what was lost is told beside the answer."""
    return Waiting(
        time.sleep, time.monotonic, lambda why: terminal.complain(f"[{one_line(why)}; trying again]"),
        quiet=terminal.expect_reader,
    )  # fmt: skip


def events(lines: Iterable[str], quiet: Callable[[], None] = lambda: None) -> Iterator[Told]:
    """The events of an SSE body; what is cut off at its end is no event. `quiet` is called at each comment."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            quiet()
        if line:
            name, _, value = line.partition(":")
            if name:
                fields[name] = value.removeprefix(" ")
            continue
        if "data" in fields:
            yield Told(fields.get("id", ""), fields.get("event", "message"), _data(fields["data"]))
        fields = {}


def follow(client: Client, sid: str, waiting: Waiting, after: str | None = None) -> Iterator[Told]:
    """Every event after the cursor, until the stream's end.

    Raises:
        Refused: the gateway does not show this stream. Unreachable: it is not there, or was gone for too long.
    """
    since, pause_s, met = waiting.monotonic(), FIRST_PAUSE_S, False
    while True:
        try:
            headers = {} if after is None else {"last-event-id": after}
            with client.lines("GET", below("streams", sid, "events"), headers=headers) as (status, _, lines):
                if status == 204:
                    return
                met = True
                for told in events(lines, waiting.quiet):
                    after = told.id or after
                    since, pause_s = waiting.monotonic(), FIRST_PAUSE_S
                    yield told
                    if told.kind == "end":
                        return
            why = "the connection was closed"
        except (Unreachable, Refused) as error:
            if not met or not _passes(error) or waiting.monotonic() - since > waiting.patience_s:
                raise
            why = str(error)
        if waiting.monotonic() - since > waiting.patience_s:
            raise Broken(f"{why}, and nothing more came for {waiting.patience_s:g} s")
        waiting.lost(why)
        waiting.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _passes(error: Exception) -> bool:
    """Whether another try may help."""
    return error.status in AGAIN if isinstance(error, Refused) else not isinstance(error, Garbage)


def _data(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Garbage(f"an event of the stream is no JSON object: {text[:80]!r}")
    return found
