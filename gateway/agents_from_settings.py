"""What the settings say of agents, as the profiles that they are built from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.catalog import Catalog
from agents.profile import Limits, Profile

if TYPE_CHECKING:
    from config.agents import Agent
    from config.settings import Settings


def catalog(settings: Settings) -> Catalog:
    """All agents.

    Raises:
        ValueError: one that cannot be built, named.
    """
    return Catalog((agent.kind, _profile(agent)) for agent in settings.effective_agents)


def _profile(agent: Agent) -> Profile:
    given = agent.model_dump(exclude={"kind", "options", "limits"})
    options = agent.options.model_dump(exclude_none=True)
    return Profile(**given, options=options, limits=Limits(**agent.limits.model_dump()))
