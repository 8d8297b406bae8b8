"""The gate before the routes that begin streams: it lets requests in, lets them wait, or turns them away.

It stands in the server, where a head is whole and no task exists yet: what is refused costs neither a body nor a
place anywhere. While there is no overload a request passes by a comparison of two numbers (`lets_in`). All other routes
(control, reading, probes, metrics) never meet it, so they are served at once whatever waits here.

At most `PER_PASS` requests begin each time the loop comes round, so a burst of any size neither holds up running
streams nor control; the others wait in their tenants' lines.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway.api.exchange import JSON_TYPE
from gateway.api.hardened import Answer
from gateway.api.overload import Overload, Why
from gateway.api.paths import dialect_of
from gateway.core.clock import used_s
from gateway.core.errors import Category, Failure, RequestError
from gateway.core.ids import RequestIds
from gateway.dialects.openai_errors import retry_headers

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.api.auth import Keyring
    from gateway.api.exchange import Headers
    from gateway.api.overload import Bounds
    from gateway.core.clock import Clock
    from gateway.dialects.catalog import Dialect
    from gateway.streams.hub import Hub

PER_PASS = 16
PULSE_S = 0.05
ROOM, SPARE_S = 2, 0.5
"""Two for each that comes, so that it gets less crammed. Whoever has just connected may have a request on its way."""
COUNT_S = 0.25
RETRY_S = {Why.CONNECTIONS: 2.0, Why.STREAMS: 2.0, Why.LOOP: 2.0, Why.QUEUE: 1.0}
SAYS = {
    Why.CONNECTIONS: "too many connections are open",
    Why.STREAMS: "too many streams are open",
    Why.LOOP: "the gateway is overloaded by the streams that run",
    Why.QUEUE: "too many requests wait to begin",
}


class Guest(Protocol):
    """A request whose head is whole, as the server has it. `scope` is ASGI's."""

    scope: Any

    @property
    def is_gone(self) -> bool:
        """Whether its client has hung up."""
        ...

    def begin(self) -> None:
        """Start to answer it."""
        ...

    def turn_away(self, answer: Answer) -> None:
        """Answer with this; no application hears of the request."""
        ...


class Silent(Protocol):
    """A connection on which no answer is under way: its client says nothing, or its head is not whole yet."""

    def part(self) -> None:
        """Close it."""
        ...


class Refusals:
    """What those are answered who are turned away: made once for each dialect and reason, but for the request's id."""

    def __init__(self) -> None:
        self._ids = RequestIds()
        self._made: dict[tuple[str, Why], Answer] = {}

    def of(self, dialect: Dialect, why: Why) -> Answer:
        """The answer to one request."""
        made = self._made.get((dialect.name, why))
        if made is None:
            made = self._made[dialect.name, why] = _made(dialect, why)
        return made._replace(rest=made.rest.replace(_SOME_ID, self._ids.new().encode("ascii")))


_SOME_ID = b"req_" + b"?" * 24
"""As long as an id of `RequestIds`."""


def _made(dialect: Dialect, why: Why) -> Answer:
    failure = Failure(Category.GATEWAY_OVERLOADED, f"{SAYS[why]}; try again", RETRY_S[why])
    body = msgspec.json.encode(dialect.numbered(dialect.errors.failure_body(failure), _SOME_ID.decode("ascii")))
    fields = [
        JSON_TYPE,
        (b"content-length", str(len(body)).encode("ascii")),
        *retry_headers(retry=failure.consequence.retry, retry_after_s=failure.retry_after_s),
        *((name, _SOME_ID) for name in dialect.id_headers),
    ]
    rest = b"".join(b"%b: %b\r\n" % field for field in fields)
    return Answer(dialect.errors.failure_status(failure), rest + b"\r\n" + body)


