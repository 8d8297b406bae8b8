"""Where answers come from: endpoints, and the routes that name them by the model a client asks for."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, cast
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from config.presets import Preset, presets
from config.problems import Loc, did_you_mean
from config.section import Section
from config.values import HeaderName, HeaderSecret, Module, Name, Seconds, Url, Word, host_url, none_word, off_word

Continuation: TypeAlias = Literal["none", "prefill", "replay", "instruct", "resume"]
Strategy: TypeAlias = Module
MidStream: TypeAlias = Literal["off", "safe", "continue"]
ToolDelivery: TypeAlias = Literal["stream", "atomic"]
Usd: TypeAlias = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Auth: TypeAlias = Literal["bearer", "api-key", "x-api-key"]
Feature: TypeAlias = Literal["tools", "images", "schema", "audio", "files", "reasoning"]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Tokens: TypeAlias = Annotated[int, Field(ge=1, le=1_000_000_000)]
Strength: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,64}$", to_lower=True)]
Path: TypeAlias = Annotated[str, StringConstraints(pattern=r"^/[!-~]{0,255}$")]

# They say how a message is framed or where it goes: those are the transport's.
_OWN_HEADERS = frozenset({
    "accept-encoding", "connection", "content-length", "content-type", "expect", "host", "te", "transfer-encoding",
    "upgrade",
})  # fmt: skip


class Timeouts(Section):
    """Deadlines in seconds. `progress_s`: pings are not progress. `total_s` does not run while paused."""

    connect_s: Seconds = 5.0
    first_token_s: Seconds = 60.0
    idle_s: Seconds = 60.0
    progress_s: Seconds = 180.0
    total_s: Seconds = 900.0


class Limits(Section):
    """What one endpoint bears: streams at once, requests and tokens a minute; None: as much as comes.

    What exceeds them goes to the route's other endpoints.
    """

    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    rpm: Annotated[int, Field(ge=1)] | None = None
    tpm: Annotated[int, Field(ge=1)] | None = None


class Profile(Section):
    """What the model can do; what is left out is unknown, and no obstacle to any request.

    `strengths`: 0 to 1 by words of one's own, as `coding`; requests may ask for them. `context_tokens`: the window,
    prompt and answer together; `output_tokens`: the longest answer. `lacks`: what it cannot do. `availability`: the
    share of requests that it is expected to answer, until that is known better.
    """

    strengths: dict[Strength, Share] = Field(default_factory=dict)
    context_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    lacks: tuple[Feature, ...] = ()
    availability: Share = 1.0


class Breaker(Section):
    """When an endpoint that fails is no longer asked, and for how long; times in seconds.

    It opens after so many `failures` in a row, or when `ratio` of at least so many `samples` in `window_s` failed; for
    `open_s`, doubled each time up to `open_max_s`, after which one request is the probe. Not `enabled`: the endpoint is
    asked whatever it answered, and its keys never rest.
    """

    enabled: bool = True
    failures: Annotated[int, Field(ge=1)] = 5
    ratio: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.5
    samples: Annotated[int, Field(ge=1)] = 10
    window_s: Seconds = 30.0
    open_s: Seconds = 5.0
    open_max_s: Seconds = 300.0


class Health(Section):
    """Active checks: a GET of `path` below `base_url`, that must cost nothing; default: the list of models.

    After `falls` failures in a row no requests are sent until one succeeds as a probe; `rises` successes in a row end
    the failing.
    """

    path: Path | None = None
    interval_s: Seconds = 15.0
    timeout_s: Seconds = 5.0
    rises: Annotated[int, Field(ge=1, le=100)] = 2
    falls: Annotated[int, Field(ge=1, le=100)] = 3


class Price(Section):
    """USD for a million tokens.

    Cached and cache-creation tokens count as input where they have no price of their own, reasoning as output.
    """

    input: Usd
    output: Usd
    cached: Usd | None = None
    cache_creation: Usd | None = None
    reasoning: Usd | None = None


class Endpoint(Section):
    """One account of one vendor API.

    `kind` is the name of a module in `gateway.providers`; a `preset` fills in what is absent and the vendor needs:
    `kind`, `base_url`, `auth`, `stops_on_close`, `timeouts`. `model` is the provider's own name; `*` passes on what a
    wildcard route matched. `keys` are tried in turn; `auth` is how they are sent. `headers` go out with every request,
    in place of Atlas's own of the same name. `stops_on_close`: whether closing the socket stops the generation and the
    bill. `continuation`: how the model goes on with an answer that broke off, `none` if it cannot.
    `price` goes before the price list that comes with Atlas. `priority`: lower goes first; `weight`: share of the
    traffic; both as the route's strategy uses them. `health`: active checks, none if left out; `breaker`: when it is no
    longer asked.
    """

    name: Name
    kind: Module = "openai_chat"
    preset: str | None = None
    base_url: Annotated[Url | None, Field(repr=False)] = None
    keys: tuple[HeaderSecret, ...] = ()
    auth: Auth | None = None
    headers: dict[HeaderName, HeaderSecret] = Field(default_factory=dict)
    model: Word
    timeouts: Timeouts = Timeouts()
    proxy: Annotated[Url | None, Field(repr=False)] = None
    ca_file: Word | None = None
    limits: Limits = Limits()
    price: Price | None = None
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    weight: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] = 1.0
    profile: Profile = Profile()
    health: Health | None = None
    breaker: Breaker = Breaker()
    stops_on_close: bool = True
    continuation: Annotated[Continuation, BeforeValidator(none_word)] = "none"

    @model_validator(mode="before")
    @classmethod
    def _fill_from_preset(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = cast("dict[str, Any]", data)
        preset = presets().get(str(given.get("preset")))
        return given if preset is None else _filled(given, preset)

    @field_validator("preset")
    @classmethod
    def _preset_exists(cls, value: str | None) -> str | None:
        if value is not None and value not in presets():
            raise ValueError(f"there is no preset {value!r}{did_you_mean(value, presets())}")
        return value

    @field_validator("headers")
    @classmethod
    def _leaves_framing_alone(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(_OWN_HEADERS & value.keys()):
            raise ValueError(f"{', '.join(taken)} cannot be set: Atlas needs it for itself")
        return value

    @model_validator(mode="after")
    def _has_address(self) -> "Endpoint":
        if self.base_url is None and self.kind != "mock":
            raise ValueError("base_url is required, unless kind is mock or the preset has an address")
        return self

    @property
    def quirks(self) -> Mapping[str, Any]:
        """What the adapter must know of this vendor's host."""
        preset = presets().get(self.preset or "")
        return preset.quirks if preset is not None and preset.kind == self.kind else {}


