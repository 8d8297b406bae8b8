"""The stored form of events loses nothing."""

from contextlib import suppress
from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.events import Event, Text, decode, encode
from tests.properties.event_streams import EVENTS


def test_every_event_is_judged() -> None:
    """No event type is left out below."""
    assert set(EVENTS) == set(get_args(Event))


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_round_trip(kind: type, data: st.DataObject) -> None:
    """What is read back is what was written, type and all."""
    event = data.draw(EVENTS[kind])
    (back,) = decode(encode([event]))
    assert back == event
    assert type(back) is kind


@given(st.lists(st.one_of(*EVENTS.values()), max_size=6))
def test_order(events: list[Event]) -> None:
    """Events come back in order, and equal events are stored as equal bytes."""
    assert decode(encode(events)) == events
    assert encode(decode(encode(events))) == encode(events)


@given(st.binary(max_size=40))
def test_noise(data: bytes) -> None:
    """Bytes that nobody stored are an error of one kind, or events."""
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):
        decode(data)


def test_a_delta_is_small() -> None:
    """A five-letter text delta takes eleven bytes, as the module says."""
    assert len(encode([Text(0, " word")])) == 11
