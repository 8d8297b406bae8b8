"""How much of it: a sample in the ordinary run, the full figures with `ATLAS_CHAOS=full` (`make chaos`)."""

import os
import random

FULL = os.environ.get("ATLAS_CHAOS") == "full"
SEED = int(os.environ.get("ATLAS_CHAOS_SEED", "20260101"))


def figure(sample: int, full: int) -> int:
    """The one or the other."""
    return full if FULL else sample


def rng(name: str) -> random.Random:
    """Chance that can be repeated: the same in every ordinary run, and for a given `ATLAS_CHAOS_SEED`."""
    return random.Random(f"{SEED}/{name}")


def quantile(values: list[float], share: float) -> float:
    """The value that this share of all does not exceed; 0 of none."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))] if ranked else 0.0
