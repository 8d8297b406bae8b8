"""The follower's patience, on sockets that answer as a dying gateway does, with a clock that the test moves."""

import asyncio
from collections.abc import Callable

import pytest

from gateway.commands.client import Client
from gateway.commands.errors import Broken, Refused, Unreachable
from gateway.commands.follow import FIRST_PAUSE_S, LONGEST_PAUSE_S, Told, Waiting, follow
from tests.support.run import run

EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
FIRST = EVENTS + b'id: 1-0\nevent: text\ndata: {"text":"a"}\n\nid: 1-1\nevent: te'
LAST = EVENTS + b'id: 1-1\nevent: end\ndata: {"state":"completed"}\n\n'
AWAY = b"HTTP/1.1 502 Bad Gateway\r\nconnection: close\r\ncontent-length: 5\r\n\r\nnginx"
REFUSED = b'HTTP/1.1 410 Gone\r\nconnection: close\r\ncontent-length: 31\r\n\r\n{"error":{"message":"expired"}}'


class Script:
    """A server that gives one answer a connection, the last one for ever, and remembers what it was asked."""

    def __init__(self, *answers: bytes) -> None:
        self._answers, self.asked = list(answers), list[bytes]()
        self.slept, self.lost = list[float](), list[str]()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])
        writer.close()

    def waiting(self) -> Waiting:
        """A clock that goes only while somebody sleeps."""
        return Waiting(self.slept.append, lambda: sum(self.slept), self.lost.append)


def followed(script: Script, work: Callable[[list[Told]], None] = lambda _: None) -> list[Told]:
    """What came of following a stream there."""
    found: list[Told] = []

    def go(port: int) -> None:
        with Client(f"http://127.0.0.1:{port}", None) as client:
            found.extend(follow(client, "str_x", script.waiting()))

    async def scenario() -> None:
        async with await asyncio.start_server(script, "127.0.0.1", 0) as server:
            await asyncio.to_thread(go, server.sockets[0].getsockname()[1])

    try:
        run(scenario())
    finally:
        work(found)
    return found


def test_it_goes_on_after_the_last_whole_event() -> None:
    """What was cut off is asked for again, by the cursor of the last event that was whole."""
    script = Script(FIRST, AWAY, LAST)
    assert [told.kind for told in followed(script)] == ["text", "end"]
    assert [b"last-event-id: 1-0" in request for request in script.asked] == [False, True, True]
    assert (len(script.lost), script.slept) == (2, [FIRST_PAUSE_S, 2 * FIRST_PAUSE_S])


def test_patience_ends() -> None:
    """A gateway that does not come back is given up after a minute, with ever longer pauses and what was last wrong."""
    script = Script(FIRST, AWAY)
    seen: list[int] = []
    with pytest.raises(Unreachable, match="status 502"):
        followed(script, lambda found: seen.append(len(found)))
    assert seen == [1]
    assert 60 <= sum(script.slept) <= 60 + LONGEST_PAUSE_S
    assert script.slept == sorted(script.slept)


def test_answers_without_events_end_patience_too() -> None:
    """A gateway that accepts and closes again and again is given up as well."""
    with pytest.raises(Broken, match="nothing more came for 60 s"):
        followed(Script(FIRST, EVENTS))


def test_a_refusal_is_final() -> None:
    """A stream whose log is gone is not asked for again."""
    script = Script(FIRST, REFUSED)
    with pytest.raises(Refused, match="expired"):
        followed(script)
    assert len(script.asked) == 2
