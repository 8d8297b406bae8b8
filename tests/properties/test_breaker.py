"""The circuit breaker against a small model, over random histories of requests, probes and health checks.

The model is written in the specification's words (pool.md section 3): lists instead of rings and tickets.
"""

import random
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from gateway.pool.breaker import BreakerPolicy, BreakerState, CircuitBreaker
from tests.replicas.figures import figure

POLICY = BreakerPolicy(jitter=0.0)
WEIGHTS = ["ignores", "probe", "ratio", "counts", "opens"]
BUCKET_S = 3.0


@dataclass(eq=False)
class Asked:
    """A request under way: which life of the breaker it was admitted in, and its ticket."""

    life: int
    ticket: int
    answered: bool = False


@dataclass
class Model:
    """What the breaker is. A `life` ends whenever it opens, closes, lends its probe or gets it back."""

    state: str = "closed"
    until: float = 0.0
    lease: float | None = None
    openings: int = 0
    life: int = 0
    row: int = 0
    cuts: int = 0
    samples: list[tuple[int, bool]] = field(default_factory=list)

    def admits(self, now: float) -> bool:
        return self.state == "closed" or (now >= self.until and (self.lease is None or now >= self.lease))

    def lend(self, now: float) -> None:
        self.lease, self.life = now + 30.0, self.life + 1

    def open(self, now: float) -> None:
        self.until = now + min(300.0, 5.0 * 2**self.openings)
        self.state, self.lease, self.openings, self.life = "open", None, self.openings + 1, self.life + 1

    def answer(self, now: float) -> None:
        if self.state == "closed":
            self.row = 0
            self.samples.append((int(now // BUCKET_S), True))
        else:
            self.__init__(life=self.life + 1)  # type: ignore[misc]

    def fail(self, now: float, weight: str, after: bool, last: bool) -> None:
        if self.state == "open":
            if weight == "ignores":
                self.give_back(now)
            else:
                self.open(now)
        elif weight in {"ratio", "counts", "opens"}:
            self.samples.append((int(now // BUCKET_S), False))
            if weight == "counts":
                self.row, self.cuts = self.row + (not after), self.cuts + after
            recent = [good for bucket, good in self.samples if bucket > int(now // BUCKET_S) - 10]
            many = len(recent) >= 10 and recent.count(False) * 2 >= len(recent)
            if self.row >= 5 or self.cuts >= 5 or (not last and (weight == "opens" or many)):
                self.open(now)

    def give_back(self, now: float) -> None:
        self.lease, self.until, self.life = None, now, self.life + 1


class Breakers(RuleBasedStateMachine):
    """Requests of every fate, at any time."""

    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.real = CircuitBreaker(random.Random(1), POLICY)
        self.model = Model()

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 2.9, 5.0, 10.0, 29.0, 30.0, 31.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=requests)
    def ask(self) -> Asked:
        admits = self.model.admits(self.now)
        ticket = self.real.admit(self.now)
        assert (ticket is not None) == admits
        if ticket is None:
            return Asked(-1, -1)
        if self.model.state != "closed":
            self.model.lend(self.now)
        return Asked(self.model.life, ticket)

    @rule(asked=requests)
    def answer(self, asked: Asked) -> None:
        if not asked.answered:
            asked.answered = True
            self.real.answered(asked.ticket, self.now)
            if asked.life == self.model.life:
                self.model.answer(self.now)

    @rule(asked=requests)
    def finish(self, asked: Asked) -> None:
        self.real.finished(asked.ticket)
        if asked.life == self.model.life:
            self.model.cuts = 0

    @rule(asked=requests, weight=st.sampled_from(WEIGHTS), last=st.booleans())
    def fail(self, asked: Asked, weight: str, last: bool) -> None:
        self.real.failed(asked.ticket, self.now, weight, after_content=asked.answered, last_closed=last)  # type: ignore[arg-type]
        if asked.life == self.model.life:
            self.model.fail(self.now, weight, asked.answered, last)

    @rule(weight=st.sampled_from(["ratio", "counts"]), count=st.integers(1, 9), good=st.booleans())
    def storm(self, weight: str, count: int, good: bool) -> None:
        """Several requests with one fate: what random single steps seldom bring about."""
        for _ in range(count):
            asked = self.ask()
            if good:
                self.answer(asked)
            else:
                self.fail(asked, weight, last=False)

    @rule(asked=requests)
    def cancel_or_pause(self, asked: Asked) -> None:
        self.real.released(asked.ticket, self.now)
        if asked.life == self.model.life and self.model.lease is not None:
            self.model.give_back(self.now)

    @rule()
    def check_fails(self) -> None:
        self.real.trip(self.now, "health check")
        model = self.model
        if model.state == "closed" or model.lease is not None or self.now >= model.until:
            model.open(self.now)

    @invariant()
    def state_is_the_same(self) -> None:
        model = self.model
        half = model.state == "open" and (model.lease is not None or self.now >= model.until)
        expected = BreakerState.HALF_OPEN if half else BreakerState(model.state)
        assert self.real.state(self.now) is expected
        assert self.real.is_closed == (model.state == "closed")


TestBreakers = Breakers.TestCase
TestBreakers.settings = settings(max_examples=figure(500, 10_000), stateful_step_count=40, deadline=None)
