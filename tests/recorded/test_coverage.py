"""No recorded stream is left out without a reason, and none has fallen out of the matrix unseen."""

from collections import Counter

from tests.recorded.replay import VENDORS, left_out, replayed
from tests.support.recordings import need_recordings, recordings

REPLAYED = {
    "openai-chat": 30,
    "azure-openai": 10,
    "groq": 5,
    "mistral": 8,
    "deepseek": 8,
    "openrouter": 10,
    "xai": 2,
    "anthropic": 29,
    "ollama": 9,
}
LEFT_OUT = {
    ("xai", "of /v1/responses"): 3,
    ("ollama", "of /api/generate"): 3,
}


def test_every_stream_is_replayed_or_has_a_reason() -> None:
    """The streams of each vendor are replayed, but for those of another API."""
    need_recordings()
    assert {vendor: len(replayed("stream", vendor)) for vendor in VENDORS} == REPLAYED
    reasons = Counter(
        (vendor, why) for vendor in VENDORS for each in recordings(vendor, "stream") if (why := left_out(each))
    )
    assert reasons == LEFT_OUT
