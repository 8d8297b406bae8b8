"""Stream ids."""

import pytest

from gateway.core.ids import new_sid, parse_sid, show_sid


def test_round_trip() -> None:
    """What is shown can be read back, and no two streams share an id."""
    sids = {new_sid() for _ in range(1000)}
    assert len(sids) == 1000
    assert all(parse_sid(show_sid(sid)) == sid for sid in sids)


@pytest.mark.parametrize(
    "shown", ["", "str_", "str_A" + "a" * 25, "a" * 26, "run_" + "a" * 26, "str_" + "a" * 26 + "\n"]
)
def test_not_an_id(shown: str) -> None:
    """Nothing else is taken for an id."""
    assert parse_sid(shown) is None
