"""Budgets and rate limits of keys and tenants, as the file says them."""

from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import ValidationError

from config.keys import LOCAL, Window
from config.load import load
from config.settings import Settings
from gateway.core.principal import Principal
from gateway.pool.budget import Per

KEY = {"id": "team-a", "hash": "hmac-sha256:" + "0" * 64, "tenant": "a"}
PEPPER = "sixteen bytes ok"


def errors(**members: Any) -> dict[tuple[int | str, ...], str]:
    """What is wrong with a file of one key with these members."""
    tenants = members.pop("tenants", [])
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate({"keys": [{**KEY, **members}], "tenants": tenants, "key_pepper": PEPPER})
    return {error["loc"]: error["msg"] for error in caught.value.errors()}


def test_the_documented_row_is_read(tmp_path: Path) -> None:
    """The documentation's budget of a key is valid as it stands there, and a tenant has the same members."""
    file = tmp_path / "atlas.yaml"
    file.write_text(
        f'keys:\n  - {{id: team-a, hash: "{KEY["hash"]}", tenant: a, budgets: [{{tokens: 1000000, per: day}}],'
        " limits: {rpm: 60, tpm: 1000, max_concurrent_streams: 3}}\n"
        "tenants:\n  - {id: a, budgets: [{usd: 0.5, per: month}], limits: {rpm: 600}}\n"
    )
    settings = load(file, {"ATLAS_KEY_PEPPER": PEPPER})
    (key,), (tenant,) = settings.keys, settings.tenants
    assert [(budget.tokens, budget.usd, budget.per) for budget in key.budgets] == [(1_000_000, None, "day")]
    assert (key.limits.rpm, key.limits.tpm, key.limits.max_concurrent_streams) == (60, 1000, 3)
    assert [(budget.tokens, budget.usd, budget.per) for budget in tenant.budgets] == [(None, 0.5, "month")]


def test_windows_and_the_tenant_of_nobody_are_the_gateways() -> None:
    """The file knows exactly the windows that the gateway has, and calls the tenant without keys as it does."""
    assert set(get_args(Window)) == set(Per)
    assert Principal().tenant == LOCAL


@pytest.mark.parametrize(
    "budget",
    [{"per": "day"}, {"tokens": 0, "per": "day"}, {"tokens": 5}, {"tokens": 5, "per": "week"},
     {"usd": -1, "per": "day"}, {"usd": float("nan"), "per": "day"}, {"tokens": 1, "per": "day", "reset": "noon"}],
)  # fmt: skip
def test_what_is_no_budget_is_refused(budget: dict[str, Any]) -> None:
    """A budget names an amount above zero and a window, and nothing else."""
    assert {loc[:4] for loc in errors(budgets=[budget])} == {("keys", 0, "budgets", 0)}


def test_contradictions_are_named() -> None:
    """Two budgets of one unit and window, a tenant twice, and a tenant that no key has, are mistakes."""
    twice = [{"tokens": 5, "per": "day"}, {"tokens": 6, "usd": 1, "per": "day"}]
    assert errors(budgets=twice) == {
        ("keys", 0, "budgets", 1): "says tokens per day once more; budgets[0] does",
    }
    found = errors(tenants=[{"id": "a"}, {"id": "a"}, {"id": "b", "budgets": twice}])
    assert found[("tenants", 1, "id")] == "'a' is taken by tenants[0]"
    assert found[("tenants", 2, "id")].startswith("there is no key of tenant 'b'")
    assert ("tenants", 2, "budgets", 1) in found


def test_without_keys_the_tenant_is_local() -> None:
    """Whoever serves only this machine can limit it all the same."""
    settings = Settings.model_validate({"tenants": [{"id": "local", "limits": {"max_concurrent_streams": 4}}]})
    assert settings.tenants[0].limits.max_concurrent_streams == 4
