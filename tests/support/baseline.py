"""After everything ends, everything is back: tasks, sockets and whatever else a test can count.

    async with baseline(slots=lambda: pool.in_use):
        ...

The check begins when the block has ended and gives what is about to end some time.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

_TRIES, _PAUSE_S = 2000, 0.01


@asynccontextmanager
async def baseline(**gauges: Callable[[], object]) -> AsyncIterator[None]:
    """Asserts that no task and no socket of this process outlives the block, and that each gauge reads as before.

    An error from the block passes unchecked, so that it is not hidden.

    Raises:
        AssertionError: names each task with where it stands, each socket with its ends, each gauge.
    """
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    before = {name: gauge() for name, gauge in gauges.items()}

    def left() -> list[str]:
        return [
            *(_task(task) for task in asyncio.all_tasks() - tasks if task is not asyncio.current_task()),
            *(_socket(link) for link in open_sockets() - sockets),
            *(
                f"{name}: {gauge()!r}, was {before[name]!r}"
                for name, gauge in gauges.items()
                if gauge() != before[name]
            ),
        ]

    yield
    for _ in range(_TRIES):
        if not left():
            return
        await asyncio.sleep(_PAUSE_S)
    assert not left(), "left behind:\n  " + "\n  ".join(left())


def open_sockets() -> set[str]:
    """The sockets of this process, as the names that /proc/self/fd gives them."""
    links: set[str] = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            link = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue
        if link.startswith("socket:"):
            links.add(link)
    return links


def _task(task: asyncio.Task[Any]) -> str:
    stack = task.get_stack(limit=1)
    where = f"{stack[-1].f_code.co_filename}:{stack[-1].f_lineno}" if stack else "nowhere"
    return f"task {task.get_name()!r} in {task.get_coro()!r} at {where}"


def _socket(link: str) -> str:
    """A socket with its two ends, if the kernel's TCP table has it."""
    inode = link.removeprefix("socket:[").removesuffix("]")
    for row in Path("/proc/self/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = row.split()
        if fields[9] == inode:
            local, remote = (int(end.split(":")[1], 16) for end in fields[1:3])
            return f"{link} TCP port {local} to port {remote}, state {fields[3]}"
    return link
