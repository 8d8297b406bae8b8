"""The address that is served: whether it may be, binding it, and what it is called."""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from config.problems import ConfigError, Problem
from config.values import is_loopback
from gateway.commands.errors import BindError

if TYPE_CHECKING:
    from config.settings import Settings

BACKLOG = 65_535
"""As long as the kernel lets a listener's queue be (`net.core.somaxconn`): who finds it full comes a second later."""


def exposure(settings: Settings) -> str | None:
    """Why a gateway with these settings is not served: other machines could reach it, and nobody is asked for a key."""
    host = settings.server.host
    if settings.keys or settings.server.insecure or is_loopback(host):
        return None
    return (
        f"{host} can be reached from other machines, and no keys are configured; make one with "
        "`atlas keys create --tenant NAME`, bind to 127.0.0.1, or serve everybody with --insecure"
    )


def refuse_exposure(settings: Settings) -> None:
    """Raise ConfigError where there is an `exposure`."""
    if (message := exposure(settings)) is not None:
        raise ConfigError([Problem(where="serve", loc=("server", "host"), message=message)])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket: a client that comes before the application is built waits instead of being refused.

    Raises BindError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise BindError(_why_not(error, host, port)) from error


def _why_not(error: OSError, host: str, port: int) -> str:
    if isinstance(error, socket.gaierror):
        return f"host {host!r} is not known; choose an address of this machine with --host"
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} on {host} is in use; choose another with --port"
        case errno.EACCES | errno.EPERM:
            return f"port {port} on {host} is not permitted for this user; choose one above 1023 with --port"
        case errno.EADDRNOTAVAIL:
            return f"{host} is not an address of this machine; choose another with --host"
        case _:
            return f"port {port} on {host} cannot be bound: {error.strerror}"


def base_url(host: str, port: int) -> str:
    """The URL under which this machine reaches a bound address; a wildcard address is reached over loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
