"""Vendors as data: one row a vendor in `presets.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One vendor: its wire, its address, the environment variables that are usual for it, and how it differs.

    `kind`: the wire, a module of `gateway.providers`. `base_url`: its address, if it is the same for everybody.

    `key_env`: the variable with the API key; when set, the vendor is wanted. `host_env`: the variable with the address
    of a server of one's own, also as `host` or `host:port`; a vendor that has one is wanted when that is set.
    `url_env`: the variable that replaces `base_url`; `url_path` is put behind it, for vendors whose variable ends at
    the host.

    `auth`: how the key is sent: `bearer`, `api-key` or `x-api-key`; None is the wire's own way. `stops_on_close`:
    whether closing the socket stops the generation and the bill. `timeouts`: those that fit better than the defaults.
    `quirks`: what the wire's adapter must know of this host, as in `gateway.providers.openai_chat.Quirks`.
    """

    kind: str
    base_url: str | None = None
    key_env: str | None = None
    host_env: str | None = None
    url_env: str | None = None
    url_path: str = ""
    auth: str | None = None
    stops_on_close: bool = True
    timeouts: Mapping[str, float] = field(default_factory=dict[str, float])
    quirks: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def is_wanted(self, environ: Mapping[str, str]) -> bool:
        """Whether the environment names this vendor."""
        return bool(environ.get(self.host_env or self.key_env or ""))

    def address(self, environ: Mapping[str, str]) -> str | None:
        """Where the environment says that this vendor is; None if nobody does."""
        if self.host_env is not None:
            return environ.get(self.host_env) or self.base_url
        given = environ.get(self.url_env or "")
        if not given:
            return self.base_url
        given = given.rstrip("/")
        return given if given.endswith(self.url_path) else given + self.url_path


@cache
def presets() -> Mapping[str, Preset]:
    """Every row, by the vendor's name."""
    rows = yaml.safe_load(files("config").joinpath("presets.yaml").read_text(encoding="utf-8"))
    return MappingProxyType({name: Preset(**row) for name, row in rows.items()})
