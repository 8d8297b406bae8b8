"""What holds for every strategy, found by name: pure, a permutation, deterministic, cheap, and explained."""

import copy
import random
import time

import pytest

from gateway.pool.candidate import Candidate, Standing, Trial, introduce
from gateway.pool.capability import Capability, Needs
from gateway.pool.selection import Selector
from gateway.pool.strategies import load_strategy, strategy_names

NEEDS = Needs(leanings=frozenset({"tools", "vision"}), input_tokens=2000, context_tokens=2000)
NOW = 1000.0
BOUND_S = 120e-6
"""For 50 endpoints: four times the specification's 30 us, for machines that are busy with other things."""


def candidates(count: int) -> list[Candidate]:
    """Endpoints with different standings and histories, some of them without any."""
    rng = random.Random(count)
    found = [Candidate(f"e{at}", random.Random(at), standing(at, rng)) for at in range(count)]
    introduce([found])
    for each in found[: count // 2]:
        for _ in range(3):
            trial = each.begin(NOW - 20)
            assert isinstance(trial, Trial)
            trial.answered(NOW - 20 + rng.random())
            trial.finished()
            each.settled(NOW - 10, 100, 9.0)
        each.begin(NOW - 1)
    return found


def standing(at: int, rng: random.Random) -> Standing:
    """A standing that differs from its neighbours."""
    return Standing(
        weight=1 + at % 3,
        priority=at % 2,
        input_usd=None if at % 5 == 0 else rng.random(),
        output_usd=3 * rng.random(),
        profile=Capability(strengths={"tools": rng.random()}, context_tokens=100_000),
    )


def facts(found: list[Candidate]) -> list[object]:
    """Everything that is known of these, as it is now."""
    return [copy.deepcopy(each.shown(NOW)) for each in found]


@pytest.mark.parametrize("name", strategy_names())
class TestStrategy:
    def test_ranks_everybody_once(self, name: str) -> None:
        """Whoever is not first is still there as a fallback, and nobody is there twice."""
        for count in (1, 2, 3, 17):
            given = candidates(count)
            ranked = load_strategy(name).rank(NEEDS, given, NOW, random.Random(5))
            assert sorted(map(id, ranked)) == sorted(map(id, given))

    def test_nobody_in_nobody_out(self, name: str) -> None:
        """A route whose endpoints are all down is no error of the strategy."""
        assert load_strategy(name).rank(NEEDS, [], NOW, random.Random(5)) == []

    def test_is_pure(self, name: str) -> None:
        """Ranking and explaining change nothing, neither the candidates nor the list of them."""
        given = candidates(7)
        listed, before = list(given), facts(given)
        load_strategy(name).rank(NEEDS, given, NOW, random.Random(5))
        load_strategy(name).why(NEEDS, given[0], NOW)
        assert given == listed
        assert facts(given) == before

    def test_the_same_chance_gives_the_same_order(self, name: str) -> None:
        """What a strategy did can be done again."""
        given, strategy = candidates(20), load_strategy(name)
        one, other = (strategy.rank(NEEDS, given, NOW, random.Random(9)) for _ in range(2))
        assert one == other

    def test_explains_itself(self, name: str) -> None:
        """Each candidate has a short reason, those that were never asked too."""
        for each in candidates(8):
            assert 0 < len(load_strategy(name).why(NEEDS, each, NOW)) <= 80

    def test_is_cheap(self, name: str) -> None:
        """Selection among 50 endpoints takes microseconds."""
        selector = Selector("r", candidates(50), name, load_strategy(name), random.Random(1))
        best = 1.0
        for _ in range(20):
            begun = time.perf_counter()
            for _ in range(20):
                selector.choose(NEEDS, NOW)
            best = min(best, (time.perf_counter() - begun) / 20)
        assert best < BOUND_S


def test_an_unknown_strategy_is_refused_with_the_known_ones() -> None:
    """A slip in the configuration names what there is."""
    with pytest.raises(ValueError, match="there is no strategy 'fastets'; there are: adaptive, cheapest, fastest"):
        load_strategy("fastets")
