"""The command line against a gateway on real sockets: tables, controls, a live tail, runs of agents, exit codes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from examples.ports import free_port
from tests.e2e.agent_house import BOTH, plan, says, team
from tests.e2e.command_house import atlas, shown, typing
from tests.e2e.house import House, house, run, sid_of
from tests.support.chaos import Gate, Plan, truth
from tests.support.gateway_process import GatewayProcess
from tests.support.http import RawStream
from tests.support.keys import keyed, made
from tests.support.signals import eventually


@asynccontextmanager
async def held(it: House, gate: Gate) -> AsyncIterator[RawStream]:
    """A stream that has said its first word and stands at the gate."""
    gate.allow(2)
    async with it.chat({"x-atlas-on-disconnect": "continue"}) as answer:
        await answer.until_frames(2)
        yield answer


def test_streams_are_listed_and_described() -> None:
    """`streams ls` is a table of the newest streams, `show` all of one, named by as little as is unique."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(tokens=6, gate=gate)) as it, held(it, gate) as answer:
            sid = sid_of(answer)
            listed = await atlas(it, "streams", "ls")
            (row,) = listed.rows
            assert listed.code == 0
            assert (row["stream"], row["state"], row["model"], row["endpoint"]) == (sid, "running", "chaos/any", "up")
            assert row["readers"] == "1"
            shown_ = await atlas(it, "streams", "show", sid[4:12])
            assert shown_.code == 0
            assert f"stream          {sid}" in shown_.out
            assert "state           running" in shown_.out
            assert (await atlas(it, "streams", "show", sid, "--json")).json["id"] == sid
            gate.open()
            await answer.read()
            only = await atlas(it, "streams", "ls", "--state", "running")
            assert (only.code, only.out, only.err) == (0, "", "There are no streams in the state running.\n")
            assert [each["id"] for each in (await atlas(it, "streams", "ls", "--json")).json] == [sid]

    run(scenario())


def test_streams_beyond_one_page_are_listed() -> None:
    """A limit above the API's page is honoured, with the newest stream first."""

    async def scenario() -> None:
        async with house(Plan(tokens=1)) as it:
            for _ in range(104):
                assert (await it.ask()).status == 200
            found = (await atlas(it, "streams", "ls", "--limit", "103", "--json")).json
            assert len({each["id"] for each in found}) == 103

    run(scenario())


def test_streams_are_paused_resumed_and_cancelled() -> None:
    """The three controls say which state a stream is in then, and a second pause is no failure."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(tokens=6, gate=gate)) as it, held(it, gate) as answer:
            sid = sid_of(answer)
            paused = await atlas(it, "streams", "pause", sid, "--reason", "lunch")
            assert (paused.code, paused.out.split()[:2]) == (0, [sid, "paused"])
            assert (await it.status(sid))["state"] == "paused"
            again = await atlas(it, "streams", "pause", sid)
            assert (again.code, again.out) == (0, f"{sid}  paused  (already)\n")
            assert "running" in (await atlas(it, "streams", "resume", sid)).out
            cancelled = await atlas(it, "streams", "cancel", sid, "--json")
            assert cancelled.json["stream"]["state"] == "cancelled"
            refused = await atlas(it, "streams", "resume", sid)
            assert refused.code == 1
            assert refused.err == f"{sid} has ended (cancelled)\n"

    run(scenario())


def test_one_that_is_refused_keeps_no_other_from_it() -> None:
    """Of several streams each is controlled, whatever becomes of the others, and who was refused is named."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(tokens=6, gate=gate)) as it, held(it, gate) as answer:
            sid, nobody = sid_of(answer), "str_" + "a" * 26
            typed = await atlas(it, "streams", "pause", nobody, sid)
            assert (typed.code, typed.out) == (1, f"{sid}  paused\n")
            assert typed.err == f"{nobody}: no such stream\n"
            gate.open()

    run(scenario())


