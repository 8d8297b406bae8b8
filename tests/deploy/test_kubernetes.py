"""The chart and the plain manifests: what they ask of a cluster, and that both say the same.

There is neither Helm nor a cluster where the tests run. What is held here: that the schemas of Kubernetes allow what
`tests.deploy.chart` renders, and that names, ports, paths, users and times fit one another, the image and the gateway.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from config.load import load
from gateway.app import create
from gateway.core.keys import digest, show_digest
from tests.deploy.chart import CHART, rendered, values
from tests.support.server import atlas_settings

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "deploy/kubernetes"
PEPPER = "p" * 32
AUTOSCALED = {"autoscaling": {**values()["autoscaling"], "enabled": True}}
API = {
    "ServiceAccount": "v1", "ConfigMap": "v1", "Service": "v1", "Deployment": "apps/v1",
    "PodDisruptionBudget": "policy/v1", "HorizontalPodAutoscaler": "autoscaling/v2",
}  # fmt: skip
_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


def one(kind: str, found: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The resource of this kind; there is one."""
    (it,) = [each for each in found or rendered() if each["kind"] == kind]
    return it


def pod() -> dict[str, Any]:
    """The pod's specification."""
    return dict(one("Deployment")["spec"]["template"]["spec"])


def container() -> dict[str, Any]:
    """The only container's."""
    (it,) = pod()["containers"]
    return dict(it)


def plain(name: str) -> list[dict[str, Any]]:
    """A file of deploy/kubernetes."""
    return [each for each in yaml.safe_load_all((MANIFESTS / name).read_text()) if each]


