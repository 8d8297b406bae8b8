"""The Grafana dashboard as text: its own queries, asked of a Prometheus that scrapes as docker-compose.yml's does."""

import json
import math
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
PANELS = ROOT / "deploy/grafana/dashboards/atlas.json"
PROMETHEUS = ROOT / "deploy/prometheus"
WINDOW = "15s"
"""What rates are taken over: Grafana would take minutes, and the demo is not that old."""
SCRAPE = "1s"
MOST_SERIES = 4
_UNITS = {"reqps": "/s", "ops": "/s", "currencyUSD": " USD"}


def prometheus_yml(folder: Path, port: int, gateways: Sequence[int]) -> Path:
    """deploy/prometheus/prometheus.yml with the services' names resolved to these ports of loopback."""
    text = (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")
    text = text.replace("_interval: 10s", f"_interval: {SCRAPE}").replace("127.0.0.1:9090", f"127.0.0.1:{port}")
    text = re.sub(r"gateway-(\d+):8080", lambda found: f"127.0.0.1:{gateways[int(found[1]) - 1]}", text)
    shutil.copy(PROMETHEUS / "alerts.yml", folder / "alerts.yml")
    file = folder / "prometheus.yml"
    file.write_text(text, encoding="utf-8")
    return file


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel and what it shows now: (legend, value), the largest first; none if nothing of it was ever counted."""

    row: str
    title: str
    unit: str
    series: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        shown = [f"{legend} {amount(value, self.unit)}".strip() for legend, value in self.series if value]
        return f"{self.title}: {', '.join(shown[:MOST_SERIES])}" + (" ..." if len(shown) > MOST_SERIES else "")


@dataclass(frozen=True, slots=True)
class Dashboard:
    """`url` is Prometheus's; `names` are shown for addresses of replicas."""

    url: str
    names: dict[str, str]

    def panels(self) -> Iterator[Panel]:
        """Every panel, row by row, as it stands."""
        row = ""
        for panel in json.loads(PANELS.read_text(encoding="utf-8"))["panels"]:
            if panel["type"] == "row":
                row = panel["title"]
                continue
            series = [found for target in panel["targets"] for found in self._asked(target)]
            series.sort(key=lambda found: -found[1])
            yield Panel(row, panel["title"], panel["fieldConfig"]["defaults"]["unit"], tuple(series))

    def value(self, query: str) -> float | None:
        """The one value of a query now; None while Prometheus does not answer or has none."""
        try:
            return next((value for _, value in self._query(query)), None)
        except httpx.HTTPError:
            return None

    def _asked(self, target: dict[str, Any]) -> Iterator[tuple[str, float]]:
        query = target["expr"].replace("$__rate_interval", WINDOW).replace("$instance", ".*")
        for labels, value in self._query(query):
            if math.isfinite(value):
                yield self._legend(target.get("legendFormat") or "", labels), value

    def _query(self, query: str) -> Iterator[tuple[dict[str, str], float]]:
        """Labels and value of each series; raises httpx.HTTPError."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}, timeout=10, trust_env=False)
        answer.raise_for_status()
        return ((found["metric"], float(found["value"][1])) for found in answer.json()["data"]["result"])

    def _legend(self, pattern: str, labels: dict[str, str]) -> str:
        legend = re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), pattern)
        return self.names.get(legend, legend)


def amount(value: float, unit: str) -> str:
    """A value as the dashboard's unit shows it, to three digits."""
    match unit:
        case "percentunit":
            return f"{100 * value:.3g} %"
        case "s":
            return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"
        case "bytes":
            return f"{value / 2**20:.3g} MiB"
        case _:
            return f"{value:.3g}" + _UNITS.get(unit, "")