def test_tail_follows_while_it_is_written() -> None:
    """`streams tail` shows text as it comes and ends with the stream; stdout gets the text, and no more."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(tokens=12, seed=3, gate=gate)) as it, held(it, gate) as answer:
            sid = sid_of(answer)
            async with typing(it, "streams", "tail", sid) as (ended, out, err):
                await shown(err, "leg 1 at up")
                assert not ended.done()
                await it.control(sid, "pause")
                await shown(err, "[paused]")
                await it.control(sid, "resume")
                gate.open()
                assert await ended == 0
            assert out.getvalue() == truth(3, 12)
            assert "[completed, 12 tokens]" in err.getvalue()
            quiet = await atlas(it, "streams", "tail", sid, "--quiet")
            assert (quiet.out, quiet.err) == (truth(3, 12), "")
            await answer.read()

    run(scenario())


def test_ctrl_c_ends_the_loop_around_it() -> None:
    """Ctrl-C in a tail ends a shell's loop, too: the command dies of the signal, which a shell tells as 130."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(tokens=6, gate=gate)) as it, held(it, gate) as answer:
            command = str(Path(sys.executable).with_name("atlas"))
            process = await asyncio.create_subprocess_exec(
                command, "streams", "tail", sid_of(answer), "--url", it.atlas.base_url,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={},
            )  # fmt: skip
            assert process.stderr is not None
            await process.stderr.readuntil(b"leg 1 at up")
            process.send_signal(signal.SIGINT)
            assert await process.wait() == -signal.SIGINT
            assert b"Traceback" not in await process.stderr.read()
            gate.open()

    run(scenario())


def test_a_tail_that_nobody_reads_ends() -> None:
    """When its reader has left, a tail of a silent stream ends at the next heartbeat, not at the next word."""

    async def scenario() -> None:
        gate = Gate()
        quick = {"server": {"heartbeat_s": 0.05}, "streams": {"tick_s": 0.02}}
        async with house(Plan(tokens=6, gate=gate), **quick) as it, held(it, gate) as answer:
            command = str(Path(sys.executable).with_name("atlas"))
            reads, writes = os.pipe()
            process = await asyncio.create_subprocess_exec(
                command, "streams", "tail", sid_of(answer), "--url", it.atlas.base_url,
                stdout=writes, stderr=subprocess.PIPE, env={},
            )  # fmt: skip
            os.close(writes)
            assert process.stderr is not None
            try:
                assert truth(1, 6).encode().startswith(await asyncio.to_thread(os.read, reads, 100))
                os.close(reads)
                assert await asyncio.wait_for(process.wait(), 10) == 141
                assert b"Traceback" not in await process.stderr.read()
            finally:
                gate.open()
                if process.returncode is None:
                    process.kill()

    run(scenario())


def test_tail_survives_lost_connections() -> None:
    """A tail whose connection is reset again and again misses no event and repeats none."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(tokens=40, seed=5, gate=gate)) as it:
            async with held(it, gate) as answer:
                sid = sid_of(answer)
            async with typing(it, "streams", "tail", sid, "--json") as (ended, out, err):
                for number in range(1, 4):
                    await gate.release(8)
                    await eventually(lambda: out.getvalue().count("\n") >= 2 + 8 * number, what="the events")  # noqa: B023
                    it.atlas.reset_connections()
                gate.open()
                assert await ended == 0
            told = [json.loads(line) for line in out.getvalue().splitlines()]
            ids = [each["id"] for each in told]
            assert len(ids) == len(set(ids))
            assert "".join(each["data"]["text"] for each in told if each["event"] == "text") == truth(5, 40)
            assert err.getvalue().count("trying again]") == 3
            after = await atlas(it, "streams", "tail", sid, "--json", "--after", ids[-2])
            assert [json.loads(line)["id"] for line in after.lines] == ids[-1:]

    run(scenario())


def test_tail_tells_how_a_stream_ended_by_its_exit_code() -> None:
    """A stream that was cancelled gives 1, also when it had ended before; a completed one 0."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(tokens=6, gate=gate)) as it, held(it, gate) as answer:
            sid = sid_of(answer)
            async with typing(it, "streams", "tail", sid) as (ended, _, err):
                await shown(err, "leg 1")
                await it.control(sid, "cancel", reason="enough")
                assert await ended == 1
            assert "[cancelled, enough" in err.getvalue()
            seq = (await it.status(sid))["seq"]
            gen = (await it.status(sid))["gen"]
            assert (await atlas(it, "streams", "tail", sid, "--after", f"{gen}-{seq}")).code == 1

    run(scenario())


def test_what_a_model_says_does_not_command_the_terminal() -> None:
    """Control characters of an answer are shown as what they are on a terminal; a file gets the answer as it is."""

    async def scenario() -> None:
        async with house() as it:
            it.up.plans["evil"] = says("\x1b]0;owned\x07red\x1b[31m\r\nnext")
            async with it.chat(model="chaos/evil") as answer:
                await answer.read()
            typed = await atlas(it, "streams", "tail", sid_of(answer))
            assert typed.out == "\x1b]0;owned\x07red\x1b[31m\r\nnext"
            typed = await atlas(it, "streams", "tail", sid_of(answer), tty=True)
            assert typed.out == "\\x1b]0;owned\\x07red\\x1b[31m\nnext\n"

    run(scenario())


