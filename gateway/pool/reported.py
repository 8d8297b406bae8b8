"""Which failure is reported when nobody answered: the first one, of those that say most."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.core.errors import MAX_MESSAGE, Category, Failure, ProviderError

if TYPE_CHECKING:
    from collections.abc import Sequence

REFUSALS = frozenset({Category.NO_ENDPOINT, Category.POOL_EXHAUSTED})
"""Our own, which pass by themselves: nobody was asked."""

_FOR_GOOD = frozenset({Category.PROVIDER_AUTH, Category.PROVIDER_PERMISSION})


def reported(failures: Sequence[Failure], refused: Sequence[Failure], attempts: Sequence[str]) -> ProviderError:
    """The error of a request whose attempts all failed, at least one; `refused` are those where nobody was asked.

    What a provider said goes first; that another wire was needed is told only when nothing else went wrong. Where
    nobody was asked, one that may be asked soon goes before one whose keys are refused for good; each says why not.
    """
    told = [each for each in failures if each not in refused and each.category is not Category.UNTRANSLATABLE]
    passing = [each for each in failures if each.category not in _FOR_GOOD]
    first = (told or passing or failures)[0]
    if len(refused) == len(failures):
        says = "; ".join(each.message for each in failures)
        first = msgspec.structs.replace(first, message=says[:MAX_MESSAGE])
    error = ProviderError(first.category, first.message)
    waits = [failure.retry_after_s for failure in failures if failure.retry_after_s is not None]
    soonest = min(waits, default=None)
    error.failure = msgspec.structs.replace(first, attempts=tuple(attempts), retry_after_s=soonest)
    return error
