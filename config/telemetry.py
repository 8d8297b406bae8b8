"""What is told to whom beside logs and metrics, which are always there."""

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import unquote

from pydantic import Field

from config.section import Section
from config.values import HeaderName, HeaderSecret, Name, Url, Word


class Tracing(Section):
    """OpenTelemetry traces over OTLP/HTTP; without an `endpoint` there are none.

    `endpoint` is the collector's base, as OTEL_EXPORTER_OTLP_ENDPOINT is; `headers` go with every export. `ratio`:
    the share of requests that is traced where their callers do not say. `propagate` names the endpoints of this
    gateway that are told the trace's id (`traceparent`).
    """

    endpoint: Url | None = None
    headers: dict[HeaderName, HeaderSecret] = Field(default_factory=dict, repr=False)
    ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    service: Word = "atlas"
    propagate: tuple[Name, ...] = ()


class Telemetry(Section):
    """What is told beside logs and metrics."""

    tracing: Tracing = Tracing()


def from_usual_variables(environ: Mapping[str, str]) -> dict[str, object]:
    """What OpenTelemetry's own variables say of tracing, as a section; empty if they do not ask for it."""
    endpoint = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    is_off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    if not endpoint or is_off:
        return {}
    pairs = [pair.partition("=") for pair in environ.get("OTEL_EXPORTER_OTLP_HEADERS", "").split(",") if "=" in pair]
    headers = {name.strip(): unquote(value.strip()) for name, _, value in pairs}
    service = environ.get("OTEL_SERVICE_NAME")
    return {"endpoint": endpoint, "headers": headers, **({"service": service} if service else {})}
