"""A run of an agent as a tree that grows downwards: a line for each thing that happens, indented by who does it.

Lines are only ever added, so that the tree is readable in a log, too. The answer's own text goes to stdout.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.commands.terminal import one_line

if TYPE_CHECKING:
    from gateway.commands.follow import Told
    from gateway.commands.terminal import Terminal

_INDENT = "   "
_WIDTH = 100


class Tree:
    """Shows the events of one run."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._depths: dict[str, int] = {}
        self._open = False

    def show(self, told: Told) -> None:
        """One event."""
        data = told.data
        match told.kind:
            case "text":
                text = str(data.get("text", ""))
                self._terminal.text(text)
                self._open = (bool(text) and not text.endswith("\n")) or (self._open and not text)
            case "start":
                self._line(0, f"{data.get('model')}  {data.get('id')}")
            case "progress":
                self._progress(data)
            case "pause" | "resume":
                self._line(0, f"{told.kind}d")
            case "end":
                self._line(0, _end(data))
            case _:
                pass

    def _progress(self, data: dict[str, Any]) -> None:
        step, kind = str(data.get("step")), str(data.get("kind"))
        depth = self._depth(step, data.get("parent"))
        who = f"{data.get('agent')}"
        if kind == "plan":
            self._line(depth, f"{who}: plan of {len(data.get('steps', ()))} steps")
            for each in data.get("steps", ()):
                after = f" after {', '.join(each['after'])}" if each.get("after") else ""
                self._line(depth + 1, f"{each.get('id')} ({each.get('worker')}){after}: {each.get('goal')}")
            return
        said = _words(kind, data)
        if said is not None:
            self._line(depth, f"{who} {step}: {said}")

    def _depth(self, step: str, parent: Any) -> int:
        if step not in self._depths:
            self._depths[step] = 1 if parent is None else self._depths.get(str(parent), 1) + 1
        return self._depths[step]

    def _line(self, depth: int, text: str) -> None:
        if self._open:
            self._terminal.end_line()
            self._open = False
        text = one_line(text)
        shown = text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"
        self._terminal.complain(f"{_INDENT * (depth - 1)}└─ {shown}" if depth else shown)


def _words(kind: str, data: dict[str, Any]) -> str | None:
    """What a step tells, in words; None for what it says itself."""
    match kind:
        case "text" | "reasoning":
            return None
        case "step_started":
            attempt = data.get("attempt", 1)
            return f"begins{f' (attempt {attempt})' if attempt != 1 else ''}: {data.get('goal')}"
        case "step_done":
            return f"done, {data.get('characters')} characters"
        case "selected" | "synthesis":
            before = "puts the results together, " if kind == "synthesis" else ""
            return f"{before}asks {data.get('endpoint')} ({data.get('strategy')}: {data.get('why')})"
        case _:
            rest = {name: value for name, value in data.items() if name not in {"agent", "step", "parent", "kind"}}
            told = ", ".join(f"{name} {value}" for name, value in rest.items())
            return f"{kind.replace('_', ' ')}{': ' if told else ''}{told}"


def _end(data: dict[str, Any]) -> str:
    usage, error = data.get("usage") or {}, data.get("error") or {}
    parts = [data.get("state"), data.get("reason"), error.get("message")]
    if usage.get("output_tokens") is not None:
        parts.append(f"{usage['output_tokens']} tokens")
    return ", ".join(str(part) for part in parts if part)
