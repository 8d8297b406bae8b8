"""What is promised of streams, once more with the journal in Redis: the same tests, the same clients.

Left out are those that turn a clock by hand: Redis keeps its own time. What they promise is shown by tests of the
journal itself (`tests/conformance/journal`) and of several replicas (`tests/replicas`).
"""

from collections.abc import Iterator

import pytest

from tests.e2e import test_control, test_disconnect, test_openai_sdk
from tests.e2e.house import over_redis

BY_CLOCK = {"test_pause_expires", "test_expired_log", "test_a_key_gives_grace"}


@pytest.fixture(autouse=True)
def _over_redis() -> Iterator[None]:
    with over_redis():
        yield


for module in (test_control, test_disconnect, test_openai_sdk):
    promises = {name: each for name, each in vars(module).items() if name.startswith("test_") and name not in BY_CLOCK}
    globals().update(promises)
