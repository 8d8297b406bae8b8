"""Settings of every test run: hypothesis is repeatable on CI and inventive elsewhere."""

import os

from hypothesis import HealthCheck, settings

_SHARED = {"deadline": None, "max_examples": 60, "suppress_health_check": [HealthCheck.too_slow]}

settings.register_profile("local", **_SHARED)
settings.register_profile("ci", **_SHARED, derandomize=True, print_blob=True)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "local"))
