"""Where Redis is, by URL.

redis://user:password@host:6379/0      rediss:// with TLS      unix:///path/to.sock?db=0
redis+sentinel://user:password@s1:26379,s2:26379/service/0     rediss+sentinel:// with TLS to the data nodes
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SENTINEL_PORT = 26_379
_SENTINEL = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?:(?P<user>[^@/]*)@)?(?P<hosts>[^@/]+)/(?P<service>[^/?]+)(?:/(?P<db>\d+))?"
    r"(?:\?(?P<query>.*))?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """`url` is the data node's in the library's own form; with `sentinels` its host and port are theirs to say."""

    url: str
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""

    @classmethod
    def of(cls, url: str) -> Address:
        """Read a URL.

        Raises:
            ValueError: the URL of sentinels lacks hosts or the name of the service.
        """
        if "+sentinel:" not in url:
            return cls(url)
        found = _SENTINEL.fullmatch(url)
        if found is None:
            msg = "the URL of sentinels is redis+sentinel://[user:password@]host:port,host:port/service[/database]"
            raise ValueError(msg)
        user = f"{found['user']}@" if found["user"] else ""
        node = f"{found['scheme']}://{user}{found['service']}/{found['db'] or 0}"
        query = f"?{found['query']}" if found["query"] else ""
        return cls(node + query, tuple(_host(text) for text in found["hosts"].split(",")), found["service"])


def _host(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":") if re.search(r":\d+$", text) else (text, "", "")
    return host.strip("[]"), int(port) if port else SENTINEL_PORT
