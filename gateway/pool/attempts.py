"""The attempts of one request as an event source: who is asked, in which order, and what is told of it.

The commit point is the first semantic delta. Before it every failure is an invisible switch to the next attempt. After
it an endpoint that can continue the partial answer takes over, if the route and the caller let it; else the failure
goes up as it is. When all fail, one error is reported, with every attempt listed (`pool.reported`).

An answer with `stream: false` has its commit point at its end: whatever fails before, it is begun anew elsewhere. Its
log holds both legs all the same, since it says what happened and what each leg took: the second one's `leg` event
says `restart`, and whoever folds the log into an answer begins anew there (`core.events.RESTART`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from gateway.core.errors import Category, Failure, ProviderError
from gateway.core.events import RESTART, Leg
from gateway.pool.answering import Answering
from gateway.pool.asked import Asked
from gateway.pool.capability import NOTHING
from gateway.pool.continuation import MAX_LEGS, Level, Plan, may_continue, plan
from gateway.pool.delivered import Delivered
from gateway.pool.reported import REFUSALS, reported
from gateway.pool.retry import MAX_ATTEMPTS, repeat_after_s
from gateway.pool.splice import Going, Joint, Replayed, replay_bill
from gateway.pool.unbroken import Begun, Unbroken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from gateway.core.chat import ChatRequest
    from gateway.pool.endpoint import Endpoint
    from gateway.pool.route import Route
    from gateway.pool.selection import Choice
    from gateway.upstream.contract import Batch, Timeouts

_UNCOUNTED = {Category.STALE_CONNECTION, Category.UNTRANSLATABLE}  # no request went out, or none arrived


class Attempts:
    """See `streams.source.Source`.

    `endpoint` is the one that answers, `trying` those that were asked and have neither failed nor given content.
    `last` is the attempt that came to content last. `malformed` counts the payloads that the attempts left so far could
    not read. `lost` is given for an answer whose owner is lost: then `delivered` is continued, and `lost` is what is
    raised if nobody can. `choice` is what `endpoints` and their order come from.
    """

    def __init__(  # noqa: PLR0913  what one request is asked with
        self,
        group: Route,
        request: ChatRequest,
        endpoints: tuple[Endpoint, ...],
        *,
        level: Level = Level.SAFE,
        delivered: Delivered | None = None,
        lost: ProviderError | None = None,
        choice: Choice | None = None,
    ) -> None:
        self._group, self._request, self._endpoints, self._level = group, request, endpoints, level
        self._delivered, self._lost = delivered or Delivered(), lost
        self._legs = len(self._delivered.legs)
        self.attempts: list[str] = []
        self.endpoint: Endpoint | None = None
        self.trying: tuple[Endpoint, ...] = ()
        self.malformed = 0
        self._answering: Asked | None = None
        self._unbroken: Unbroken | None = None
        self._original = lost
        self._failures: list[Failure] = []
        self._uncounted: set[str] = set()
        self._broken: list[Endpoint] = []
        self.choice = choice or group.selector.choose(NOTHING, group.clock())
        self.last: Asked | None = None
        self._left: list[Endpoint] = []  # to be asked before any content
        self._before: tuple[Endpoint, Category] | None = None  # who failed last, and how
        self._late: ProviderError | None = None
        self._has_other_key = False
        self._refused: list[Failure] = []  # nobody was asked

    @property
    def timeouts(self) -> Timeouts:
        """Deadlines of the endpoint that answers, or of the first one before that."""
        return (self.endpoint or self._endpoints[0]).timeouts

    def overdue(self, category: Category, message: str) -> bool:
        """The leg that runs now is overdue: whether the source moves on by itself."""
        if self._unbroken is not None and self._unbroken.overdue(category, message):
            return True
        self._late = ProviderError(category, message)  # it is left for this, as whoever leaves it does not say
        return False

    def open(self) -> AbstractAsyncContextManager[AsyncIterator[Batch]]:
        """The attempts as a context manager: entering waits for the first content, leaving closes the socket.

        Raises:
            ProviderError: on entering, the first failure, when no attempt came to content.
        """
        return self

    async def __aenter__(self) -> AsyncIterator[Batch]:
        """Try the endpoints in order until one gives content."""
        if self._lost is not None:
            begun = await self.go_on(self._lost)
        else:
            strategy = RESTART if self._delivered.has_content else self.choice.strategy
            begun = await self._first_of(self._endpoints, strategy)
        if not self._request.stream:
            self._unbroken = Unbroken(self, begun, None)
        elif self._lost is not None or self._is_continuable:
            self._unbroken = Unbroken(self, begun, self._delivered)
        return self._unbroken or Answering(begun.head, begun.batches)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leave the attempt that answers."""
        answering, self._answering = self._answering, None
        self._unbroken = self._original = None  # they lead back here
        if answering is None or self.endpoint is None:
            return
        self._count_malformed(answering)
        cause = error if error is None or isinstance(error, ProviderError) else self._late or error
        if isinstance(cause, ProviderError):
            self._count_unmapped(self.endpoint, cause)
            self.attempts[-1] = f"{self.endpoint.name}: ok, then {cause.category}"
            self._group.on_broken(self.endpoint.name, cause.category)
        self._leave_trial(cause)
        await answering.leave(kind, error, traceback)

    def quiet(self, seconds: float) -> None:
        """The leg that runs now has been silent for so long; selection learns of it at once."""
        if self.last is not None:
            self.last.trial.quiet(seconds)

    @property
    def selection(self) -> dict[str, Any]:
        """Who was considered, and why the first one was asked first: for the status object."""
        return self.choice.shown()

    def _leave_trial(self, error: BaseException | None) -> None:
        """What became of the endpoint that answered."""
        if self.last is None:
            return
        trial = self.last.trial
        if isinstance(error, ProviderError):
            trial.failed(self._group.clock(), error.failure)
        elif error is None:
            trial.finished()
        else:
            trial.released(self._group.clock())

    @property
    def _is_continuable(self) -> bool:
        """Whether anybody may ever continue an answer to this request: only then it is worth folding."""
        request, level = self._request, self._level
        kinds = {each.continuation for each in self._endpoints}
        return any(level.allows(kind) and may_continue(request, kind) for kind in kinds)

    # The next leg.

    def can_go_on(self, error: ProviderError) -> bool:
        """Whether somebody is left to ask, should the leg fail with this."""
        if not error.failure.consequence.elsewhere or self._attempted + 1 >= MAX_ATTEMPTS or self._legs >= MAX_LEGS:
            return False
        if not self._request.stream:
            return bool(self._others(error))
        return next(self._plans(error), None) is not None

    async def go_on(self, error: ProviderError, *, last: bool = False) -> Begun:
        """Leave the leg that failed, and begin the next one, unless it was the `last`; see `pool.unbroken.Next`."""
        self._original = self._original or error
        await self._leave_broken(error)
        allowed = error is self._lost or error.failure.consequence.elsewhere
        may_go_on = allowed and not self._is_exhausted and not last
        if not self._request.stream and may_go_on:
            return await self._first_of(self._others(error), RESTART)
        for each in self._plans(error) if may_go_on else ():
            begun = await self._persist(each.endpoint, each.request, each.strategy, others=True)
            if begun is not None:
                begun.joint = self._joint(each)
                return begun
            if self._is_exhausted:
                break
        raise self._original

    def spoilt(self, joint: Joint) -> Batch:
        """What is to be logged of a leg that could not be joined: a replay's words are in no log, but on its bill."""
        return [replay_bill(self._delivered, self._request)] if isinstance(joint, Replayed) else []

    def _others(self, error: ProviderError) -> tuple[Endpoint, ...]:
        """Who may begin anew: those behind the one that failed, then that one itself, if it was not repeated yet."""
        failed = self.endpoint
        if failed is None:
            return self._endpoints
        behind = self._endpoints[self._endpoints.index(failed) + 1 :]
        again = error.failure.consequence.same and self._broken.count(failed) < 2
        return (*behind, failed) if again else behind

    def _plans(self, error: ProviderError) -> Iterator[Plan]:
        """How each endpoint would continue, in the order of now, those that have not failed on this answer first."""
        if self._legs >= MAX_LEGS:
            return
        failed = self._broken[-1] if self._broken else self.endpoint
        order = [each for each in self._by_now() if each is not failed]
        if failed is not None and error.failure.consequence.same:
            order.append(failed)
        for endpoint in order:
            found = plan(
                self._request, self._delivered, endpoint, level=self._level,
                replay_max_chars=self._group.fallback.replay_max_chars,
            )  # fmt: skip
            if found is not None:
                yield found

    def _by_now(self) -> list[Endpoint]:
        """The endpoints in the order that selection prefers by now; who cannot be asked any more goes last."""
        ranked = self._group.endpoints_of(self._group.selector.again(self.choice, self._group.clock()))
        return [*ranked, *(each for each in self._endpoints if each not in ranked)]

    def _joint(self, chosen: Plan) -> Joint:
        if chosen.seam is None:
            return Replayed(self._delivered)
        return Going(chosen.seam, self._request, self._delivered)

    async def _leave_broken(self, error: ProviderError) -> None:
        answering, self._answering = self._answering, None
        endpoint = self.endpoint
        if answering is None or endpoint is None:
            return
        self._count_malformed(answering)
        self._count_unmapped(endpoint, error)
        self._failures.append(error.failure)
        self._broken.append(endpoint)
        self._before = (endpoint, error.category)
        self.attempts[-1] = f"{endpoint.name}: ok, then {error.category}"
        self._group.on_broken(endpoint.name, error.category)
        self._leave_trial(error)
        await answering.leave(type(error), error, error.__traceback__)

    # One leg.

    async def _first_of(self, endpoints: tuple[Endpoint, ...], strategy: str) -> Begun:
        """The first endpoint that comes to content.

        Raises:
            ProviderError: the first failure.
        """
        self._left = list(endpoints)
        while self._left:
            endpoint = self._left.pop(0)
            begun = await self._persist(endpoint, self._request, strategy, others=bool(self._left))
            if begun is not None:
                return begun
            failure = self._failures[-1]
            if failure.category is Category.CONTEXT_LENGTH:  # only a larger window may help
                window = endpoint.candidate.profile.context_tokens
                self._left = [each for each in self._left if each.candidate.profile.context_tokens > window]
            elif not failure.consequence.elsewhere and failure.category not in REFUSALS:
                break
            if self._is_exhausted:
                break
        raise reported(self._failures, self._refused, self.attempts)

    async def _persist(self, endpoint: Endpoint, request: ChatRequest, strategy: str, *, others: bool) -> Begun | None:
        """Ask one endpoint, and again where that may help; None (and failures noted) if it does not."""
        repeated: set[bool] = set()  # at most one repeat, and one more for a stale connection
        while True:
            begun = await self._first_content(endpoint, request, strategy)
            if begun is not None:
                return begun
            if self._before is None or self._before[0] is not endpoint:
                return None  # it was not asked, or who was asked beside it failed last
            failure = self._failures[-1]
            if self._has_other_key and not self._is_exhausted:
                continue
            stale = failure.category is Category.STALE_CONNECTION
            wait = None if stale in repeated else repeat_after_s(failure, others=others, rng=self._group.rng)
            if wait is None or self._is_exhausted or not (stale or self._group.repeats.spend(self._group.clock())):
                return None
            repeated.add(stale)
            await self._group.sleep(wait)

    @property
    def _attempted(self) -> int:
        """Attempts that failed and count."""
        return len(self._failures) - len(self._uncounted) - len(self._refused)

    @property
    def _is_exhausted(self) -> bool:
        return self._attempted >= MAX_ATTEMPTS

    async def _first_content(self, endpoint: Endpoint, request: ChatRequest, strategy: str) -> Begun | None:
        """Ask one endpoint; its batches once the first content is there, None (and a failure noted) if it fails."""
        self._has_other_key = False
        asked = self._ask(endpoint)
        if isinstance(asked, Failure):
            self._note_refusal(endpoint, asked)
            return None
        if self._before is not None and self._before[0] is endpoint:
            self._group.on_retry(endpoint.name, self._before[1])
        found = await self._to_content(asked, request)
        return None if found is None else Begun([self._leg(found, strategy), *found.head], found.batches)

    def _ask(self, endpoint: Endpoint) -> Asked | Failure:
        """An attempt at this endpoint that counts from now on, or why it may not be asked."""
        now, needs = self._group.clock(), self.choice.needs
        trial = endpoint.candidate.begin(now, needs.input_tokens, needs.words)
        if isinstance(trial, Failure):
            return trial
        self.trying = (*self.trying, endpoint)
        return Asked(endpoint, trial, now)

    async def _to_content(self, asked: Asked, request: ChatRequest) -> Asked | None:
        """What came to content; None (and the failure noted) if it failed."""
        model = asked.endpoint.model_for(self._group.wanted(request.model))
        found: Asked | None = None
        try:
            await asked.to_content(request, model, atomic=self._group.fallback.atomic_tools and bool(request.tools))
            found = asked
        except ProviderError as error:
            self._note(asked, error)
        finally:
            if found is None:
                self._count_malformed(asked)
                asked.trial.released(self._group.clock())  # cancelled; a failure was told before
        return found

    def _leg(self, asked: Asked, strategy: str) -> Leg:
        """The endpoint came to content: it is the one that answers."""
        now, endpoint = self._group.clock(), asked.endpoint
        asked.trial.answered(now)
        self._answering = self.last = asked
        self.attempts.append(f"{endpoint.name}: ok")
        self._group.on_attempt(endpoint.name, "ok", now - asked.begun)
        self._tell_fallback(endpoint, "ok")
        self.endpoint, self.trying = endpoint, ()
        self._legs += 1
        return Leg(self._legs, endpoint.name, endpoint.provider.kind, strategy, self._why(endpoint))

    def _why(self, endpoint: Endpoint) -> str:
        if len(self.attempts) > 1:
            return f"{endpoint.name} after {', '.join(self.attempts[:-1])}"
        if self._lost is not None:
            return f"{endpoint.name} after {self._lost.category}"
        return self.choice.why(endpoint.candidate)

    def _count_malformed(self, asked: Asked) -> None:
        """Called when an attempt is left: what it skipped is known then."""
        if count := asked.malformed():
            self.malformed += count
            self._group.on_malformed(asked.endpoint.name, count)

    def _count_unmapped(self, endpoint: Endpoint, error: ProviderError) -> None:
        if error.unmapped is not None:
            self._group.on_unmapped(endpoint.name, error.unmapped)

    def _note_refusal(self, endpoint: Endpoint, failure: Failure) -> None:
        """Nobody was asked: this endpoint may not be, now."""
        self._failures.append(failure)
        self._refused.append(failure)
        self.attempts.append(f"{endpoint.name}: {failure.category}")

    def _note(self, asked: Asked, error: ProviderError) -> None:
        endpoint, failure = asked.endpoint, error.failure
        self._count_unmapped(endpoint, error)
        self.trying = tuple([each for each in self.trying if each is not endpoint])
        if failure.category is Category.MODEL_NOT_FOUND and endpoint.model == "*":
            failure = msgspec.structs.replace(failure, status=404)  # the client named it
        self._has_other_key = asked.trial.failed(self._group.clock(), failure)
        if failure.category in _UNCOUNTED:
            self._uncounted.add(endpoint.name)  # the first of an endpoint; a second one was no stale connection
        self._failures.append(failure)
        self.attempts.append(f"{endpoint.name}: {failure.category}")
        self._group.on_attempt(endpoint.name, failure.category, self._group.clock() - asked.begun)
        self._tell_fallback(endpoint, "failed")
        self._before = (endpoint, failure.category)

    def _tell_fallback(self, to: Endpoint, result: str) -> None:
        before = None if self._before is None else self._before[0]
        if before is not None and before is not to:
            is_first = self.endpoint is None and not self._delivered.legs
            self._group.on_fallback(before.name, to.name, "before" if is_first else "mid_stream", result)
