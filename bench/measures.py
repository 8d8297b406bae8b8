"""The measures: each runs loads against one target and gives figures by name.

A measure is a function of a session and a target; `MEASURES` is their order within a round. Memory comes first, on
processes that have served nothing yet.
"""

import math
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TypeVar

import msgspec

from bench import control, load, proc
from bench.redis_memory import bytes_per_event
from bench.targets import Rig, StartError, Target, another, direct
from bench.wire import Wire

Figures = dict[str, float]
_T = TypeVar("_T")

_RATE = 50  # chunks a second of every paced stream
_SAMPLE_EVERY = 10
_LIMIT_P99_MS = 20.0
_LADDER = (600, 500, 400)  # streams: 30,000, 25,000 and 20,000 chunks a second
_BUSY = 0.9
_GRACE_S = 45.0
_SLOW_RATE = 20
_LOG_TOKENS = 300


class MeasureError(Exception):
    """A load process did not give a result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How long windows last, in seconds, and how many streams and samples are taken."""

    p400_s: float = 7.0
    sustained_s: float = 4.0
    requests_s: float = 3.0
    unpaced_s: float = 3.0
    ttft_s: float = 2.5
    warm_s: float = 1.5
    idle_streams: int = 1000
    samples: int = 100
    ladder: tuple[int, ...] = _LADDER


QUICK = Scale(
    p400_s=3.0, sustained_s=2.0, requests_s=1.5, unpaced_s=1.5, ttft_s=1.0, warm_s=0.7, samples=30, ladder=(600, 400)
)


@dataclass(slots=True, kw_only=True)
class Session:
    """One round: where it runs, how large, what was wrong with it."""

    rig: Rig
    scale: Scale
    notes: list[str] = field(default_factory=list)
    direct: Figures = field(default_factory=dict)
    p400_holds: dict[str, bool] = field(default_factory=dict)

    def drive(self, target: Target, script: str, **options: object) -> load.Result:
        """Run a load of this script against the target. Raises MeasureError."""
        watched = {**target.watched(), "upstream": [self.rig.upstream_pid]}
        plan = msgspec.convert(
            {
                "port": target.port,
                "model": target.prefix + script,
                "script": script,
                "watched": watched,
                "cores": self.rig.cores,
                **options,
            },
            load.Plan,
        )
        result = self._result(self.spawn("bench.load", plan), load.Result, _duration(plan))
        if result.failed:
            self.notes.append(f"{target.name}: {script}: {result.failed} streams failed: {'; '.join(result.errors)}")
        return result

    def probe(self, plan: control.Plan) -> control.Result:
        """Run the control samples. Raises MeasureError."""
        return self._result(self.spawn("bench.control", plan), control.Result, plan.limit_s)

    def alone(self, module: str) -> Figures:
        """Figures that a module finds out by itself. Raises MeasureError."""
        return self._result(self.spawn(module, msgspec.defstruct("Nothing", ())()), Figures, 0.0)

    def spawn(self, module: str, plan: msgspec.Struct) -> subprocess.Popen[bytes]:
        """Start a module with its plan on the load's core."""
        command = [sys.executable, "-m", module, msgspec.json.encode(plan).decode()]
        with proc.pinned(self.rig.load_core):
            return subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)

    def _result(self, process: subprocess.Popen[bytes], kind: type[_T], expected_s: float) -> _T:
        try:
            output, _ = process.communicate(timeout=expected_s + _GRACE_S)
            return msgspec.json.decode(output, type=kind)
        except (subprocess.TimeoutExpired, msgspec.DecodeError) as error:
            raise MeasureError(f"{process.args!r}: {error}") from error
        finally:
            process.kill()
            process.wait()

    def check_rig(self, target: Target, what: str, result: load.Result) -> float:
        """Share of the load's core that was busy; noted where it limits the figures."""
        busy = sum(used for name, used in result.cpu_s.items() if name != "target") / result.seconds
        if busy > _BUSY:
            self.notes.append(f"{target.name}: {what}: the load's core was {busy:.0%} busy and may be the limit")
        return busy


def _duration(plan: load.Plan) -> float:
    return plan.ramp_s + plan.warm_s + plan.window_s + plan.settle_s


def _per(total: float, count: float, unit: float) -> float:
    return total / count * unit if count else math.nan


def memory(session: Session, target: Target) -> Figures:
    """Start to ready, PSS of the process tree idle and per open, silent stream."""
    idle_kib = proc.memory_kib(target.watched()["target"])
    session.drive(target, "bench-one", kind="loop", streams=16, warm_s=0.0, window_s=0.3)
    streams = session.scale.idle_streams
    result = session.drive(
        target, "bench-idle", kind="hold", streams=streams, ramp_s=1.5, warm_s=1.0, window_s=0.2, idle=True
    )
    grown = result.memory_kib["target"] - result.memory_before_kib["target"]
    return {"start_s": target.start_s, "idle_mib": idle_kib / 1024, "stream_kib": grown / streams}


