"""The tables: what was measured, beside nginx, with what it has to reach and whether it does.

Goals are those of the project's performance specification; a figure is the median of the rounds, its range follows in
brackets. A goal in `x nginx` is judged by the ratio of the medians of the same run.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Samples = dict[str, dict[str, list[float]]]
"""Target, then figure, then one value per round."""

_YARDSTICK = "nginx"
_P400_DELIVERED = 19_800.0  # chunks a second, 99 % of what is offered


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """A bound: absolute, or in multiples of another target's figure."""

    value: float
    of: str | None = None

    def __str__(self) -> str:
        return f"{self.value:g}" if self.of is None else f"{self.value:g}x {self.of}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A figure: its key, how it is called and printed, and its goals."""

    key: str
    label: str
    digits: int = 2
    better: Literal["<=", ">="] = "<="
    must: Goal | None = None
    stretch: Goal | None = None


def _at(value: float, of: str | None = None) -> Goal:
    return Goal(value=value, of=of)


_CHUNK = "CPU us per chunk, p400"
_P99 = "relay p99 ms, p400"

_ROWS = (
    Row(key="p400_cpu_us", label=_CHUNK, must=_at(2.4, _YARDSTICK), stretch=_at(1.5, _YARDSTICK)),
    Row(key="p400_p99_ms", label=_P99),
    Row(key="p400_p50_ms", label="relay p50 ms, p400"),
    Row(key="relay_openai_us", label="CPU us per chunk, p400, OpenAI relayed as OpenAI"),
    Row(key="relay_anthropic_us", label="CPU us per chunk, p400, Anthropic relayed as Anthropic"),
    Row(key="from_anthropic_us", label="CPU us per chunk, p400, Anthropic translated to OpenAI"),
    Row(key="from_openai_us", label="CPU us per chunk, p400, OpenAI translated to Anthropic"),
    Row(key="added_from_anthropic_us", label="added by translation from Anthropic, us per chunk", must=_at(6)),
    Row(key="added_from_openai_us", label="added by translation from OpenAI, us per chunk", must=_at(6)),
    Row(
        key="sustained_per_s",
        label="sustained chunks/s, p99 <= 20 ms",
        digits=0,
        better=">=",
        must=_at(20_000),
        stretch=_at(30_000),
    ),
    Row(key="unpaced_cpu_us", label="CPU us per chunk, unpaced"),
    Row(key="unpaced_per_s", label="chunks/s, unpaced", digits=0, better=">="),
    Row(
        key="requests_per_s",
        label="requests/s, 64 at once",
        digits=0,
        better=">=",
        must=_at(2600),
        stretch=_at(5500),
    ),
    Row(key="requests_core_per_s", label="requests per CPU second", digits=0, better=">="),
    Row(key="request_cpu_ms", label="CPU ms per request", digits=3),
    Row(key="ttft_1_ms", label="added first token p50 ms, 1 at once", must=_at(1.2), stretch=_at(0.6)),
    Row(key="ttft_50_ms", label="added first token p50 ms, 50 at once", must=_at(2), stretch=_at(1)),
    Row(key="stream_kib", label="KiB per open stream", digits=1, must=_at(64), stretch=_at(32)),
    Row(key="idle_mib", label="idle MiB", digits=1, must=_at(90), stretch=_at(60)),
    Row(key="pause_p99_ms", label="pause takes effect, p99 ms", must=_at(20), stretch=_at(5)),
    Row(key="pause_p50_ms", label="pause takes effect, p50 ms"),
    Row(key="cancel_reader_p99_ms", label="cancel: reader's end, p99 ms", must=_at(20), stretch=_at(5)),
    Row(key="cancel_reader_p50_ms", label="cancel: reader's end, p50 ms"),
    Row(key="cancel_upstream_p99_ms", label="cancel: upstream socket closed, p99 ms", must=_at(20), stretch=_at(5)),
    Row(key="cancel_upstream_p50_ms", label="cancel: upstream socket closed, p50 ms"),
    Row(key="resume_p99_ms", label="resume to next chunk, p99 ms"),
    Row(key="pool_selection_us", label="pool: selection over 50 endpoints, slowest strategy, us", must=_at(30)),
    Row(key="pool_upkeep_us", label="pool: breaker and statistics, us per request", must=_at(3)),
    Row(key="pool_budget_us", label="pool: budgets, us per chunk", must=_at(2)),
    Row(key="pool_fallback_ms", label="pool: added by a fallback before content, ms", digits=3, must=_at(5)),
    Row(key="start_s", label="start to ready, s", must=_at(1.5), stretch=_at(0.7)),
)

_REDIS_ROWS = {
    "p400_cpu_us": Row(key="p400_cpu_us", label=_CHUNK, must=_at(3.0, _YARDSTICK), stretch=_at(1.8, _YARDSTICK)),
    "p400_p99_ms": Row(key="p400_p99_ms", label=_P99, must=_at(10), stretch=_at(3)),
}
_REDIS_ALSO = (
    Row(key="p400_cpu_us", label=f"{_CHUNK}, against the memory journal", must=_at(1.4, "atlas")),
    Row(key="p400_redis_us", label="Redis' own CPU us per chunk, p400"),
    Row(key="elsewhere_pause_p50_ms", label="pause at another replica, 300 streams, p50 ms", must=_at(15)),
    Row(key="elsewhere_pause_p99_ms", label="pause at another replica, 300 streams, p99 ms", must=_at(100)),
    Row(key="elsewhere_resume_p50_ms", label="resume at another replica, to next chunk, p50 ms"),
    Row(key="elsewhere_resume_p99_ms", label="resume at another replica, to next chunk, p99 ms"),
    Row(key="elsewhere_cancel_answer_p50_ms", label="cancel at another replica, answered, p50 ms", must=_at(15)),
    Row(key="elsewhere_cancel_answer_p99_ms", label="cancel at another replica, answered, p99 ms", must=_at(100)),
    Row(key="elsewhere_cancel_reader_p50_ms", label="cancel at another replica: reader's end, p50 ms"),
    Row(key="elsewhere_cancel_reader_p99_ms", label="cancel at another replica: reader's end, p99 ms"),
    Row(key="redis_event_bytes", label="bytes in Redis per token event", digits=1, must=_at(45)),
)


