"""The command line: exit codes, what goes where, and the text at start."""

import asyncio
import hmac
import json
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from config.load import load
from config.problems import ConfigError
from config.settings import Settings
from gateway.api.drain import Drain
from gateway.api.signals import HANDLED
from gateway.cli import main
from gateway.commands.announcement import startup_text, summary_text
from gateway.commands.binding import base_url, listen, refuse_exposure
from gateway.core.clock import SystemClock
from gateway.streams.hub import Hub


class Stub:
    """An application that asks to be stopped, once it has started, or before."""

    def __init__(self, *, started: bool = True) -> None:
        self.drain = Drain(Hub(), self, SystemClock(), 60)
        self.draining = False
        self._started = started

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        if not self._started:
            signal.raise_signal(signal.SIGTERM)
            await asyncio.Event().wait()
        await send({"type": "lifespan.startup.complete"})
        for _ in range(50):  # turns of the loop, until the server is through with its own
            await asyncio.sleep(0)
        signal.raise_signal(signal.SIGINT)
        await receive()
        await send({"type": "lifespan.shutdown.complete"})


@pytest.fixture
def _signals_restored() -> Iterator[None]:
    """A process that has served ignores signals until it is gone; the test runner goes on."""
    before = {number: signal.getsignal(number) for number in HANDLED}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, _signals_restored: None) -> list[Settings]:
    """An application that asks to be stopped as soon as it has started; gives the settings that it was built with."""
    return _served_by(Stub, monkeypatch)


def _served_by(make: Callable[[], Stub], monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    seen: list[Settings] = []

    def create(settings: Settings) -> Any:
        seen.append(settings)
        return make()

    module = ModuleType("gateway.app")
    module.create = create  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gateway.app", module)
    return seen


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`atlas --version` prints the version and exits with 0."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"], {})
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("atlas 0.")


