"""What each leg of a stream took: counted while it passed, and read as usage and money when somebody asks.

Truth, best first: the provider's last word; what it reported on the way, or the estimate of what was counted, whichever
is more; the estimate alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from gateway.core.tokens import Counted, estimate_output_tokens
from gateway.core.usage import Usage, total

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.core.events import Leg


class Account(Protocol):
    """Who estimates what a provider did not say, and knows what tokens cost; asked often, so it must be cheap."""

    def input_tokens(self, leg: Leg | None, /) -> int:
        """Tokens of the prompt, estimated."""
        ...

    def output_tokens(self, leg: Leg | None, counted: Counted, /) -> int:
        """Tokens of what was counted, estimated."""
        ...

    def cost_usd(self, leg: Leg | None, usage: Usage, /) -> float | None:
        """The price of a leg; None where it is unknown."""
        ...


class Ledger(Protocol):
    """Who knows what a stream without legs took: an agent's run, which settles its calls by itself."""

    @property
    def usage(self) -> Usage:
        """Tokens of everything that was asked so far."""
        ...

    def facts(self) -> dict[str, Any]:
        """What a status object shows: `cost_usd`, and the run itself as `run`."""
        ...


class NoAccount:
    """Estimates without knowing the request or the model; nothing has a price."""

    def input_tokens(self, _leg: Leg | None, /) -> int:
        """Nothing is known of the prompt."""
        return 0

    def output_tokens(self, _leg: Leg | None, counted: Counted, /) -> int:
        """By what holds for most models."""
        return estimate_output_tokens(counted)

    def cost_usd(self, _leg: Leg | None, _usage: Usage, /) -> float | None:
        """Unknown."""
        return None


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """One leg as far as it went. `leg` is None for a source that has none.

    `finished` once the provider said that the answer is over. `begun`, `ended` and `first_content` are monotonic
    seconds.
    """

    leg: Leg | None
    counted: Counted
    usage: Usage
    finished: bool
    begun: float
    ended: float
    first_content: float | None

    @property
    def ttft_ms(self) -> float | None:
        """Milliseconds from its beginning to its first content."""
        return None if self.first_content is None else round(1000 * (self.first_content - self.begun), 3)


NO_ACCOUNT = NoAccount()


def total_usage(tallies: Sequence[Tally]) -> Usage:
    """The sum over all legs."""
    return total([tally.usage for tally in tallies])


def total_cost_usd(costs: Sequence[float | None]) -> float | None:
    """The sum over all legs; None as soon as one of them is unknown, and for a stream without legs."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) if known and len(known) == len(costs) else None
