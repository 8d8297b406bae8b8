"""One endpoint as selection sees it: what it is, how it does, and whether it may be asked now.

One object an endpoint, shared by all routes that name it, so that what one route learns the others know. Everything
here is synchronous; between `usable` and `begin` nothing may be awaited.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.core.errors import CONSEQUENCES, Category, Failure
from gateway.pool.admission import NO_LIMITS, Admission, EndpointLimits
from gateway.pool.breaker import DEFAULT_POLICY, BreakerPolicy, BreakerState, CircuitBreaker
from gateway.pool.capability import UNBOUNDED, UNKNOWN, Capability, feature_names
from gateway.pool.keys import EndpointKeys
from gateway.pool.proven import Proven
from gateway.pool.statistics import TYPICAL_TOKENS, Statistics

if TYPE_CHECKING:
    import random

ALWAYS = float("-inf")
_AGAIN_S = 1.0  # how soon a full endpoint may have room


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the operator says of an endpoint.

    `priority`: lower goes first; `weight`: share of the traffic. `input_usd` and `output_usd`: for a million tokens,
    None where nobody knows. `keys`: how many there are. `rests`: whether it is left alone for a while when it fails.
    """

    weight: float = 1.0
    priority: int = 0
    profile: Capability = UNKNOWN
    limits: EndpointLimits = NO_LIMITS
    keys: int = 1
    input_usd: float | None = None
    output_usd: float | None = None
    rests: bool = True


PLAIN = Standing()
NO_WORDS: frozenset[str] = frozenset()


class Candidate:
    """An endpoint's standing, and everything that changes about it.

    `rests_until`: before that time it is not asked, `-inf` if nothing is wrong. `typical_usd`: what an answer of
    typical length costs, 0 where unknown. `peers` are the other endpoints of its routes: the ratio rule of its breaker
    leaves one of them closed.
    """

    __slots__ = (
        "admission", "breaker", "disabled", "input_usd", "keys", "name", "output_usd", "peers", "priority", "profile",
        "proven", "rests", "rests_until", "statistics", "typical_usd", "weight",
    )  # fmt: skip

    def __init__(
        self, name: str, rng: random.Random, standing: Standing = PLAIN, *, breaker: BreakerPolicy = DEFAULT_POLICY
    ) -> None:
        self.name, self.weight, self.priority, self.profile = name, standing.weight, standing.priority, standing.profile
        self.input_usd, self.output_usd = standing.input_usd, standing.output_usd
        self.breaker = CircuitBreaker(rng, breaker)
        self.statistics = Statistics(standing.profile.availability)
        self.proven = Proven()
        self.keys = EndpointKeys(name, standing.keys)
        self.admission = Admission(standing.limits)
        self.disabled, self.rests = False, standing.rests
        self.rests_until = ALWAYS
        self.typical_usd = TYPICAL_TOKENS * ((self.input_usd or 0.0) + (self.output_usd or 0.0)) / 1e6
        self.peers: list[list[Candidate]] = []

    def usable(self, now: float) -> bool:
        """Whether it may be asked, rates aside."""
        return now >= self.rests_until and not self.admission.is_full

    def refresh(self) -> None:
        """Find `rests_until` anew; whoever changes breaker, keys or `disabled` by itself calls this."""
        until = max(self.breaker.blocked_until, self.keys.blocked_until)
        self.rests_until = UNBOUNDED if self.disabled else until

    def blocked(self, now: float) -> tuple[str, float | None]:
        """Why it is not usable, and in how many seconds it may be; None: not by itself."""
        if self.disabled:
            return "disabled", None
        if self.keys.are_refused:
            return "its provider refuses every key", None
        if now < self.breaker.blocked_until:
            is_open = self.breaker.state(now) is BreakerState.OPEN
            return ("breaker open" if is_open else "being probed"), self.breaker.blocked_until - now
        if now < self.keys.blocked_until:
            return "every key rests", self.keys.blocked_until - now
        return "at its limit of streams at once", _AGAIN_S

    def begin(self, now: float, tokens: int = 0, words: frozenset[str] = NO_WORDS) -> Trial | Failure:
        """Ask this endpoint, with a prompt of about so many tokens; or why not: `pool_exhausted`, `no_endpoint`.

        Where the provider refuses every key, why not is what it said to the last one: that does not pass by itself.
        `words` are the strengths that the request asks for.
        """
        key = self.keys.choose(now)
        if key is None or now < self.rests_until:
            return self._not_now(now)
        wait = self.admission.enter(now, tokens)
        if wait is not None:
            return Failure(Category.POOL_EXHAUSTED, f"{self.name}: at the limit set for it", wait)
        ticket = self.breaker.admit(now)
        if ticket is None:  # not after the check above, as nothing was awaited since
            self.admission.leave()
            return Failure(Category.NO_ENDPOINT, f"{self.name}: breaker open")
        if not self.breaker.is_closed:
            self.refresh()
        return Trial(self, key, ticket, now, words)

    def _not_now(self, now: float) -> Failure:
        reason, wait = self.blocked(now)
        is_for_good = self.keys.are_refused and not self.disabled
        return Failure(self.keys.refusal if is_for_good else Category.NO_ENDPOINT, f"{self.name}: {reason}", wait)

    def settled(self, now: float, output_tokens: int, seconds: float) -> None:
        """A leg here gave so many tokens in the seconds after its first one; its prompt was counted when it began."""
        self.admission.correct(now, output_tokens)
        self.statistics.paced(output_tokens, seconds)

    def is_last_closed(self) -> bool:
        """Whether one of its routes has no other endpoint that is closed and not disabled."""
        return any(not any(peer.breaker.is_closed and not peer.disabled for peer in peers) for peers in self.peers)

    def shown(self, now: float) -> dict[str, Any]:
        """For `/v1/pool`."""
        profile = self.profile
        return {
            "endpoint": self.name,
            "usable": self.usable(now),
            "blocked": None if self.usable(now) else self.blocked(now)[0],
            "disabled": self.disabled,
            "weight": self.weight,
            "priority": self.priority,
            "breaker": self.breaker.shown(now),
            "keys": self.keys.shown(now),
            "limits": self.admission.shown(now),
            "statistics": self.statistics.shown(now),
            "profile": {
                "strengths": dict(profile.strengths),
                "context_tokens": _known(profile.context_tokens),
                "output_tokens": _known(profile.output_tokens),
                "lacks": feature_names(profile.lacks),
                "availability": profile.availability,
                "proven": {word: round(rate, 4) for word, rate in sorted(self.proven.rates.items())},
            },
            "price_usd_per_million": {"input": self.input_usd, "output": self.output_usd},
        }


