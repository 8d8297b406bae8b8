"""The judge of clients that reconnect: it accepts what is right, and finds each of the faults that it is there for."""

import json

import pytest

from tests.support.follower import Follower
from tests.support.truth import truth_token


def event(gen: int, seq: int, kind: str, **data: object) -> bytes:
    """One event, as the native format writes it."""
    return f"id: {gen}-{seq}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def text(seq: int, *, gen: int = 1, token: int | None = None) -> bytes:
    """The event that carries one token: the right one for its place, unless told."""
    return event(gen, seq, "text", choice=0, text=truth_token(5, seq - 1 if token is None else token))


START, END = event(1, 0, "start"), event(2, 3, "end", state="completed")


def follower() -> Follower:
    """One that has nothing yet."""
    return Follower(sid="str_x", seed=5)


def test_a_right_stream() -> None:
    """A dense stream over two generations, heartbeats in between, is all of the truth."""
    judged = follower().take(START + text(1) + b": heartbeat\n\n").take(text(2, gen=2) + END)
    judged.check(2)
    assert (judged.cursor, judged.state, judged.kinds) == ("2-3", "completed", ["start", "text", "text", "end"])


@pytest.mark.parametrize(
    ("served", "said"),
    [
        (START + text(2), "a gap"),
        (START + text(1) + text(1), "served again"),
        (START + text(1, gen=3) + text(2, gen=2), "the generation went back"),
        (START + text(1) + text(2) + END + event(2, 4, "text", choice=0, text="x"), "after the end"),
        (b"event: text\ndata: {}\n\n", "without id"),
    ],
    ids=["gap", "double", "generation", "after the end", "no id"],
)
def test_wrong_order(served: bytes, said: str) -> None:
    """A lost, a doubled and a late event are found, and which it was is said."""
    with pytest.raises(AssertionError, match=said):
        follower().take(served)


def test_wrong_text() -> None:
    """Text in the right order but with a token that is not the truth's is found."""
    judged = follower().take(START + text(1) + text(2, token=7) + END)
    with pytest.raises(AssertionError, match="token 1"):
        judged.check(2)


def test_completed_too_early() -> None:
    """A stream that says completed before all of its tokens came is found."""
    judged = follower().take(START + text(1) + text(2) + END)
    with pytest.raises(AssertionError, match="completed after 2 tokens of 3"):
        judged.check(3)


def test_a_prefix_that_failed() -> None:
    """A stream that failed may have a part of the text, which must be right."""
    follower().take(START + text(1) + event(2, 2, "end", state="failed", reason="owner_lost")).check(3)
