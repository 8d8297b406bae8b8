"""Layers together: file, environment, flags, vendors, and how problems are told."""

from pathlib import Path

import pytest

from config.load import load
from config.problems import ConfigError
from config.settings import Settings

EXAMPLE = Path(__file__).parents[3] / "config" / "example.yaml"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file to write to, named as an operator would name it."""
    monkeypatch.chdir(tmp_path)
    return Path("atlas.yaml")


def problems(path: Path | None, environ: dict[str, str] | None = None) -> list[str]:
    """Everything that is said about a configuration that cannot be used."""
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {})
    return str(caught.value).splitlines()


def test_nothing_gives_the_defaults() -> None:
    """Without file, environment and flags the defaults hold."""
    assert load(None, {}).model_dump() == Settings().model_dump()


def test_precedence(file: Path) -> None:
    """Flags win over the environment, the environment over the file, the file over the defaults."""
    file.write_text("server: {host: 127.0.0.2, port: 1, drain_s: 2, heartbeat_s: 3}")
    settings = load(file, {"ATLAS_SERVER__PORT": "10", "ATLAS_SERVER__DRAIN_S": "20"}, port=100)
    server = settings.server
    assert (server.port, server.drain_s, server.heartbeat_s, server.host) == (100, 20.0, 3.0, "127.0.0.2")
    assert server.log_level == "info"


def test_flag_reaches_defaults_that_depend_on_it() -> None:
    """`--host 0.0.0.0` also opens the list of host names, with a note."""
    settings = load(None, {}, host="0.0.0.0")
    assert settings.server.allowed_hosts == ("*",)
    assert any("allowed_hosts" in note for note in settings.notes)


def test_file_by_environment(file: Path) -> None:
    """ATLAS_CONFIG names the file, and --config wins over it."""
    file.write_text("server: {port: 1}")
    Path("other.yaml").write_text("server: {port: 2}")
    assert load(None, {"ATLAS_CONFIG": "atlas.yaml"}).server.port == 1
    assert load(Path("other.yaml"), {"ATLAS_CONFIG": "atlas.yaml"}).server.port == 2


def test_every_problem_with_its_line(file: Path) -> None:
    """All problems are told at once, each with its line, its place and what was meant."""
    file.write_text(
        "server: {port: 80800}\n"
        "endpoints:\n"
        "  - name: a\n"
        "    base_ur: https://h/v1\n"
        "    preset: openai\n"
        "    model: m\n"
        "    keys: ['${NOPE}']\n"
        "  - name: b\n"
        "    preset: openai\n"
        "routes:\n"
        "  - model: r\n"
        "    endpoints: [a]\n"
        "    fallback: {mid_stream: sometimes}\n"
        "jornal: {}\n"
    )
    assert problems(file) == [
        "atlas.yaml:7: endpoints[0].keys[0]: the environment variable NOPE is not set",
        "atlas.yaml:1: server.port: must be less than or equal to 65535; got '80800'",
        "atlas.yaml:4: endpoints[0].base_ur: unknown key; did you mean 'base_url'?",
        "atlas.yaml:8: endpoints[1].model: is required",
        "atlas.yaml:13: routes[0].fallback.mid_stream: must be 'off', 'safe' or 'continue'; got 'sometimes'",
        "atlas.yaml:14: jornal: unknown key; did you mean 'journal'?",
    ]


def test_contradiction_with_its_line(file: Path) -> None:
    """A route to an endpoint that does not exist is told with the line of the route's entry."""
    file.write_text("mock: {}\nroutes:\n  - model: r\n    endpoints:\n      - gpt\n")
    assert problems(file) == ["atlas.yaml:5: routes[0].endpoints[0]: there is no endpoint 'gpt'"]


def test_redis_without_a_url(file: Path) -> None:
    """A redis journal that nobody says the address of is refused where it stands."""
    file.write_text("journal: {kind: redis}")
    assert problems(file) == [
        "atlas.yaml:1: journal.kind: redis needs a url, here or in the environment variable REDIS_URL"
    ]


def test_memory_with_the_members_of_redis(file: Path) -> None:
    """Members that mean nothing to the memory journal are refused rather than ignored."""
    file.write_text("journal:\n  kind: memory\n  degrade: true\n")
    said = "atlas.yaml:3: journal.degrade: belongs to the redis journal; set kind: redis, or leave it out"
    assert problems(file) == [said]


def test_secret_in_the_wrong_place_is_not_repeated(file: Path) -> None:
    """A message never holds what came out of a variable of the file."""
    file.write_text("server: {port: '${KEY}', log_level: '${KEY}'}\nendpoints: [{name: a, model: m, keys: '${KEY}'}]")
    assert not any("sk-secret" in line for line in problems(file, {"KEY": "sk-secret"}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b", "atlas.yaml:1: must be a mapping of sections"),
        ("a", "atlas.yaml:1: must be a mapping of sections"),
        ("server: 5", "atlas.yaml:1: server: must be a section, with members of its own; got '5'"),
    ],
)
def test_wrong_shape(file: Path, text: str, said: str) -> None:
    """A file of another shape is refused in words."""
    file.write_text(text)
    assert problems(file) == [said]


def test_unreadable_file(file: Path) -> None:
    """A file that is not there, or not text, is a problem with its name."""
    assert problems(file) == ["atlas.yaml: cannot be read: No such file or directory"]
    file.write_bytes(b"\xff\xfe")
    assert problems(file) == ["atlas.yaml: is not UTF-8 text"]


