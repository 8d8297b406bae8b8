"""What finished streams teach of a model's tokens."""

import pytest

from gateway.core.tokens import (
    BYTES_PER_TOKEN,
    CALL_TOKENS,
    JSON_BYTES_PER_TOKEN,
    UNKNOWN,
    Counted,
    estimate_output_tokens,
)
from gateway.pool.tokens import MODELS, Kind, TokenRatios

KIND = Kind("up", "model")


def taught(*streams: tuple[Counted, int], kind: Kind = KIND) -> TokenRatios:
    """Ratios after these streams."""
    ratios = TokenRatios()
    for counted, tokens in streams:
        ratios.learn(kind, counted, tokens)
    return ratios


def test_nothing_is_known_at_first() -> None:
    """Of a model that never answered the defaults hold; structured answers and some families have their own."""
    ratios = TokenRatios()
    assert ratios.of(KIND) == UNKNOWN
    assert ratios.of(Kind("up", "model", structured=True)).bytes_per_token == JSON_BYTES_PER_TOKEN
    assert ratios.of(Kind("up", "anthropic/Claude-9")).call_tokens > CALL_TOKENS


def test_answers_teach() -> None:
    """After some answers of the same density the estimate of the next one is right within a few percent."""
    ratios = taught(*[(Counted(size=600, events=10), 200)] * 8)
    assert estimate_output_tokens(Counted(size=3000, events=50), ratios.of(KIND)) == pytest.approx(1000, rel=0.04)


def test_one_odd_stream_moves_little() -> None:
    """After ten equal streams one that is nine times as dense moves the ratio by less than a fifth."""
    ratios = taught(*[(Counted(size=800, events=10), 200)] * 10)
    before = ratios.of(KIND).bytes_per_token
    ratios.learn(KIND, Counted(size=800, events=10), 1500)
    assert before * 0.8 < ratios.of(KIND).bytes_per_token < before


@pytest.mark.parametrize(
    ("counted", "tokens"),
    [
        (Counted(size=20, events=2), 8),
        (Counted(size=200, events=2, opaque=1), 100),
        (Counted(size=200, events=2, reasoning=50), 100),
        (Counted(size=200, events=2), 4000),
        (Counted(size=90_000, events=2), 40),
        (Counted(), 400),
    ],
    ids=["short", "parts of its dialect", "summarised reasoning", "unseen tokens", "impossible", "nothing seen"],
)
def test_what_was_not_seen_whole_does_not_teach(counted: Counted, tokens: int) -> None:
    """Answers whose tokens cannot all have been seen leave the defaults alone."""
    assert taught((counted, tokens)).of(KIND) == UNKNOWN


def test_one_token_an_event_is_learnt_and_unlearnt() -> None:
    """A vendor that sends one token an event is believed also where tokens are odd; one that does not is not."""
    each = taught((Counted(size=400, events=100), 101)).of(KIND)
    assert estimate_output_tokens(Counted(size=160, events=100), each) == 101
    words = taught((Counted(size=600, events=100), 150)).of(KIND)
    assert words.events_per_token is None


def test_calls_teach_their_framing_only() -> None:
    """Streams with tool calls say what a call takes, and nothing of the density of text."""
    ratios = taught((Counted(size=42, events=9, calls=2), 10 + 2 * 30), (Counted(size=42, events=9, calls=1), 40))
    assert ratios.of(KIND).bytes_per_token == BYTES_PER_TOKEN
    assert ratios.of(KIND).call_tokens == pytest.approx(30, abs=1)


def test_kinds_are_apart_and_bounded() -> None:
    """Models do not teach each other, and the one that was learnt of longest ago is forgotten first."""
    ratios = TokenRatios()
    for number in range(MODELS + 1):
        ratios.learn(Kind("up", f"m{number}"), Counted(size=900, events=10), 100)
    assert ratios.of(Kind("up", "m0")) == UNKNOWN
    assert ratios.of(Kind("up", "m1")) != UNKNOWN
    assert ratios.of(Kind("other", "m1")) == UNKNOWN
