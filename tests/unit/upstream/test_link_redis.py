"""The one way to Redis: addresses, outages, cancelled requests, and what is found at start."""

import asyncio
import logging
import random
from dataclasses import replace

import pytest

from examples.ports import free_port
from gateway.core.clock import SystemClock
from gateway.upstream.address_redis import Address
from gateway.upstream.check_redis import Report, check
from gateway.upstream.lane_redis import Lane
from gateway.upstream.link_redis import Link, LinkDown, LinkRefused, Observer, Script, Timing
from gateway.upstream.resp import ErrorReply, command
from tests.support.baseline import baseline
from tests.support.redis_proxy import RedisProxy
from tests.support.redis_server import RedisServer, cluster, replica_of, shared_redis
from tests.support.run import run
from tests.support.signals import eventually
from tests.unit.streams.redis_world import STEADY

QUICK = replace(STEADY, reply_s=0.2, answer_s=2.0, patience_s=0.1)
"""Where Redis is away, or says nothing."""
ECHO = Script("return {KEYS[1], ARGV[1]}")


def link_to(url: str, timing: Timing = STEADY) -> Link:
    """A link that loads one script."""
    return Link(url, SystemClock(), timing=timing, scripts=[ECHO])


# Addresses.


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:pw@h.example:7000/2", "h.example:7000"),
        ("rediss://h.example", "h.example:6379"),
        ("unix:///run/redis.sock?db=1", "/run/redis.sock"),
        ("redis://h.example?socket_timeout=1&max_connections=3", "h.example:6379"),
    ],
)
def test_an_address_is_shown_without_secrets(url: str, shown: str) -> None:
    """What logs and messages name never holds user or password."""
    assert link_to(url).shown == shown


