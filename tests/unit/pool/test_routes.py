"""The route table."""

import random

import pytest

from gateway.core.errors import RequestError
from gateway.pool.group import ProviderGroup
from gateway.pool.routes import NAMES_SHOWN, RouteTable


def table(*models: str) -> RouteTable:
    """Routes without endpoints."""
    groups = [ProviderGroup(model=m, endpoints=(), rng=random.Random(1), clock=lambda: 0.0) for m in models]
    return RouteTable(groups)


@pytest.mark.parametrize(
    ("named", "route", "wanted"),
    [
        ("smart", "smart", "smart"),
        ("open/gpt", "open/gpt", "open/gpt"),
        ("open/gpt-5", "open/*", "gpt-5"),
        ("open/meta/llama", "open/meta/*", "llama"),
        ("open/meta/", "open/*", "meta/"),
        ("anything", "*", "anything"),
        ("open/", "*", "open/"),
    ],
)
def test_find(named: str, route: str, wanted: str) -> None:
    """An exact name wins, then the longest prefix with something behind it."""
    group = table("*", "open/*", "open/meta/*", "open/gpt", "smart").find(named)
    assert group.model == route
    assert group.wanted(named) == wanted


def test_nothing_there() -> None:
    """A model that no route serves is a 404 that names the parameter and what there is."""
    with pytest.raises(RequestError, match=r"'smrt' does not exist here; there are: smart, open/\*$") as caught:
        table("smart", "open/*").find("smrt")
    assert (caught.value.status, caught.value.code, caught.value.param) == (404, "model_not_found", "model")
    with pytest.raises(RequestError, match="there are: none"):
        table().find("open/")


def test_many_names() -> None:
    """The listing of a 404 stays short."""
    with pytest.raises(RequestError) as caught:
        table(*(f"m{number}" for number in range(100))).find("x")
    assert caught.value.message.endswith(", ...")
    assert caught.value.message.count(", m") == NAMES_SHOWN - 1


def test_names_are_exact() -> None:
    """Letter case and spaces count; a pattern is no model."""
    for named in ("Smart", "smart ", "sm*"):
        with pytest.raises(RequestError):
            table("smart").find(named)
