"""What logs take in Redis, as Redis itself says (MEMORY USAGE with all samples, so names and overhead count)."""

import redis

from bench.wire import HOST

_OTHERS = 10
"""Events of a log beside its tokens, at most: start, leg, finish, usage, end."""


def bytes_per_event(port: int, tokens: int) -> float:
    """Bytes for each event of the logs of just so many tokens; 0.0 if there is none."""
    client = redis.Redis(host=HOST, port=port, protocol=2)
    size = events = 0
    try:
        for key in client.scan_iter("atlas:{*}:j", count=1000):
            length = 1 + int(client.xinfo_stream(key)["last-generated-id"].rpartition(b"-")[2])
            if tokens < length <= tokens + _OTHERS:
                events += length
                size += client.memory_usage(key, samples=0) or 0
    finally:
        client.close()
    return size / events if events else 0.0
