"""Logs: one JSON object a line on standard error, control characters escaped, no prompts, no secrets.

Fields come from `extra=`; only those in `FIELDS` are written, so nothing slips in by accident.
"""

import json
import logging
import sys
import time

FIELDS = (
    "request", "stream", "route", "model", "endpoint", "state", "reason", "status", "method", "input_tokens",
    "output_tokens", "estimated", "ttft_ms", "duration_ms", "attempts", "port", "host",
)  # fmt: skip


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; times are RFC 3339 in UTC."""

    default_time_format = "%Y-%m-%dT%H:%M:%S"

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": f"{self._utc(record)}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update({name: value for name in FIELDS if (value := record.__dict__.get(name)) is not None})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)

    def _utc(self, record: logging.LogRecord) -> str:
        return time.strftime(self.default_time_format, time.gmtime(record.created))


def configure(level: str) -> None:
    """Send Atlas's and uvicorn's logs to standard error; called once, by the command line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    for name in ("atlas", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level.upper() if name == "atlas" else logging.WARNING)
