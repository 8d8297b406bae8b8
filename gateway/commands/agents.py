"""`atlas agents`: who can be asked, and a run to watch: the plan, each step as it goes, and the answer."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from gateway.commands.client import below, connect
from gateway.commands.errors import Broken, Unreachable, WrongUse
from gateway.commands.follow import events, follow, patient
from gateway.commands.parts import command, gateway_flags, group
from gateway.commands.terminal import DONE, FAILED, cell
from gateway.commands.tree import Tree

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from gateway.commands.client import Client
    from gateway.commands.follow import Told
    from gateway.commands.parts import Commands
    from gateway.commands.terminal import Terminal

_RUN = """Ask an agent and watch it work: steps go to stderr as they happen, the answer to stdout.

The task is the words after the name, or standard input if there are none. A run is a stream: `atlas streams`
pauses, resumes and cancels it. Ctrl-C stops watching and leaves it running."""


def add(commands: Commands) -> None:
    """The commands."""
    parser = command(commands, "agents", "list agents, and run one")
    below_it, flags = group(parser, "agents_command"), [gateway_flags()]
    command(below_it, "ls", "list the agents that can be asked", _list, parents=flags)
    show = command(below_it, "show", "one agent, its limits, and how it has done", _show, parents=flags)
    show.add_argument("agent", metavar="AGENT", help="its name")
    run = command(below_it, "run", "ask an agent and watch it work", _run, parents=flags, description=_RUN)
    run.add_argument("agent", metavar="AGENT", help="its name")
    run.add_argument("task", metavar="WORD", nargs="*", help="what it is asked (default: standard input)")
    run.add_argument("--background", action="store_true", help="print the id of the run and do not wait for it")


def _list(arguments: argparse.Namespace, terminal: Terminal) -> int:
    with connect(arguments, terminal) as client:
        found = client.get(below("agents"), "data")["data"]
    if arguments.json:
        terminal.json(found)
    else:
        terminal.table(
            ("agent", "route", "workers", "description"),
            [(each["name"], each["route"], each["workers"], each["description"]) for each in found],
        )
    return DONE


def _show(arguments: argparse.Namespace, terminal: Terminal) -> int:
    with connect(arguments, terminal) as client:
        found = client.get(below("agents", arguments.agent), "name", "limits")
    if arguments.json:
        terminal.json(found)
        return DONE
    limits = ", ".join(f"{name} {cell(value)}" for name, value in found["limits"].items() if value is not None)
    terminal.facts([
        ("agent", found["name"]), ("model", found["model"]), ("about", found["description"] or None),
        ("route", found["route"]), ("workers", found["workers"] or None), ("tasks", found["task_types"] or None),
        ("on failure", found["on_failure"]), ("limits", limits),
    ])  # fmt: skip
    if rows := found.get("statistics"):
        head = ("task", "endpoint", "calls", "success", "first_token_ms", "tokens_per_s", "cost_usd")
        terminal.say()
        terminal.table([name.replace("_", " ") for name in head], [[row.get(name) for name in head] for row in rows])
    return DONE


def _run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    if not arguments.task and sys.stdin.isatty():
        terminal.complain("Type the task, then Ctrl-D.")
    task = " ".join(arguments.task) or sys.stdin.read()
    if not task.strip():
        raise WrongUse("there is no task: write it after the agent's name, or to standard input")
    path = below("agents", arguments.agent, "runs")
    with connect(arguments, terminal) as client:
        if arguments.background:
            begun = client.post(path, "id", body={"input": task, "background": True})
            terminal.json(begun) if arguments.json else terminal.say(begun["id"])
            return DONE
        tree, state = Tree(terminal), None
        for told in _watched(client, path, task, terminal):
            if arguments.json:
                terminal.json_line({"id": told.id, "event": told.kind, "data": told.data})
            else:
                tree.show(told)
            state = told.data.get("state") if told.kind == "end" else state
    return DONE if state == "completed" else FAILED


def _watched(client: Client, path: str, task: str, terminal: Terminal) -> Iterator[Told]:
    """The events of a new run; after a lost connection they are followed by the run's id."""
    sid, after = "", None
    why = "the connection was closed"
    try:
        with client.lines("POST", path, body={"input": task, "stream": True}) as (_, headers, lines):
            sid = headers.get("x-atlas-stream-id", "")
            for told in events(lines, terminal.expect_reader):
                after = told.id
                yield told
                if told.kind == "end":
                    return
    except Broken as error:
        why = str(error)
    if not sid:
        raise Unreachable(f"{why}, before the run had an id")
    patient(terminal).lost(why)
    yield from follow(client, sid, patient(terminal), after)
