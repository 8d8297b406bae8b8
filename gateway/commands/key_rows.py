"""Rows of the section `keys`: made, listed and rotated. The file itself is never written."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Any

from config.keys import DEFAULT_SCOPES, PEPPER_VARIABLE, expiry
from config.layers import Layer, settings_from
from config.load import load
from config.problems import ConfigError, Problem, did_you_mean
from gateway.commands.terminal import NOTHING, cell
from gateway.core.clock import SystemClock
from gateway.core.keys import digest, id_of, new_key, show_digest

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from config.keys import Budget, RateLimits
    from config.problems import Loc
    from config.settings import Key, Settings
    from gateway.commands.terminal import Terminal


def create(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Make a key and print it, the row to keep of it, and the pepper if there was none; raises ConfigError."""
    scopes = DEFAULT_SCOPES if arguments.scopes is None else [each.strip() for each in arguments.scopes.split(",")]
    row = {"id": arguments.id, "tenant": arguments.tenant, "scopes": list(scopes)}
    given = terminal.environ.get(PEPPER_VARIABLE)
    _print(_Made(row, arguments.expires, given), terminal, as_json=arguments.json)


def rotate(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """Make a key that may do what another one may, and print it; raises ConfigError."""
    settings = load(arguments.config, terminal.environ)
    old = _find(settings, arguments.key_id)
    row = {
        "id": arguments.id or _next_id(old.id, [key.id for key in settings.keys]),
        **old.model_dump(mode="json", include={"tenant", "scopes", "budgets", "limits"}, exclude_defaults=True,
                         exclude_none=True),
    }  # fmt: skip
    pepper = None if settings.key_pepper is None else settings.key_pepper.get_secret_value()
    _print(_Made({**row, "scopes": list(old.scopes)}, arguments.expires, pepper), terminal, as_json=arguments.json)
    if not arguments.json:
        terminal.say(f"\nRemove the row of {old.id!r} when nobody uses it any more; `atlas keys revoke {old.id}` ends "
                     "it at once.")  # fmt: skip


def listing(arguments: argparse.Namespace, terminal: Terminal) -> None:
    """The keys of the configuration; raises ConfigError."""
    settings = load(arguments.config, terminal.environ)
    if arguments.json:
        terminal.json([key.model_dump(mode="json", exclude={"hash"}) for key in settings.keys])
    elif settings.keys:
        now = SystemClock.now()
        rows = [
            (key.id, key.tenant, key.scopes, _expires(key, now), [_budget(each) for each in key.budgets],
             _limits(key.limits))
            for key in settings.keys
        ]  # fmt: skip
        terminal.table(("id", "tenant", "scopes", "expires", "budgets", "limits"), rows)
    else:
        terminal.complain("There are no keys in the configuration; `atlas keys create --tenant NAME` makes one.")


class _Made:
    """A fresh key. `row` is what the file keeps of it; without a pepper one is made.

    Raises:
        ConfigError: the gateway would not take this row.
    """

    def __init__(self, row: Mapping[str, Any], expires: str | None, pepper: str | None) -> None:
        self.secret = new_key()
        self.pepper = pepper or secrets.token_hex(32)
        self.new_pepper = None if pepper else self.pepper
        self.row = {
            "id": row["id"] or id_of(self.secret),
            "hash": show_digest(digest(self.secret.encode(), self.pepper.encode())),
            **{name: value for name, value in row.items() if name != "id"},
        }
        if expires is not None:
            self.row["expires"] = _expiry(expires)
        places: dict[Loc, str] = {("keys", 0, name): f"--{name}" for name in self.row}
        places[("key_pepper",)] = PEPPER_VARIABLE
        settings_from([Layer(data={"keys": [self.row], "key_pepper": self.pepper}, places=places)])


def _print(made: _Made, terminal: Terminal, *, as_json: bool) -> None:
    if as_json:
        terminal.say(json.dumps({"key": made.secret, "row": made.row, "pepper": made.new_pepper}))
    else:
        terminal.say(key_text(made.secret, made.row, made.new_pepper))


def key_text(secret: str, row: Mapping[str, Any], pepper: str | None) -> str:
    """What a new key's owner reads; `pepper` if it was made just now."""
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


def _expiry(text: str) -> str:
    try:
        return expiry(text, SystemClock.now()).isoformat()
    except ValueError as error:
        raise ConfigError([Problem(where="--expires", message=str(error))]) from None


def _find(settings: Settings, key_id: str) -> Key:
    names = [key.id for key in settings.keys]
    for key in settings.keys:
        if key.id == key_id:
            return key
    message = f"there is no key {key_id!r:.80} in the configuration{did_you_mean(key_id, names)}"
    raise ConfigError([Problem(where="ID", message=message)])


def _next_id(old: str, taken: Sequence[str]) -> str:
    """The old name with the next number that is free: `team-a-2`."""
    stem, _, number = old.rpartition("-")
    stem, first = (stem, int(number) + 1) if stem and number.isdigit() and len(number) < 4 else (old, 2)
    while (name := f"{stem[:58]}-{first}") in taken:
        first += 1
    return name


def _expires(key: Key, now: float) -> str:
    if key.expires is None:
        return "never"
    shown = f"{key.expires:%Y-%m-%d %H:%M}Z"
    return shown if key.expires.timestamp() > now else f"{shown} (expired)"


def _budget(budget: Budget) -> str:
    parts = [f"{budget.tokens} tokens" if budget.tokens else "", f"{budget.usd:g} USD" if budget.usd else ""]
    return f"{' and '.join(filter(None, parts))} per {budget.per}"


def _limits(limits: RateLimits) -> str:
    set_ = {name: value for name, value in limits.model_dump().items() if value is not None}
    return ", ".join(f"{name} {cell(value)}" for name, value in set_.items()) or NOTHING
