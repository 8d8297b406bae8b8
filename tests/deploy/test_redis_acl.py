"""The user for Redis that docs/operating.md advises has what Atlas needs, and no more."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis

from tests.e2e.house import run
from tests.observability.load import loaded_house, one_round
from tests.support.redis_server import RedisServer

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class AsAtlas:
    """The server as that user reaches it."""

    url: str


def advised() -> list[str]:
    """The command in the documentation, with a password."""
    (line,) = re.findall(r"^(ACL SETUSER atlas .*)$", (ROOT / "docs/operating.md").read_text(), re.MULTILINE)
    return str(line).replace("PASSWORD", "secret").split()


def test_the_advised_user_suffices() -> None:
    """A gateway works as that user: answers, control, agents; Redis denies it one question that it can do without."""

    async def scenario() -> None:
        with RedisServer.started("--appendonly", "yes", tcp=True) as server:
            with server.client() as admin:
                admin.execute_command(*advised())
            async with loaded_house(AsAtlas(f"redis://atlas:secret@127.0.0.1:{server.port}")) as it:
                await one_round(it)
                assert (await it.ask(model="claude/any")).status == 200
            with server.client() as admin:
                denied = {(entry["reason"], entry["object"]) for entry in admin.acl_log()}
                assert denied <= {("command", "config|get")}

    run(scenario())


@pytest.mark.parametrize("command", ["GET other", "KEYS atlas:*", "FLUSHALL", "CONFIG GET requirepass", "SPUBLISH x y"])
def test_the_advised_user_can_do_no_harm(command: str) -> None:
    """It reaches neither the keys and channels of others nor the server itself."""
    with RedisServer.started(tcp=True) as server:
        with server.client() as admin:
            admin.execute_command(*advised())
        with (
            redis.Redis(port=server.port, username="atlas", password="secret", protocol=2) as client,
            pytest.raises(redis.exceptions.NoPermissionError),
        ):
            client.execute_command(*command.split())