def _filled(given: dict[str, Any], preset: Preset) -> dict[str, Any]:
    """The endpoint as written, with the preset's members where it is silent."""
    found: dict[str, Any] = {
        "kind": preset.kind, "base_url": preset.base_url, "auth": preset.auth, "stops_on_close": preset.stops_on_close,
        **given,
    }  # fmt: skip
    timeouts = given.get("timeouts", {})
    if isinstance(timeouts, dict):
        found["timeouts"] = {**preset.timeouts, **cast("dict[str, Any]", timeouts)}
    if preset.host_env is not None and isinstance(found["base_url"], str):
        found["base_url"] = host_url(found["base_url"], urlsplit(preset.base_url or "").port or 80)
    return found


class Fallback(Section):
    """What happens when an endpoint fails.

    `mid_stream`: after the client has seen a part of the answer; `off` also asks no other endpoint before that.
    `replay_max_chars`: the longest answer that may be asked for again to be continued. `tool_delivery`: `atomic` holds
    tool calls until they are whole, so that none is cut in two.
    """

    mid_stream: Annotated[MidStream, BeforeValidator(off_word)] = "safe"
    replay_max_chars: Annotated[int, Field(ge=0, le=1_048_576)] = 16_384
    tool_delivery: ToolDelivery = "stream"


class Hedge(Section):
    """Asking a second endpoint beside one that is silent before its answer begins; the faster one answers, both cost.

    It is asked when the first one has been silent for longer than 19 of 20 of its answers took, at least `wait_min_s`;
    for `wait_unknown_s` where fewer than 20 answers are known. `share`: of the requests, at most.
    """

    enabled: bool = False
    share: Annotated[float, Field(gt=0, le=0.05, allow_inf_nan=False)] = 0.05
    wait_min_s: Seconds = 0.2
    wait_unknown_s: Seconds = 2.0


class Route(Section):
    """A model that clients name, and the endpoints that may answer for it; `x/*` stands for every model below `x/`.

    `recovery`: whether its requests are kept beside their logs, so that another replica can go on with a stream; else
    as `streams.recovery` says.
    """

    model: Word
    strategy: Strategy = "priority"
    endpoints: Annotated[tuple[str, ...], Field(min_length=1)]
    fallback: Fallback = Fallback()
    hedge: Hedge = Hedge()
    recovery: bool | None = None

    @property
    def is_wildcard(self) -> bool:
        """Whether the route stands for every model below its prefix."""
        return self.model.endswith("/*")


def contradictions(endpoints: Sequence[Endpoint], routes: Sequence[Route]) -> Iterator[tuple[Loc, str]]:
    """What is wrong between endpoints and routes that are right each by itself."""
    yield from _repeated("endpoints", "name", [endpoint.name for endpoint in endpoints])
    yield from _repeated("routes", "model", [route.model for route in routes])
    names = [endpoint.name for endpoint in endpoints]
    for at, route in enumerate(routes):
        if route.hedge.enabled and (len(route.endpoints) < 2 or route.fallback.mid_stream == "off"):
            yield ("routes", at, "hedge", "enabled"), "needs a second endpoint, and fallback.mid_stream that is not off"
        for place, name in enumerate(route.endpoints):
            loc: Loc = ("routes", at, "endpoints", place)
            if name not in names:
                yield loc, f"there is no endpoint {name!r}{did_you_mean(name, names)}"
            elif name in route.endpoints[:place]:
                yield loc, f"{name!r} is named twice"


def _repeated(section: str, member: str, values: Sequence[str]) -> Iterator[tuple[Loc, str]]:
    for at, value in enumerate(values):
        first = values.index(value)
        if first < at:
            yield (section, at, member), f"{value!r} is taken by {section}[{first}]"
