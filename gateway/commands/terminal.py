"""Where a command writes, and how: tables for people, JSON for scripts, answers to stdout, everything else to stderr.

Text that came over the network is never written as it came: control characters, which a terminal obeys, are shown as
what they are.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import select
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DONE, FAILED, USAGE, UNREACHABLE = 0, 1, 2, 3

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_GAP = "  "
_WIDE = 10_000
NOTHING = "-"
"""What stands in a table where nothing is known."""


class Terminal:
    """The two streams of a command, and its environment."""

    def __init__(self, out: TextIO, err: TextIO, environ: Mapping[str, str]) -> None:
        self._out, self._err, self.environ = out, err, environ

    def say(self, text: str = "") -> None:
        """A line of the answer."""
        self._out.write(text + "\n")

    def show(self, text: str) -> None:
        """A part of the answer, at once: for what arrives piece by piece."""
        self._out.write(text)
        self._out.flush()

    def announce(self, text: str) -> None:
        """What is good to know, for whoever looks; what goes on does not depend on it."""
        try:
            self.show(text)
        except OSError:  # a full disk, a reader that left
            self.abandon()

    def abandon(self) -> None:
        """The answer cannot be written: what is left of it goes nowhere, also what is flushed at the very end."""
        os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())

    def expect_reader(self) -> None:
        """Notice that whoever read the answer is gone, while there is nothing to write.

        Raises:
            BrokenPipeError: nobody would read it.
        """
        with suppress(io.UnsupportedOperation):
            look = select.poll()
            look.register(self._out.fileno(), 0)
            if any(found & select.POLLERR for _, found in look.poll(0)):
                raise BrokenPipeError(errno.EPIPE, "nobody reads the answer")

    def text(self, text: str) -> None:
        """A part of the answer that somebody else wrote: a terminal is spared what it would obey."""
        self.show(harmless(text) if self._out.isatty() else text.encode(errors="replace").decode())

    def end_line(self) -> None:
        """What comes next begins a line, where people look; into a file goes nothing that is not the answer."""
        if self._out.isatty():
            self.show("\n")

    def json(self, value: Any) -> None:
        """The answer for scripts: one value, indented."""
        self.say(json.dumps(value, indent=2))

    def json_line(self, value: Any) -> None:
        """One of many values, each on a line of its own, at once."""
        self.show(json.dumps(value) + "\n")

    def complain(self, text: str) -> None:
        """A line beside the answer: what is wrong, or what goes on."""
        self._err.write(text + "\n")
        self._err.flush()

    def table(self, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Aligned columns under their names; a terminal shows as much of each line as it has room for."""
        width = shutil.get_terminal_size((_WIDE, 0)).columns if self._out.isatty() else _WIDE
        for line in table(head, rows):
            self.say(line if len(line) <= width else line[: width - 1] + "…")

    def facts(self, rows: Sequence[tuple[str, Any]]) -> None:
        """Names and values, one a line; what is unknown is left out."""
        known = [(name, cell(value)) for name, value in rows if value is not None]
        width = max((len(name) for name, _ in known), default=0)
        for name, value in known:
            self.say(f"{name:<{width}}{_GAP}{value}")


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lines of aligned columns; numbers stand at the right."""
    cells = [[name.upper() for name in head], *([cell(value) for value in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    is_number = [
        any(isinstance(value, int | float) for value in column)
        and all(value is None or isinstance(value, int | float) for value in column)
        for column in zip(*rows, strict=True)
    ] or [False] * len(head)
    return [
        _GAP.join(
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, is_number, strict=True)
        ).rstrip()
        for line in cells
    ]


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if value < 1000 else f"{value:.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value)) or NOTHING
    return one_line(str(value))


def harmless(text: str) -> str:
    """The text without anything that a terminal would obey, but line ends and tabs."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """The text on one line."""
    return harmless(re.sub(r"\s+", " ", text).strip())


def ago(seconds: float) -> str:
    """A span in its largest unit: `3s`, `5m`, `2h`, `4d`."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{max(int(seconds), 0)}s"
