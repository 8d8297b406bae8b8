"""`atlas keys`: what the parser knows of keys; rows are made and read in `key_rows`, without any gateway.

Only `revoke` asks a gateway: it takes effect at once, on every replica, and before the file is changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.commands.client import below, connect
from gateway.commands.parts import command, file_flags, gateway_flags, group
from gateway.commands.terminal import DONE

if TYPE_CHECKING:
    import argparse

    from gateway.commands.parts import Commands
    from gateway.commands.terminal import Terminal

_ROTATE = """Make a new key for the tenant, scopes, budgets and limits of an old one, and print its row.

Both keys are valid until the old row is removed from the file, or revoked. Nothing is written anywhere."""
_REVOKE = """Refuse a key from now on, on every replica, and cancel what runs in its name.

Take its row out of the file as well: a gateway whose journal is in memory knows of a revocation until it ends."""


def add(commands: Commands) -> None:
    """The commands."""
    parser = command(commands, "keys", "make, list, rotate and revoke keys for clients")
    below_it, file = group(parser, "keys_command"), file_flags()
    create = command(
        below_it, "create", "make a key: prints it once, with the row for the file; writes nothing", _create
    )
    create.add_argument("--tenant", required=True, help="whose streams the key sees")
    create.add_argument("--scopes", help="what it is for: infer, control, admin, metrics (default: infer,control)")
    create.add_argument("--id", help="your name for it (default: the id that stands in the key)")
    listing = command(below_it, "list", "the keys of the configuration, without a gateway", _list, parents=[file])
    rotate = command(below_it, "rotate", "make a new key like an old one", _rotate, parents=[file], description=_ROTATE)
    rotate.add_argument("key_id", metavar="ID", help="the old key's name in the file")
    rotate.add_argument("--id", help="the new key's name (default: the old one with a number)")
    for one in (create, rotate):
        one.add_argument("--expires", help="90d, 12h, 52w, or a date and time (default: never)")
    for one in (create, listing, rotate):
        one.add_argument("--json", action="store_true", help="print JSON, for scripts")
    revoke = command(
        below_it, "revoke", "refuse a key everywhere, at once", _revoke, parents=[gateway_flags()], description=_REVOKE
    )
    revoke.add_argument("key_id", metavar="ID", help="the key's name in the file")


def _create(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from gateway.commands import key_rows  # noqa: PLC0415  the configuration takes a while to load

    key_rows.create(arguments, terminal)
    return DONE


def _list(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from gateway.commands import key_rows  # noqa: PLC0415

    key_rows.listing(arguments, terminal)
    return DONE


def _rotate(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from gateway.commands import key_rows  # noqa: PLC0415

    key_rows.rotate(arguments, terminal)
    return DONE


def _revoke(arguments: argparse.Namespace, terminal: Terminal) -> int:
    with connect(arguments, terminal) as client:
        answer = client.post(below("keys", arguments.key_id, "revoke"), "revoked")
    if arguments.json:
        terminal.json(answer)
        return DONE
    lasting = "on every replica" if answer.get("durable") else "until the gateway ends"
    terminal.say(f"{arguments.key_id}  revoked {lasting}; take its row out of the file as well")
    return DONE
