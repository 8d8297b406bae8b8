"""How a stream lies in Redis: its keys, its record as a hash, its entries, and back.

    atlas:{sid}:m   hash    the record: `about` (what never changes, JSON), state, gen, owner, ...
    atlas:{sid}:j   stream  the log: `<gen>-<seq>` with one field: `c` for what a control step appended, else `d`
    atlas:{sid}:u   hash    facts
    atlas:{sid}:r   string  the request, where recovery is on
    atlas:{sid}:m:deleted, :j:deleted   record and log of a deleted stream, for readers that are still there

    atlas:own:{rid}     set     streams that a replica owns, or was about to
    atlas:rep:{rid}     string  its heartbeat           atlas:reps      zset    replicas, with their deadlines
    atlas:wake:{rid}    sharded channel, hints for it

The braces are a hash tag: a stream is one slot of a cluster. An entry's count is not stored beside its events: it is
the head of their MessagePack array.
"""

from __future__ import annotations

import hashlib
from typing import Any, cast

import msgspec

from gateway.core.events import ControlEvent, End, State, decode, encode
from gateway.streams.journal import Entry
from gateway.streams.lifecycle import Answer, Outcome, Record

PAUSED = "atlas:paused"
"""Streams that were paused once and have not been seen to end: a hint where to look, never the truth."""

_CHANGING = frozenset(
    {"sid", "state", "gen", "owner", "pause_seq", "paused_since", "skip", "kept", "end", "ended", "operations"}
)
_ABOUT = tuple(name for name in Record.__struct_fields__ if name not in _CHANGING)
_operations = msgspec.msgpack.Decoder(list[tuple[str, int, Outcome, State, int, int, str, int, str]])
_facts = msgspec.msgpack.Decoder(dict[str, Any])


REPLICAS = "atlas:reps"
"""The index of replicas, each with the deadline of its lease."""


def keys_of(sid: str) -> list[str]:
    """Record, log, facts and request of a stream; record and log of what was deleted."""
    tag = "atlas:{" + sid + "}:"
    return [tag + "m", tag + "j", tag + "u", tag + "r", tag + "m:deleted", tag + "j:deleted"]


def key_of_owned(rid: str) -> str:
    """The set of a replica's streams: a hint where to look, never the truth."""
    return "atlas:own:{" + rid + "}"


def key_of_replica(rid: str) -> str:
    """A replica's heartbeat."""
    return "atlas:rep:{" + rid + "}"


def channel_of(rid: str) -> str:
    """Where a replica listens for hints."""
    return "atlas:wake:{" + rid + "}"


def key_of_log(sid: str) -> str:
    """The log alone."""
    return "atlas:{" + sid + "}:j"


def key_of_deleted_log(sid: str) -> str:
    """What readers of a deleted stream may read for a while."""
    return "atlas:{" + sid + "}:j:deleted"


def key_of_record(sid: str) -> str:
    """The record alone."""
    return "atlas:{" + sid + "}:m"


def key_of_request(sid: str) -> str:
    """The request alone."""
    return "atlas:{" + sid + "}:r"


def key_of_tenant(tenant: str) -> str:
    """The index of a tenant's streams, by the time of their creation."""
    return "atlas:ten:{" + tenant + "}"


def key_of_idempotency(key: str) -> str:
    """What an idempotency key is bound to."""
    return "atlas:idem:" + hashlib.sha256(key.encode()).hexdigest()


def about(record: Record) -> bytes:
    """What never changes of a record."""
    return msgspec.json.encode({name: getattr(record, name) for name in _ABOUT})


def tenant_of(stored: bytes) -> str:
    """Whose stream it is, of what `about` made."""
    return str(msgspec.json.decode(stored)["tenant"])


def record_of(sid: str, fields: list[bytes | None]) -> Record:
    """A record from its hash, in the order of `scripts_redis.FIELDS`."""
    known, state, gen, owner, pause_seq, paused_since, skip, kept, end, ended, operations = fields
    return msgspec.convert(
        {
            **msgspec.json.decode(known or b"{}"),
            "sid": sid,
            "state": (state or b"").decode(),
            "gen": int(gen or 0),
            "owner": (owner or b"").decode(),
            "pause_seq": None if pause_seq is None else int(pause_seq),
            "paused_since": _seconds(paused_since),
            "skip": None if skip is None else tuple(map(int, skip.split(b","))),
            "kept": _end(kept),
            "end": _end(end),
            "ended": _seconds(ended),
            "operations": _kept_operations(operations),
        },
        Record,
    )


def _end(stored: bytes | None) -> End | None:
    return None if stored is None else cast("End", decode(stored)[0])


def _seconds(milliseconds: bytes | None) -> float | None:
    return None if milliseconds is None else int(milliseconds) / 1000


def _kept_operations(stored: bytes | None) -> tuple[tuple[str, float, Answer], ...]:
    if stored is None:
        return ()
    return tuple(
        (op_id, at / 1000, Answer(outcome, state, gen, seq))
        for op_id, at, outcome, state, gen, seq, *_ in _operations.decode(stored)
    )


def entry_of(stored: list[Any]) -> Entry:
    """An entry from what XRANGE says: [id, [field, data]]."""
    gen, seq = id_of(stored[0])
    field, data = stored[1]
    if field == b"c" or seq == 0:
        return Entry(gen, seq, 1, data, cast("ControlEvent", decode(data)[0]))
    return Entry(gen, seq, count_of(data), data)


def id_of(stored: bytes) -> tuple[int, int]:
    """`<gen>-<seq>` taken apart."""
    gen, _, seq = stored.partition(b"-")
    return int(gen), int(seq)


def count_of(data: bytes) -> int:
    """How many events an entry holds: the length in the head of its MessagePack array."""
    head = data[0]
    if head & 0xF0 == 0x90:
        return head & 0x0F
    return int.from_bytes(data[1 : 3 if head == 0xDC else 5], "big")


def payload(event: ControlEvent) -> bytes:
    """One control event as its entry holds it."""
    return encode([event])


def pack_facts(facts: dict[str, Any]) -> bytes:
    """Facts as they are stored."""
    return msgspec.msgpack.encode(facts)


def unpack_facts(stored: bytes) -> dict[str, Any]:
    """Facts as they were given."""
    return _facts.decode(stored) if stored else {}
