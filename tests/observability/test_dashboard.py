"""The dashboard: every query is answered by a real Prometheus that scraped a real gateway under a mixed load."""

import math
from itertools import combinations
from pathlib import Path

import yaml

from tests.e2e.house import run
from tests.observability.expressions import (
    DASHBOARD,
    ROOT,
    alert_queries,
    alerts,
    dashboard,
    families,
    panel_queries,
    panels,
)
from tests.observability.load import loaded_house, one_round, without_redis
from tests.support.prometheus import Prometheus
from tests.support.redis_server import shared_redis

NOT_FED: dict[str, str] = {}
"""Metrics that are declared and have no samples. Whoever wires one removes its row: the test says so."""

ROWS = [
    "Overview", "Streams and control", "Providers and breakers", "Cost and budgets", "Agents", "Runtime and Redis",
]  # fmt: skip
SCRAPES = 14
QUERIES = [*panel_queries(), *alert_queries()]


def test_no_panel_is_empty(tmp_path: Path) -> None:
    """Every panel and every alert has a value once a gateway has served: no metric is asked for that nobody feeds."""
    shared_redis().flush()

    async def scenario() -> None:
        async with loaded_house(shared_redis()) as it:
            with Prometheus.started(tmp_path, f"127.0.0.1:{it.atlas.port}") as prometheus:
                await one_round(it)
                while (seen := await prometheus.scrapes()) < SCRAPES:
                    if seen < SCRAPES / 2:
                        await without_redis(it, shared_redis())
                    await one_round(it)
                answers = [await prometheus.query(query) for _, query in QUERIES]
        check(answers)

    run(scenario(), 180)


def check(answers: list[list[float]]) -> None:
    """A value for every query that names no unfed metric, and none for one that does."""
    empty, fed = list[str](), set[str]()
    for (name, query), values in zip(QUERIES, answers, strict=True):
        has_value = any(math.isfinite(value) for value in values)
        unfed = families(query) & NOT_FED.keys()
        if has_value:
            fed |= unfed
        elif not unfed:
            empty.append(f"{name}: {query} gave {values}")
    assert empty == []
    assert fed == set(), "they are fed now: take them out of NOT_FED"


def test_rows_and_identities() -> None:
    """The dashboard keeps its uid, its rows, and one id for each panel: links to them stay valid."""
    found = dashboard()
    assert (found["uid"], found["title"]) == ("atlas-overview", "Atlas")
    assert [panel["title"] for panel in found["panels"] if panel["type"] == "row"] == ROWS
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])
    titles = [panel["title"] for panel in panels()]
    assert len(set(titles)) == len(titles)


def test_panels_are_complete() -> None:
    """Each panel asks the provisioned Prometheus, of this job and the chosen replicas, and says what it shows."""
    datasource = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())
    (source,) = datasource["datasources"]
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == {"type": source["type"], "uid": source["uid"]}
            assert target["expr"].count("{job=") == target["expr"].count('{job="atlas", instance=~"$instance"')
            assert target["expr"].count("{job=") >= 1, panel["title"]


def test_panels_do_not_overlap() -> None:
    """Every panel has its place in the grid of 24 columns."""
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, two in combinations(places, 2):
        beside = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
        above = one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"]
        assert beside or above, (one, two)


def test_grafana_finds_what_is_mounted() -> None:
    """The paths that docker-compose.yml mounts are those that Grafana and its provisioning read."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["grafana"]
    mounted = dict(volume.split(":")[:2] for volume in compose["volumes"])
    targets = {Path(source).name: Path(target) for source, target in mounted.items()}
    provider = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/atlas.yml").read_text())["providers"][0]
    assert targets[DASHBOARD.name] == Path(provider["options"]["path"]) / DASHBOARD.name
    assert compose["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == str(targets[DASHBOARD.name])
    for kind in ("datasources", "dashboards"):
        assert Path(f"/etc/grafana/provisioning/{kind}") in {target.parent for target in targets.values()}


def test_alerts_are_shown_on_the_dashboard() -> None:
    """What fires is marked in every graph."""
    (annotation,) = dashboard()["annotations"]["list"]
    assert 'alertname=~"Atlas.*"' in annotation["expr"]
    assert all(rule["alert"].startswith("Atlas") for rule in alerts())