class Gate:
    """One per app. `paths` are those that it guards; the server counts its open `connections` here."""

    def __init__(self, bounds: Bounds, paths: frozenset[str], hub: Hub, keyring: Keyring, clock: Clock) -> None:
        self.paths, self.connections = paths, 0
        self.silent: dict[Silent, float] = {}
        """Since when, on the loop's clock; the longest first."""
        self.on_refused: Callable[[Why, str, int], None] = lambda _why, _path, _status: None
        self.extra_fields: Callable[[Headers], bytes] = lambda _headers: b""
        """What an answer to a request with these headers holds beside its own."""
        self.overload: Overload[Guest] = Overload(bounds)
        self._bounds, self._hub, self._keyring, self._clock = bounds, hub, keyring, clock
        self._channels, self._shared = hub.channels, bounds.shared
        self._refusals = Refusals()
        self._room = PER_PASS
        self._is_due = False
        self._counted = -COUNT_S

    def lets_in(self) -> bool:
        """Whether a request may begin at once, which is then taken as begun; else it has to `meet` the gate."""
        room = self._room
        if not room or len(self._channels) >= self._shared:
            return False
        self._room = room - 1
        if not self._is_due:
            self._pass_soon()
        return True

    def meet(self, guest: Guest) -> None:
        """Let it wait for its turn, or turn it away."""
        overload, tenant, now = self.overload, self._tenant(guest.scope), self._clock.monotonic()
        if self._is_crowded and now - self._counted >= COUNT_S:
            self._counted = now
            self._count()
        why = overload.refusal(tenant, len(self._channels), self.connections)
        if why is not None:
            guest.turn_away(self.refusal(guest.scope, why))
            return
        overload.taken(tenant)
        overload.lines.join(tenant, guest, now)
        if not self._is_due:
            self._pass_soon()

    def refusal(self, scope: Any, why: Why) -> Answer:
        """The answer to a request, or a connection, that is turned away, which is counted."""
        path = scope["path"]
        answer = self._refusals.of(dialect_of(path, versioned=False), why)
        self.on_refused(why, path, answer.status)
        fields = self.extra_fields(scope["headers"])
        return answer._replace(rest=fields + answer.rest) if fields else answer

    async def run(self) -> None:
        """Feel the loop's pulse, until cancelled."""
        monotonic = self._clock.monotonic
        while True:
            await asyncio.sleep(PULSE_S)
            begun, used = monotonic(), used_s()
            await asyncio.sleep(0)  # the loop comes round once
            now = monotonic()
            self.overload.strain.felt(now, now - begun, used_s() - used)
            self.overload.lines.measure(now)
            if not self._is_due:
                self._room = 0 if self._is_crowded else PER_PASS

    def make_room(self, now: float) -> bool:
        """Part from `ROOM` whose clients owe a request for `SPARE_S`; False: from none."""
        spare = [each for each, since in islice(self.silent.items(), ROOM) if now - since >= SPARE_S]
        for each in spare:
            del self.silent[each]
            each.part()
        return bool(spare)

    @property
    def is_crammed(self) -> bool:
        """Whether connections should rather be closed than kept."""
        return self.connections > self._bounds.plain

    @property
    def is_shut(self) -> bool:
        """Whether there is no place for another connection."""
        return self.connections > self._bounds.max_connections

    @property
    def _is_crowded(self) -> bool:
        return self.overload.strain.standing or self.is_crammed or len(self._channels) >= self._shared

    def _pass_soon(self) -> None:
        self._is_due = True
        asyncio.get_running_loop().call_soon(self._pass)

    def _pass(self) -> None:
        """The loop has come round: as many again may begin, first those who wait."""
        room, lines = PER_PASS, self.overload.lines
        while room and (guest := lines.next()) is not None:
            if not guest.is_gone:
                guest.begin()
                room -= 1
        self._is_due = False
        self._room = 0 if self._is_crowded else room
        if lines.waiting:
            self._room = 0
            self._pass_soon()

    def _count(self) -> None:
        owned = (channel.session for channel in self._channels.values())
        self.overload.counted(Counter(session.record.tenant for session in owned if session is not None))

    def _tenant(self, scope: Any) -> str:
        """Whose request it is; those without a valid key share one line, at whose end they will be told so."""
        try:
            return self._keyring.principal(scope["headers"]).tenant
        except RequestError:
            return ""
