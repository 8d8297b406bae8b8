"""SIGHUP: a new configuration takes the place of the old one while streams run, or changes nothing at all."""

import fcntl
import gc
import json
import os
import signal
import ssl
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from gateway.reload import key_changes
from tests.e2e.agent_house import team
from tests.e2e.house import ask, house, run, sid_of
from tests.support.chaos import ChaosProvider, Gate, Plan, truth
from tests.support.gateway_process import GatewayProcess
from tests.support.keys import PEPPER, keyed, made
from tests.support.server import atlas_config, atlas_settings
from tests.support.signals import eventually


def test_running_streams_finish_where_they_began() -> None:
    """A reload sends new requests to the new endpoint; a stream of before goes on at the old one, to its end."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(tokens=20, seed=1, gate=gate)) as it, ChaosProvider(Plan(tokens=3, seed=2)) as other:
            gate.allow(2)
            async with it.chat() as answer:
                await answer.until_frames(2)
                assert it.app.reload.apply(atlas_settings(other)) == []
                assert (await it.ask()).json["choices"][0]["message"]["content"] == truth(2, 3)
                gate.open()
                await answer.read()
            assert (await it.call("GET", f"/v1/streams/{sid_of(answer)}/text")).json["text"] == truth(1, 20)
            assert (len(it.up.requests), len(other.requests)) == (1, 1)

    run(scenario())


def test_everything_that_is_configured_is_replaced() -> None:
    """Routes, keys, scopes, budgets, endpoints of the pool and agents are those of the new configuration."""

    async def scenario() -> None:
        old, new = made("a", "infer", "admin"), made("b", "infer", "admin", budgets=[{"tokens": 1, "per": "day"}])
        async with house(**keyed(old), **team()) as it:
            assert (await it.ask(old.headers())).status == 200
            rows = {"endpoints": [{"name": "second", "kind": "mock", "model": "mock-fast"}],
                    "routes": [{"model": "fresh", "endpoints": ["second"]}]}  # fmt: skip
            agents = [{"name": "sage", "kind": "task_aware", "route": "fresh"}]
            it.app.reload.apply(atlas_settings(**keyed(new), **rows, agents=agents))
            assert (await it.ask(old.headers())).status == 401
            assert (await it.ask(new.headers())).status == 404
            assert (await it.ask(new.headers(), model="fresh")).status == 429
            models = (await it.call("GET", "/v1/models", new.headers())).json["data"]
            assert {"fresh", "agent/sage"} <= {each["id"] for each in models}
            assert "agent/team" not in {each["id"] for each in models}
            pool = (await it.call("GET", "/v1/pool", new.headers())).json
            assert "up" not in {each["endpoint"] for each in pool["endpoints"]}
            listed = (await it.call("GET", "/v1/agents", new.headers())).json["data"]
            assert [each["name"] for each in listed] == ["sage"]

    run(scenario())


def test_what_is_gone_is_not_measured() -> None:
    """An endpoint that a reload took away has no state left that an alert could wait for."""

    async def scenario() -> None:
        async with house() as it:
            await it.ask()
            assert 'atlas_endpoint_up{endpoint="up"} 1.0' in (await it.call("GET", "/metrics")).body.decode()
            it.app.reload.apply(atlas_settings())
            assert 'atlas_endpoint_up{endpoint="up"}' not in (await it.call("GET", "/metrics")).body.decode()

    run(scenario())


def test_revoked_keys_stay_revoked() -> None:
    """A key that was revoked is not let in again by a reload of the file in which it still stands."""

    async def scenario() -> None:
        one, admin = made("a"), made("ops", "admin")
        async with house(**keyed(one, admin)) as it:
            assert (await it.call("POST", f"/v1/keys/{one.row['id']}/revoke", admin.headers())).status == 200
            it.app.reload.apply(atlas_settings(it.up, **keyed(one, admin)))
            assert (await it.ask(one.headers())).status == 401

    run(scenario())


@pytest.mark.parametrize(
    "sections",
    [
        {"endpoints": [{"name": "x", "kind": "nonsense", "base_url": "http://h", "model": "m"}]},
        {"agents": [{"name": "sage", "kind": "task_aware", "route": "nowhere"}]},
        {"agents": [{"name": "sage", "kind": "no.such.Class", "route": "mock"}]},
    ],
)
def test_what_cannot_be_built_changes_nothing(sections: dict[str, Any]) -> None:
    """Settings that are valid and cannot be built leave every part as it was."""

    async def scenario() -> None:
        key = made("a", "infer", "admin")
        async with house(**keyed(key)) as it:
            before = (await it.call("GET", "/v1/models", key.headers())).json
            with pytest.raises(ValueError, match=r"nonsense|nowhere|no\.such"):
                it.app.reload.apply(atlas_settings(**sections))
            assert (await it.call("GET", "/v1/models", key.headers())).json == before
            assert (await it.ask(key.headers())).status == 200
            assert (await it.ask()).status == 401

    run(scenario())


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("class Sage(:", r"SyntaxError: invalid syntax"),
        ("{}['missing']", r"KeyError: 'missing'"),
        ("def Sage(profile): raise RuntimeError('no luck')", r"RuntimeError: no luck"),
        ("class Own(Exception): ...\nraise Own('of its own')", r"Own: of its own"),
    ],
)
def test_an_agents_class_with_a_slip_in_it(
    source: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever an operator's own code raises, the reload is refused: it ended the process and all of its streams."""
    module = f"slip_{abs(hash(source))}"
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)

    async def scenario() -> None:
        async with house() as it:
            with pytest.raises(ValueError, match=f"agent 'sage': '{module}.Sage' .* \\({said}"):
                it.app.reload.apply(
                    atlas_settings(agents=[{"name": "sage", "kind": f"{module}.Sage", "route": "mock"}])
                )
            assert (await it.ask()).status == 200

    run(scenario())