@pytest.mark.parametrize("url", ["http://h", "redis://h?no_such_option=1", "redis://h?db=x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """A wrong address is found when the link is built, not with the first request."""
    with pytest.raises(ValueError, match=r"URL"):
        link_to(url)


@pytest.mark.parametrize(
    ("url", "node", "sentinels"),
    [
        ("redis+sentinel://s1:1,s2/main", "redis://main/0", (("s1", 1), ("s2", 26379))),
        ("rediss+sentinel://u:p@s1/main/3?ssl_ca_certs=x", "rediss://u:p@main/3?ssl_ca_certs=x", (("s1", 26379),)),
        ("redis+sentinel://[::1]:5,[::2]/main", "redis://main/0", (("::1", 5), ("::2", 26379))),
    ],
)
def test_sentinels_are_read(url: str, node: str, sentinels: tuple[tuple[str, int], ...]) -> None:
    """Hosts, service, database, credentials and options of the data nodes are where they belong."""
    assert Address.of(url) == Address(node, sentinels, "main")


@pytest.mark.parametrize(
    ("url", "node", "seeds"),
    [
        ("redis+cluster://n1:1,n2", "redis://n1:1/0", (("n1", 1), ("n2", 6379))),
        ("rediss+cluster://u:p@n1/?ssl_ca_certs=x", "rediss://u:p@n1/0?ssl_ca_certs=x", (("n1", 6379),)),
        ("redis+cluster://[::1]:5,[::2]/0", "redis://[::1]:5/0", (("::1", 5), ("::2", 6379))),
    ],
)
def test_a_cluster_is_read(url: str, node: str, seeds: tuple[tuple[str, int], ...]) -> None:
    """Some of its nodes are named, and everything else is as for one node."""
    assert Address.of(url) == Address(node, seeds=seeds)
    assert link_to(url).is_cluster


@pytest.mark.parametrize("url", ["redis+cluster://", "redis+cluster://n1/3", "http+cluster://n1"])
def test_half_an_address_of_a_cluster_is_refused(url: str) -> None:
    """A cluster without nodes does not exist, and one has no databases but the first."""
    with pytest.raises(ValueError, match="URL"):
        link_to(url)


@pytest.mark.parametrize("url", ["redis+sentinel://s1:1", "redis+sentinel:///main", "http+sentinel://s1/main"])
def test_half_an_address_of_sentinels_is_refused(url: str) -> None:
    """Sentinels without a service's name are of no use."""
    with pytest.raises(ValueError, match="URL"):
        link_to(url)


async def _databases() -> None:
    with RedisServer.started("--requirepass", "s3cret", tcp=True) as server:
        lane = Lane(link_to(f"redis://:s3cret@127.0.0.1:{server.port}/5"))
        async with Running(lane):
            assert await lane.ask(command("SET", "atlas:x", "1")) == ["OK"]
        with server.client() as client:
            assert client.info("keyspace").keys() == {"db5"}
        with pytest.raises(LinkDown) as refused:
            await link_to(f"redis://:wr0ng@127.0.0.1:{server.port}").connect()
        assert "wr0ng" not in str(refused.value)


def test_password_and_database_of_the_address_hold() -> None:
    """A wrong password is an outage that does not name it."""
    run(_databases())


class Running:
    """Lanes with their tasks."""

    def __init__(self, *lanes: Lane) -> None:
        self._lanes = lanes

    async def __aenter__(self) -> None:
        self._tasks = [asyncio.create_task(lane.run()) for lane in self._lanes]

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


# Questions.


async def _mixed() -> None:
    """Many ask, and many stop asking at any moment."""
    rng = random.Random(7)
    server = shared_redis()
    lane = Lane(link_to(server.url, Timing()))

    async def ask(number: int) -> None:
        reply = await lane.call(ECHO, [f"atlas:{number}"], "x" * rng.randrange(2_000))
        assert reply[0] == b"atlas:%d" % number, "somebody else's reply"

    async with baseline(clients=server.clients), Running(lane):
        for round_ in range(40):
            tasks = [asyncio.create_task(ask(100 * round_ + n)) for n in range(50)]
            for task in tasks:
                if rng.random() < 0.5:
                    asyncio.get_running_loop().call_later(rng.random() * 0.002, task.cancel)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert not [result for result in results if isinstance(result, Exception)]


def test_cancelled_requests_do_not_mix_replies() -> None:
    """Whoever stops waiting, everybody else gets the reply to their own question, and no connection is left."""
    run(_mixed())


async def _errors() -> None:
    lane = Lane(link_to(shared_redis().url))
    async with Running(lane):
        with pytest.raises(LinkRefused, match="mine"):
            await lane.call(Script("return redis.error_reply('ERR mine')"), ["atlas:x"])
        first, second = await asyncio.gather(lane.ask(command("NO-SUCH")), lane.call(ECHO, ["k"], "v"))
        assert first[0].code == "ERR"
        assert second == [b"k", b"v"]


def test_an_error_is_of_one_question() -> None:
    """A question that Redis refuses does not disturb the others of its pipeline."""
    run(_errors())


async def _closed() -> None:
    with RedisServer.started() as server:
        lane = Lane(link_to(server.url, replace(STEADY, reply_s=100.0, answer_s=100.0)))
        async with Running(lane):
            await lane.call(ECHO, ["k"], "v")
            server.pause()
            waiting = [asyncio.create_task(lane.call(ECHO, ["k"], "v")) for _ in range(3)]
            await asyncio.sleep(0)
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [LinkDown] * 3
        server.go_on()


def test_a_closed_lane_lets_nobody_wait() -> None:
    """Who waits when the gateway stops is told at once."""
    run(_closed())


# Outages.


async def _outage(caplog: pytest.LogCaptureFixture) -> None:
    states: list[float] = []
    async with RedisProxy.before(shared_redis()) as proxy:
        link = Link(proxy.url, SystemClock(), timing=QUICK, scripts=[ECHO], observer=Observer(on_state=states.append))
        lanes = Lane(link), Lane(link)
        async with Running(*lanes):
            for lane in lanes:
                await lane.call(ECHO, ["k"], "v")
            proxy.refuse()
            for lane in lanes:
                with pytest.raises(LinkDown):
                    await lane.call(ECHO, ["k"], "v")
            begun = asyncio.get_running_loop().time()
            for _ in range(100):
                with pytest.raises(LinkDown, match="away"):
                    await lanes[0].call(ECHO, ["k"], "v")
            assert asyncio.get_running_loop().time() - begun < 10, "nobody waits for what is known to be away"
            proxy.refuse(refusing=False)
            await eventually(lambda: not link.is_given_up)
            for lane in lanes:
                assert await lane.call(ECHO, ["k"], "v") == [b"k", b"v"]
    assert states == [0.0, 1.0]
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(":")[0].partition(" after")[0] for line in lines] == ["Redis is away", "Redis is back"]


def test_an_outage_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """However many requests meet it: one line when Redis goes, one when it is back, and no waiting in between."""
    with caplog.at_level(logging.INFO, "atlas.redis"):
        run(_outage(caplog))


async def _long_outage() -> None:
    async with RedisProxy.before(shared_redis()) as proxy:
        link = Link(proxy.url, SystemClock(), timing=QUICK, scripts=[ECHO])
        lane = Lane(link)
        async with Running(lane):
            await lane.call(ECHO, ["k"], "v")
            proxy.refuse()
            with pytest.raises(LinkDown):
                await lane.call(ECHO, ["k"], "v")
            await asyncio.sleep(0.4)  # nobody asks any more
            assert link.is_given_up
            proxy.refuse(refusing=False)
            await eventually(lambda: not link.is_given_up)
            assert await lane.call(ECHO, ["k"], "v") == [b"k", b"v"]


def test_a_long_outage_ends_by_itself() -> None:
    """A Redis that comes back is noticed, though everybody who asked has given up long ago."""
    run(_long_outage())


class Heard:
    """What an observer is told."""

    def __init__(self) -> None:
        self.latencies: list[tuple[str, float]] = []
        self.errors: list[str] = []
        self.observer = Observer(
            on_latency=lambda kind, seconds: self.latencies.append((kind, seconds)), on_error=self.errors.append
        )


async def _observed() -> None:
    heard = Heard()
    async with RedisProxy.before(shared_redis()) as proxy:
        lane = Lane(Link(proxy.url, SystemClock(), timing=STEADY, scripts=[ECHO], observer=heard.observer), "read")
        async with Running(lane):
            await asyncio.gather(*[lane.call(ECHO, ["k"], "v") for _ in range(5)])
            ((kind, seconds),) = heard.latencies
            assert (kind, heard.errors) == ("read", [])
            assert 0 < seconds < STEADY.reply_s
            (reply,) = await lane.ask(command("INCR"))
            assert isinstance(reply, ErrorReply)
            assert heard.errors == ["read"]
            proxy.begin(lose=0)
            await lane.call(ECHO, ["k"], "v")
            assert heard.errors == ["read", "read"]
            assert len(heard.latencies) == 3


def test_pipelines_are_observed() -> None:
    """One latency a pipeline that was answered; one error a pipeline that was not, or that was refused something."""
    run(_observed())


async def _stopped() -> None:
    with RedisServer.started() as server:
        lane = Lane(link_to(server.url, QUICK))
        async with Running(lane):
            await lane.call(ECHO, ["k"], "v")
            server.pause()
            begun = asyncio.get_running_loop().time()
            with pytest.raises(LinkDown):
                await lane.call(ECHO, ["k"], "v")
            assert asyncio.get_running_loop().time() - begun < QUICK.answer_s + 10
            server.go_on()


def test_every_wait_has_a_deadline() -> None:
    """A Redis that stands still with open sockets is given up in time."""
    run(_stopped())


# What is found at start.


def found(server: RedisServer) -> Report:
    """What a start finds."""
    return run(check(link_to(server.url)))


def test_a_safe_redis_is_taken() -> None:
    """An append-only file and no eviction: nothing to say."""
    with RedisServer.started("--appendonly", "yes") as server:
        report = found(server)
    assert (report.refusals, report.warnings, report.persistence) == ((), (), "aof")
    assert report.version >= "7.0"


@pytest.mark.parametrize(
    ("options", "refused", "warned"),
    [
        (("--maxmemory-policy", "allkeys-lru", "--save", "60 1"), "allkeys-lru", None),
        (("--maxmemory-policy", "volatile-ttl", "--save", "60 1"), None, "volatile-ttl"),
        (("--save", ""), None, "persisted"),
    ],
)
def test_an_unsafe_redis_is_told_of(options: tuple[str, ...], refused: str | None, warned: str | None) -> None:
    """A Redis that drops what it likes is refused; one that may lose things is warned of."""
    with RedisServer.started(*options) as server:
        report = found(server)
    assert [word for word in report.refusals if word.count(refused or "!")] == list(report.refusals)
    assert bool(report.refusals) == (refused is not None)
    assert [warned in line for line in report.warnings if warned] == [True] * (warned is not None)


def test_a_replica_is_refused() -> None:
    """A replica cannot hold a journal."""
    with RedisServer.started("--save", "60 1", tcp=True) as master, replica_of(master) as replica:
        assert found(replica).refusals == ("this is a replica: name the master",)


def test_a_redis_that_tells_nothing_is_said_so() -> None:
    """A user who may not ask gets a warning, not a guess."""
    with RedisServer.started("--save", "60 1", tcp=True) as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "atlas", "on", ">pass", "~atlas:*", "+@all", "-@dangerous")
        report = run(check(link_to(f"redis://atlas:pass@127.0.0.1:{server.port}")))
    assert (report.version, report.refusals) == ("unknown", ())
    assert "info" in report.warnings[0].lower()


def test_a_cluster_is_looked_at_whole() -> None:
    """Every master counts, found from whichever seed answers; what is said of each is said once."""
    with cluster(3) as servers:
        url = f"redis+cluster://127.0.0.1:{free_port()},127.0.0.1:{servers[0].port}"
        report = run(check(link_to(url)))
        assert report.refusals == ()
        assert (report.persistence, len(report.warnings)) == ("none", 1)
        with servers[2].client() as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        (refusal,) = run(check(link_to(url))).refusals
        assert "noeviction" in refusal
        (refusal,) = found(servers[0]).refusals
        assert "redis+cluster://" in refusal


def test_what_is_no_cluster_is_refused() -> None:
    """A single Redis under the URL of a cluster is found at start."""
    with RedisServer.started(tcp=True) as server:
        (refusal,) = run(check(link_to(f"redis+cluster://127.0.0.1:{server.port}"))).refusals
        assert "no cluster" in refusal
