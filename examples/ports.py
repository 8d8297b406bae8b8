"""A port of this machine for a server that is about to be started by another process."""

import random
import socket

FIRST, LAST = 10_000, 22_000
"""Below what systems give to outgoing connections (Linux from 32,768): whoever connects somewhere meanwhile does not
get it. And 10,000 above, where a node of a Redis Cluster has its bus, that is so as well."""


def free_port(host: str = "127.0.0.1", *, bus: bool = False) -> int:
    """A port that nobody listens on; with `bus` the one 10,000 above is free too.

    Raises:
        OSError: none of a thousand tries was free.
    """
    chance = random.SystemRandom()  # not seeded: tests that run side by side must not agree
    for _ in range(1_000):
        port = chance.randrange(FIRST, LAST)
        if all(_is_free(host, each) for each in ([port, port + 10_000] if bus else [port])):
            return port
    msg = f"no free port on {host} between {FIRST} and {LAST}"
    raise OSError(msg)


def _is_free(host: str, port: int) -> bool:
    try:
        socket.create_server((host, port)).close()
    except OSError:
        return False
    return True
