"""The baseline finds what was left behind, and says what."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from tests.support import baseline as module
from tests.support.baseline import baseline
from tests.support.run import run


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TRIES", 3)


def left_by(block: Callable[[list[object]], Awaitable[None]]) -> str:
    """What the baseline says of a block; what is in the block's list is ended afterwards."""

    async def scenario() -> str:
        kept: list[object] = []
        try:
            async with baseline():
                await block(kept)
        except AssertionError as error:
            return str(error)
        finally:
            for thing in kept:
                if isinstance(thing, asyncio.Task):
                    thing.cancel()
                elif isinstance(thing, socket.socket):
                    thing.close()
        return ""

    return run(scenario())


def test_clean_block_passes() -> None:
    """Tasks and sockets that end, even a little later, are no leak."""

    async def block(kept: list[object]) -> None:
        task = asyncio.ensure_future(asyncio.sleep(0))
        task.add_done_callback(lambda _: None)
        with socket.socket():
            pass

    assert left_by(block) == ""


def test_leaked_task_is_named() -> None:
    """A task that goes on is reported by name and place."""

    async def block(kept: list[object]) -> None:
        kept.append(asyncio.get_running_loop().create_task(asyncio.Event().wait(), name="forgotten"))
        await asyncio.sleep(0)

    said = left_by(block)
    assert "task 'forgotten'" in said
    assert "locks.py" in said


def test_leaked_socket_is_named() -> None:
    """A socket that stays open is reported with its port."""
    ports: list[int] = []

    async def block(kept: list[object]) -> None:
        server = socket.create_server(("127.0.0.1", 0))
        ports.append(server.getsockname()[1])
        kept.append(server)

    said = left_by(block)
    assert f"TCP port {ports[0]} to port 0" in said


def test_gauges_must_be_back() -> None:
    """Whatever a test can count is compared."""
    slots = [0]

    async def scenario() -> None:
        async with baseline(slots=lambda: len(slots)):
            slots.append(1)

    with pytest.raises(AssertionError, match="slots: 2, was 1"):
        run(scenario())


def test_error_of_the_block_is_not_hidden() -> None:
    """The block's own failure is what the test shows."""

    async def scenario() -> None:
        async with baseline(never=iter(range(9)).__next__):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(scenario())
