"""Slots of a cluster: the formula, and what CLUSTER SLOTS answers."""

import pytest
from redis.crc import key_slot

from gateway.upstream.resp import ErrorReply
from gateway.upstream.slots_redis import Range, ranges_of, slot_of


@pytest.mark.parametrize("key", ["", "a", "atlas:{abc}:j", "{}x", "a{}b{c}", "a{b", "}{", "{{a}}", "ü{é}", "x{a}{b}"])
def test_a_slot_is_what_redis_takes_it_to_be(key: str) -> None:
    """Our formula is the library's, braces and all."""
    assert slot_of(key) == key_slot(key.encode())


def test_masters_are_read_and_replicas_are_not() -> None:
    """The first node of a range is its master; one without a name is where we asked."""
    answer = [
        [0, 99, [b"10.0.0.1", 1, b"id", []], [b"10.0.0.2", 2, b"id", []]],
        [100, 100, [None, 3, b"id"]],
        [101, 102, [b"", 4, b"id"]],
        [103, 16_383, [b"?", 5, b"id"]],
    ]
    assert ranges_of(answer, "asked") == [
        Range(0, 99, "10.0.0.1", 1),
        Range(100, 100, "asked", 3),
        Range(101, 102, "asked", 4),
        Range(103, 16_383, "asked", 5),
    ]


@pytest.mark.parametrize("answer", [ErrorReply("ERR This instance has cluster support disabled"), [], None])
def test_no_map_is_no_map(answer: object) -> None:
    """A node without slots, or that is in no cluster, says nothing of where anything is."""
    with pytest.raises(ValueError, match="slot"):
        ranges_of(answer, "asked")
