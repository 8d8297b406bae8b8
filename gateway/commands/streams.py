"""`atlas streams`: who streams what, and the hands on it: list, look at, follow, pause, resume, cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.commands.client import below, connect
from gateway.commands.errors import Refused, WrongUse
from gateway.commands.follow import Told, follow, patient
from gateway.commands.parts import command, gateway_flags, group
from gateway.commands.terminal import DONE, FAILED, NOTHING, ago, cell, one_line
from gateway.core.clock import SystemClock

if TYPE_CHECKING:
    import argparse

    from gateway.commands.client import Client
    from gateway.commands.parts import Commands
    from gateway.commands.terminal import Terminal

STATES = ("queued", "running", "paused", "completed", "incomplete", "cancelled", "failed")
OPEN = frozenset({"queued", "running", "paused"})
PAGE = 100

_TAIL = """Print a stream's text as it comes, from its beginning or from a cursor, until the stream ends.

Lost connections and restarts of the gateway are survived: it goes on where it was. Events other than text
go to stderr. Exit codes: 0 the stream completed, 1 it ended in any other way, 3 the gateway was gone too long."""


def add(commands: Commands) -> None:
    """The commands."""
    parser = command(commands, "streams", "look at streams, and pause, resume or cancel them")
    below_it, flags = group(parser, "streams_command"), [gateway_flags()]
    listing = command(below_it, "ls", "list the newest streams", _list, parents=flags)
    listing.add_argument("--state", choices=STATES, help="only those in this state", metavar="STATE")
    listing.add_argument("--limit", type=int, default=20, metavar="N", help="at most so many (default: %(default)s)")
    show = command(below_it, "show", "everything known of one stream", _show, parents=flags)
    tail = command(below_it, "tail", "follow a stream as it is written", _tail, parents=flags, description=_TAIL)
    tail.add_argument("--after", metavar="CURSOR", help="only what comes after this event id, as in --json")
    tail.add_argument("--quiet", action="store_true", help="the text alone, nothing of the other events")
    changes = [
        command(below_it, name, summary, _control, parents=flags)
        for name, summary in (
            ("pause", "hold streams: nothing further is served until they are resumed"),
            ("resume", "serve what was held back, and go on"),
            ("cancel", "end streams, and stop their providers"),
        )
    ]
    for one in (show, tail):
        one.add_argument("stream", metavar="STREAM", help="its id, or as much of its beginning as is unique")
    for one in changes:
        one.add_argument(
            "streams", metavar="STREAM", nargs="+", help="ids, or as much of their beginnings as is unique"
        )
        one.add_argument("--reason", help="why, for its log and whoever looks at it")


def _list(arguments: argparse.Namespace, terminal: Terminal) -> int:
    if arguments.limit < 1:
        raise WrongUse(f"--limit must be at least 1, got {arguments.limit}")
    with connect(arguments, terminal) as client:
        found = _newest(client, arguments.limit, arguments.state)
    if arguments.json:
        terminal.json(found)
    elif found:
        now = SystemClock.now()
        terminal.table(_HEAD, [_row(each, now) for each in found])
    else:
        whose = " of this key's tenant" if client.shows_key else ""
        terminal.complain(
            f"There are no streams{whose}" + (f" in the state {arguments.state}." if arguments.state else ".")
        )
    return DONE


_HEAD = ("stream", "state", "age", "model", "endpoint", "tokens", "tok/s", "usd", "readers", "notable")
"""The foremost first: a narrow terminal shows no more than fits."""


def _newest(client: Client, limit: int, state: str | None) -> list[dict[str, Any]]:
    """So many streams, page by page."""
    found: list[dict[str, Any]] = []
    after: str | None = None
    while len(found) < limit:
        page = client.get(below("streams"), "data", state=state, limit=min(limit - len(found), PAGE), after=after)
        found += page["data"]
        if not page["data"] or not page.get("has_more"):
            break
        after = page["data"][-1]["id"]
    return found


def _row(stream: dict[str, Any], now: float) -> list[Any]:
    usage, metrics = stream.get("usage") or {}, stream.get("metrics") or {}
    legs = stream.get("legs") or []
    speed = metrics.get("tokens_per_s")
    return [
        stream["id"], _state(stream), ago(now - stream["created"]), stream["model"],
        legs[-1]["endpoint"] if legs else None, usage.get("output_tokens"), None if speed is None else round(speed),
        stream.get("cost_usd"), stream["readers"], _notable(stream),
    ]  # fmt: skip


def _state(stream: dict[str, Any]) -> str:
    state = str(stream["state"]) + (" (recovering)" if stream.get("recovering") else "")
    return state if not stream.get("reason") else f"{state}: {stream['reason']}"


def _notable(stream: dict[str, Any]) -> str:
    """What is out of the ordinary in a stream's life."""
    metrics, legs = stream.get("metrics") or {}, stream.get("legs") or []
    counted = (
        (len(legs) - 1, "continuation"), (metrics.get("stalls") or 0, "stall"),
        (metrics.get("reattaches") or 0, "reattach"),
    )  # fmt: skip
    return ", ".join(f"{count} {name}{'' if count == 1 else 'es' if name.endswith('ch') else 's'}"
                     for count, name in counted if count > 0)  # fmt: skip


