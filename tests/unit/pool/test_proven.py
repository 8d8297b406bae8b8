"""What became of the strengths that an endpoint claims."""

from gateway.pool.proven import WORDS, Proven


def test_it_forgets_and_forgives() -> None:
    """A run of failures takes a strength down, and about as many whole answers bring it back."""
    proven = Proven()
    for _ in range(20):
        proven.note({"coding"}, whole=False)
    assert proven.rate("coding") < 0.15
    assert proven.rate("math") == 1.0
    for _ in range(20):
        proven.note({"coding"}, whole=True)
    assert proven.rate("coding") > 0.85


def test_callers_cannot_fill_it() -> None:
    """Strengths that callers make up are forgotten beyond a bound; those that are known go on counting."""
    proven = Proven()
    proven.note({"coding"}, whole=True)
    for number in range(10 * WORDS):
        proven.note({f"made up {number}"}, whole=False)
    assert len(proven.rates) == WORDS
    proven.note({"coding"}, whole=False)
    assert proven.rate("coding") < 1.0
