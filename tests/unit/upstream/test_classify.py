"""Statuses and waits."""

import pytest

from gateway.core.errors import Category
from gateway.upstream.classify import by_status
from gateway.upstream.retry_after import retry_after_s

NOW = 1_800_000_000.0  # Fri, 15 Jan 2027 08:00:00 GMT


@pytest.mark.parametrize(
    ("status", "category"),
    [
        (400, Category.BAD_REQUEST),
        (401, Category.PROVIDER_AUTH),
        (402, Category.QUOTA),
        (403, Category.PROVIDER_PERMISSION),
        (404, Category.MODEL_NOT_FOUND),
        (408, Category.UPSTREAM_5XX),
        (409, Category.BAD_REQUEST),
        (413, Category.TOO_LARGE),
        (418, Category.BAD_REQUEST),
        (422, Category.BAD_REQUEST),
        (424, Category.UPSTREAM_5XX),
        (429, Category.RATE_LIMITED),
        (498, Category.OVERLOADED),
        (500, Category.UPSTREAM_5XX),
        (502, Category.UPSTREAM_5XX),
        (503, Category.OVERLOADED),
        (504, Category.UPSTREAM_5XX),
        (529, Category.OVERLOADED),
        (599, Category.UPSTREAM_5XX),
        (204, Category.PROTOCOL),
        (301, Category.PROTOCOL),
    ],
)
def test_status(status: int, category: Category) -> None:
    """A status without further words has the category of pool.md section 2."""
    assert by_status(status) is category


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2),
        ({"retry-after": "0"}, 0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": " 7 "}, 7),
        ({"retry-after": "86400"}, 300),
        ({"retry-after": "inf"}, 300),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Fri, 15 Jan 2027 08:00:20 GMT"}, 20),
        ({"retry-after": "Fri, 15 Jan 2027 09:00:20 +0100"}, 20),
        ({"retry-after": "Fri, 15 Jan 2027 07:59:00 GMT"}, 0),
        ({"retry-after": "Fri, 15 Jan 2028 08:00:00 GMT"}, 300),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "-1", "retry-after": "9"}, 9),
        ({"retry-after-ms": "x"}, None),
    ],
)
def test_retry_after(headers: dict[str, str], wait: float | None) -> None:
    """Each way to say how long to wait is read; the finer one wins, and five minutes are the most."""
    assert retry_after_s(headers, NOW) == (None if wait is None else pytest.approx(wait))