def test_pool_is_shown_and_switched() -> None:
    """`pool` shows endpoints and routes; disable, enable and probe do what they say, and tell the state."""

    async def scenario() -> None:
        async with house() as it:
            assert (await it.ask()).status == 200
            found = await atlas(it, "pool")
            assert found.code == 0
            assert [line.split()[:3] for line in found.lines if line.startswith("up ")] == [["up", "ready", "closed"]]
            assert any(line.startswith("chaos/*") and "first in order" in line for line in found.lines)
            assert (await atlas(it, "pool", "disable", "up")).rows[0]["state"] == "disabled"
            assert (await it.ask()).status == 503
            assert (await atlas(it, "pool", "probe", "up")).code == 1
            assert (await atlas(it, "pool", "enable", "up", "--json")).json["usable"] is True
            assert (await atlas(it, "pool", "probe", "up")).code == 0
            missing = await atlas(it, "pool", "disable", "upp")
            assert (missing.code, missing.err.split(";")[0]) == (1, "there is no endpoint 'upp'")
            assert (await atlas(it, "pool", "disable")).code == 2

    run(scenario())


def test_a_run_is_shown_as_a_tree() -> None:
    """`agents run` shows plan and steps beside the answer, which alone is on stdout, and ends as the run does."""

    async def scenario() -> None:
        async with house(**team()) as it:
            plan(it, BOTH)
            typed = await atlas(it, "agents", "run", "team", "Build", "it.")
            assert typed.code == 0
            assert typed.out == truth(7, 12)
            lines = typed.err.splitlines()
            assert lines[0].startswith("agent/team str_")
            assert lines[1:4] == [
                "└─ team: plan of 2 steps", "   └─ hull (ada): Do hull.", "   └─ sail (bob): Do sail.",
            ]  # fmt: skip
            assert "   └─ ada hull: begins: Do hull." in lines
            assert any(line.startswith("   └─ bob sail: done") for line in lines)
            assert lines[-1].startswith("completed, ")

    run(scenario())


def test_agents_are_listed_and_run_in_the_background() -> None:
    """`agents ls` and `show` tell of agents, `run --background` gives an id that the streams' commands take."""

    async def scenario() -> None:
        async with house(**team()) as it:
            plan(it, BOTH)
            listed = await atlas(it, "agents", "ls")
            assert [line.split()[0] for line in listed.lines] == ["AGENT", "team", "ada", "bob", "sage"]
            assert "workers     ada, bob" in (await atlas(it, "agents", "show", "team")).out
            begun = await atlas(it, "agents", "run", "--background", "team", "Build it.")
            tail = await atlas(it, "streams", "tail", begun.out.strip(), "--quiet")
            assert (tail.code, tail.out) == (0, truth(7, 12))
            done = await atlas(it, "agents", "show", "ada")
            assert [line.split()[1:3] for line in done.lines[-1:]] == [["up", "1"]]
            unknown = await atlas(it, "agents", "run", "nobody", "x")
            assert (unknown.code, unknown.out) == (1, "")
            assert "there is no agent 'nobody'" in unknown.err

    run(scenario())


def test_keys_decide_what_a_command_may_do() -> None:
    """Without a key, with a wrong one or without the scope a command is refused with 1 and the gateway's own words."""

    async def scenario() -> None:
        plain, admin = made("a"), made("ops", "admin", "control", "infer")
        async with house(**keyed(plain, admin)) as it:
            none = await atlas(it, "streams", "ls")
            assert (none.code, none.out) == (1, "")
            assert "no API key was sent" in none.err
            assert "ATLAS_KEY" in none.err
            assert (await atlas(it, "streams", "ls", ATLAS_KEY=plain.secret)).code == 0
            scope = await atlas(it, "pool", ATLAS_KEY=plain.secret)
            assert (scope.code, "needs the scope admin" in scope.err) == (1, True)
            assert (await atlas(it, "pool", "--key", admin.secret, ATLAS_KEY=plain.secret)).code == 0
            odd = await atlas(it, "streams", "ls", ATLAS_KEY="schlüssel")
            assert (odd.code, "schl" in odd.err) == (2, False)
            revoked = await atlas(it, "keys", "revoke", plain.row["id"], ATLAS_KEY=admin.secret)
            assert (revoked.code, "revoked" in revoked.out) == (0, True)
            late = await atlas(it, "streams", "ls", ATLAS_KEY=plain.secret)
            assert (late.code, "revoked" in late.err) == (1, True)

    run(scenario())


