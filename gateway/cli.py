"""The command `atlas`: what the operator types, and what is printed in answer.

It reads the configuration, binds the socket and hands both over; `gateway.app` builds what is served. Answers go to
stdout, errors to stderr. Exit codes: 0 done, 1 cannot serve here, 2 the command or the configuration is wrong,
3 (uvicorn's) the application failed to start.
"""

import argparse
import contextlib
import errno
import gc
import json
import math
import secrets
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.keys import DEFAULT_SCOPES, PEPPER_VARIABLE, expiry
from config.layers import Layer, settings_from
from config.load import load, process_environment
from config.problems import ConfigError, Loc, Problem
from config.settings import Settings
from config.show import redacted_yaml
from config.values import is_loopback
from gateway import __version__
from gateway.core.clock import SystemClock
from gateway.core.keys import digest, id_of, new_key, show_digest

if TYPE_CHECKING:
    import uvicorn

_BACKLOG = 2048
_NEWEST = """python3 -c 'import sys,json; print(json.load(sys.stdin)["data"][0]["id"])'"""


class BindError(Exception):
    """The address cannot be bound; the message says what to do."""


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command and return its exit code; argparse itself exits with 2 on a wrong command line."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments, process_environment() if environ is None else environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except BindError as error:
        print(error, file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="atlas", description="A self-hosted gateway in front of LLM providers.")
    parser.add_argument("--version", action="version", version=f"atlas {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    file = argparse.ArgumentParser(add_help=False)
    file.add_argument("--config", type=Path, metavar="FILE", help="the YAML file (default: $ATLAS_CONFIG, or none)")

    serve = commands.add_parser("serve", parents=[file], help="start the gateway")
    serve.add_argument("--host", help="the address to bind to")
    serve.add_argument("--port", type=int, help="the port to bind to; 0 takes any free one")
    serve.add_argument("--insecure", action="store_true", help="serve other machines although there are no keys")

    commands.add_parser("check", parents=[file], help="validate the configuration")
    config = commands.add_parser("config", help="look at the configuration")
    shown = config.add_subparsers(dest="config_command", required=True, metavar="COMMAND")
    shown.add_parser("show", parents=[file], help="print the effective settings, without secrets")

    keys = commands.add_parser("keys", help="make keys for clients")
    made = keys.add_subparsers(dest="keys_command", required=True, metavar="COMMAND")
    create = made.add_parser("create", help="make a key: prints it once, with the row for the file; writes nothing")
    create.add_argument("--tenant", required=True, help="whose streams the key sees")
    create.add_argument("--scopes", default=",".join(DEFAULT_SCOPES), help="what it is for (default: %(default)s)")
    create.add_argument("--id", help="your name for it (default: the id that stands in the key)")
    create.add_argument("--expires", help="90d, 12h, 52w, or a date and time (default: never)")
    create.add_argument("--json", action="store_true", help="print JSON, for scripts")
    return parser


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    match arguments.command:
        case "serve":
            insecure = arguments.insecure or None
            return _serve(load(arguments.config, environ, host=arguments.host, port=arguments.port, insecure=insecure))
        case "check":
            print(summary_text(load(arguments.config, environ)))
        case "keys":
            _create_key(arguments, environ)
        case _:
            print(redacted_yaml(load(arguments.config, environ)), end="")
    return 0


def _create_key(arguments: argparse.Namespace, environ: Mapping[str, str]) -> None:
    """Make a key and print it, the row to keep of it, and the pepper if there was none; raises ConfigError."""
    given = environ.get(PEPPER_VARIABLE)
    pepper, secret = given or secrets.token_hex(32), new_key()
    row: dict[str, Any] = {
        "id": arguments.id or id_of(secret),
        "hash": show_digest(digest(secret.encode(), pepper.encode())),
        "tenant": arguments.tenant,
        "scopes": [scope.strip() for scope in arguments.scopes.split(",")],
    }
    if arguments.expires is not None:
        row["expires"] = _expiry(arguments.expires)
    places: dict[Loc, str] = {("keys", 0, name): f"--{name}" for name in row}
    settings_from(
        [Layer(data={"keys": [row], "key_pepper": pepper}, places={**places, ("key_pepper",): PEPPER_VARIABLE})]
    )
    if arguments.json:
        print(json.dumps({"key": secret, "row": row, "pepper": None if given else pepper}))
    else:
        print(key_text(secret, row, None if given else pepper))


def _expiry(text: str) -> str:
    try:
        return expiry(text, SystemClock.now()).isoformat()
    except ValueError as error:
        raise ConfigError([Problem(where="--expires", message=str(error))]) from None


def key_text(secret: str, row: Mapping[str, Any], pepper: str | None) -> str:
    """What `atlas keys create` says; `pepper` if it was made just now."""
    members = ", ".join(f"{name}: {json.dumps(value)}" for name, value in row.items())
    lines = [
        "The key, shown this once. Whoever has it may use it:",
        f"\n  {secret}\n",
        "What to keep of it, a row of the section keys of the configuration file:",
        f"\n  - {{{members}}}",
    ]
    if pepper is not None:
        lines += [
            f"\n{PEPPER_VARIABLE} was not set, so a pepper was made. The gateway needs it at every start, and so do",
            "you for further keys. Without it no key works: keep it safe, and apart from the file.",
            f"\n  export {PEPPER_VARIABLE}={pepper}",
        ]
    return "\n".join(lines)


def _serve(settings: Settings) -> int:
    refuse_exposure(settings)
    with listen(settings.server.host, settings.server.port) as listener:
        host, port = listener.getsockname()[:2]
        server = _announcing_server(settings, startup_text(settings, base_url(host, port)))
        _tune_process(settings)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn repeats the signal once it has shut down
            server.run(sockets=[listener])
        return 0 if server.started else 1


def _tune_process(settings: Settings) -> None:
    """What belongs to the process, not to the app: where logs go, and a garbage collector that looks less often.

    Streams are freed by reference counts; the default thresholds would walk every open stream many times a second.
    """
    from gateway.telemetry.logs import configure  # noqa: PLC0415 - after uvicorn, whose logs go the same way

    configure(settings.server.log_level)
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def refuse_exposure(settings: Settings) -> None:
    """Raise ConfigError if other machines could reach a gateway that asks nobody for a key."""
    host = settings.server.host
    if not settings.keys and not settings.server.insecure and not is_loopback(host):
        message = (
            f"{host} can be reached from other machines, and no keys are configured; make one with "
            "`atlas keys create --tenant NAME`, bind to 127.0.0.1, or serve everybody with --insecure"
        )
        raise ConfigError([Problem(where="serve", loc=("server", "host"), message=message)])


def listen(host: str, port: int) -> socket.socket:
    """A listening socket: a client that comes before the application is built waits instead of being refused.

    Raises BindError.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise BindError(_why_not(error, host, port)) from error


def _why_not(error: OSError, host: str, port: int) -> str:
    if isinstance(error, socket.gaierror):
        return f"host {host!r} is not known; choose an address of this machine with --host"
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} on {host} is in use; choose another with --port"
        case errno.EACCES | errno.EPERM:
            return f"port {port} on {host} is not permitted for this user; choose one above 1023 with --port"
        case errno.EADDRNOTAVAIL:
            return f"{host} is not an address of this machine; choose another with --host"
        case _:
            return f"port {port} on {host} cannot be bound: {error.strerror}"


def _announcing_server(settings: Settings, text: str) -> "uvicorn.Server":
    """A server that prints `text` once it answers."""
    import uvicorn  # noqa: PLC0415 - `check` and `config show` start in half the time without the web framework

    from gateway.app import create  # noqa: PLC0415 - the same

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                print(text, flush=True)

    config = uvicorn.Config(
        create(settings),
        loop="uvloop",
        http="gateway.api.server:Protocol",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        proxy_headers=False,  # nothing that Atlas decides depends on a client's address
        backlog=_BACKLOG,
        timeout_graceful_shutdown=math.ceil(settings.server.drain_s),
    )
    return Announcing(config)


def base_url(host: str, port: int) -> str:
    """The URL under which this machine reaches a bound address; a wildcard address is reached over loopback."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def startup_text(settings: Settings, url: str) -> str:
    """What the operator reads once the gateway answers at `url`: what is served, what to know, what to try."""
    facts = [
        ("journal", settings.journal.kind),
        ("models", ", ".join(_models(settings)) or "none: name some under routes"),
        ("docs", f"{url}/docs"),
        ("metrics", f"{url}/metrics"),
        ("keys", f"{len(settings.keys)}" if settings.keys else "none: whoever reaches this address is served"),
        *(("note", note) for note in settings.notes),
    ]
    lines = [f"Atlas {__version__} serves {url}", "", *_table(facts), "", *_commands(settings, url)]
    return "\n".join(lines)


def summary_text(settings: Settings) -> str:
    """What `atlas check` says of settings that are valid."""
    facts = [
        ("server", f"{settings.server.host}:{settings.server.port}"),
        ("journal", settings.journal.kind),
        ("mock", "enabled" if settings.mock.enabled else "disabled"),
        *(("endpoint", f"{each.name}: {each.kind}, model {each.model}") for each in settings.endpoints),
        *(("route", f"{route.model}: {', '.join(route.endpoints)}") for route in settings.routes),
        *(("key", f"{key.id}: tenant {key.tenant}, {', '.join(key.scopes)}") for key in settings.keys),
        *(("note", note) for note in settings.notes),
    ]
    return "\n".join(["The configuration is valid.", *_table(facts)])


def _table(facts: Sequence[tuple[str, str]]) -> Iterator[str]:
    return (f"  {name:<10}{fact}" for name, fact in facts)


def _models(settings: Settings) -> Iterator[str]:
    if settings.mock.enabled:
        yield from ("mock", "mock-fast", "mock-slow")
    yield from (route.model for route in settings.routes)


def _commands(settings: Settings, url: str) -> Iterator[str]:
    """Three commands to paste into a second terminal, one after the other; none if no model has a full name."""
    model = next((model for model in _models(settings) if not model.endswith("*")), None)
    if model is None:
        return
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
    data = shlex.quote(json.dumps(body, separators=(",", ":")))
    yield "Try it in a second terminal: start a stream, then pause it while it runs, then resume it."
    curl = "curl"
    if settings.keys:
        yield "\n  export ATLAS_KEY=atl_...   # one of your keys"
        curl = 'curl -H "x-api-key: $ATLAS_KEY"'
    yield f"\n  {curl} -N {url}/v1/chat/completions -H 'content-type: application/json' -d {data} &"
    for operation in ("pause", "resume"):
        newest = f"$({curl} -s '{url}/v1/streams?limit=1' | {_NEWEST})"
        yield f"\n  {curl} -s -X POST {url}/v1/streams/{newest}/{operation}"


if __name__ == "__main__":
    sys.exit(main())
