"""Which slot of a Redis Cluster a key is in, and which node serves which slots. Pure.

The formula and the answer's shape: redis.io, "Redis cluster specification" and "CLUSTER SLOTS".
"""

from __future__ import annotations

from binascii import crc_hqx
from typing import TYPE_CHECKING, NamedTuple

from gateway.upstream.resp import ErrorReply

if TYPE_CHECKING:
    from gateway.upstream.resp import Reply

SLOTS = 16_384


class Range(NamedTuple):
    """Slots `first` to `last`, inclusive, are served by the master at host and port."""

    first: int
    last: int
    host: str
    port: int


def slot_of(key: str) -> int:
    """CRC16 of the key, or of what stands between its first braces if that is not empty."""
    opened = key.find("{")
    if opened >= 0:
        closed = key.find("}", opened + 1)
        if closed > opened + 1:
            key = key[opened + 1 : closed]
    return crc_hqx(key.encode(), 0) % SLOTS


def ranges_of(reply: Reply, asked: str) -> list[Range]:
    """What CLUSTER SLOTS answered; a node without a name is the host that was asked.

    Raises:
        ValueError: not an answer to that, or no slot is served.
    """
    if isinstance(reply, ErrorReply) or not reply:
        msg = f"no node serves any slot: {reply.text if isinstance(reply, ErrorReply) else 'an empty cluster'}"
        raise ValueError(msg)
    return [
        Range(first, last, _name(master[0]) or asked, master[1])
        for first, last, master, *_replicas in reply
    ]  # fmt: skip


def _name(stored: bytes | None) -> str:
    name = (stored or b"").decode()
    return "" if name == "?" else name
