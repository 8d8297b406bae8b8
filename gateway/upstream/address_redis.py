"""Where Redis is, by URL.

redis://user:password@host:6379/0      rediss:// with TLS      unix:///path/to.sock?db=0
redis+sentinel://user:password@s1:26379,s2:26379/service/0     rediss+sentinel:// with TLS to the data nodes
redis+cluster://user:password@n1:6379,n2:6379                   rediss+cluster:// with TLS; some of its nodes suffice
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SENTINEL_PORT = 26_379
PORT = 6379
_SENTINEL = re.compile(
    r"(?P<scheme>rediss?)\+sentinel://(?:(?P<user>[^@/]*)@)?(?P<hosts>[^@/]+)/(?P<service>[^/?]+)(?:/(?P<db>\d+))?"
    r"(?:\?(?P<query>.*))?"
)
_CLUSTER = re.compile(
    r"(?P<scheme>rediss?)\+cluster://(?:(?P<user>[^@/]*)@)?(?P<hosts>[^@/?]+)/?0?(?:\?(?P<query>.*))?"
)


@dataclass(frozen=True, slots=True)
class Address:
    """`url` is the data node's in the library's own form.

    With `sentinels` its host and port are theirs to say; with `seeds` it is one node of a cluster that they know.
    """

    url: str
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    seeds: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, url: str) -> Address:
        """Read a URL.

        Raises:
            ValueError: the URL of sentinels lacks hosts or the name of the service, or that of a cluster its hosts.
        """
        if "+cluster:" in url:
            return cls._of_cluster(url)
        if "+sentinel:" not in url:
            return cls(url)
        found = _SENTINEL.fullmatch(url)
        if found is None:
            msg = "the URL of sentinels is redis+sentinel://[user:password@]host:port,host:port/service[/database]"
            raise ValueError(msg)
        user = f"{found['user']}@" if found["user"] else ""
        node = f"{found['scheme']}://{user}{found['service']}/{found['db'] or 0}"
        query = f"?{found['query']}" if found["query"] else ""
        sentinels = tuple(_host(text, SENTINEL_PORT) for text in found["hosts"].split(","))
        return cls(node + query, sentinels, found["service"])

    @classmethod
    def _of_cluster(cls, url: str) -> Address:
        found = _CLUSTER.fullmatch(url)
        if found is None:
            msg = "the URL of a cluster is redis+cluster://[user:password@]host:port,host:port, without a database"
            raise ValueError(msg)
        user = f"{found['user']}@" if found["user"] else ""
        query = f"?{found['query']}" if found["query"] else ""
        hosts = found["hosts"].split(",")
        return cls(f"{found['scheme']}://{user}{hosts[0]}/0{query}", seeds=tuple(_host(text, PORT) for text in hosts))


def _host(text: str, port_else: int) -> tuple[str, int]:
    host, _, port = text.rpartition(":") if re.search(r":\d+$", text) else (text, "", "")
    return host.strip("[]"), int(port) if port else port_else