@pytest.mark.parametrize(("argv", "listed"), [([], "start the gateway"), (["keys"], "make a key"), (["agents"], "run")])
def test_no_command(argv: list[str], listed: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Who leaves the command out is told which there are."""
    with pytest.raises(SystemExit) as caught:
        main(argv, {})
    assert caught.value.code == 2
    assert listed in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["config"], ["serve", "--port", "x"], ["keys"], ["keys", "create"]])
def test_wrong_command_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong command line exits with 2 and says how to write it, on stderr."""
    with pytest.raises(SystemExit) as caught:
        main(argv, {})
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert "usage: atlas" in captured.err
    assert captured.out == ""


def test_check_valid(capsys: pytest.CaptureFixture[str]) -> None:
    """`atlas check` sums a valid configuration up and exits with 0."""
    assert main(["check"], {"GROQ_API_KEY": "sk-secret"}) == 0
    out = capsys.readouterr().out
    assert "is valid" in out
    assert "groq/*: groq" in out
    assert "sk-secret" not in out


@pytest.mark.parametrize("command", [["check"], ["config", "show"], ["serve"]])
def test_wrong_configuration(command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command tells every problem of a wrong file on stderr and exits with 2, without a traceback."""
    file = tmp_path / "atlas.yaml"
    file.write_text("sever: {}\nstreams: {tick_s: x}\n")
    assert main([*command, "--config", str(file)], {}) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{file}:1: sever: unknown key; did you mean 'server'?" in captured.err
    assert f"{file}:2: streams.tick_s: " in captured.err
    assert "Traceback" not in captured.err


def test_config_show_is_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    """`atlas config show` prints the effective settings and no secret."""
    assert main(["config", "show"], {"OPENAI_API_KEY": "sk-secret"}) == 0
    out = capsys.readouterr().out
    assert "port: 8080" in out
    assert "sk-secret" not in out


def test_show_does_not_load_the_server() -> None:
    """`atlas config show` starts quickly: it imports neither the web framework nor the HTTP client."""
    code = (
        "import sys; from gateway.cli import main; main(['config', 'show'], {});"
        "sys.exit(', '.join({'fastapi', 'uvicorn', 'aiohttp', 'httpx', 'redis'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "\n"


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("agents: [{name: a, kind: task_aware, route: mocc-fast}]", "agents[0].route: there is no route 'mocc-fast'"),
        ("agents: [{name: a, kind: worker, route: mock, classifier: x}]", "agents[0].classifier: there is no route"),
        ("journal: {kind: redis, url: 'redis://h:99999'}", "journal.url: Port out of range"),
        (
            "endpoints: [{name: x, base_url: 'https://h', model: m, ca_file: /none.pem}]",
            "endpoint 'x': ca_file '/none.pem' cannot be used: No such file",
        ),
        ("agents: [{name: a, kind: no.such.Thing, route: mock}]", "agent 'a': 'no.such.Thing' is neither task_aware"),
        (
            """agents:
              - {name: a, kind: controller, route: mock, workers: [b]}
              - {name: b, kind: controller, route: mock, workers: [a]}""",
            "agents[0].workers: 'a' works for itself: a -> b -> a",
        ),
        ("endpoints: [{name: e, kind: openai_chatt, base_url: http://x, model: m}]", "no provider kind 'openai_chatt'"),
    ],
)
def test_check_refuses_what_serve_refuses(
    file: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`atlas check` finds what only building the gateway can tell, agents included, and `serve` says the same."""
    path = tmp_path / "atlas.yaml"
    path.write_text(file)
    answers = []
    for command in (["check"], ["serve", "--port", "0"]):
        assert main([*command, "--config", str(path)], {}) == 2
        answers.append(capsys.readouterr().err)
    assert said in answers[0]
    assert answers[0] == answers[1]


def test_check_tells_what_serve_would_refuse_without_a_flag(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An address that others reach is valid with `--insecure` only: `atlas check` says so."""
    path = tmp_path / "atlas.yaml"
    path.write_text("server: {host: 0.0.0.0}")
    assert main(["check", "--config", str(path)], {}) == 0
    assert "0.0.0.0 can be reached from other machines, and no keys are configured" in capsys.readouterr().out


def test_serve_announces_itself(served: list[Settings], capsys: pytest.CaptureFixture[str]) -> None:
    """`atlas serve` prints the address that it really serves once it has started, and exits with 0 on Ctrl-C."""
    assert main(["serve", "--port", "0"], {}) == 0
    assert served[0].server.port == 0
    out = capsys.readouterr().out
    assert "serves http://127.0.0.1:" in out
    assert "http://127.0.0.1:0" not in out


@pytest.mark.usefixtures("_signals_restored")
def test_signal_before_the_start_is_done(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A signal that comes while the application starts ends it at once, without a traceback, with exit code 0."""
    _served_by(partial(Stub, started=False), monkeypatch)
    assert main(["serve", "--port", "0"], {}) == 0
    assert capfd.readouterr() == ("", "")


def test_port_in_use(served: list[Settings], capsys: pytest.CaptureFixture[str]) -> None:
    """A port that is taken gives one clear line and exit code 1."""
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)], {}) == 1
    assert capsys.readouterr().err == f"port {port} on 127.0.0.1 is in use; choose another with --port\n"
    assert served == []


def test_address_of_another_machine(capsys: pytest.CaptureFixture[str]) -> None:
    """An address that this machine does not have is named."""
    assert main(["serve", "--host", "192.0.2.1", "--insecure"], {}) == 1
    assert "192.0.2.1 is not an address of this machine" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1"])
def test_no_exposure_without_keys(host: str, served: list[Settings], capsys: pytest.CaptureFixture[str]) -> None:
    """A gateway without keys is not opened to other machines unless the operator says so."""
    assert main(["serve", "--host", host], {}) == 2
    assert "--insecure" in capsys.readouterr().err
    assert served == []


KEY_ROW = '{id: k, hash: "hmac-sha256:' + "0" * 64 + '", tenant: a}'


def test_keys_open_the_gateway_to_others(tmp_path: Path, served: list[Settings]) -> None:
    """With keys any address is served, without --insecure."""
    file = tmp_path / "atlas.yaml"
    file.write_text(f"keys:\n  - {KEY_ROW}\n")
    command = ["serve", "--config", str(file), "--host", "0.0.0.0", "--port", "0"]
    assert main(command, {"ATLAS_KEY_PEPPER": "0123456789abcdef"}) == 0
    assert len(served) == 1