def ttft(session: Session, target: Target) -> Figures:
    """Added time to first token, p50: one stream at a time, and with 50 paced streams open."""
    if not session.direct:
        session.direct = _first_tokens(session, direct(session.rig))
    return {name: value - session.direct[name] for name, value in _first_tokens(session, target).items()}


def _first_tokens(session: Session, target: Target) -> Figures:
    window_s = session.scale.ttft_s
    alone = session.drive(target, "bench-one", kind="loop", streams=1, gap_s=0.004, warm_s=0.3, window_s=window_s)
    script = f"bench-p{_RATE}-25"
    among = session.drive(target, script, kind="loop", streams=50, ramp_s=0.5, warm_s=0.5, window_s=window_s)
    if alone.first_token is None or among.first_token is None:
        raise MeasureError(f"{target.name}: no first token came")
    return {"ttft_1_ms": alone.first_token.p50, "ttft_50_ms": among.first_token.p50}


def requests(session: Session, target: Target) -> Figures:
    """Requests a second and CPU per request, 64 at once, one content chunk each."""
    warm_s, window_s = session.scale.warm_s, session.scale.requests_s
    result = session.drive(target, "bench-one", kind="loop", streams=64, warm_s=warm_s, window_s=window_s)
    used = result.cpu_s.get("target", 0.0)
    return {
        "requests_per_s": result.answers / result.seconds,
        "requests_core_per_s": _per(result.answers, used, 1.0),
        "request_cpu_ms": _per(used, result.answers, 1e3),
        "request_core": used / result.seconds,
    }


def unpaced(session: Session, target: Target) -> Figures:
    """Chunks a second and CPU per chunk when the upstream sends as fast as it can, 16 streams."""
    result = session.drive(
        target,
        "bench-u-2000",
        kind="loop",
        streams=16,
        warm_s=session.scale.warm_s,
        window_s=session.scale.unpaced_s,
        exact=True,
    )
    return {
        "unpaced_per_s": result.frames / result.seconds,
        "unpaced_cpu_us": _per(result.cpu_s.get("target", 0.0), result.frames, 1e6),
    }


def _paced(session: Session, target: Target, streams: int, window_s: float, dialect: Wire = "openai") -> load.Result:
    warm_s, ramp_s = session.scale.warm_s, streams / 300
    chunks = round((ramp_s + warm_s + window_s + 0.5) * _RATE)
    return session.drive(
        target,
        f"bench-p{_RATE}-{chunks}",
        kind="hold",
        streams=streams,
        wire=dialect,
        ramp_s=ramp_s,
        warm_s=warm_s,
        window_s=window_s,
        sample_every=_SAMPLE_EVERY,
    )


def p400(session: Session, target: Target) -> Figures:
    """400 streams at 50 chunks a second: CPU per chunk and relay latency."""
    result = _paced(session, target, 400, session.scale.p400_s)
    figures = {
        "p400_p50_ms": result.relay.p50 if result.relay else math.nan,
        "p400_p99_ms": result.relay.p99 if result.relay else math.nan,
        "p400_per_s": result.frames / result.seconds,
        "p400_failed": float(result.failed),
        "p400_load_core": session.check_rig(target, "p400", result),
        "p400_others": result.others_cpu_s / result.seconds,
    }
    session.p400_holds[target.name] = _holds(result, 400)
    for name, key in (("target", "p400_cpu_us"), ("redis", "p400_redis_us")):
        if name in result.cpu_s:
            figures[key] = _per(result.cpu_s[name], result.frames, 1e6)
    return figures


_ROUTES: dict[Wire, str] = {"openai": "bench/", "anthropic": "claude/"}


def translation(session: Session, target: Target) -> Figures:
    """CPU per chunk of p400, each client dialect over each provider wire; what translating adds. Atlas only.

    `relay_*`: client and provider speak the same; `from_*`: the provider speaks that, the client the other one. Added
    is what a translated chunk costs above the cheaper of the two relays.
    """
    if not target.is_atlas:
        return {}
    costs: Figures = {}
    for wire, route in _ROUTES.items():
        for dialect in _ROUTES:
            key = f"relay_{wire}_us" if dialect == wire else f"from_{wire}_us"
            costs[key] = _dialect_cost(session, replace(target, prefix=route), dialect)
    relay = min(cost for key, cost in costs.items() if key.startswith("relay_"))
    added = {f"added_{key}": cost - relay for key, cost in costs.items() if key.startswith("from_")}
    return {**costs, **added}


def _dialect_cost(session: Session, target: Target, dialect: Wire) -> float:
    """Microseconds of CPU per chunk, of 400 paced streams."""
    result = _paced(session, target, 400, session.scale.p400_s, dialect)
    session.check_rig(target, f"translation, {target.prefix}* for {dialect}", result)
    delivered = result.frames / result.seconds
    if delivered < 0.99 * 400 * _RATE:
        session.notes.append(f"{target.name}: {target.prefix}* for {dialect}: only {delivered:,.0f} chunks/s delivered")
    return _per(result.cpu_s["target"], result.frames, 1e6)