def _show(arguments: argparse.Namespace, terminal: Terminal) -> int:
    with connect(arguments, terminal) as client:
        found = client.get(below("streams", full_id(client, arguments.stream)), "id", "state")
    if arguments.json:
        terminal.json(found)
    else:
        _describe(found, terminal)
    return DONE


def _describe(stream: dict[str, Any], terminal: Terminal) -> None:
    now, metrics = SystemClock.now(), stream.get("metrics") or {}
    usage, error, paused = stream.get("usage") or {}, stream.get("error") or {}, stream.get("paused_since")
    tokens = (f"{cell(usage.get('input_tokens'))} in, {cell(usage.get('output_tokens'))} out"
              + (" (estimated)" if usage.get("estimated") else ""))  # fmt: skip
    gaps = metrics.get("inter_token_ms") or {}
    choice = stream.get("selection") or {}
    terminal.facts([
        ("stream", stream["id"]),
        ("state", _state(stream)),
        ("error", error.get("message")),
        ("model", stream["model"]),
        ("dialect", stream["dialect"]),
        ("begun", ago(now - stream["created"]) + " ago"),
        ("paused for", None if paused is None else ago(now - paused)),
        ("kept for", ago(stream["expires_at"] - now)),
        ("cursor", f"{stream['gen']}-{stream['seq']}"),
        ("readers", stream["readers"]),
        ("tokens", tokens if usage else None),
        ("cost", None if stream.get("cost_usd") is None else f"{stream['cost_usd']:.6g} USD"),
        ("first token", _ms(metrics.get("ttft_ms"))),
        ("between tokens", f"p50 {_ms(gaps.get('p50'))}, p95 {_ms(gaps.get('p95'))}" if gaps else None),
        ("stalls", metrics.get("stalls")),
        ("chosen", f"{choice['chosen']} ({choice['why']})" if choice.get("chosen") else None),
    ])  # fmt: skip
    if legs := stream.get("legs"):
        terminal.say()
        terminal.table(
            ("leg", "endpoint", "how", "first token", "tokens", "usd", "end"),
            [
                (leg["leg"], leg["endpoint"], leg["strategy"], _ms(leg["ttft_ms"]), leg["usage"]["output_tokens"],
                 leg["cost_usd"], leg["end"] or "running")
                for leg in legs
            ],
        )  # fmt: skip
    for attempt in stream.get("attempts") or ():
        terminal.say(f"attempt  {one_line(attempt)}")


def _ms(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.0f} ms" if value >= 10 else f"{value:.2g} ms"


