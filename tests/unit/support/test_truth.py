"""The ground truth is the same for everybody, and shows every fault of a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.truth import choice_seed, reasoning_seed, tokens_seen, truth, truth_token

SEEDS, COUNTS = st.integers(0, 10**6), st.integers(0, 60)


@given(seed=SEEDS, n=COUNTS)
def test_text_is_the_tokens_in_order(seed: int, n: int) -> None:
    """The whole text is its tokens, and an observer counts them back."""
    text = truth(seed, n)
    assert text == "".join(truth_token(seed, i) for i in range(n))
    assert tokens_seen(seed, text) == n


@given(seed=SEEDS, n=st.integers(2, 40), data=st.data())
def test_loss_double_and_swap_are_seen(seed: int, n: int, data: st.DataObject) -> None:
    """A text that lacks, doubles or swaps a token, or breaks one, is refused."""
    tokens = [truth_token(seed, i) for i in range(n)]
    at = data.draw(st.integers(0, n - 2))
    lost = tokens[:at] + tokens[at + 1 :]
    doubled = [*tokens[:at], tokens[at], *tokens[at:]]
    swapped = [*tokens[:at], tokens[at + 1], tokens[at], *tokens[at + 2 :]]
    broken = [*tokens, truth_token(seed, n)[:-1]]
    for wrong in (lost, doubled, swapped, broken):
        with pytest.raises(AssertionError, match="token"):
            tokens_seen(seed, "".join(wrong))


def test_streams_differ() -> None:
    """Other seeds, choices and reasoning are other texts: one stream's bytes in another are found out."""
    seeds = [*range(200), *(choice_seed(1, c) for c in range(1, 5)), *(reasoning_seed(s) for s in range(200))]
    assert len({truth(seed, 12) for seed in seeds}) == len(seeds)


def test_text_has_what_breaks_careless_code() -> None:
    """Any stream of some length holds wide characters, quotes, backslashes, line ends and spaces."""
    text = truth(1, 300)
    for needle in ('"', "\\", "\n", "\r\n", "\u2028", "🙂", "日本", "data: ", " "):
        assert needle in text, needle
