"""Server-sent events as the WHATWG HTML standard (section 9.2.6) reads them, written apart from the product.

Unlike a browser it keeps every block, also one without data, so that a test sees comments and stray fields.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

_LINE_END = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Frame:
    """One block up to its blank line; None where a field did not occur in it. `comment` joins its comment lines."""

    id: str | None = None
    event: str | None = None
    data: str | None = None
    comment: str | None = None
    retry: str | None = None

    @property
    def json(self) -> Any:
        """The data as JSON."""
        assert self.data is not None, f"a frame without data: {self!r}"
        return json.loads(self.data)


def frames(raw: bytes) -> list[Frame]:
    """All finished blocks; what follows the last blank line is left out, as the standard says.

    Raises:
        UnicodeDecodeError: when a finished block is not UTF-8.
        AssertionError: for a line that is no field the standard knows.
    """
    text = raw[: len(raw) - len(tail(raw))].decode().removeprefix("\ufeff")
    found: list[Frame] = []
    block: list[str] = []
    for line in _LINE_END.split(text):
        if line:
            block.append(line)
        elif block:
            found.append(_frame(block))
            block = []
    return found


def data_frames(raw: bytes) -> list[Frame]:
    """The finished blocks that carry data."""
    return [frame for frame in frames(raw) if frame.data is not None]


def tail(raw: bytes) -> bytes:
    """The bytes after the last blank line: an unfinished block, empty for a stream that ended well."""
    ends = [match.end() for match in re.finditer(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)", raw)]
    return raw[ends[-1] :] if ends else raw


def _frame(lines: list[str]) -> Frame:
    values: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(":")
        assert name in {"", "id", "event", "data", "retry"}, f"not a field of SSE: {line[:80]!r}"
        values.setdefault(name or "comment", []).append(value.removeprefix(" "))
    return Frame(
        id=_last(values, "id"),
        event=_last(values, "event"),
        data=_joined(values, "data"),
        comment=_joined(values, "comment"),
        retry=_last(values, "retry"),
    )


def _last(values: dict[str, list[str]], name: str) -> str | None:
    return values[name][-1] if name in values else None


def _joined(values: dict[str, list[str]], name: str) -> str | None:
    return "\n".join(values[name]) if name in values else None
