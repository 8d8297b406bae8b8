"""The command `atlas`: its parser, and what becomes of an error. What it can do is in `gateway.commands`.

Answers go to stdout, everything else to stderr. Exit codes: 0 done, 1 refused or failed, 2 the command or the
configuration is wrong, 3 no gateway was reached; 130 after Ctrl-C, 141 if nobody reads the answer.
"""

import argparse
import errno
import signal
import sys
from collections.abc import Mapping, Sequence

from config.problems import ConfigError
from config.process import process_environment
from gateway import __version__
from gateway.commands import agents, completion, doctor, keys, litellm, pool, serve, streams
from gateway.commands.errors import CommandError
from gateway.commands.parts import HEADING, Help, Parser
from gateway.commands.terminal import FAILED, USAGE, Terminal

_DESCRIPTION = """A self-hosted gateway in front of LLM providers.

  atlas serve                       start it; with --config FILE as configured, else with what is there
  atlas doctor                      find out why it does not start, or does not answer
  atlas streams ls                  what it is doing right now
  atlas COMMAND --help              more of each"""
_INTERRUPTED, _NOBODY_READS = 130, 141
_UNWRITTEN = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command and return its exit code; argparse itself exits with 2 on a wrong command line."""
    arguments = _parser().parse_args(argv)
    terminal = Terminal(sys.stdout, sys.stderr, process_environment() if environ is None else environ)
    try:
        code: int = arguments.run(arguments, terminal)
        sys.stdout.flush()
    except ConfigError as error:
        terminal.complain(str(error))
        return USAGE
    except CommandError as error:
        terminal.complain(str(error))
        return error.code
    except KeyboardInterrupt:
        terminal.end_line()
        if argv is None:
            _die_interrupted()
        return _INTERRUPTED
    except OSError as error:
        if error.errno not in _UNWRITTEN:
            raise
        terminal.abandon()
        if error.errno == errno.EPIPE:
            return _NOBODY_READS
        terminal.complain(f"the answer cannot be written: {error.strerror}")
        return FAILED
    return code


def _die_interrupted() -> None:
    """A shell leaves its loop only if the command in it died of the signal."""
    sys.stdout.flush()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.raise_signal(signal.SIGINT)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="atlas", description=_DESCRIPTION, formatter_class=Help)
    parser.add_argument("--version", action="version", version=f"atlas {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar=HEADING, title="commands")
    for each in (serve, doctor, streams, pool, agents, keys, litellm):
        each.add(commands)
    completion.add(commands, parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
