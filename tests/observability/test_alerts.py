"""The alert rules: valid, proven by promtool on made-up series, each explained to the operator."""

import re
from pathlib import Path

import yaml

from tests.observability.expressions import ALERTS, ROOT, alerts
from tests.support.prometheus import promtool

TESTS = ALERTS.with_name("alerts_test.yml")


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    """Prometheus starts with what docker-compose.yml gives it, rules included, and with the job for Kubernetes."""
    promtool("check", "config", str(ALERTS.with_name("prometheus.yml")))
    config = yaml.safe_load(ALERTS.with_name("kubernetes.yml").read_text())
    (job,) = config["scrape_configs"]
    del job["kubernetes_sd_configs"]  # the distribution's Prometheus comes without
    job["authorization"]["credentials_file"] = str(tmp_path / "key")
    (tmp_path / "key").touch()
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    promtool("check", "config", str(tmp_path / "prometheus.yml"))


def test_alerts_fire_when_they_should() -> None:
    """Each alert fires on its trouble, after its time, and none on a gateway with ordinary ones."""
    promtool("test", "rules", str(TESTS))


def test_each_alert_is_proven_to_fire() -> None:
    """No alert is without a case in which it fires."""
    named: set[str] = set()
    for test in yaml.safe_load(TESTS.read_text())["tests"]:
        named |= {each["alertname"] for each in test.get("alert_rule_test", ()) if each["exp_alerts"]}
        samples = (
            [each for expr in test["promql_expr_test"] for each in expr["exp_samples"]]
            if "promql_expr_test" in test
            else []
        )
        named |= set(re.findall(r'alertname="(\w+)"', str(samples)))
    assert named == {rule["alert"] for rule in alerts()}


def test_each_alert_says_how_bad_it_is_and_what_to_do() -> None:
    """Severity and summary stand at the rule, and docs/operating.md has a row for it, and for no other."""
    for rule in alerts():
        assert rule["labels"]["severity"] in {"critical", "warning"}, rule["alert"]
        assert rule["annotations"]["summary"], rule["alert"]
        assert 'job="atlas"' in rule["expr"], rule["alert"]
    explained = re.findall(r"^\| `(Atlas\w+)` \|", (ROOT / "docs/operating.md").read_text(), re.MULTILINE)
    assert explained == [rule["alert"] for rule in alerts()]


def test_names_and_places() -> None:
    """Nothing in the folder is a file that nobody reads."""
    assert {path.name for path in Path(ALERTS.parent).iterdir()} == {
        "alerts.yml",
        "alerts_test.yml",
        "kubernetes.yml",
        "prometheus.yml",
    }
