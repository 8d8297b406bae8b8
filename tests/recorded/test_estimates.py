"""What a cancelled stream is billed by estimate is near what the provider would have said: judged by recorded streams.

Each recorded stream whose provider reported its usage is cut after one and after two thirds of its content. The truth
at the cut is the reported figure times a share: of the events that had come, where the figure shows that this answer
had one token an event, else of the bytes. What can be learnt of a model is learnt from its other recordings by the
same vendor, never from the one that is judged. An answer is judged if it has at least 50 tokens and all of them could
be seen. The same errors by shares of bytes alone, where single words weigh more, are printed beside.
"""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest

from gateway.core.events import Finish, SourceEvent, UsageReport
from gateway.core.tokens import Counted, estimate_output_tokens
from gateway.core.usage import Usage
from gateway.pool.tokens import Kind, TokenRatios
from gateway.providers._anthropic_events import EventDecoder
from gateway.providers._ollama_lines import OllamaDecoder
from gateway.providers._openai_chunks import ChunkDecoder
from gateway.providers._reading import Decoder, Framing, InStreamError, Malformed
from gateway.streams.stats import Stats
from gateway.upstream.lines import LineDecoder
from gateway.upstream.sse import SSEDecoder
from tests.support.recordings import Recording, need_recordings, recordings

OPENAI = ("openai-chat", "azure-openai", "groq", "mistral", "deepseek", "openrouter", "xai")
WIRES: dict[str, tuple[Callable[[], Framing], Callable[[], Decoder]]] = {
    **dict.fromkeys(OPENAI, (SSEDecoder, ChunkDecoder)),
    "anthropic": (SSEDecoder, EventDecoder),
    "ollama": (LineDecoder, OllamaDecoder),
}
LEAST_TOKENS = 50
WITHIN = 0.15
CUTS = (1 / 3, 2 / 3)
FRAMING = 3
STRUCTURED = {"response_format", "output_format", "output_config", "format"}
NOT_JUDGED = {
    "groq/stream/006-stream-with-tools-3.json": "made up by hand (142 tokens for 66 words)",
    "groq/stream/004-test-tool-use-failed-error-streaming.json": "with 10 of 58 tokens in markers that are not sent",
}
_MODEL = re.compile(rb'"model": ?"([^"]+)"')


@dataclass(frozen=True, slots=True)
class Judged:
    """One recorded stream, what it had in all, and why it cannot be judged, if so."""

    recording: Recording
    kind: Kind
    events: list[SourceEvent]
    counted: Counted
    usage: Usage | None
    left_out: str | None


def counted(events: list[SourceEvent], share: float = 1.0) -> Counted:
    """What went by until `share` of the bytes had come."""
    stats, total = Stats(0.0), 0
    if share < 1:
        total = counted(events).size
    for event in events:
        stats.observe([event], 1.0)
        if share < 1 and stats.size >= share * total:
            break
    return stats.tallies()[-1].counted


def judged(vendor: str, recording: Recording) -> Judged:
    """Decode one recording."""
    exchange = recording.load()
    body = exchange.body
    framing, decoder = (make() for make in WIRES[vendor])
    events: list[SourceEvent] = []
    problem = None
    try:
        for data in (body, b""):
            events += decoder.feed(framing.feed(data) if data else framing.flush())
    except (Malformed, InStreamError):
        problem = "an error in the stream"
    reports = [event.usage for event in events if isinstance(event, UsageReport)]
    usage = reports[-1] if reports and any(isinstance(event, Finish) for event in events) else None
    model = _MODEL.search(body)
    asked = exchange.request_body if isinstance(exchange.request_body, dict) else {}
    kind = Kind(vendor, model[1].decode() if model else "", bool(STRUCTURED & asked.keys()))
    seen = counted(events)
    if vendor in OPENAI and exchange.path and "/chat/completions" not in exchange.path:
        problem = f"from {exchange.path}"
    why = NOT_JUDGED.get(f"{vendor}/stream/{recording.path.name}") or problem or left_out(seen, usage)
    return Judged(recording, kind, events, seen, usage, why)


def left_out(seen: Counted, usage: Usage | None) -> str | None:
    """Why an answer says nothing of estimates; None if it does."""
    if usage is None or not usage.output_tokens:
        return "no usage"
    if usage.reasoning_tokens and not seen.reasoning:
        return "hidden reasoning"
    if seen.opaque:
        return "server tools, signatures or citations"
    if seen.calls:
        return "tool calls"
    if usage.output_tokens < LEAST_TOKENS:
        return f"fewer than {LEAST_TOKENS} tokens"
    return None


@cache
def everything() -> dict[str, list[Judged]]:
    """Every recorded stream by vendor."""
    return {vendor: [judged(vendor, each) for each in recordings(vendor, "stream")] for vendor in WIRES}


def learnt(vendor: str, kind: Kind, but: Judged | None) -> TokenRatios:
    """What the vendor's other recordings of the model teach."""
    ratios = TokenRatios()
    for each in everything()[vendor]:
        if each is not but and each.kind == kind and each.usage is not None:
            hidden = 0 if each.counted.reasoning else each.usage.reasoning_tokens or 0
            ratios.learn(kind, each.counted, each.usage.output_tokens - hidden)
    return ratios


def errors(vendor: str, case: Judged) -> tuple[list[float], list[float]]:
    """How far the estimates at the cuts are off, as shares of the truth; and of the truth by bytes alone."""
    assert case.usage is not None
    ratio = learnt(vendor, case.kind, case).of(case.kind)
    tokens, whole = case.usage.output_tokens, case.counted
    one_each = abs(whole.events - tokens) <= FRAMING
    found: tuple[list[float], list[float]] = ([], [])
    for share in CUTS:
        part = counted(case.events, share)
        estimate = estimate_output_tokens(part, ratio)
        by_bytes = tokens * part.size / whole.size
        true = tokens * part.events / whole.events if one_each else by_bytes
        found[0].append(estimate / true - 1)
        found[1].append(estimate / by_bytes - 1)
    return found


def test_estimates_of_cut_streams(capsys: pytest.CaptureFixture[str]) -> None:
    """Cut at one and at two thirds, every recorded answer that can be judged is estimated within 15 %."""
    need_recordings()
    lines = ["", f"estimates of streams cut at a third and two thirds ({LEAST_TOKENS} tokens and more, all visible):"]
    wrong: list[str] = []
    for vendor, cases in everything().items():
        found = {case.recording.name: errors(vendor, case) for case in cases if case.left_out is None}
        wrong += [f"{name}: {off}" for name, (off, _) in found.items() if max(map(abs, off)) > WITHIN]
        worst, by_bytes = (
            max((abs(off) for pair in found.values() for off in pair[which]), default=0.0) for which in (0, 1)
        )
        reasons = Counter(case.left_out for case in cases if case.left_out is not None)
        said = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items())) or "none"
        lines.append(f"  {vendor}: {len(found)}, worst {worst:.1%} (bytes alone {by_bytes:.1%}); left out: {said}")
    with capsys.disabled():
        print("\n".join(lines))
    assert wrong == []
