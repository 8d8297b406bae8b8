"""A secret that all replicas share where the operator gave them none: the first that needs it makes it.

    atlas:secret   string   32 random bytes; whoever asks for it keeps it for another `KEPT_S`

It is asked for each time, never remembered: it may have been forgotten and made anew meanwhile.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from gateway.upstream.link_redis import Script

if TYPE_CHECKING:
    from gateway.streams.asking_redis import Asking

SECRET = "atlas:secret"  # noqa: S105  the name of a key
BYTES = 32
KEPT_S = 86_400
"""Much longer than anything that is signed with it."""

# KEYS: secret. a fresh one, how long in ms -> the one that counts
_SHARED = Script(
    """
local found = redis.call('SET', KEYS[1], ARGV[1], 'NX', 'GET', 'PX', ARGV[2])
if not found then return ARGV[1] end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return found
"""
)


async def shared_secret(asking: Asking) -> bytes:
    """The secret.

    Raises:
        JournalUnavailable: it could not be read.
    """
    found: bytes = await asking.run(_SHARED, [SECRET], secrets.token_bytes(BYTES), KEPT_S * 1000)
    return found