class Trial:
    """One attempt at an endpoint, from `Candidate.begin` to exactly one of `finished`, `failed` and `released`.

    A second one of them does nothing, so that whoever leaves may always release. `key` is the number of the key to use.
    """

    __slots__ = ("_candidate", "_number", "_over", "_ticket", "_words", "answered_at", "key", "stalled_s")

    def __init__(self, candidate: Candidate, key: int, ticket: int, now: float, words: frozenset[str]) -> None:
        self._candidate, self._ticket, self.key, self._words = candidate, ticket, key, words
        self._number = candidate.statistics.begin(now)
        self.answered_at: float | None = None
        self.stalled_s = 0.0
        self._over = False

    def answered(self, now: float) -> None:
        """The first content arrived."""
        if self.answered_at is None and not self._over:
            self.answered_at = now
            self._candidate.breaker.answered(self._ticket, now)
            self._candidate.statistics.first_token(self._number, now)
            if self._candidate.rests_until != ALWAYS:
                self._candidate.refresh()

    def quiet(self, seconds: float) -> None:
        """The stream, which runs and has content, has been silent for `seconds` so far; each stall may be told often.

        Fewer seconds than the last time mean another stall.
        """
        if seconds < self.stalled_s:
            self.stalled_s = 0.0
        if seconds > self.stalled_s and not self._over:
            self._candidate.statistics.stalled(seconds - self.stalled_s, is_new=self.stalled_s == 0.0)
            self.stalled_s = seconds

    def finished(self) -> None:
        """The answer came to its end."""
        if self._leave():
            self._candidate.breaker.finished(self._ticket)
            self._candidate.statistics.finished(self._number)
            self._candidate.proven.note(self._words, whole=True)

    def failed(self, now: float, failure: Failure) -> bool:
        """It failed; whether another key of the same endpoint can be tried at once."""
        if not self._leave():
            return False
        # With a status of its own it is about what the caller named, and not the endpoint's fault.
        candidate = self._candidate
        is_fault = failure.status is None and candidate.rests
        weight = "ignores" if not is_fault else CONSEQUENCES[failure.category].breaker
        after_content = self.answered_at is not None
        last = weight not in {"ignores", "probe"} and candidate.is_last_closed()
        candidate.breaker.failed(self._ticket, now, weight, after_content=after_content, last_closed=last)
        if weight == "ignores":
            candidate.statistics.released(self._number)
        else:
            candidate.statistics.failed(self._number, now)
            candidate.proven.note(self._words, whole=False)
        rotates = candidate.rests and candidate.keys.failed(self.key, failure, now)
        candidate.refresh()
        return rotates and candidate.usable(now)

    def released(self, now: float) -> None:
        """It was cancelled or left; that says nothing about the endpoint."""
        if self._leave():
            self._candidate.breaker.released(self._ticket, now)
            self._candidate.statistics.released(self._number)
            self._candidate.refresh()

    def outrun(self, now: float) -> None:
        """It was left because another one answered first: no verdict, but it would have taken longer than this."""
        if not self._over:
            self._candidate.statistics.outrun(self._number, now)
            self.released(now)

    def _leave(self) -> bool:
        if self._over:
            return False
        self._over = True
        self._candidate.admission.leave()
        return True


def introduce(routes: list[list[Candidate]]) -> None:
    """Tell each endpoint who else answers its routes."""
    for members in routes:
        for member in members:
            member.peers.append([other for other in members if other is not member])


def price_for(has: Candidate, input_tokens: int, output_tokens: int) -> float | None:
    """USD of a request; None if unknown."""
    if has.input_usd is None or has.output_usd is None:
        return None
    return (input_tokens * has.input_usd + output_tokens * has.output_usd) / 1e6


def _known(size: float) -> float | None:
    return None if size == UNBOUNDED else size