def test_certificates_are_read_once_for_all_endpoints() -> None:
    """A reload of many https endpoints does not hold up every stream while the same certificates are read for each."""
    names = [f"e{number}" for number in range(20)]
    rows: list[dict[str, Any]] = [
        {"name": name, "base_url": "https://api.example.com/v1", "keys": ["k"], "model": "m"} for name in names
    ]
    settings = atlas_settings(endpoints=rows, routes=[{"model": "m", "endpoints": names}])

    async def scenario() -> None:
        async with house() as it:
            before = _contexts()
            it.app.reload.apply(settings)
            assert _contexts() - before < 3  # a library may have one of its own

    run(scenario())


def _contexts() -> int:
    return sum(isinstance(each, ssl.SSLContext) for each in gc.get_objects())


def test_health_checks_are_those_of_the_new_endpoints() -> None:
    """After a reload the new endpoint is checked and the old one is left alone, and nothing outlives the app."""

    async def scenario() -> None:
        often = {"health": {"interval_s": 0.02}}
        async with house(endpoint=often) as it, ChaosProvider() as other:
            await eventually(lambda: bool(it.up.others), what="a check of the old endpoint")
            it.app.reload.apply(atlas_settings(other, endpoint=often))
            await eventually(lambda: bool(other.others), what="a check of the new endpoint")
            seen = len(it.up.others)
            there = len(other.others)
            await eventually(lambda: len(other.others) > there + 2, what="more checks")
            assert len(it.up.others) <= seen + 1

    run(scenario())


def test_many_reloads_leave_nothing_behind() -> None:
    """Connections of replaced endpoints are closed: after many reloads each provider has as few as after one."""

    async def scenario() -> None:
        async with house() as it:
            for _ in range(10):
                assert (await it.ask()).status == 200
                it.app.reload.apply(atlas_settings(it.up))
            await eventually(lambda: it.up.open == 0, what="the connections to close")

    run(scenario())


def test_what_is_bound_at_the_start_is_told() -> None:
    """Each reload names the members that wait for the next start, until the file says again what was bound."""

    async def scenario() -> None:
        async with house() as it:
            old = it.app.reload.settings
            new = atlas_settings(it.up, server={"port": 1234, "log_level": "debug"}, streams={"pause_max_s": 5})
            for _ in range(2):
                assert it.app.reload.apply(new) == ["server.port", "streams.pause_max_s"]
            assert it.app.reload.apply(old) == []

    run(scenario())


@pytest.mark.parametrize("member", ["max_streams", "max_connections", "queue_s", "max_loop_s", "requests_per_s"])
def test_bounds_of_the_process_wait_for_the_next_start(member: str) -> None:
    """An operator who changes what the gate was built with is told by name that it is not in force yet."""

    async def scenario() -> None:
        async with house() as it:
            waiting = it.app.reload.apply(atlas_settings(it.up, server={member: 7}))
            assert f"server.{member}" in waiting

    run(scenario())


def test_a_file_without_keys_lets_nobody_in() -> None:
    """A file that was emptied, or is just being written, does not open a gateway that asked for keys."""

    async def scenario() -> None:
        key = made("a", "infer")
        async with house(**keyed(key)) as it:
            with pytest.raises(ValueError, match="keys: all of them are gone"):
                it.app.reload.apply(atlas_settings(it.up))
            assert (await it.ask()).status == 401
            assert (await it.ask(key.headers())).status == 200

    run(scenario())


