"""The Redis journal on a real cluster of three masters, each with a third of the slots."""

import atexit
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import cache

from tests.conformance.journal.subjects.redis import UNSUPPORTED, RedisSubject
from tests.support.redis_server import RedisServer, cluster

__all__ = ["UNSUPPORTED", "opened"]


@cache
def shared_cluster() -> list[RedisServer]:
    """The cluster of this test process; each xdist worker has its own."""
    stack = ExitStack()
    servers = stack.enter_context(cluster(3))
    atexit.register(stack.close)
    return servers


def url_of(servers: list[RedisServer]) -> str:
    """Two of its nodes are named; the third is found."""
    return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers[:2])


@asynccontextmanager
async def opened() -> AsyncIterator[RedisSubject]:
    """On the cluster of this test process, flushed with each journal."""
    servers = shared_cluster()
    subject = RedisSubject(*servers, url=url_of(servers))
    try:
        yield subject
    finally:
        await subject.close()
