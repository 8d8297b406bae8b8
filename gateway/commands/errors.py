"""How a command ends when it cannot do what it was asked: a message, and the exit code that `gateway.cli` returns."""

from typing import ClassVar

from gateway.commands.terminal import FAILED, UNREACHABLE, USAGE


class CommandError(Exception):
    """The message is for the operator."""

    code: ClassVar[int] = FAILED


class WrongUse(CommandError):
    """The command line is wrong in a way that the parser cannot see."""

    code = USAGE


class Unreachable(CommandError):
    """There is no answer of a gateway at that address; the message says why."""

    code = UNREACHABLE


class Broken(Unreachable):
    """An answer ended before its end, after it had begun."""


class Garbage(Unreachable):
    """What answers there is no Atlas."""


class Refused(CommandError):
    """The gateway refused; `status` is that of its answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class BindError(CommandError):
    """The address cannot be bound; the message says what to do."""