def sustained(session: Session, target: Target) -> Figures:
    """The highest offered rate, of 30,000, 25,000 and 20,000 chunks a second, relayed whole with p99 <= 20 ms."""
    for streams in session.scale.ladder:
        if streams == 400 and target.name in session.p400_holds:
            return {"sustained_per_s": 400.0 * _RATE * session.p400_holds[target.name]}
        result = _paced(session, target, streams, session.scale.sustained_s)
        session.check_rig(target, f"{streams} streams", result)
        if _holds(result, streams):
            return {"sustained_per_s": float(streams * _RATE)}
    return {"sustained_per_s": 0.0}


def _holds(result: load.Result, streams: int) -> bool:
    whole = not result.failed and result.frames / result.seconds > 0.99 * streams * _RATE
    return whole and result.relay is not None and result.relay.p99 <= _LIMIT_P99_MS


@contextmanager
def _background(session: Session, target: Target, window_s: float, streams: int, rate: int) -> Iterator[int]:
    """Paced streams that are up when the block begins and are cut when it ends; gives their process."""
    script = f"bench-p{rate}-{round((window_s + 4) * rate)}"
    plan = load.Plan(
        kind="hold",
        port=target.port,
        model=target.prefix + script,
        script=script,
        streams=streams,
        ramp_s=1.5,
        window_s=window_s + 3,
        settle_s=5,
    )
    process = session.spawn("bench.load", plan)
    try:
        session.drive(target, "bench-one", kind="loop", streams=1, gap_s=0.02, warm_s=1.5, window_s=1.0)
        if process.poll() is not None:
            raise MeasureError(f"{target.name}: the load behind pause and cancel ended early")
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def control_effect(session: Session, target: Target) -> Figures:
    """Milliseconds from pause and cancel to their effect, under p400's load; Atlas only."""
    return _control(session, target, 400, _RATE, target.port) if target.is_atlas else {}


def control_elsewhere(session: Session, target: Target) -> Figures:
    """Milliseconds from control at another replica to its effect, with 300 streams open; Atlas over Redis only."""
    if not target.redis_port:
        return {}
    try:
        with another(target, session.rig) as other:
            figures = _control(session, target, 300, _SLOW_RATE, other.port)
    except StartError as error:
        raise MeasureError(f"the second replica: {error}") from error
    return {f"elsewhere_{name}": value for name, value in figures.items()}


def redis_memory(session: Session, target: Target) -> Figures:
    """What Redis keeps for a token event, in 100 logs of 300 tokens, each an entry; Atlas over Redis only."""
    if not target.redis_port:
        return {}
    script = f"bench-p{_RATE}-{_LOG_TOKENS}w"
    session.drive(target, script, kind="hold", streams=100, ramp_s=0.5, warm_s=0.0, window_s=1.0)
    found = bytes_per_event(target.redis_port, _LOG_TOKENS)
    if not found:
        raise MeasureError("no log of that length is in Redis")
    return {"redis_event_bytes": found}


def _control(session: Session, target: Target, streams: int, rate: int, control_port: int) -> Figures:
    """The samples of `bench.control`, taken while so many other streams are open."""
    limit_s = session.scale.samples * 0.12 + 4
    with _background(session, target, limit_s, streams, rate) as behind:
        plan = control.Plan(
            port=target.port,
            upstream_port=session.rig.upstream_port,
            model=f"{target.prefix}bench-p{_RATE}-1000",
            samples=session.scale.samples,
            at_once=8,
            limit_s=limit_s,
            control_port=control_port,
        )
        known = [behind, session.rig.upstream_pid, *(pid for group in target.watched().values() for pid in group)]
        begin, before = monotonic(), _others_cpu_s(session, known)
        result = session.probe(plan)
        others = (_others_cpu_s(session, known) - before) / (monotonic() - begin)
    if result.errors or result.samples < plan.samples:
        taken = f"{result.samples} of {plan.samples} samples"
        session.notes.append(f"{target.name}: control: {taken}: {'; '.join(result.errors)}")
    figures: Figures = {"pause_after_answer": float(result.after_answer), "control_others": max(0.0, others)}
    for name in ("pause", "resume", "cancel_answer", "cancel_reader", "cancel_upstream"):
        spread: load.Spread | None = getattr(result, name)
        if spread is not None:
            figures[f"{name}_p50_ms"], figures[f"{name}_p99_ms"] = spread.p50, spread.p99
    return figures


def pool(session: Session, target: Target) -> Figures:
    """What the pool costs by itself; it knows of no target, so that it is measured beside one of them only."""
    if target.name != "atlas":
        return {}
    return session.alone("bench.pool")


def _others_cpu_s(session: Session, known: list[int]) -> float:
    """Seconds used on both cores by processes that are neither these nor our children that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    ours = proc.cpu_s(known) + ended.ru_utime + ended.ru_stime
    return proc.machine_cpu_s(session.rig.cores) - ours


MEASURES: dict[str, Callable[[Session, Target], Figures]] = {
    "memory": memory,
    "ttft": ttft,
    "requests": requests,
    "unpaced": unpaced,
    "p400": p400,
    "translation": translation,
    "sustained": sustained,
    "control": control_effect,
    "pool": pool,
    "elsewhere": control_elsewhere,
    "redis_memory": redis_memory,
}