def _control(arguments: argparse.Namespace, terminal: Terminal) -> int:
    """One that is refused does not keep the others from it: meanwhile it may have ended."""
    operation, worst = arguments.streams_command, DONE
    body = None if arguments.reason is None else {"reason": arguments.reason}
    with connect(arguments, terminal) as client:
        for stream in arguments.streams:
            try:
                path = below("streams", full_id(client, stream), operation)
                answer = client.post(path, "changed", "stream", body=body)
            except (Refused, WrongUse) as error:
                named, said = one_line(stream), str(error)
                terminal.complain(said if named in said else f"{named}: {said}")
                worst = max(worst, error.code)
                continue
            if arguments.json:
                terminal.json_line(answer)
            else:
                terminal.say(_controlled(answer))
    return worst


def _controlled(answer: dict[str, Any]) -> str:
    """The stream and its state, and whether that is new."""
    stream = answer["stream"]
    return f"{stream['id']}  {_state(stream)}" + ("" if answer["changed"] else "  (already)")


def _tail(arguments: argparse.Namespace, terminal: Terminal) -> int:
    tail = Tail(terminal, quiet=arguments.quiet)
    end: Told | None = None
    with connect(arguments, terminal) as client:
        sid = full_id(client, arguments.stream)
        for told in follow(client, sid, patient(terminal), arguments.after):
            if arguments.json:
                terminal.json_line({"id": told.id, "event": told.kind, "data": told.data})
            else:
                tail.show(told)
            end = told if told.kind == "end" else end
        state = str(client.get(below("streams", sid), "state")["state"]) if end is None else end.data.get("state")
    return DONE if state == "completed" else FAILED


class Tail:
    """Writes a stream as people read one: text as it comes, what happens beside it on lines of their own."""

    def __init__(self, terminal: Terminal, *, quiet: bool = False) -> None:
        self._terminal, self._quiet = terminal, quiet
        self._open = False

    def show(self, told: Told) -> None:
        """One event."""
        if told.kind == "text":
            text = str(told.data.get("text", ""))
            if text:
                self._terminal.text(text)
                self._open = not text.endswith("\n")
            return
        line = _said(told)
        if line is None:
            return
        if told.kind == "end" or not self._quiet:
            self.close()
        if not self._quiet:
            self._terminal.complain(f"[{one_line(line)}]")

    def close(self) -> None:
        """What comes next begins a line."""
        if self._open:
            self._terminal.end_line()
            self._open = False


def _said(told: Told) -> str | None:
    """An event in words; None for those that nobody would miss."""
    data = told.data
    match told.kind:
        case "start":
            return f"{data.get('id')} of {data.get('model')}"
        case "leg":
            return f"leg {data.get('leg')} at {data.get('endpoint')}: {data.get('strategy')}, {data.get('why')}"
        case "pause" | "resume":
            return f"{told.kind}d" + (f": {data['reason']}" if data.get("reason") else "")
        case "tool_call":
            return f"tool call {data.get('name') or ''} {data.get('arguments', '')}"
        case "claim":
            return "taken over by another replica"
        case "end":
            return _end_line(data)
        case _:
            return None


def _end_line(data: dict[str, Any]) -> str:
    usage, error = data.get("usage") or {}, data.get("error") or {}
    parts = [str(data.get("state"))]
    if data.get("reason"):
        parts.append(str(data["reason"]))
    if error.get("message"):
        parts.append(str(error["message"]))
    if usage.get("output_tokens") is not None:
        parts.append(f"{usage['output_tokens']} tokens")
    return ", ".join(parts)


def full_id(client: Client, named: str) -> str:
    """The id that begins as `named`; a whole one is taken as it is.

    Raises:
        WrongUse: no stream among the newest begins so, or several do.
    """
    if len(named) >= 30:
        return named
    wanted = named if named.startswith("str_") else f"str_{named}"
    found = [each["id"] for each in _newest(client, PAGE, None) if each["id"].startswith(wanted)]
    if len(found) != 1:
        what = "no stream begins" if not found else f"{len(found)} streams begin"
        raise WrongUse(f"{what} with {named!r:.64}, among the newest {PAGE}; `atlas streams ls` lists them")
    return str(found[0])
