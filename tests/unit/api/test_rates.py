"""How often a key may do something, by a clock that is turned by hand."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.rates import Rate
from gateway.core.errors import RequestError
from gateway.core.principal import Principal
from tests.support.clock import ManualClock

A, B = Principal("a", "a-1"), Principal("b", "b-1")


def takes(rate: Rate, who: Principal = A) -> bool:
    """Whether one more is allowed."""
    try:
        rate.take(who)
    except RequestError:
        return False
    return True


def test_each_key_has_its_own() -> None:
    """As many at once as in a second, for each key; what passed is renewed evenly; a refusal costs nothing."""
    clock = ManualClock()
    rate = Rate(4, "things", clock)
    assert [takes(rate) for _ in range(6)] == [True] * 4 + [False] * 2
    assert takes(rate, B)
    clock.advance(0.26)
    assert [takes(rate), takes(rate)] == [True, False]


def test_less_than_one_a_second() -> None:
    """A rate below one a second lets one through after a rest."""
    clock = ManualClock()
    rate = Rate(0.5, "things", clock)
    assert [takes(rate), takes(rate)] == [True, False]
    clock.advance(2.01)
    assert takes(rate)


def test_refusal() -> None:
    """Who asks too often is told what the limit is, and when to come back."""
    rate = Rate(1, "things", ManualClock())
    rate.take(A)
    with pytest.raises(RequestError, match="1 things a second") as refused:
        rate.take(A)
    assert (refused.value.status, refused.value.headers) == (429, {"retry-after": "1"})


def test_no_limit() -> None:
    """Without a rate nothing is refused."""
    rate = Rate(None, "things", ManualClock())
    assert all(takes(rate) for _ in range(1000))


@given(st.floats(1, 50), st.lists(st.floats(0, 0.5), min_size=1, max_size=200))
def test_never_more(per_s: float, gaps: list[float]) -> None:
    """In no span of time more than the rate and one burst pass, and a caller who keeps to the rate is never refused."""
    clock = ManualClock()
    rate, passed = Rate(per_s, "things", clock), [0.0]
    for gap in gaps:
        clock.advance(gap)
        if takes(rate):
            passed.append(clock.monotonic())
    for at, begin in enumerate(passed[1:]):
        assert all(count <= (end - begin + 1) * per_s + 1.001 for count, end in enumerate(passed[1 + at :], 1))
    assert all(one <= two for one, two in pairwise(passed[1:]))


@pytest.mark.parametrize("per_s", [1, 3, 10])
def test_even_callers(per_s: int) -> None:
    """Whoever keeps to the rate is never refused."""
    clock = ManualClock()
    rate = Rate(per_s, "things", clock)
    for _ in range(100):
        assert takes(rate)
        clock.advance(1 / per_s + 1e-9)


@given(per_s=st.floats(0.05, 20), now=st.floats(0, 1e6))
def test_the_first_ones_are_never_refused(per_s: float, now: float) -> None:
    """After a rest a key may do as many at once as in a second, at least one, whatever the clock says."""
    clock = ManualClock()
    clock.advance(now)
    rate = Rate(per_s, "things", clock)
    assert all(takes(rate) for _ in range(max(1, int(per_s))))
