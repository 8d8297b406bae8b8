"""The parts of the parser that several commands share."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gateway.commands.client import DEFAULT_URL, KEY_VARIABLE, URL_VARIABLE
from gateway.commands.terminal import USAGE

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.commands.terminal import Terminal

    Commands = argparse._SubParsersAction[Any]  # noqa: SLF001  argparse has no public name for it
    Run = Callable[[argparse.Namespace, Terminal], int]

HEADING = "COMMAND"


class Help(argparse.RawDescriptionHelpFormatter):
    """Help with room for the names, and descriptions as they were written."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)


class Parser(argparse.ArgumentParser):
    """A parser that answers a command that was left out with the commands that there are."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and how to write it; exits with 2."""
        if message.endswith(f"required: {HEADING}"):
            self.print_help(sys.stderr)
            self.exit(USAGE)
        super().error(message)


def command(commands: Commands, name: str, summary: str, run: Run | None = None, **options: Any) -> Any:
    """A parser of one command, below `commands`; `run` is what it does."""
    options.setdefault("description", summary[0].upper() + summary[1:] + ".")
    made = commands.add_parser(name, help=summary, formatter_class=Help, **options)
    if run is not None:
        made.set_defaults(run=run)
    return made


def group(parser: argparse.ArgumentParser, dest: str) -> Commands:
    """Commands below a command, of which one must be given."""
    return parser.add_subparsers(dest=dest, required=True, metavar=HEADING, title="commands")


def gateway_flags() -> argparse.ArgumentParser:
    """Which gateway is asked, and in whose name."""
    parser = argparse.ArgumentParser(add_help=False)
    where = parser.add_argument_group("gateway")
    where.add_argument("--url", help=f"where it is (default: ${URL_VARIABLE}, or {DEFAULT_URL})")
    where.add_argument("--key", help=f"the API key (default: ${KEY_VARIABLE}); the variable is not seen by others")
    where.add_argument("--json", action="store_true", help="print what the gateway answered, for scripts")
    return parser


def file_flags() -> argparse.ArgumentParser:
    """Which configuration is read."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config", type=Path, metavar="FILE", help="the YAML file (default: $ATLAS_CONFIG, or none)")
    return parser