def test_keys_without_their_pepper_do_not_start(
    tmp_path: Path, served: list[Settings], capsys: pytest.CaptureFixture[str]
) -> None:
    """Keys without the pepper stop the start with exit code 2 and say what to do."""
    file = tmp_path / "atlas.yaml"
    file.write_text(f"keys:\n  - {KEY_ROW}\n")
    assert main(["serve", "--config", str(file)], {}) == 2
    assert "ATLAS_KEY_PEPPER" in capsys.readouterr().err
    assert served == []


def test_insecure_is_the_operators_word(served: list[Settings]) -> None:
    """With --insecure any address is served, and loopback needs no such word."""
    assert main(["serve", "--host", "0.0.0.0", "--port", "0", "--insecure"], {}) == 0
    assert served[0].server.allowed_hosts == ("*",)
    assert main(["serve", "--host", "0.0.0.0", "--port", "0"], {"ATLAS_SERVER__INSECURE": "true"}) == 0
    refuse_exposure(Settings())
    with pytest.raises(ConfigError):
        refuse_exposure(load(None, {}, host="0.0.0.0"))


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:1"), ("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://[::1]:1")],
)
def test_base_url(host: str, url: str) -> None:
    """The printed address can be used as it stands, also when a wildcard address was bound."""
    assert base_url(host, 1) == url


def test_listening_socket_accepts_before_the_application_runs() -> None:
    """A client that connects between bind and start is not refused."""
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname(), timeout=1):
        pass


def commands(text: str) -> list[list[str]]:
    """The printed commands, as a shell would split them."""
    return [shlex.split(line) for line in text.splitlines() if line.startswith("  curl")]


def test_startup_text_says_what_is_served() -> None:
    """The text at start names address, journal, models, notes, docs and metrics, and is no JSON."""
    settings = load(None, {"GROQ_API_KEY": "sk-secret", "GEMINI_API_KEY": "k"})
    text = startup_text(settings, "http://127.0.0.1:8080")
    for said in ("http://127.0.0.1:8080\n", "memory", "mock", "groq/*", "GEMINI_API_KEY", "/docs", "/metrics"):
        assert said in text
    assert "sk-secret" not in text
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)


def test_startup_text_holds_three_commands() -> None:
    """The commands at start are a streamed completion of the mock, a pause and a resume of the newest stream."""
    url = "http://127.0.0.1:9"
    text = startup_text(Settings(), url)
    start, pause, resume = commands(text)
    assert json.loads(start[start.index("-d") + 1]) == {
        "model": "mock",
        "stream": True,
        "messages": [{"role": "user", "content": "Hello"}],
    }
    assert (
        f"""curl -N {url}/v1/chat/completions -H 'content-type: application/json' """
        """-d '{"model":"mock","stream":true,"messages":[{"role":"user","content":"Hello"}]}'"""
    ) in text
    assert pause[-1].endswith("/pause")
    assert resume[-1].endswith("/resume")


def test_commands_find_the_newest_stream(tmp_path: Path) -> None:
    """Pasted into a shell, the pause command posts to the id that the list of streams gives first."""
    curl = tmp_path / "curl"
    curl.write_text('#!/bin/sh\ncase "$*" in *limit=1*) echo \'{"data":[{"id":"str_abc"}]}\';; *) echo "$@";; esac\n')
    curl.chmod(0o755)
    line = next(line for line in startup_text(Settings(), "http://h:1").splitlines() if line.endswith("/pause"))
    environ = {"PATH": f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True, env=environ)
    assert done.stdout == "-s -X POST http://h:1/v1/streams/str_abc/pause\n"


