"""Every ledger of the folder `subjects` keeps every claim."""

import pytest

from tests.conformance.budgets.claims import CLAIMS, Claim
from tests.conformance.budgets.subject import KINDS, Opened, subject_of
from tests.support.baseline import baseline
from tests.support.run import run


async def judge(claim: Claim, opened: Opened) -> None:
    """One claim on one fresh ledger; nothing may be left running."""
    async with baseline(), opened() as subject:
        await claim(subject)


@pytest.mark.parametrize("name", CLAIMS)
@pytest.mark.parametrize("kind", KINDS)
def test_ledger(kind: str, name: str) -> None:
    """The ledger keeps the claim."""
    run(judge(CLAIMS[name], subject_of(kind)))


def test_every_claim_says_what_it_claims() -> None:
    """Each claim has a sentence of its own."""
    assert all(claim.__doc__ for claim in CLAIMS.values())
