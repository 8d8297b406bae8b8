"""The files that deploy Atlas fit one another, the specification of their format, and the project.

There is no container engine where the tests run: what the files start is started by `make demo`, with real processes.
"""

import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import yaml
from dockerfile_parse import DockerfileParser

from config.load import load
from config.problems import ConfigError

ROOT = Path(__file__).parents[2]
REDIS_URL = "redis://redis:6379/0"


def compose() -> dict[str, Any]:
    """docker-compose.yml, its anchors resolved."""
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))


def service(name: str) -> dict[str, Any]:
    """One of its services."""
    return dict(compose()["services"][name])


def instructions(tmp_path: Path) -> list[tuple[str, str]]:
    """The Dockerfile's instructions and their values, in order, as they are; the parser would write into its folder."""
    copy = tmp_path / "Dockerfile"
    copy.write_bytes((ROOT / "Dockerfile").read_bytes())
    return [(each["instruction"], each["value"]) for each in DockerfileParser(str(copy)).structure]


def seconds(duration: str) -> float:
    """Of a compose duration such as 1m30s."""
    units = {"m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([ms])", duration))


def test_compose_is_what_the_specification_says() -> None:
    """docker-compose.yml is valid by the schema of the compose specification."""
    command = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(ROOT / "docker-compose.yml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_two_gateways_behind_nginx_over_one_redis() -> None:
    """Both gateways are the same, nginx knows both by name, and what is published is so on this machine alone."""
    services = compose()["services"]
    assert sorted(services) == ["gateway-1", "gateway-2", "grafana", "nginx", "prometheus", "redis"]
    assert services["gateway-1"] == services["gateway-2"]
    named = re.findall(r"^\s*server (\S+):8080", (ROOT / "deploy/nginx/nginx.conf").read_text(), re.MULTILINE)
    assert named == ["gateway-1", "gateway-2"]
    published = {name: each["ports"] for name, each in services.items() if "ports" in each}
    assert published == {
        "nginx": ["127.0.0.1:${PORT:-8080}:8080"],
        "prometheus": ["127.0.0.1:${PROMETHEUS_PORT:-9090}:9090"],
        "grafana": ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"],
    }
    assert services["redis"]["networks"] == ["back"]
    assert compose()["networks"]["back"] == {"internal": True}
    assert all("back" not in services[name]["networks"] for name in published)


@pytest.mark.parametrize("name", ["gateway-1", "grafana", "nginx", "prometheus", "redis"])
def test_services_are_locked_down(name: str) -> None:
    """Nothing runs with a capability, a writable root or a way to more rights, and everything comes up again."""
    found = service(name)
    assert (found["read_only"], found["cap_drop"], found["restart"]) == (True, ["ALL"], "unless-stopped")
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert "user" in found or "build" in found, "whose user the image says"
    assert not found.get("privileged")


def test_mounted_files_exist() -> None:
    """Every file that is mounted from this repository is there, and cannot be written to."""
    for each in compose()["services"].values():
        for volume in each.get("volumes", ()):
            source, _, options = volume.partition(":")
            if source.startswith("."):
                assert (ROOT / source).is_file(), source
                assert options.endswith(":ro"), volume


def test_no_address_of_a_registry() -> None:
    """Base images go by their names: where they are pulled from is the operator's affair."""
    images = [each["image"] for each in compose()["services"].values()]
    images += re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert images
    for image in images:
        assert re.fullmatch(r"([a-z]+/)?[a-z-]+(:[\w.-]+)?", image), image


def test_the_configuration_is_valid() -> None:
    """What compose mounts is valid with what compose sets, and with nothing else: `docker compose up` just starts."""
    settings = load(ROOT / "deploy/atlas.yaml", {"REDIS_URL": REDIS_URL})
    assert (settings.journal.kind, settings.journal.url) == ("redis", REDIS_URL)
    assert service("gateway-1")["environment"]["REDIS_URL"] == REDIS_URL
    assert (settings.server.host, settings.server.port, settings.mock.enabled) == ("0.0.0.0", 8080, True)
    for name in ("gateway-1", "nginx"):
        assert seconds(service(name)["stop_grace_period"]) > settings.server.drain_s + 10


def test_the_gateways_answer_to_their_names_only() -> None:
    """Clients of this machine, probes and Prometheus are served; a page that points its own name here is not."""
    names = load(ROOT / "deploy/atlas.yaml", {"REDIS_URL": REDIS_URL}).server.allowed_hosts
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    targets = [target.partition(":")[0] for target in scraped["static_configs"][0]["targets"]]
    assert {"localhost", "127.0.0.1", *targets} <= set(names)
    assert "*" not in names


def test_the_configuration_without_redis() -> None:
    """Without the address of Redis the gateway says so, rather than keep streams to itself."""
    with pytest.raises(ConfigError, match="REDIS_URL"):
        load(ROOT / "deploy/atlas.yaml", {})


def test_the_example_of_vendors_is_valid(tmp_path: Path) -> None:
    """The vendors in deploy/atlas.yaml work once their comment signs are gone, with what compose passes on."""
    text = (ROOT / "deploy/atlas.yaml").read_text()
    file = tmp_path / "atlas.yaml"
    file.write_text(re.sub(r"(?m)^(endpoints|routes): \[\]$", r"\1:", text).replace("\n#  - ", "\n  - "))
    passed = {name: "sk-x" for name, value in service("gateway-1")["environment"].items() if value is None}
    del passed["ATLAS_KEY_PEPPER"]
    settings = load(file, {"REDIS_URL": REDIS_URL, **passed})
    assert [route.model for route in settings.routes] == ["openai/*", "anthropic/*"]


def test_redis_never_evicts_and_persists() -> None:
    """Redis keeps what it acknowledged a second ago, and refuses rather than forgets when it is full."""
    lines = (line.split(maxsplit=1) for line in (ROOT / "deploy/redis/redis.conf").read_text().splitlines() if line)
    said = {name: value for name, value in lines if name != "#"}
    assert (said["appendonly"], said["appendfsync"]) == ("yes", "everysec")
    assert said["maxmemory-policy"] == "noeviction"
    assert said["maxmemory"]
    assert "redis:/data" in service("redis")["volumes"]


def test_two_stages_and_no_root(tmp_path: Path) -> None:
    """What builds stays behind; what runs is a numbered user without a shell: every command is a list."""
    found = instructions(tmp_path)
    stages = [at for at, (name, _) in enumerate(found) if name == "FROM"]
    assert len(stages) == 2
    last = found[stages[1] :]
    assert [value for name, value in last if name == "USER"] == ["10001:10001"]
    assert [name for name, _ in last if name == "RUN"] == []
    assert all("--from=build" in value for name, value in last if name == "COPY")
    for name, value in found:
        if name in {"RUN", "CMD", "ENTRYPOINT"}:
            assert value.startswith("["), f"{name} {value} needs a shell"
    (health,) = [value for name, value in last if name == "HEALTHCHECK"]
    assert 'CMD ["python"' in health


def test_installs_only_what_is_locked(tmp_path: Path) -> None:
    """Whatever is installed from an index has its hash in requirements.lock."""
    installs = [value for name, value in instructions(tmp_path) if name == "RUN" and '"install"' in value]
    assert len(installs) == 2
    assert '"--require-hashes"' in installs[0]
    assert '"requirements.lock"' in installs[0]
    assert ("ARG", "LOCK=requirements.lock") in instructions(tmp_path)
    assert ("COPY", "${LOCK} ./requirements.lock") in instructions(tmp_path)
    assert '"--no-deps", "--no-build-isolation", "."' in installs[1]


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-otel.lock"])
def test_an_image_can_be_built_of_each_lock(lock: str) -> None:
    """Either one reaches the build, and has what builds Atlas itself, which is done without an index."""
    assert not ignored(lock)
    assert re.search(r"^setuptools==", (ROOT / lock).read_text(), re.MULTILINE)


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out: the last pattern that fits it, or a folder that it is in, decides."""
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        stays = pattern.startswith("!")
        pattern = pattern.removeprefix("!")
        parts = [str(each) for each in (PurePosixPath(path), *PurePosixPath(path).parents) if str(each) != "."]
        if any(_fits(part, pattern) for part in parts):
            out = not stays
    return out


def _fits(path: str, pattern: str) -> bool:
    """`*` stays within one name, `**/` is any depth."""
    if pattern.startswith("**/"):
        return fnmatchcase(PurePosixPath(path).name, pattern[3:])
    return path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)


def test_what_is_copied_is_there_and_not_ignored(tmp_path: Path) -> None:
    """Every path that the Dockerfile copies exists and reaches the build."""
    copied: list[str] = []
    for name, value in instructions(tmp_path):
        if name == "COPY" and "--from" not in value:
            copied += value.replace("${LOCK}", "requirements.lock").split()[:-1]
    assert {"requirements.lock", "pyproject.toml", "gateway"} <= set(copied)
    for path in copied:
        assert (ROOT / path).exists(), path
        assert not ignored(path), path
    assert not ignored("config/presets.yaml"), "the package's data"
    for secret in (".env", ".git/config", "tests/conftest.py", "gateway/__pycache__/cli.cpython-312.pyc", "deploy/x"):
        assert ignored(secret), secret