def test_commands_without_mock_use_a_route() -> None:
    """With the mock switched off the commands use a model that exists, quoted for the shell, or are left out."""
    endpoint = {"name": "a", "preset": "openai", "model": "m"}
    routes = [{"model": "x/*", "endpoints": ["a"]}, {"model": "it's", "endpoints": ["a"]}]
    off = {"enabled": False}
    start = commands(startup_text(Settings(mock=off, endpoints=[endpoint], routes=routes), "http://h:1"))[0]
    assert json.loads(start[start.index("-d") + 1])["model"] == "it's"
    assert commands(startup_text(Settings(mock=off), "http://h:1")) == []


def test_summary_names_everything() -> None:
    """The summary of a valid configuration lists endpoints and routes."""
    text = summary_text(load(None, {"XAI_API_KEY": "k"}))
    assert "xai: openai_chat, model *" in text
    assert "xai/*: xai" in text


def test_a_key_is_made_without_gateway_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`atlas keys create` prints the key once, its row and the pepper that it made, and writes nothing."""
    monkeypatch.chdir(tmp_path)
    assert main(["keys", "create", "--tenant", "a", "--expires", "90d"], {}) == 0
    out = capsys.readouterr().out
    (secret,) = re.findall(r"^  (atl_\w{8}_\w{32})$", out, re.MULTILINE)
    assert out.count(secret) == 1
    assert f'- {{id: "{secret[4:12]}", hash: "hmac-sha256:' in out
    assert 'tenant: "a", scopes: ["infer", "control"], expires: "20' in out
    (pepper,) = re.findall(r"^  export ATLAS_KEY_PEPPER=([0-9a-f]{64})$", out, re.MULTILINE)
    assert hmac.new(pepper.encode(), secret.encode(), "sha256").hexdigest() in out
    assert list(tmp_path.iterdir()) == []


def test_a_pepper_that_is_there_is_used_and_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """With a pepper in the environment none is made, and it is not printed."""
    pepper = "canary-pepper-of-the-tests"
    assert main(["keys", "create", "--tenant", "a"], {"ATLAS_KEY_PEPPER": pepper}) == 0
    out = capsys.readouterr().out
    assert pepper not in out
    assert "export" not in out


def test_a_key_for_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json everything that was made is one object on stdout."""
    options = ["--tenant", "a", "--id", "ci", "--scopes", "metrics, infer", "--json"]
    assert main(["keys", "create", *options], {}) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["key"].startswith("atl_")
    assert (made["row"]["id"], made["row"]["tenant"], made["row"]["scopes"]) == ("ci", "a", ["metrics", "infer"])
    assert len(made["pepper"]) == 64


@pytest.mark.parametrize(
    ("options", "environ", "said"),
    [
        (["--tenant", "a b"], {}, "--tenant: "),
        (["--tenant", "a", "--id", "x/y"], {}, "--id: "),
        (["--tenant", "a", "--scopes", "infer,root"], {}, "--scopes: keys[0].scopes[1]: must be 'infer'"),
        (["--tenant", "a", "--scopes", ""], {}, "--scopes: "),
        (["--tenant", "a", "--expires", "soon"], {}, "--expires: must be like 90d"),
        (["--tenant", "a", "--expires", "2020-01-01"], {}, "--expires: lies in the past"),
        (["--tenant", "a"], {"ATLAS_KEY_PEPPER": "short"}, "ATLAS_KEY_PEPPER: "),
    ],
)
def test_wrong_wishes_for_a_key(
    options: list[str], environ: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key that the gateway would refuse is not made: exit code 2, one line with the flag at fault, no secret."""
    assert main(["keys", "create", *options], environ) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(said)
    assert "atl_" not in captured.err


def test_commands_carry_a_key_where_one_is_needed(tmp_path: Path) -> None:
    """With keys the printed commands send one, from a variable that the reader fills."""
    row = {"id": "k", "hash": "hmac-sha256:" + "0" * 64, "tenant": "a"}
    text = startup_text(Settings(keys=[row], key_pepper="0123456789abcdef"), "http://h:1")
    assert "export ATLAS_KEY=" in text
    found = commands(text)
    assert len(found) == 3
    assert all(command[1:3] == ["-H", "x-api-key: $ATLAS_KEY"] for command in found)
    assert "keys      1" in text
    assert "keys      none" in startup_text(Settings(), "http://h:1")
