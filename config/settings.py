"""The settings: the shape of the configuration file, with every default.

Building `Settings(...)` reads no file and no environment; `config.load` decides on the layers. What a value may be
stands here and in `config.endpoints`, what is not built yet in `config.section`.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, PrivateAttr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from config.agents import DEFAULT_AGENTS, Agent, agent_contradictions
from config.endpoints import Endpoint, Fallback, Limits, Route, Timeouts, contradictions
from config.keys import Key, Pepper, Tenant, key_contradictions, tenant_contradictions
from config.section import Section, check_built
from config.telemetry import Telemetry
from config.values import Origin, Seconds, Size, Word, is_loopback

__all__ = [
    "Agent", "Endpoint", "Fallback", "Journal", "Key", "Limits", "Mock", "Route", "Server", "Settings", "Streams",
    "Timeouts",
]  # fmt: skip

LogLevel: TypeAlias = Literal["debug", "info", "warning", "error"]
Loc: TypeAlias = tuple[int | str, ...]
_REDIS_URL = re.compile(r"(?:rediss?(?:\+sentinel|\+cluster)?|unix)://.")
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def _hosts_for(data: dict[str, Any]) -> tuple[str, ...]:
    return LOOPBACK_NAMES if is_loopback(str(data.get("host"))) else ("*",)


class Server(Section):
    """The HTTP side.

    `allowed_hosts` defaults to loopback names when bound to loopback, else to `*`, all of them. `insecure`: serve other
    machines although there are no keys. What overload is, and what happens then, stands in docs/operating.md.
    """

    host: Word = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8080
    drain_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 60.0
    allowed_hosts: tuple[Word, ...] = Field(default_factory=_hosts_for, min_length=1)
    max_body: Size = 50 * 2**20
    max_bodies: Size = 512 * 2**20
    cors_origins: tuple[Origin, ...] = ()
    max_streams: Annotated[int | None, Field(ge=1)] = None
    max_connections: Annotated[int | None, Field(ge=1)] = None
    max_readers: Annotated[int, Field(ge=1)] = 256
    requests_per_s: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    control_per_s: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = 1000.0
    queue_s: Seconds = 1.0
    max_loop_s: Seconds = 0.05
    heartbeat_s: Seconds = 10.0
    log_level: LogLevel = "info"
    insecure: bool = False


class Journal(Section):
    """Where streams are written down, and how much of them; `url` and what follows it belong to kind redis.

    `degrade`: while Redis is away, serve attached clients on without writing down what they get, and start without it.
    `lease_s` is how long a replica may be silent before others take its streams over, `poll_s` how often replicas look
    where a hint may have been lost, `sweep_s` how often they look for dead ones.
    """

    kind: Literal["memory", "redis"] = "memory"
    max_stream_bytes: Size = 8 * 2**20
    max_stream_events: Annotated[int, Field(ge=1)] = 100_000
    max_total_bytes: Size = 256 * 2**20
    url: Annotated[str | None, Field(repr=False)] = None
    degrade: bool = False
    lease_s: Seconds = 6.0
    poll_s: Seconds = 1.0
    sweep_s: Seconds = 1.0

    @field_validator("url")
    @classmethod
    def _names_redis(cls, url: str | None) -> str | None:
        if url is not None and not _REDIS_URL.match(url):
            msg = "must begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://"
            raise ValueError(msg)
        return url

    def contradictions(self) -> Iterator[tuple[Loc, str]]:
        """What does not go together, with its place."""
        if self.kind == "redis" and self.url is None:
            yield ("journal", "kind"), "redis needs a url, here or in the environment variable REDIS_URL"
        if self.kind == "memory":
            default = Journal()
            for name in ("url", "degrade", "lease_s", "poll_s", "sweep_s"):
                if getattr(self, name) != getattr(default, name):
                    yield ("journal", name), "belongs to the redis journal; set kind: redis, or leave it out"


class Mock(Section):
    """The provider that makes text up; its models need no endpoint and no route."""

    enabled: bool = True


class Streams(Section):
    """The life of a stream: how long it may pause, stay readable and be remembered. Times in seconds."""

    pause_max_s: Seconds = 900.0
    on_pause_expiry: Literal["cancel", "resume"] = "cancel"
    pause_hold_bytes: Size = 2**20
    ttl_terminal_s: Seconds = 900.0
    ttl_live_s: Seconds = 1800.0
    ttl_record_s: Seconds = 86400.0
    recovery: bool = False
    status_wait_s: Seconds = 10.0
    client_send_s: Seconds = 20.0
    tick_s: Seconds = 0.25


class UsageDrain(Section):
    """Reading on after a cancel or a used-up budget, delivered to nobody, to learn what the vendor bills.

    Only for endpoints where closing the socket does not stop the bill (`stops_on_close: false`). At most `max_streams`
    at once on a replica, each for at most `max_s` and `max_bytes` of content. Meanwhile a cancel answers `closing`.
    """

    enabled: bool = False
    max_streams: Annotated[int, Field(ge=1, le=10_000)] = 32
    max_bytes: Size = 2**20
    max_s: Seconds = 30.0


class Settings(BaseSettings):
    """Everything that an operator decides.

    `notes` are lines for the operator about what was found and not used; they are printed at start. `key_pepper` is the
    environment variable `ATLAS_KEY_PEPPER`, which does not belong into the file that holds the hashes.
    """

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    server: Server = Server()
    journal: Journal = Journal()
    mock: Mock = Mock()
    endpoints: tuple[Endpoint, ...] = ()
    routes: tuple[Route, ...] = ()
    keys: tuple[Key, ...] = ()
    tenants: tuple[Tenant, ...] = ()
    key_pepper: Pepper | None = None
    streams: Streams = Streams()
    usage_drain: UsageDrain = UsageDrain()
    telemetry: Telemetry = Telemetry()
    agents: tuple[Agent, ...] | None = None

    _notes: tuple[str, ...] = PrivateAttr(default=())

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the operator, in the order in which they were found."""
        return self._notes

    @property
    def effective_agents(self) -> tuple[Agent, ...]:
        """The agents that are served: those of the file, else the two on the mock, if that is there."""
        if self.agents is not None:
            return self.agents
        return DEFAULT_AGENTS if self.mock.enabled else ()

    @property
    def models(self) -> tuple[str, ...]:
        """What requests can name, agents apart; wildcards end in `*`."""
        return (*(("mock", "mock-*") if self.mock.enabled else ()), *(route.model for route in self.routes))

    def note(self, *lines: str) -> None:
        """Add lines; for the loader, before anybody else holds these settings."""
        self._notes = (*self._notes, *lines)

    @field_validator("*")
    @classmethod
    def _is_built(cls, value: object, info: ValidationInfo) -> object:
        check_built(Settings, value, info)
        return value

    @model_validator(mode="after")
    def _is_consistent(self) -> "Settings":
        found = [
            InitErrorDetails(type=PydanticCustomError("contradiction", "{said}", {"said": said}), loc=loc, input=None)
            for loc, said in (
                *self.journal.contradictions(),
                *contradictions(self.endpoints, self.routes),
                *key_contradictions(self.keys, self.key_pepper),
                *tenant_contradictions(self.tenants, self.keys),
                *agent_contradictions(self.agents or (), self.models),
            )
        ]
        if found:
            raise ValidationError.from_exception_data("Settings", found)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Nothing but the arguments: the process environment is a parameter of `config.load`, never read here."""
        return (init_settings,)
