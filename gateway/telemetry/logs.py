"""Logs: one JSON object a line on standard error, control characters escaped, no prompts, no secrets.

Fields come from `extra=`; only those in `FIELDS` are written, so nothing slips in by accident.
"""

import logging
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import BinaryIO, cast

import msgspec

from gateway.core.errors import AtlasError

FIELDS = (
    "request", "stream", "key", "route", "model", "endpoint", "state", "reason", "status", "method", "input_tokens",
    "output_tokens", "cached_tokens", "cache_creation_tokens", "reasoning_tokens", "estimated", "cost_usd", "ttft_ms",
    "duration_ms", "attempts", "tenant", "provider", "leg", "end", "stops_on_close", "billed_beyond", "port", "host",
    "result", "client", "unwritten", "subject", "provider_key", "category", "redis", "replica",
)  # fmt: skip


_AT = logging.getLogger("atlas")
_UNSAID = "(what it says is logged at level debug only: it may quote a request)"


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; times are RFC 3339 in UTC."""

    def __init__(self) -> None:
        super().__init__()
        self._second = (-1, "")

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": f"{self._utc(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        given = record.__dict__
        line.update({name: given[name] for name in FIELDS if given.get(name) is not None})
        if record.exc_info:
            error = record.exc_info[1]
            line["exception"] = "".join(_told(error, words=_AT.isEnabledFor(logging.DEBUG))) if error else ""
        return msgspec.json.encode(line, enc_hook=str).decode()

    def _utc(self, second: int) -> str:
        """The time up to the second, formatted once a second."""
        if self._second[0] != second:
            self._second = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
        return self._second[1]


def _told(error: BaseException, *, words: bool) -> Iterator[str]:
    """A traceback. The words of an error that is not ours may quote a prompt: they are left out, unless asked for."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _told(before, words=words)
        yield "\nled to\n\n"
    yield from traceback.format_tb(error.__traceback__)
    safe = words or isinstance(error, (AtlasError, OSError))
    yield f"{type(error).__qualname__}: {error if safe else _UNSAID}\n"
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield "\nwithin it\n\n"
            yield from _told(each, words=words)


class LineHandler(logging.Handler):
    """Writes each line at once, past the text layer: it is ASCII or UTF-8 already."""

    def __init__(self, out: BinaryIO) -> None:
        super().__init__()
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; what goes wrong is logging's to handle."""
        try:
            self._out.write(self.format(record).encode("utf-8", "backslashreplace") + b"\n")
            self._out.flush()
        except (OSError, ValueError, TypeError):
            self.handleError(record)


def configure(level: str) -> None:
    """Send all logs to standard error, of libraries warnings and errors alone; called once, by the command line."""
    # What no line shows need not be found out for each one; see "Optimization" in Python's logging HOWTO.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001  the HOWTO's own words
    handler = LineHandler(sys.stderr.buffer)
    handler.setFormatter(JsonFormatter())
    for name in ("", "atlas", "uvicorn"):  # the root's: asyncio, warnings, libraries
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level.upper() if name == "atlas" else logging.WARNING)
    logging.captureWarnings(True)  # noqa: FBT003 - the standard library's signature
    threading.excepthook = _log_thread


def _log_thread(arguments: threading.ExceptHookArgs) -> None:
    """What a thread died of, as a line like any other."""
    error, thread = arguments.exc_value, arguments.thread
    logging.getLogger("atlas.server").error("a thread died: %s", thread and thread.name, exc_info=error)
