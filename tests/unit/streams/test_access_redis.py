"""The Redis journal over TLS, as a user that may do no more than it must."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from examples.ports import free_port
from gateway.core.clock import SystemClock
from gateway.streams.journal import Appended, JournalUnavailable
from gateway.streams.layout_redis import channel_of
from gateway.streams.lifecycle import Op, Step
from gateway.upstream import link_redis
from gateway.upstream.link_redis import Link
from gateway.upstream.resp import command
from tests.support.redis_server import RedisServer, require_redis
from tests.support.run import run
from tests.unit.streams.redis_world import QUICK, append, begin, journal_at, log_of, texts, until

RIGHTS = ("on", ">s3cret", "~atlas:*", "&atlas:*", "+@all", "-@dangerous")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate for 127.0.0.1 (`server`), whoever signed it (`ca`), and somebody else (`other`)."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: there is nothing to make certificates with")
    folder = tmp_path_factory.mktemp("certificates")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    for name in ("ca", "other"):
        _openssl("req", "-x509", *key, "-subj", f"/CN={name}", "-keyout", f"{folder}/{name}.key", "-out",
                 f"{folder}/{name}.crt")  # fmt: skip
    _openssl("req", *key[:-2], "-subj", "/CN=redis", "-keyout", f"{folder}/server.key", "-out", f"{folder}/server.csr")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signer = ("-CA", f"{folder}/ca.crt", "-CAkey", f"{folder}/ca.key", "-CAcreateserial", "-days", "2")
    _openssl("x509", "-req", "-in", f"{folder}/server.csr", *signer, "-extfile", f"{folder}/names", "-out",
             f"{folder}/server.crt")  # fmt: skip
    return folder


@contextmanager
def guarded(authority: Path) -> Iterator[tuple[int, RedisServer]]:
    """The port of a server that speaks TLS and knows the user `atlas`; and the server."""
    tried = subprocess.run([require_redis(), "-"], input=b"tls-port 0\nnonsense", check=False, capture_output=True)
    if b"'nonsense'" not in tried.stdout + tried.stderr:  # it stumbled before
        pytest.skip("this redis-server was built without TLS")
    port = free_port()
    files = ("--tls-cert-file", f"{authority}/server.crt", "--tls-key-file", f"{authority}/server.key",
             "--tls-ca-cert-file", f"{authority}/ca.crt", "--tls-auth-clients", "no")  # fmt: skip
    with RedisServer.started("--tls-port", str(port), *files) as server:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "atlas", *RIGHTS)
            client.execute_command("ACL", "SETUSER", "reader", "on", ">s3cret", "~other:*", "+@all")
            client.execute_command("ACL", "SETUSER", "default", "off")
        yield port, server


async def _whole_life(url: str) -> None:
    async with journal_at(url) as journal:
        record = await begin(journal, owner="rid-nonce")
        assert await append(journal, record.sid, texts(record.gen, 1, "a")) is Appended.ACKED
        await journal.step(record.sid, Step(op=Op.PAUSE, op_id="p"))
        await journal.step(record.sid, Step(op=Op.CLAIM, op_id="c", owner="rid-other"))
        await journal.annotate(record.sid, {"n": 1}, closed_by="rid-nonce")
        assert len(await journal.tail([(record.sid, record.gen, 0)])) == 1
        assert (await journal.listing("acme", after=None, limit=9, state=None))[0].facts == {"n": 1}
        assert await log_of(journal, record.sid) == ["Start", "a", "Pause", "Claim"]
        channel = channel_of("rid")
        assert await journal.control_lane.ask(channel, command("SPUBLISH", channel, "hint")) == [0]
        await journal.delete(record.sid)


def test_tls_and_an_access_list_do(authority: Path) -> None:
    """Over TLS, as a user of `atlas:*` keys and channels without dangerous commands, everything works."""
    with guarded(authority) as (port, _):
        run(_whole_life(f"rediss://atlas:s3cret@127.0.0.1:{port}/0?ssl_ca_certs={authority}/ca.crt"))


@pytest.mark.parametrize(
    "url",
    [
        "rediss://atlas:s3cret@127.0.0.1:{port}/0?ssl_ca_certs={folder}/other.crt",
        "rediss://atlas:s3cret@localhost:{port}/0?ssl_ca_certs={folder}/ca.crt&ssl_check_hostname=true",
        "redis://atlas:s3cret@127.0.0.1:{port}/0",
        "rediss://atlas:wrong@127.0.0.1:{port}/0?ssl_ca_certs={folder}/ca.crt",
        "rediss://127.0.0.1:{port}/0?ssl_ca_certs={folder}/ca.crt",
        "rediss://reader:s3cret@127.0.0.1:{port}/0?ssl_ca_certs={folder}/ca.crt",
    ],
    ids=["another authority", "another name", "no TLS", "a wrong password", "no user", "a user of other keys"],
)
def test_who_is_not_let_in_is_told(authority: Path, url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A certificate, a password or rights that do not fit: unavailable in time, and no secret in any message."""

    async def story(port: int) -> None:
        timing = replace(QUICK, answer_s=0.4)
        async with journal_at(url.format(port=port, folder=authority), timing=timing) as journal:
            with pytest.raises(JournalUnavailable) as caught:
                await begin(journal)
            assert "s3cret" not in str(caught.value) + caplog.text
            assert "wrong" not in caplog.text

    with guarded(authority) as (port, _):
        run(story(port))


async def _cancelled_behind_the_handshake(url: str, server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []  # the socket

    class Cancelling(link_redis._Seen):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            seen.append(transport.get_extra_info("socket"))
            server.pause()  # it will not answer a farewell
            connecting.cancel()

    monkeypatch.setattr(link_redis, "_Seen", Cancelling)
    connecting = asyncio.ensure_future(Link(url, SystemClock(), timing=QUICK).connect())
    try:
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await until(lambda: seen[0].fileno() == -1, within_s=10)
    finally:
        server.go_on()


@pytest.mark.parametrize("fast", [False, True], ids=["asyncio", "uvloop"])
def test_a_cancelled_connect_leaves_no_socket(authority: Path, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled when TLS's handshake is just done: the socket is closed at once, and waits for no farewell."""
    with guarded(authority) as (port, server):
        url = f"rediss://atlas:s3cret@127.0.0.1:{port}/0?ssl_ca_certs={authority}/ca.crt"
        run(_cancelled_behind_the_handshake(url, server, monkeypatch), fast=fast)
