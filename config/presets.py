"""Vendors as data: one row a vendor in `presets.yaml`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import yaml


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One vendor: its wire, its address, and the environment variables that are usual for it.

    `key_env` holds the API key and `host_env` stands in for it where a vendor has none: either one, when set, means
    that the vendor is wanted. `url_env` replaces `base_url`.
    """

    kind: str
    base_url: str | None = None
    key_env: str | None = None
    url_env: str | None = None
    host_env: str | None = None


@cache
def presets() -> Mapping[str, Preset]:
    """Every row, by the vendor's name."""
    rows = yaml.safe_load(files("config").joinpath("presets.yaml").read_text(encoding="utf-8"))
    return MappingProxyType({name: Preset(**row) for name, row in rows.items()})
