"""Every journal of the folder `subjects` keeps every claim, or says why it cannot show it."""

import pytest

from tests.conformance.journal.claims import CLAIMS, Claim
from tests.conformance.journal.claims_control import CLAIMS as CONTROL_CLAIMS
from tests.conformance.journal.claims_sharing import CLAIMS as SHARING_CLAIMS
from tests.conformance.journal.subject import KINDS, Opened, subject_of
from tests.support.baseline import baseline
from tests.support.run import run

ALL = {**CLAIMS, **CONTROL_CLAIMS, **SHARING_CLAIMS}


async def judge(claim: Claim, opened: Opened) -> None:
    """One claim on one fresh subject; nothing may be left running."""
    async with baseline(), opened() as subject:
        await claim(subject)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", KINDS)
def test_journal(kind: str, name: str) -> None:
    """The journal keeps the claim."""
    opened, unsupported = subject_of(kind)
    if name in unsupported:
        pytest.skip(unsupported[name])
    run(judge(ALL[name], opened))


@pytest.mark.parametrize("kind", KINDS)
def test_only_existing_claims_are_unsupported(kind: str) -> None:
    """A claim that was renamed is not silently skipped for ever."""
    assert set(subject_of(kind)[1]) <= set(ALL)


def test_every_claim_says_what_it_claims() -> None:
    """Each claim has a sentence of its own."""
    assert all(claim.__doc__ for claim in ALL.values())