def test_changes_of_keys_are_told_apart() -> None:
    """Of two configurations it is known which keys came, went, or are another thing than before."""
    one, two, three = (atlas_settings(**keyed(each)) for each in (made("a"), made("b"), made("c", "infer")))
    names = [settings.keys[0].id for settings in (one, two, three)]
    rows = [settings.keys[0] for settings in (one, two, three)]
    before = one.model_copy(update={"keys": (rows[0], rows[1])})
    after = one.model_copy(update={"keys": (rows[1].model_copy(update={"scopes": ("admin",)}), rows[2])})
    assert set(key_changes(before, after)) == {
        ("key.remove", names[0]), ("key.change", names[1]), ("key.add", names[2]),
    }  # fmt: skip
    assert list(key_changes(before, before)) == []


def rewrite(folder: Path, config: Any) -> None:
    """The file of a gateway that was started in `folder`."""
    (folder / "atlas.json").write_text(config if isinstance(config, str) else json.dumps(config))


def test_a_process_reloads(tmp_path: Path) -> None:
    """SIGHUP reads the file again: what is valid is in force at once, what is not is logged and changes nothing."""

    async def scenario() -> None:
        key, tls = made("a"), {"name": "x", "base_url": "https://h", "model": "m", "ca_file": "/nowhere.pem"}
        async with ChaosProvider(Plan(tokens=3)) as up, ChaosProvider(Plan(tokens=3)) as other:
            config = atlas_config(up, keys=[key.row])
            environ = {"ATLAS_KEY_PEPPER": PEPPER}
            async with GatewayProcess(config, tmp_path, environ=environ) as gateway, gateway.client() as client:
                await gateway.logged(f"serves {gateway.base_url}: 1 endpoints, 1 routes, 1 keys")
                newer = made("b")
                rewrite(tmp_path, atlas_config(other, keys=[key.row, newer.row], server={"drain_s": 1}))
                gateway.signal(signal.SIGHUP)
                await gateway.logged("configuration reloaded: 1 endpoints, 1 routes, 2 keys")
                await gateway.logged(f'"message":"key.add","result":"done","subject":"{newer.row["id"]}"')
                await gateway.logged("these take effect at the next start: server.drain_s")
                answer = await client.request("POST", "/v1/chat/completions", key.headers(), json=ask(stream=False))
                assert (answer.status, len(up.requests), len(other.requests)) == (200, 0, 1)
                for wrong, said in (
                    ("endpoints: [{", "atlas.json:1"),
                    (json.dumps({"routes": [{"model": "m", "endpoints": ["none"]}]}), "there is no endpoint 'none'"),
                    (json.dumps({"server": {"host": "0.0.0.0"}}), "no keys are configured"),
                    (json.dumps({"endpoints": [tls], "keys": [key.row]}), "No such file"),
                    ("", "keys: all of them are gone"),
                ):
                    rewrite(tmp_path, wrong)
                    gateway.signal(signal.SIGHUP)
                    await gateway.logged(said)
                    answer = await client.request("POST", "/v1/chat/completions", key.headers(), json=ask(stream=False))
                    assert answer.status == 200
                assert gateway.log.count("was not reloaded, the one before stays in force") == 5
                assert "Traceback" not in gateway.log
                assert PEPPER not in gateway.log
                assert await gateway.stop() == 0

    run(scenario())


def test_a_signal_before_the_start_ends_nothing(tmp_path: Path) -> None:
    """A SIGHUP that comes while the gateway starts does not kill it."""

    async def scenario() -> None:
        gateway = GatewayProcess({}, tmp_path)
        gateway.spawn()
        try:
            await eventually(lambda: _handles(gateway.pid), what="the handler")
            gateway.signal(signal.SIGHUP)
            await eventually(lambda: "serves http" in gateway.output or not gateway.running, what="the start")
            assert gateway.running, gateway.log
        finally:
            gateway.kill()

    run(scenario())


def test_a_terminal_that_is_closed_ends_its_gateway(tmp_path: Path) -> None:
    """A gateway that was started on a terminal does not outlive it, although SIGHUP is a reload elsewhere."""
    master, slave = os.openpty()

    def own_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    command = [str(Path(sys.executable).with_name("atlas")), "serve", "--port", "0"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, stdin=slave, stdout=slave, stderr=slave,
        start_new_session=True, preexec_fn=own_terminal,  # noqa: PLW1509  no other thread runs yet
    )  # fmt: skip
    os.close(slave)
    try:
        seen = b""
        while b"serves http" not in seen:
            seen += os.read(master, 4096)
        os.close(master)
        process.wait(15)  # its exit code is nobody's concern: there is nothing left to write to
    finally:
        process.kill()
        process.wait()


def _handles(pid: int) -> bool:
    """Whether the process has a handler for SIGHUP."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) & 1 << signal.SIGHUP - 1)