def medians(samples: Samples) -> dict[str, dict[str, float]]:
    """Target, then figure, then the median over the rounds."""
    return {
        target: {key: statistics.median(values) for key, values in figures.items() if values}
        for target, figures in samples.items()
    }


def tables(samples: Samples) -> Iterator[str]:
    """One Markdown table for each target that was measured; nginx alone only if nothing else was."""
    middle = medians(samples)
    others = [name for name in samples if name not in (_YARDSTICK, "direct") and samples[name]]
    if not others:
        yield "\n".join(_alone(_YARDSTICK, samples))
    for name in others:
        rows = _ROWS if name != "atlas-redis" else (*(_REDIS_ROWS.get(row.key, row) for row in _ROWS), *_REDIS_ALSO)
        yield "\n".join(_table(name, rows, samples, middle))


def _alone(name: str, samples: Samples) -> Iterator[str]:
    yield f"| figure | {name} |\n|---|---|"
    for row in _ROWS:
        if row.key in samples.get(name, {}):
            yield f"| {row.label} | {_with_range(samples[name][row.key], row.digits)} |"


def _table(name: str, rows: Sequence[Row], samples: Samples, middle: dict[str, dict[str, float]]) -> Iterator[str]:
    journal = {"atlas": " (memory journal)", "atlas-redis": " (Redis journal)"}.get(name, "")
    yield f"### {name}{journal}\n"
    yield f"| figure | nginx | {name} | ratio | must | stretch | verdict |"
    yield "|---|---|---|---|---|---|---|"
    for row in rows:
        if row.key not in middle.get(name, {}):
            continue
        value = middle[name][row.key]
        base = _figure(middle, (row.must and row.must.of) or _YARDSTICK, row)
        cells = [
            row.label,
            _number(_figure(middle, _YARDSTICK, row), row.digits),
            _with_range(samples[name][row.key], row.digits),
            "" if math.isnan(base) or base <= 0 else f"{value / base:.2f}",
            f"{row.better} {row.must}" if row.must else "",
            f"{row.better} {row.stretch}" if row.stretch else "",
            verdict(name, row, middle),
        ]
        yield f"| {' | '.join(cells)} |"


def _figure(middle: dict[str, dict[str, float]], name: str, row: Row) -> float:
    return middle.get(name, {}).get(row.key, math.nan)


def _number(value: float, digits: int) -> str:
    return "" if math.isnan(value) else f"{value:,.{digits}f}"


def _with_range(values: Sequence[float], digits: int) -> str:
    middle = _number(statistics.median(values), digits)
    if len(values) < 2:
        return middle
    return f"{middle} ({_number(min(values), digits)}-{_number(max(values), digits)})"


def verdict(name: str, row: Row, middle: dict[str, dict[str, float]]) -> str:
    """`stretch met`, `must met`, `MISSED`, or nothing where there is no goal.

    A target that does not keep up at p400 has missed its goals there whatever a chunk costs: what piles up is relayed
    in larger pieces, which makes each chunk cheap.
    """
    if row.must is None:
        return ""
    if row.key.startswith("p400_") and middle[name].get("p400_per_s", math.inf) < _P400_DELIVERED:
        return "MISSED: does not keep up"
    reached = [_reached(goal, row, middle[name][row.key], middle) for goal in (row.must, row.stretch) if goal]
    if None in reached:
        return "not measured"
    if not reached[0]:
        return "MISSED"
    return "stretch met" if len(reached) > 1 and reached[1] else "must met"


def _reached(goal: Goal, row: Row, value: float, middle: dict[str, dict[str, float]]) -> bool | None:
    bound = goal.value
    if goal.of is not None:
        base = middle.get(goal.of, {}).get(row.key)
        if base is None:
            return None
        bound *= base
    return value <= bound if row.better == "<=" else value >= bound


def rig_lines(samples: Samples) -> Iterator[str]:
    """What says whether the rig itself was in order: chunks delivered, the load's core, chunks after a pause."""
    for name, figures in medians(samples).items():
        if "p400_per_s" in figures:
            yield (
                f"- {name}: p400 delivered {figures['p400_per_s']:,.0f} of 20,000 chunks/s, "
                f"{figures['p400_failed']:.0f} streams failed, load's core {figures['p400_load_core']:.0%} busy, "
                f"others (not of the benchmark) used {figures['p400_others']:.0%} of a core"
            )
        if "request_core" in figures:
            yield f"- {name}: requests: the target's core {figures['request_core']:.0%} busy"
        if "control_others" in figures:
            yield f"- {name}: pause and cancel: others used {figures['control_others']:.0%} of a core"
        if figures.get("elsewhere_pause_after_answer"):
            after = figures["elsewhere_pause_after_answer"]
            yield f"- {name}: {after:.0f} chunks came after their pause was answered by another replica"
        if figures.get("pause_after_answer"):
            yield f"- {name}: {figures['pause_after_answer']:.0f} chunks came after their pause was answered"
