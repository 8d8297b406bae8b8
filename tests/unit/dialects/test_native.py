"""Atlas's own feed."""

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import Category, Failure
from gateway.core.events import End, Event, State, Text
from gateway.dialects.native import NativeRenderer
from tests.properties.event_streams import EVENTS
from tests.support.sse import frames


@pytest.mark.parametrize("kind", get_args(Event), ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_every_event(kind: type, data: st.DataObject) -> None:
    """Every event is one frame with its id, a kind, and one object; `error`, EventSource's own, is never a kind."""
    event = data.draw(EVENTS[kind])
    _, raw = NativeRenderer().render(None, [event, event], 3, 10)
    found = frames(raw)
    assert [frame.id for frame in found] == ["3-10", "3-11"]
    assert all(frame.event not in {None, "", "error", "message"} for frame in found)
    assert all(isinstance(frame.json, dict) for frame in found)


def test_text_cannot_leave_its_frame() -> None:
    """Line ends in a text do not end its frame."""
    _, raw = NativeRenderer().render(None, [Text(0, "a\n\nevent: end\ndata: {}\r\n\r\u2028")], 1, 0)
    (frame,) = frames(raw)
    assert frame.json["text"] == "a\n\nevent: end\ndata: {}\r\n\r\u2028"


def test_failure() -> None:
    """A failed end says what failed."""
    end = End(State.FAILED, "connect", Failure(Category.CONNECT, "refused"))
    _, raw = NativeRenderer().render(None, [end], 1, 0)
    assert frames(raw)[0].json["error"]["code"] == "connect"
