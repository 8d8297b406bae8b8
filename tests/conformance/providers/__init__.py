"""The contract of `gateway.upstream.contract.Provider`, judged on every adapter."""

import pytest

pytest.register_assert_rewrite(f"{__name__}.claims", f"{__name__}.asking")
