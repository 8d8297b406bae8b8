"""Every metric, in one table, on a registry of its own: two apps in one process share nothing.

Base units, closed label sets; never a key, an id or a client-chosen model name as a label. `docs/metrics.md` explains
each row, and a test holds it to this table.

A row of the table is a class attribute; in each `Metrics` the same attribute is the metric, or a function of label
values to one. Those functions keep what they found, because looking a child up costs more than counting.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.process_collector import ProcessCollector

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
_COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 512)
_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)

CONTENT_TYPE = CONTENT_TYPE_LATEST

CIRCUIT_STATES = {"closed": 0, "half_open": 1, "open": 2}
"""The values of `Metrics.circuit_state`, by the words of `pool.breaker.BreakerState`."""

DENIAL_STAGES = ("admission", "limit", "stream")
"""The label values of `Metrics.budget_denials`, as `pool.budgets.Budgets.on_denied` is told them."""

REFUSALS = ("connections", "streams", "loop", "queue")
"""The label values of `Metrics.refusals`: those of `api.overload.Why`."""

_Made = TypeVar("_Made")
_Family = TypeVar("_Family", Counter, Gauge, Histogram)


class _Row(Generic[_Made]):
    """One row: what `make` makes of a registry takes the row's place in the instance."""

    def __init__(self, make: Callable[[CollectorRegistry], _Made]) -> None:
        self._make, self._name = make, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, metrics: Metrics, owner: type) -> _Made:
        made = metrics.__dict__[self._name] = self._make(metrics.registry)
        return made


def _labelled(family: _Family, known: Sequence[str]) -> Callable[..., _Family]:
    """The family's children by label values; those `known` of a single label are exposed before they are counted."""
    for value in known:
        family.labels(value)
    return cache(family.labels)


def _counter(name: str, says: str) -> _Row[Counter]:
    return _Row(lambda registry: Counter(name, says, registry=registry))


def _counters(name: str, says: str, *labels: str, known: Sequence[str] = ()) -> _Row[Callable[..., Counter]]:
    return _Row(lambda registry: _labelled(Counter(name, says, labels, registry=registry), known))


def _gauge(name: str, says: str) -> _Row[Gauge]:
    return _Row(lambda registry: Gauge(name, says, registry=registry))


def _gauges(name: str, says: str, *labels: str, known: Sequence[str] = ()) -> _Row[Callable[..., Gauge]]:
    return _Row(lambda registry: _labelled(Gauge(name, says, labels, registry=registry), known))


def _histogram(name: str, says: str, buckets: Sequence[float]) -> _Row[Histogram]:
    return _Row(lambda registry: Histogram(name, says, buckets=buckets, registry=registry))


def _histograms(name: str, says: str, *labels: str, buckets: Sequence[float]) -> _Row[Callable[..., Histogram]]:
    return _Row(lambda registry: _labelled(Histogram(name, says, labels, buckets=buckets, registry=registry), ()))


