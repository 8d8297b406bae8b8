"""The contract of `gateway.streams.journal.Journal`, judged on every journal."""

import pytest

pytest.register_assert_rewrite(
    f"{__name__}.claims", f"{__name__}.claims_control", f"{__name__}.claims_sharing", f"{__name__}.writing"
)
