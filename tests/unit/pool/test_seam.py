"""Joining a continuation: whatever is cut, and wherever, the text reads as it was meant."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.core.events import Finish, Text
from gateway.pool.hold_back import HoldBack, last_word
from gateway.pool.seam import OVERLAP_CHARS, Seam, instruct_seam, is_repetitive, prefill_seam

TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="ha \n", max_size=40),
    st.lists(st.sampled_from(["river", " stone", "\n\n", "  ", "👩‍👩‍👧", "日本", "ha ", "."]), max_size=14).map(
        "".join
    ),
)


def joined(delivered: str, said: str, seam: Seam, pieces: list[int]) -> str:
    """What a reader has in the end, if the continuation comes in pieces of these sizes."""
    shown, at = delivered, 0
    for size in [*pieces, len(said)]:
        shown += seam.feed(said[at : at + size]) if at < len(said) else ""
        at += size
    return shown + seam.finish()


SIZES = st.lists(st.integers(1, 9), max_size=12)


@given(TEXTS, st.integers(0, 60), SIZES)
@example("ha ha ha ha ha", 6, [1])
@example("a  b", 2, [])
def test_a_prefill_that_is_gone_on_with(text: str, at: int, sizes: list[int]) -> None:
    """Any text cut at any place and gone on with from there, without the white space that is not sent, is that text."""
    delivered = text[:at]
    given_back = delivered.rstrip()
    seam = prefill_seam(delivered, echoes=False)
    said = text[len(given_back) :]
    if len(given_back) >= 16 and said.startswith(given_back) and not is_repetitive(given_back):
        return  # a whole answer twice over is taken for an echo
    assert joined(delivered, said, seam, sizes) == text


@given(TEXTS, st.integers(0, 60), SIZES)
@example("ha ha ha ha ha", 6, [1])
def test_a_prefill_that_is_said_again(text: str, at: int, sizes: list[int]) -> None:
    """A host that is known to say the prefill again adds nothing to the text by that."""
    delivered = text[:at]
    assert joined(delivered, text, prefill_seam(delivered, echoes=True), sizes) == text


def test_an_unannounced_echo() -> None:
    """A host that says the answer again, unannounced, is believed to mean it only if the answer repeats itself."""
    delivered = "Once upon a time there was a king."
    assert (
        joined(delivered, delivered + " He slept.", prefill_seam(delivered, echoes=False), [5])
        == delivered + " He slept."
    )
    laugh = "ha ha ha ha ha ha ha"
    assert joined(laugh, " " + laugh, prefill_seam(laugh, echoes=False), [5]) == f"{laugh} {laugh}"


@given(st.lists(st.integers(0, 999), min_size=12, max_size=30), st.integers(0, 200), st.integers(0, 40), SIZES)
def test_instruct_drops_the_last_words_said_again(numbers: list[int], at: int, repeated: int, sizes: list[int]) -> None:
    """A model that was told to go on may say the last words again, from eight characters on nobody notices."""
    text = " ".join(f"w{place}x{number}" for place, number in enumerate(numbers))
    delivered = text[: max(20, at)]
    end = delivered.rstrip()
    again = repeated if OVERLAP_CHARS <= repeated <= len(end) else 0
    said = text[len(end) - again :]
    assert joined(delivered, said, instruct_seam(delivered), sizes) == text


def test_a_short_overlap_is_meant() -> None:
    """What repeats fewer than eight characters is the model's own: ha ha ha."""
    assert joined("ha ha", " ha", instruct_seam("ha ha"), []) == "ha ha ha"


@pytest.mark.parametrize("pieces", [[], [1], [2, 1], [1, 1, 1, 1]])
def test_a_stop_string_across_the_seam(pieces: list[int]) -> None:
    """A stop string half of which had been delivered ends the answer, and nothing of its other half is shown."""
    seam = prefill_seam("one two\nUs", echoes=False, stops=("\nUser:",))
    assert joined("one two\nUs", "er: what?", seam, pieces) == "one two\nUs"
    assert seam.stopped


def test_what_only_looks_like_a_stop_string_is_shown() -> None:
    """What begins like a stop string across the seam and is none comes out whole."""
    seam = prefill_seam("one two\nUs", echoes=False, stops=("\nUser:", "zz"))
    assert joined("one two\nUs", "ed to be", seam, [1, 1]) == "one two\nUsed to be"
    assert not seam.stopped


@given(st.lists(TEXTS, max_size=8))
def test_hold_back_loses_nothing(pieces: list[str]) -> None:
    """All text comes out, in order, whatever is held between; at most sixteen characters, none of them blank."""
    hold, out = HoldBack(), ""
    for piece in pieces:
        out += "".join(event.text for event in hold.feed([Text(0, piece)] if piece else []) if isinstance(event, Text))
        assert len(hold.held) <= 16
        assert not any(map(str.isspace, hold.held))
        assert out + hold.held == "".join(pieces[: pieces.index(piece) + 1]) or pieces.count(piece) > 1
    rest = hold.feed([Finish(0, "stop")])
    assert isinstance(rest[-1], Finish)
    out += "".join(event.text for event in rest if isinstance(event, Text))
    assert out == "".join(pieces)


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("", ""),
        ("a b", "b"),
        ("a ", ""),
        ("word", "word"),
        ("x" * 40, "x" * 16),
        ("a\u2003bc", "bc"),
        ("日本語", "日本語"),
    ],
)
def test_last_word(text: str, held: str) -> None:
    """What may still go on is the last word, no more than sixteen characters of it."""
    assert last_word(text) == held
