"""The gateway that settings describe: what is wrong with them, and only building it can tell, is told like the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from config.problems import ConfigError, Problem

if TYPE_CHECKING:
    from config.settings import Settings
    from gateway.app import Atlas


def build(settings: Settings) -> Atlas:
    """The app; nothing is bound, asked or started yet.

    Raises:
        ConfigError: an endpoint's kind, a route's strategy or an agent's class does not exist or cannot be used.
    """
    from gateway.app import create  # noqa: PLC0415  commands that build none start in half the time

    try:
        return create(settings)
    except ValueError as error:
        raise ConfigError([Problem(where="configuration", message=str(error))]) from None
