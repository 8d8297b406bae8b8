"""`atlas doctor`: looks at everything that a start needs, and says what is wrong and what to do about it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway.commands.finding import Level
from gateway.commands.parts import command, file_flags
from gateway.commands.terminal import DONE, FAILED, one_line

if TYPE_CHECKING:
    import argparse

    from gateway.commands.parts import Commands
    from gateway.commands.terminal import Terminal

_DESCRIPTION = """Look at everything that a start needs: the configuration and who may read it, the port, keys, limits
of this machine, Redis (version, eviction, persistence, clock), and whether each provider answers
and takes the keys.

Providers are asked for their list of models, which costs nothing. Nothing is changed anywhere.
Exit codes: 0 nothing is wrong, 1 something is."""


def add(commands: Commands) -> None:
    """The command."""
    parser = command(
        commands, "doctor", "find out what is wrong", _run, parents=[file_flags()], description=_DESCRIPTION
    )
    parser.add_argument("--offline", action="store_true", help="ask no provider")
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")


def _run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from gateway.commands.findings import examine  # noqa: PLC0415  it loads the configuration

    logging.getLogger("atlas").addHandler(logging.NullHandler())  # what is wrong is a finding, said once
    found = examine(arguments.config, terminal.environ, ask_providers=not arguments.offline)
    wrong = sum(each.level is Level.WRONG for each in found)
    if arguments.json:
        terminal.json([each.shown() for each in found])
    else:
        for each in found:
            terminal.say(f"{each.level:<6}  {each.subject}: {one_line(each.said)}")
            if each.remedy:
                terminal.say(f"{'':<8}{one_line(each.remedy)}")
        noted = sum(each.level is Level.NOTE for each in found)
        terminal.say(f"\n{wrong or 'nothing'} wrong, {noted or 'nothing'} to note")
    return FAILED if wrong else DONE
