"""docs/metrics.md, the exposition, the dashboard and the alerts name the same metrics."""

import re
from pathlib import Path
from typing import Any

from gateway.pool.breaker import BreakerState
from gateway.telemetry.metrics import CIRCUIT_STATES, DENIAL_STAGES, Metrics
from tests.observability.expressions import alerts, families, panel_queries

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| `(?P<name>[a-z_]+)` \| (?P<type>\w+) \| (?P<labels>[^|]*)\| (?P<says>[^|]+) \|$")
_CODES = re.compile(r"`([a-z_]+)`")


def documented() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Type and labels by name, as the table says."""
    lines = (ROOT / "docs/metrics.md").read_text().splitlines()
    rows = [_ROW.match(line) for line in lines if line.startswith("| `")]
    assert all(rows), "a row that is not one"
    return {row["name"]: (row["type"], tuple(_CODES.findall(row["labels"]))) for row in rows if row}


def exposed() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Type and labels by name, as they are registered; counters with the ending that they are queried by."""
    registry: Any = Metrics("1").registry
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for collector in registry._collector_to_names:
        labels = tuple(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            found[name] = (family.type, labels)
    return found


def test_the_table_is_the_exposition() -> None:
    """Every metric stands in docs/metrics.md with its type and labels, and nothing else does."""
    assert documented() == exposed()
    text = Metrics("1").exposition().decode()
    assert re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE) == [
        (name, type_) for name, (type_, _) in exposed().items()
    ]


def test_every_metric_is_looked_at() -> None:
    """Each of Atlas's metrics is on the dashboard or in an alert, and those ask for none that does not exist."""
    asked = {name for _, query in panel_queries() for name in families(query)}
    asked |= {name for rule in alerts() for name in families(rule["expr"])}
    known = set(documented())
    assert asked <= known
    assert {name for name in known if name.startswith("atlas_")} - asked == {"atlas_build_info"}


def test_labels_are_closed_sets() -> None:
    """No label could hold a key, a tenant, an id, or what a client chose for a model's name."""
    labels = {label for _, labels in exposed().values() for label in labels}
    assert labels == {
        "agent", "category", "endpoint", "from", "kind", "method", "op", "outcome", "phase", "reason", "result",
        "route", "stage", "state", "status", "to", "type", "version",
    }  # fmt: skip


def test_words_of_other_files() -> None:
    """The values that labels and gauges take from elsewhere are that file's words."""
    assert list(CIRCUIT_STATES) == ["closed", "half_open", "open"] == sorted(BreakerState)
    text = Metrics("1").exposition().decode()
    for stage in DENIAL_STAGES:
        assert f'atlas_budget_denials_total{{stage="{stage}"}} 0.0' in text
    assert 'atlas_build_info{version="1"} 1.0' in text


def test_two_apps_share_nothing() -> None:
    """What one app counts another one in the process does not see, and a child is looked up once."""
    one, two = Metrics("1"), Metrics("1")
    one.stalls.inc()
    one.control("pause", "changed").inc()
    assert one.control("pause", "changed") is one.control("pause", "changed")
    assert b"atlas_stream_stalls_total 1.0" in one.exposition()
    assert b"atlas_stream_stalls_total 0.0" in two.exposition()
    assert b'op="pause"' not in two.exposition()


def test_gauges_are_refreshed_before_a_scrape() -> None:
    """A gauge that is read rather than kept has its value of the moment of the scrape."""
    metrics, values = Metrics("1"), iter((1.0, 2.0))
    metrics.before_scrape(lambda: metrics.loop_lag.set(next(values)))
    assert b"atlas_event_loop_lag_seconds 1.0" in metrics.exposition()
    assert b"atlas_event_loop_lag_seconds 2.0" in metrics.exposition()
