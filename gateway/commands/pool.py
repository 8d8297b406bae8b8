"""`atlas pool`: the endpoints of the replica that answers, how they do, and the switches for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.commands.client import below, connect
from gateway.commands.errors import WrongUse
from gateway.commands.parts import command, gateway_flags
from gateway.commands.terminal import DONE, FAILED, cell

if TYPE_CHECKING:
    import argparse

    from gateway.commands.parts import Commands
    from gateway.commands.terminal import Terminal

_DESCRIPTION = """Endpoints and routes of the replica that answers, and the switches for an endpoint.

  atlas pool                     endpoints, their state and figures; routes and their newest choice
  atlas pool disable ENDPOINT    send no new requests there; running ones go on
  atlas pool enable ENDPOINT     send requests there again, with every key
  atlas pool probe ENDPOINT      check its health now; exit code 1 if it cannot be asked

It needs a key with the scope admin, where there are keys. With several replicas, --url names one of them."""

_ENDPOINT_HEAD = (
    "endpoint", "state", "breaker", "running", "answers", "failures", "first token", "tok/s", "keys", "health",
)  # fmt: skip


def add(commands: Commands) -> None:
    """The command."""
    parser = command(
        commands, "pool", "endpoints, how they do, and switches for them", _run, parents=[gateway_flags()],
        description=_DESCRIPTION, usage="atlas pool [enable|disable|probe ENDPOINT] [--url URL] [--key KEY] [--json]",
    )  # fmt: skip
    parser.add_argument("action", nargs="?", choices=("enable", "disable", "probe"), help="what to do")
    parser.add_argument("endpoint", nargs="?", metavar="ENDPOINT", help="its name in the configuration")


def _run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    if arguments.action and not arguments.endpoint:
        raise WrongUse(f"the name of an endpoint must follow {arguments.action}; `atlas pool` lists them")
    with connect(arguments, terminal) as client:
        if arguments.action is None:
            found = client.get(below("pool"), "endpoints", "routes")
        else:
            found = client.post(below("pool", arguments.endpoint, arguments.action), "endpoint")
    if arguments.json:
        terminal.json(found)
    elif arguments.action is None:
        _show(found, terminal)
    else:
        terminal.table(_ENDPOINT_HEAD, [_endpoint(found)])
    return FAILED if arguments.action == "probe" and not _is_well(found) else DONE


def _is_well(endpoint: dict[str, Any]) -> bool:
    health = endpoint.get("health") or {}
    return bool(endpoint["usable"]) and health.get("last") in {None, "ok"}


def _show(found: dict[str, Any], terminal: Terminal) -> None:
    terminal.table(_ENDPOINT_HEAD, [_endpoint(each) for each in found["endpoints"]])
    terminal.say()
    rows: list[list[Any]] = []
    for route in found["routes"]:
        newest = (route["last_choices"] or [{}])[0]
        chosen = f"{newest['chosen']} ({newest['why']})" if newest else None
        rows.append([route["model"], route["strategy"], route["candidates"], chosen])
    terminal.table(("route", "strategy", "endpoints", "newest choice"), rows)


def _endpoint(found: dict[str, Any]) -> list[Any]:
    statistics, health = found["statistics"], found.get("health") or {}
    first, speed = statistics["first_token_ms"], statistics["tokens_per_s"]
    ready = sum(key["state"] == "ready" for key in found["keys"])
    return [
        found["endpoint"], "ready" if found["usable"] else found["blocked"], found["breaker"]["state"],
        statistics["in_flight"], statistics["answers"], statistics["failures"],
        None if first is None else f"{first:.0f} ms", None if speed is None else round(speed),
        f"{ready} of {len(found['keys'])}", cell(health.get("last")),
    ]  # fmt: skip
