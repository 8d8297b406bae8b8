"""Every metric, in one table, on a registry of its own: two apps in one process share nothing.

Base units, closed label sets; never a key, an id or a client-chosen model name as a label.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from collections.abc import Callable

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)

CONTENT_TYPE = CONTENT_TYPE_LATEST


_Family = TypeVar("_Family", Counter, Gauge, Histogram)


def _labelled(family: _Family) -> Callable[..., _Family]:
    """The family's children by label values; kept, because looking one up costs more than counting."""
    return cache(family.labels)


class Metrics:
    """The metrics of one app. An attribute is one metric, or a function of label values to one."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.http_requests = _labelled(
            Counter("atlas_http_requests", "HTTP requests answered", ["route", "method", "status"], registry=registry)
        )
        self.http_seconds = _labelled(Histogram(
            "atlas_http_request_duration_seconds", "Time to the end of the response", ["route"], buckets=_SECONDS,
            registry=registry,
        ))  # fmt: skip
        self.upstream_requests = _labelled(Counter(
            "atlas_upstream_requests", "Upstream attempts by outcome: ok at first content, else the error category",
            ["endpoint", "outcome"], registry=registry,
        ))  # fmt: skip
        self.upstream_seconds = _labelled(Histogram(
            "atlas_upstream_duration_seconds", "Time of an attempt to its first content or its failure", ["endpoint"],
            buckets=_SECONDS, registry=registry,
        ))  # fmt: skip
        self.unmapped_errors = _labelled(Counter(
            "atlas_upstream_unmapped_errors", "Provider errors that only the class of their status explained",
            ["endpoint", "status"], registry=registry,
        ))  # fmt: skip
        self.malformed_events = _labelled(Counter(
            "atlas_upstream_malformed_events", "Payloads of providers that could not be read and were skipped",
            ["endpoint"], registry=registry,
        ))  # fmt: skip
        self.first_token = _labelled(Histogram(
            "atlas_time_to_first_token_seconds", "From the request to the first content in the log", ["route"],
            buckets=_SECONDS, registry=registry,
        ))  # fmt: skip
        self.inter_token = _labelled(Histogram(
            "atlas_inter_token_seconds", "The median gap between reads of a stream, once per stream", ["route"],
            buckets=_FAST, registry=registry,
        ))  # fmt: skip
        self.tokens = _labelled(Counter("atlas_tokens", "Tokens by type", ["endpoint", "type"], registry=registry))
        self.cost = _labelled(Counter(
            "atlas_cost_usd", "What tokens cost where the price is known, USD", ["endpoint"], registry=registry
        ))  # fmt: skip
        self.wasted_tokens = Counter(
            "atlas_stream_wasted_tokens", "Output tokens of cancelled streams that came while nobody was served",
            registry=registry,
        )  # fmt: skip
        self.streams = _labelled(Gauge("atlas_streams", "Streams owned by this process", ["state"], registry=registry))
        self.stream_ends = _labelled(
            Counter("atlas_stream_ends", "Ended streams by state and reason", ["reason"], registry=registry)
        )
        self.stalls = Counter(
            "atlas_stream_stalls", "Gaps of two seconds or more in running streams", registry=registry
        )
        self.reattaches = Counter(
            "atlas_stream_reattaches", "Readers that attached by a stream's id", registry=registry
        )
        self.control = _labelled(
            Counter("atlas_stream_control", "Control operations", ["op", "result"], registry=registry)
        )
        self.paused = Histogram(
            "atlas_stream_paused_seconds", "Time that a stream spent paused, once per paused stream", buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self.buffer_bytes = Gauge("atlas_stream_buffer_bytes", "Bytes of all logs in memory", registry=registry)
        self.cancel_to_close = Histogram(
            "atlas_cancel_to_close_seconds", "From a cancel to the closed upstream socket", buckets=_FAST,
            registry=registry,
        )  # fmt: skip
        self.loop_lag = Gauge(
            "atlas_event_loop_lag_seconds", "How late the last beat of the loop was", registry=registry
        )
        self._refresh: list[Callable[[], None]] = []

    def before_scrape(self, refresh: Callable[[], None]) -> None:
        """Call `refresh` before each exposition, for gauges that are cheaper to read than to keep."""
        self._refresh.append(refresh)

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        for refresh in self._refresh:
            refresh()
        return generate_latest(self.registry)
