"""The command line before a house: `atlas` as an operator types it, in a thread of the test's process.

async with house(Plan(tokens=20)) as it:
typed = await atlas(it, "streams", "ls")
assert typed.code == 0
assert "running" in typed.out
"""

import asyncio
import contextlib
import io
import json
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from gateway.commands.errors import CommandError
from gateway.commands.terminal import Terminal
from tests.e2e.house import House
from tests.support.signals import eventually


class Screen(io.StringIO):
    """What was written so far, to be read while more comes."""

    tty = False

    def isatty(self) -> bool:
        return self.tty


@dataclass(frozen=True, slots=True)
class Typed:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The answer as JSON."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        """The answer's lines."""
        return self.out.splitlines()

    @property
    def rows(self) -> list[dict[str, str]]:
        """The answer's table: its cells by the names of the columns."""
        head, *rest = self.lines
        starts = [at for at, letter in enumerate(head) if letter != " " and (at == 0 or head[at - 2 : at] == "  ")]
        ends = [*starts[1:], None]
        return [
            {head[a:b].strip().lower(): line[a:b].strip() for a, b in zip(starts, ends, strict=True)} for line in rest
        ]


def type_(out: io.StringIO, err: io.StringIO, *words: str, environ: Mapping[str, str] | None = None) -> int:
    """Run one command on two screens; its exit code."""
    from gateway.cli import _parser

    arguments = _parser().parse_args(words)
    try:
        return int(arguments.run(arguments, Terminal(out, err, environ or {})))
    except CommandError as error:
        err.write(f"{error}\n")
        return error.code


async def atlas(it: House | str, *words: str, tty: bool = False, **environ: str) -> Typed:
    """One command to its end; `tty`: a person looks at it."""
    async with typing(it, *words, tty=tty, **environ) as (task, out, err):
        return Typed(await task, out.getvalue(), err.getvalue())


@asynccontextmanager
async def typing(
    it: House | str, *words: str, tty: bool = False, **environ: str
) -> AsyncIterator[tuple[asyncio.Future[int], io.StringIO, io.StringIO]]:
    """One command while it runs, with its two screens; leaving waits for it."""
    url = it if isinstance(it, str) else it.atlas.base_url
    out, err = Screen(), Screen()
    out.tty = tty
    loop, ended = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

    def work() -> None:
        try:
            code = type_(out, err, *words, environ={"ATLAS_URL": url, **environ})
        except BaseException as error:  # noqa: BLE001  the test is to see it
            loop.call_soon_threadsafe(ended.set_exception, error)
        else:
            loop.call_soon_threadsafe(ended.set_result, code)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield ended, out, err
        await ended
    finally:
        with contextlib.suppress(TimeoutError):
            await eventually(lambda: not thread.is_alive(), what="the command to end")


async def shown(screen: io.StringIO, words: str) -> None:
    """Wait until a screen shows these words."""
    await eventually(lambda: words in screen.getvalue(), what=f"{words!r} on the screen")