class Metrics:
    """The metrics of one app, and the figures of its process (`process_*`, on Linux)."""

    build = _gauges("atlas_build_info", "1, with the version of Atlas as its label", "version")

    # HTTP
    http_requests = _counters("atlas_http_requests", "HTTP requests answered", "route", "method", "status")
    http_seconds = _histograms(
        "atlas_http_request_duration_seconds", "Time to the end of the response", "route", buckets=_SECONDS
    )
    refusals = _counters(
        "atlas_overload_refusals", "Requests and connections turned away: the process had too much to do", "reason",
        known=REFUSALS,
    )  # fmt: skip
    overhead = _histogram(
        "atlas_overhead_seconds", "From a request's last byte to the begin of its first upstream attempt", _FAST
    )
    """Observed once a request that reaches an attempt."""

    # Upstream
    upstream_requests = _counters(
        "atlas_upstream_requests", "Upstream attempts by outcome: ok at first content, else the error category",
        "endpoint", "outcome",
    )  # fmt: skip
    upstream_seconds = _histograms(
        "atlas_upstream_duration_seconds", "Time of an attempt to its first content or its failure", "endpoint",
        buckets=_SECONDS,
    )  # fmt: skip
    unmapped_errors = _counters(
        "atlas_upstream_unmapped_errors", "Provider errors that only the class of their status explained",
        "endpoint", "status",
    )  # fmt: skip
    malformed_events = _counters(
        "atlas_upstream_malformed_events", "Payloads of providers that could not be read and were skipped", "endpoint"
    )
    fallbacks = _counters(
        "atlas_fallbacks", "Answers that went on at another endpoint, and what came of it",
        "from", "to", "phase", "result",
    )  # fmt: skip
    """Names of both endpoints; phase `before` the first content or `mid_stream`; result `ok` at content or `failed`."""
    hedges = _counters(
        "atlas_hedges", "Endpoints asked beside one that was silent, and what came of it", "endpoint", "result"
    )
    """`endpoint` is the second one; result `won`, `lost` or `failed`."""
    retries = _counters("atlas_retries", "Attempts repeated on the same endpoint, by why", "endpoint", "category")
    """Counted when the wait before the repeat is over; `category` is that of the failure before."""
    circuit_state = _gauges("atlas_circuit_state", "The breaker: 0 closed, 1 half open, 2 open", "endpoint")
    """Set before a scrape: `circuit_state(name).set(CIRCUIT_STATES[breaker.state(now)])`."""
    circuit_transitions = _counters(
        "atlas_circuit_transitions", "Changes of the breaker, by the state that it entered", "endpoint", "to"
    )
    """`to` is one of `CIRCUIT_STATES`."""
    endpoint_up = _gauges("atlas_endpoint_up", "Whether an endpoint would be asked now", "endpoint")
    """Set before a scrape: 0 while it is disabled, open, or has no key that works; else 1."""
    endpoint_inflight = _gauges("atlas_endpoint_inflight", "Requests that an endpoint is answering", "endpoint")
    """Set before a scrape, from the endpoint's `Statistics.in_flight`."""

    # Streams
    first_token = _histograms(
        "atlas_time_to_first_token_seconds", "From the request to the first content in the log", "route",
        buckets=_SECONDS,
    )  # fmt: skip
    inter_token = _histograms(
        "atlas_inter_token_seconds", "The median gap between reads of a stream, once per stream", "route",
        buckets=_FAST,
    )  # fmt: skip
    streams = _gauges("atlas_streams", "Streams owned by this process", "state", known=("running", "paused"))
    stream_ends = _counters("atlas_stream_ends", "Ended streams by state and reason", "reason")
    stalls = _counter("atlas_stream_stalls", "Gaps of two seconds or more in running streams")
    reattaches = _counter("atlas_stream_reattaches", "Readers that attached by a stream's id")
    control = _counters("atlas_stream_control", "Control operations", "op", "result")
    paused = _histogram(
        "atlas_stream_paused_seconds", "Time that a stream spent paused, once per paused stream", _SECONDS
    )
    buffer_bytes = _gauge("atlas_stream_buffer_bytes", "Bytes of all logs in memory")
    wasted_tokens = _counter(
        "atlas_stream_wasted_tokens", "Output tokens of cancelled streams that came while nobody was served"
    )
    cancel_to_close = _histogram("atlas_cancel_to_close_seconds", "From a cancel to the closed upstream socket", _FAST)

    # Cost and budgets
    tokens = _counters("atlas_tokens", "Tokens by type", "endpoint", "type")
    cost = _counters("atlas_cost_usd", "What tokens cost where the price is known, USD", "endpoint")
    budget_denials = _counters(
        "atlas_budget_denials", "Requests and streams refused or stopped for a budget or a rate limit", "stage",
        known=DENIAL_STAGES,
    )  # fmt: skip
    """`Budgets(on_denied=lambda stage: metrics.budget_denials(stage).inc())`."""

    # Agents
    agent_runs = _counters("atlas_agent_runs", "Runs of agents by the state that they ended in", "agent", "outcome")
    """`agent` is the name in the configuration; outcome `completed`, `incomplete`, `cancelled` or `failed`."""
    agent_step_seconds = _histograms(
        "atlas_agent_step_duration_seconds", "Time of one model call of an agent", "agent", buckets=_SECONDS
    )
    """Observed when the call is left, whatever came of it; `agent` is the one that asked."""

    # Runtime and Redis
    loop_lag = _gauge("atlas_event_loop_lag_seconds", "How late the last beat of the loop was")
    journal_lag = _histogram(
        "atlas_journal_lag_seconds", "From an append to its acknowledgement, once a pipeline", _FAST
    )
    journal_batch = _histogram("atlas_journal_batch_events", "Events of one pipeline of appends", _COUNTS)
    redis_up = _gauge("atlas_redis_up", "Whether Redis answers; 1 where none is used")
    redis_seconds = _histograms(
        "atlas_redis_latency_seconds", "From a pipeline's first byte to its last reply", "kind", buckets=_FAST
    )
    redis_errors = _counters("atlas_redis_errors", "Pipelines that were not answered, or with an error", "kind")

    def __init__(self, version: str = "unknown") -> None:
        # A second series for each counter, which nobody asks for. The switch is the whole process's, and untyped.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        for row in [row for row in vars(Metrics).values() if isinstance(row, _Row)]:
            row.__get__(self, Metrics)
        self.build(version).set(1)
        self.redis_up.set(1)
        self._refresh: list[Callable[[], None]] = []

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` before each exposition, for gauges that are cheaper to read than to keep."""
        self._refresh.append(refresh)

    def forget(self, endpoint: str) -> None:
        """An endpoint is no more: it has no state that an alert could wait for."""
        for gauges in (self.circuit_state, self.endpoint_up, self.endpoint_inflight):
            children: Any = gauges
            children.__wrapped__.__self__.remove(endpoint)
            children.cache_clear()

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        for refresh in self._refresh:
            refresh()
        return generate_latest(self.registry)
