"""`atlas import-litellm`: what the parser knows of it, the file it reads, and what is printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.commands.errors import WrongUse
from gateway.commands.parts import command
from gateway.commands.terminal import DONE, FAILED, one_line

if TYPE_CHECKING:
    import argparse

    from gateway.commands.parts import Commands
    from gateway.commands.terminal import Terminal

_DESCRIPTION = """Convert a LiteLLM proxy configuration: the Atlas file goes to stdout, what has no
equivalent to stderr.

  atlas import-litellm config.yaml > atlas.yaml && atlas check --config atlas.yaml

Exit codes: 0 there is a file to use, 1 nothing in it could be converted, 2 it cannot be read."""


def add(commands: Commands) -> None:
    """The command."""
    parser = command(commands, "import-litellm", "convert a LiteLLM configuration", _run, description=_DESCRIPTION)
    parser.add_argument("file", type=Path, metavar="FILE", help="LiteLLM's config.yaml")


def _run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from gateway.commands.litellm_convert import convert  # noqa: PLC0415  it loads the presets

    found, report = convert(read(arguments.file))
    for title, lines in (("No equivalent", report.lost), ("To know", report.hints)):
        if lines:
            terminal.complain(f"{title}:")
            for line in lines:
                terminal.complain(f"  - {one_line(line)}")
    if not found.get("routes"):
        terminal.complain("Nothing could be converted.")
        return FAILED
    terminal.show(as_yaml(found, arguments.file.name))
    return DONE


def read(path: Path) -> dict[str, Any]:
    """A file of LiteLLM's.

    Raises:
        WrongUse: it cannot be read, or is none.
    """
    import yaml  # noqa: PLC0415  only this command needs it

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise WrongUse(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        raise WrongUse(f"{where}: is not YAML: {getattr(error, 'problem', None) or type(error).__name__}") from None
    if not isinstance(found, dict) or not isinstance(found.get("model_list"), list):
        raise WrongUse(
            f"{path}: has no model_list; what LiteLLM includes, or keeps in its database, is not in this file"
        )
    return found


def as_yaml(found: dict[str, Any], origin: str) -> str:
    """The file's text."""
    import yaml  # noqa: PLC0415

    head = f"# Made from {one_line(origin)} by `atlas import-litellm`. What it means: atlas config show --config FILE\n"
    return head + yaml.safe_dump(found, sort_keys=False, allow_unicode=True, width=120)