def test_empty_file_is_valid(file: Path) -> None:
    """An empty file means the defaults."""
    file.write_text("")
    assert load(file, {}).model_dump() == Settings().model_dump()


def test_numbers_by_environment_and_lists_as_json() -> None:
    """Every member can be set by the environment; lists and sections are JSON."""
    settings = load(
        None,
        {
            "ATLAS_SERVER": '{"port": 9, "cors_origins": ["https://a"]}',
            "ATLAS_SERVER__ALLOWED_HOSTS": '["a", "b"]',
            "ATLAS_MOCK__ENABLED": "false",
            "ATLAS_SERVER__MAX_BODY": "1MiB",
            "ATLAS_STREAMS__TICK_S": "",
        },
    )
    server = settings.server
    assert (server.port, server.cors_origins, server.allowed_hosts) == (9, ("https://a",), ("a", "b"))
    assert (server.max_body, settings.mock.enabled, settings.streams.tick_s) == (2**20, False, 0.25)


def test_endpoints_by_environment_replace_the_vendors() -> None:
    """Whoever names endpoints in the environment gets those and no others."""
    settings = load(
        None,
        {
            "OPENAI_API_KEY": "k",
            "ATLAS_ENDPOINTS": '[{"name": "a", "preset": "groq", "keys": ["${X}"], "model": "m"}]',
        },
    )
    assert [endpoint.name for endpoint in settings.endpoints] == ["a"]
    assert settings.endpoints[0].keys[0].get_secret_value() == "${X}"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("ATLAS_SEVER__PORT", "1", "ATLAS_SEVER__PORT: sever: unknown key; did you mean 'server'?"),
        ("ATLAS_SERVER__PROT", "1", "ATLAS_SERVER__PROT: server.prot: unknown key; did you mean 'port'?"),
        ("ATLAS_SERVER__PORT", "x", "must be a whole number; got 'x'"),
        ("ATLAS_PORT", "1", "ATLAS_PORT: unknown setting; did you mean 'ATLAS_SERVER__PORT'?"),
        ("ATLAS_CONFG", "f", "ATLAS_CONFG: unknown setting; did you mean 'ATLAS_CONFIG'?"),
        ("ATLAS_ENDPOINTS", "[", "ATLAS_ENDPOINTS: not valid YAML"),
        ("ATLAS_ENDPOINTS", "x", "ATLAS_ENDPOINTS: endpoints: must be a list"),
        ("ATLAS_SERVER__PORT__X", "1", "ATLAS_SERVER__PORT__X: server.port: must be a valid integer"),
    ],
)
def test_slips_in_the_environment(name: str, text: str, said: str) -> None:
    """A variable that looks like a setting and is none is refused with its name."""
    assert any(said in line for line in problems(None, {name: text}))


def test_member_of_a_value() -> None:
    """A variable below one that holds a plain value is refused, not lost."""
    environ = {"ATLAS_SERVER__PORT": "1", "ATLAS_SERVER__PORT__X": "1"}
    assert problems(None, environ) == ["ATLAS_SERVER__PORT__X: server.port.x: port is a value, it has no members"]


def test_names_that_are_no_settings_are_left_alone() -> None:
    """Reserved names, other programs' variables and Kubernetes' service variables do not stop the start."""
    environ = {
        "ATLAS_URL": "http://x",
        "ATLAS_RECORDINGS": "x",
        "ATLAS_KEY": "x",
        "ATLAS_PORT": "tcp://10.0.0.1:8080",
        "ATLAS_PORT_8080_TCP_ADDR": "10.0.0.1",
        "ATLAS_SERVICE_HOST": "10.0.0.1",
        "PATH": "x",
    }
    assert load(None, environ).model_dump() == Settings().model_dump()


def test_example_is_valid() -> None:
    """The example file validates with its variables set, and without them names each one that is missing."""
    settings = load(EXAMPLE, {"OPENAI_API_KEY": "a", "GROQ_API_KEY": "b"})
    assert [route.model for route in settings.routes] == ["smart", "local/*"]
    assert settings.notes == ("no route names these endpoints: gpt-azure, llama-local",)
    said = problems(EXAMPLE)
    assert len(said) == 2
    assert all("is not set" in line for line in said)


def test_example_states_the_defaults() -> None:
    """What the example calls the default is the default."""
    settings = load(EXAMPLE, {"OPENAI_API_KEY": "a", "GROQ_API_KEY": "b"})
    plain = Settings()
    for section in ("server", "journal", "mock", "streams", "keys", "agents"):
        assert getattr(settings, section) == getattr(plain, section)
    assert settings.endpoints[0].timeouts == type(settings.endpoints[0].timeouts)()


def test_redis_url_fills_the_journal(file: Path) -> None:
    """REDIS_URL makes the journal a shared one, unless the file chose memory or names another address."""
    environ = {"REDIS_URL": "redis://h"}
    assert (load(None, environ).journal.kind, load(None, environ).journal.url) == ("redis", "redis://h")
    file.write_text("journal: {kind: memory}")
    assert load(file, environ).journal.url is None
    file.write_text("journal: {kind: redis, url: 'redis://other'}")
    assert load(file, environ).journal.url == "redis://other"


def test_redis_url_that_is_none(file: Path) -> None:
    """What is no address of a Redis is refused by the variable's name, and is not repeated: it may hold a password."""
    file.write_text("mock: {}")
    said = problems(file, {"REDIS_URL": "http://user:secret@h"})
    assert len(said) == 1
    assert said[0].startswith("REDIS_URL: journal.url: must begin with redis://")
    assert "secret" not in said[0]
