"""The agents of a gateway, by name: built once from their profiles, checked as a whole."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from agents.controller import ControllerAgent
from agents.task_aware import TaskAwareAgent
from agents.worker import WorkerAgent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agents.agent import Agent
    from agents.profile import Profile


class Catalog:
    """Agents by name. `find` is for agents that let others work."""

    def __init__(self, profiles: Iterable[tuple[str, Profile]]) -> None:
        """Build each profile's agent of its kind: `task_aware`, `controller`, `worker`, or a class's dotted path.

        Raises:
            ValueError: a kind that does not exist, a worker that does not, a controller that works for itself.
        """
        self._agents: dict[str, Agent] = {}
        for kind, profile in profiles:
            self._agents[profile.name] = self._built(kind, profile)
        for name in self._agents:
            self._check_workers(name, ())

    def replace(self, other: Catalog) -> None:
        """Have another one's agents instead, for whoever asks from now on."""
        self._agents = other._agents

    def __iter__(self) -> Any:
        return iter(self._agents.values())

    def find(self, name: str) -> Agent:
        """The agent of this name.

        Raises:
            KeyError: there is none.
        """
        return self._agents[name]

    def get(self, name: str) -> Agent | None:
        """The agent of this name, if there is one."""
        return self._agents.get(name)

    def _built(self, kind: str, profile: Profile) -> Agent:
        match kind:
            case "task_aware":
                return TaskAwareAgent(profile)
            case "worker":
                return WorkerAgent(profile)
            case "controller":
                return ControllerAgent(profile, self.find)
            case _:
                return _imported(kind, profile)

    def _check_workers(self, name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"agent {name!r} works for itself: {' -> '.join((*above, name))}")
        for worker in self._agents[name].profile.workers:
            if worker not in self._agents:
                raise ValueError(f"agent {name!r}: there is no agent {worker!r} to work for it")
            self._check_workers(worker, (*above, name))


def _imported(path: str, profile: Profile) -> Agent:
    module_name, _, class_name = path.rpartition(".")
    try:
        made: Agent = getattr(importlib.import_module(module_name), class_name)(profile)
    except Exception as error:  # the operator's own code: it must not end a process that reloads
        said = f"{type(error).__name__}: {error}"
        msg = f"agent {profile.name!r}: {path!r} is neither task_aware, controller, worker nor a class's path ({said})"
        raise ValueError(msg) from error
    return made
