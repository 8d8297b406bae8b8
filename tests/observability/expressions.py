"""The queries of the dashboard and of the alerts, as Prometheus is asked them in a test of a few seconds."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy/grafana/dashboards/atlas.json"
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
WINDOW = "6s"


def dashboard() -> dict[str, Any]:
    """The dashboard's model."""
    return dict(json.loads(DASHBOARD.read_text()))


def panels() -> list[dict[str, Any]]:
    """Its panels, without the rows' titles."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def alerts() -> list[dict[str, Any]]:
    """The alert rules."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panel_queries() -> Iterator[tuple[str, str]]:
    """Each panel's title and query; what would fill an empty panel with a zero is left out."""
    for panel in panels():
        for target in panel["targets"]:
            query = target["expr"].replace("$__rate_interval", WINDOW).replace("$instance", ".*")
            yield panel["title"], query.replace(" or vector(0)", "")


def alert_queries() -> Iterator[tuple[str, str]]:
    """Each alert's name, and what it compares with a number: that must have a value while nothing fires."""
    for rule in alerts():
        query = re.sub(r"\[\d+[smhd]]", f"[{WINDOW}]", rule["expr"]).replace(" offset 1d", "")
        query = re.sub(r"offset \d+[mh]", f"offset {WINDOW}", query)
        for comparison in query.split(" and "):
            left, compared, _ = re.split(r"\s([<>])\s(?=[\d.]+$)", comparison.strip())
            assert compared
            yield rule["alert"], left


def families(query: str) -> set[str]:
    """The metrics that a query names, as docs/metrics.md does."""
    found = re.findall(r"\b((?:atlas|process)_[a-z_]+)\{", query)
    return {re.sub(r"_bucket$", "", name) for name in found}