def test_a_gateway_that_is_not_there() -> None:
    """Nobody at the address gives 3 and one line; an address that is none gives 2."""

    async def scenario() -> None:
        gone = await atlas(f"http://127.0.0.1:{free_port()}", "streams", "ls")
        assert (gone.code, gone.out) == (3, "")
        assert gone.err.startswith("no gateway was reached at http://127.0.0.1:")
        assert len(gone.err.splitlines()) == 1
        for wrong in ("localhost:8080", "ftp://x", "http://", "http://h:99999", "http://h/?q=1"):
            assert (await atlas(wrong, "pool")).code == 2, wrong
        assert (await atlas(f"http://127.0.0.1:{free_port()}", "streams", "tail", "str_" + "a" * 26)).code == 3

    run(scenario())


def test_the_address_that_sdks_take() -> None:
    """The address may end in `/v1`, as in an SDK's variable."""

    async def scenario() -> None:
        async with house() as it:
            assert (await atlas(f"{it.atlas.base_url}/v1/", "streams", "ls")).code == 0

    run(scenario())


def test_whose_streams_are_listed() -> None:
    """An operator whose key is of a tenant without streams is told that others may have some."""

    async def scenario() -> None:
        one, boss = made("a"), made("ops", "infer", "admin")
        async with house(**keyed(one, boss)) as it:
            assert (await it.ask(one.headers())).status == 200
            typed = await atlas(it, "streams", "ls", ATLAS_KEY=boss.secret)
            assert (typed.code, typed.err) == (0, "There are no streams of this key's tenant.\n")

    run(scenario())


def test_a_gateway_that_does_not_start(tmp_path: Path) -> None:
    """`serve` without its Redis ends with 1, not with the 3 that means that no gateway was reached."""

    async def scenario() -> None:
        journal = {"kind": "redis", "url": f"redis://127.0.0.1:{free_port()}"}
        gateway = GatewayProcess({"journal": journal}, tmp_path)
        gateway.spawn()
        assert await gateway.ended() == 1
        assert "Atlas does not start: Redis at 127.0.0.1:" in gateway.log

    run(scenario())


def test_a_gateway_whose_words_nobody_reads(tmp_path: Path) -> None:
    """Nowhere to write its announcement to, a full disk or a reader that left, keeps no gateway from serving."""
    atlas_ = Path(sys.executable).with_name("atlas")
    for number, nowhere in enumerate(("> /dev/full", "| true")):
        port, log = free_port(), tmp_path / f"{number}.log"
        log.touch()
        line = f"{atlas_} serve --port {port} 2> {log} {nowhere}; exit ${{PIPESTATUS[0]}}"
        process = subprocess.Popen(["bash", "-c", line], env={"PATH": "/usr/bin:/bin"}, start_new_session=True)
        try:
            run(eventually(lambda log=log: "Atlas 0" in log.read_text(), what="the start"))  # type: ignore[misc]
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(20) == 0, log.read_text()
        finally:
            process.kill()


ANSWERS = {
    "html": b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n<html></html>",
    "other json": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    "a list": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]",
    "a proxy's error": b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 14\r\n\r\n<h1>nginx</h1>",
    "a redirect": b"HTTP/1.1 302 Found\r\nlocation: http://elsewhere/\r\ncontent-length: 0\r\n\r\n",
    "no HTTP": b"220 mail.example ESMTP\r\n",
    "nothing": b"",
    "cut off": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{",
    "a terminal's commands": b"HTTP/1.1 404 No\r\ncontent-length: 6\r\n\r\n\x1b[31mx",
}


@pytest.mark.parametrize("command", [("streams", "ls"), ("pool",), ("agents", "run", "a", "b"),
                                     ("streams", "tail", "str_" + "a" * 26)])  # fmt: skip
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_what_is_no_gateway_is_called_so(answer: bytes, command: tuple[str, ...]) -> None:
    """Whatever else answers at the address gives 3 and one harmless line, never a traceback."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(answer)
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            typed = await atlas(f"http://127.0.0.1:{port}", *command)
            assert typed.code == 3, typed
            assert typed.out == ""
            assert len(typed.err.splitlines()) == 1
            assert "\x1b" not in typed.err

    run(scenario())
