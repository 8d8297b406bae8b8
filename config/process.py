"""The environment of this process: the one place that reads it."""

import os


def process_environment() -> dict[str, str]:
    """All of it, as it is now."""
    return dict(os.environ)
