"""What Anthropic's model families take: facts that a translated request depends on, by the longest known name.

Sources: platform.claude.com/docs (models overview, thinking, effort, forcing tool use; November 2026), and the limits
that Anthropic's Models API reports. A name that is not known is asked in the newest way if it is a Claude, else in the
oldest, which is what hosts of other models with this API know.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_LEVELS = ("low", "medium", "high")


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One row.

    `max_tokens` is asked for when the caller set no limit: what the model can give, or less where a prompt and a limit
    that exceed the window together are refused. `efforts` are the levels of `output_config.effort` with adaptive
    thinking; none means that thinking is asked for by budget. `budgets`, `samples` and `forces` say whether a thinking
    budget, temperature with its kin, and a forced tool are taken. `unthinking` turns thinking off; None: nothing does.
    `prefills`: whether a last turn of the assistant is gone on with; since Claude 4.6 it is a 400.
    """

    max_tokens: int
    efforts: tuple[str, ...] = ()
    budgets: bool = True
    samples: bool = True
    forces: bool = True
    unthinking: Mapping[str, Any] | None = None
    prefills: bool = True


_OFF = {"type": "disabled"}
_BETWEEN = {"type": "between_tools"}
_ALL = (*_LEVELS, "xhigh", "max")

_OTHER = Family(max_tokens=8_192, unthinking=_OFF)
_UNKNOWN_CLAUDE = Family(max_tokens=64_000, efforts=_ALL, budgets=False, unthinking=_OFF, prefills=False)


def _adaptive(*, unthinking: Mapping[str, Any] | None = _OFF, forces: bool = True) -> Family:
    """The families since Opus 4.7."""
    return Family(
        max_tokens=128_000, efforts=_ALL, budgets=False, samples=False, forces=forces, unthinking=unthinking,
        prefills=False,
    )  # fmt: skip


_FAMILIES: dict[str, Family] = {
    "claude-3-": Family(max_tokens=4_096, unthinking=_OFF),
    "claude-3-5-": _OTHER,
    "claude-3-7-": _OTHER,
    "claude-4-": _OTHER,
    "claude-opus-4": _OTHER,
    "claude-sonnet-4": _OTHER,
    **{f"claude-{name}-4-5": Family(max_tokens=64_000, unthinking=_OFF) for name in ("haiku", "sonnet", "opus")},
    **{
        f"claude-{name}-4-6": Family(max_tokens=128_000, efforts=(*_LEVELS, "max"), unthinking=_OFF, prefills=False)
        for name in ("sonnet", "opus")
    },
    "claude-opus-4-7": _adaptive(),
    "claude-opus-4-8": _adaptive(),
    "claude-opus-5": _adaptive(),
    "claude-opus-5-5": _adaptive(unthinking=None, forces=False),
    "claude-sonnet-5": _adaptive(),
    "claude-sonnet-5-5": _adaptive(unthinking=_BETWEEN, forces=False),
    "claude-haiku-5-5": _adaptive(),
    "claude-fable-5": _adaptive(unthinking=None),
    "claude-mythos-5": _adaptive(unthinking=None),
    **{
        f"claude-{name}-5-{minor}": _adaptive(unthinking=None, forces=False)
        for name in ("fable", "mythos")
        for minor in (1, 2)
    },
}
_CLAUDE = re.compile(r"claude-.*")


def family_of(model: str) -> Family:
    """The row of a model, whatever a host writes before its name."""
    found = _CLAUDE.search(model.lower().replace(".", "-"))
    if found is None:
        return _OTHER
    known = [name for name in _FAMILIES if _names(name, found[0])]
    return _FAMILIES[max(known, key=len)] if known else _UNKNOWN_CLAUDE


def _names(name: str, model: str) -> bool:
    """Whether `model` is of the family: its name goes on with a part of its own, as a date."""
    rest = model.removeprefix(name)
    return rest != model and (not rest or name.endswith("-") or not rest[0].isalnum())