def without_checksum(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is rendered but for the annotation by which Helm restarts pods; by kind."""
    for each in found:
        if each["kind"] == "Deployment":
            annotations = each["spec"]["template"]["metadata"].pop("annotations")
            assert annotations.keys() == {"checksum/config"}
    return sorted(found, key=lambda each: str(each["kind"]))


def scalars(value: Any) -> Iterator[Any]:
    """Every value within."""
    match value:
        case dict():
            for inner in value.values():
                yield from scalars(inner)
        case list():
            for inner in value:
                yield from scalars(inner)
        case _:
            yield value


def test_the_plain_manifests_are_the_chart() -> None:
    """deploy/kubernetes is what the chart renders with its defaults, and the autoscaler what it renders with one."""
    found = sorted(plain("atlas.yaml"), key=lambda each: str(each["kind"]))
    assert found == without_checksum(rendered())
    (autoscaler,) = plain("autoscaler.yaml")
    assert autoscaler == one("HorizontalPodAutoscaler", rendered(**AUTOSCALED))
    assert {path.name for path in MANIFESTS.iterdir()} == {"atlas.yaml", "autoscaler.yaml"}


@pytest.mark.parametrize("version", ["1.27.0", "1.37.0"])
def test_kubernetes_knows_every_member(version: str) -> None:
    """The schemas of the oldest Kubernetes that the chart admits and of a new one allow it, and know all of it."""
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["kubeVersion"] == ">=1.27.0-0"
    for each in (*rendered(**AUTOSCALED), *rendered(), *plain("atlas.yaml"), *plain("autoscaler.yaml")):
        kubernetes_validate.validate(each, version, strict=True)


@pytest.mark.parametrize("release", ["atlas", "team-b"])
def test_resources_are_complete(release: str) -> None:
    """Every resource has its API, a name that is a DNS label, and the labels by which others select it."""
    found = rendered(release, **AUTOSCALED)
    assert {each["kind"]: each["apiVersion"] for each in found} == API
    labels = {"app.kubernetes.io/name": "atlas", "app.kubernetes.io/instance": release}
    for each in found:
        assert each["metadata"]["name"] == release
        assert _LABEL.fullmatch(each["metadata"]["name"])
        assert labels.items() <= each["metadata"]["labels"].items()
    deployment = one("Deployment", found)["spec"]
    assert deployment["selector"]["matchLabels"] == labels
    assert labels.items() <= deployment["template"]["metadata"]["labels"].items()
    assert one("Service", found)["spec"]["selector"] == labels
    assert one("PodDisruptionBudget", found)["spec"]["selector"]["matchLabels"] == labels
    assert one("HorizontalPodAutoscaler", found)["spec"]["scaleTargetRef"]["name"] == release


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    """What the chart mounts is valid with the variables of its Secrets, and listens where ports and probes look."""
    key = f'[{{"id": "a", "hash": "{show_digest(digest(b"atl_x", PEPPER.encode()))}", "tenant": "a"}}]'
    secrets = {"REDIS_URL": "redis://redis:6379/0", "ATLAS_KEYS": key, "ATLAS_KEY_PEPPER": PEPPER}
    file = tmp_path / "atlas.yaml"
    assert one("ConfigMap")["data"].keys() == {file.name}
    file.write_text(one("ConfigMap")["data"][file.name])
    settings = load(file, secrets)
    assert (settings.server.host, settings.journal.kind, len(settings.keys)) == ("0.0.0.0", "redis", 1)
    assert settings.server.allowed_hosts == ("*",), "probes and services come by addresses"
    (port,) = container()["ports"]
    assert port["containerPort"] == settings.server.port
    assert one("Service")["spec"]["ports"][0]["targetPort"] == port["name"]
    grace, before = pod()["terminationGracePeriodSeconds"], values()["preStopSeconds"]
    assert grace >= settings.server.drain_s + before + 15


def test_probes_ask_what_the_gateway_answers() -> None:
    """Every path that a probe or a scrape asks for is one of the app's own."""
    paths = create(atlas_settings()).openapi()["paths"]
    probes = [container()[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")]
    assert [probe["path"] for probe in probes] == ["/livez", "/livez", "/readyz"]
    assert {probe["port"] for probe in probes} == {container()["ports"][0]["name"]}
    assert {probe["path"] for probe in probes} <= paths.keys()


def test_prometheus_finds_the_pods() -> None:
    """The job for Prometheus in Kubernetes keeps this chart's pods and their one port, and shows the key they want."""
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus/kubernetes.yml").read_text())["scrape_configs"]
    assert job["job_name"] == "atlas", "the alerts and the dashboard ask for this name"
    assert job["kubernetes_sd_configs"] == [{"role": "pod"}]
    labels = one("Deployment")["spec"]["template"]["metadata"]["labels"]
    found = {
        "__meta_kubernetes_pod_label_app_kubernetes_io_name": labels["app.kubernetes.io/name"],
        "__meta_kubernetes_pod_container_port_name": container()["ports"][0]["name"],
    }
    kept = {rule["source_labels"][0]: rule["regex"] for rule in job["relabel_configs"] if rule.get("action") == "keep"}
    assert kept == found
    assert job["authorization"] == {"credentials_file": "/etc/prometheus/atlas-key"}
    named = {rule["target_label"] for rule in job["relabel_configs"] if "target_label" in rule}
    assert named == {"instance", "namespace", "pod"}


def test_pods_have_no_rights() -> None:
    """A pod is the image's numbered user, writes nothing to its file system, and holds no token and no capability."""
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert user is not None
    own = pod()["securityContext"]
    assert own["runAsNonRoot"] is True
    assert (own["runAsUser"], own["runAsGroup"]) == (int(user[1]), int(user[2]))
    assert own["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod()["automountServiceAccountToken"] is False
    assert one("ServiceAccount")["automountServiceAccountToken"] is False
    assert all(mount["readOnly"] for mount in container()["volumeMounts"])


def test_secrets_are_references() -> None:
    """Neither values nor manifests hold a secret: variables come from Secrets by their names."""
    (config, redis), (environment,) = container()["env"], container()["envFrom"]
    assert config == {"name": "ATLAS_CONFIG", "value": "/etc/atlas/atlas.yaml"}
    assert redis["valueFrom"]["secretKeyRef"] == {"name": "atlas-redis", "key": "url"}
    assert environment == {"secretRef": {"name": "atlas-environment"}}
    assert container()["volumeMounts"][0]["mountPath"] == "/etc/atlas"
    assert all(each["kind"] != "Secret" for each in rendered())
    for text in scalars(rendered()):
        assert not re.search(r"rediss?://|\bsk-|atl_|hmac-sha256", str(text)), text


def test_replicas_come_and_go_without_a_gap() -> None:
    """An update adds before it takes away, an eviction takes one at a time, and who goes waits for its requests."""
    deployment = one("Deployment")["spec"]
    assert deployment["replicas"] >= 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert one("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    before = container()["lifecycle"]["preStop"]["exec"]["command"]
    assert before == ["python", "-c", f"import time; time.sleep({values()['preStopSeconds']})"]


def test_scaled_by_open_streams() -> None:
    """With autoscaling the autoscaler alone decides on replicas, by the metric that the gateway exposes."""
    found = rendered(**AUTOSCALED)
    assert "replicas" not in one("Deployment", found)["spec"]
    (metric,) = one("HorizontalPodAutoscaler", found)["spec"]["metrics"]
    assert metric["pods"]["metric"] == {"name": "atlas_streams", "selector": {"matchLabels": {"state": "running"}}}
    text = create(atlas_settings()).services.metrics.exposition().decode()
    assert 'atlas_streams{state="running"}' in text


def test_every_value_is_used() -> None:
    """A value that no template reads would be a promise that nobody keeps."""
    text = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    used = set(re.findall(r"\.Values\.([\w.]+)", text))
    wholes = {"resources", "nodeSelector", "tolerations", "affinity"}
    known: set[str] = set()
    for name, value in values().items():
        known |= {f"{name}.{inner}" for inner in value} if isinstance(value, dict) and name not in wholes else {name}
    assert used == known
