"""The contract of `gateway.pool.ledger.Ledger`, judged on every ledger."""

import pytest

pytest.register_assert_rewrite(f"{__name__}.claims")
