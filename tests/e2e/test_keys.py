"""Keys as people use them: made by the command, shown by the stock SDKs, rotated, expired, and seen in no log."""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from openai import OpenAI

from config.load import load
from gateway.app import create
from gateway.cli import main
from gateway.telemetry.logs import JsonFormatter
from tests.e2e.house import CHAT, ask, house, run, sid_of
from tests.support.chaos import Gate, Plan
from tests.support.clock import ManualClock
from tests.support.fold import fold
from tests.support.http import RawClient
from tests.support.keys import PEPPER, Made, carried, keyed, made
from tests.support.server import AtlasServer
from tests.support.signals import eventually

HELLO: Any = [{"role": "user", "content": "Hello"}]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, pepper: str = PEPPER) -> dict[str, Any]:
    """What `atlas keys create --json` prints."""
    assert main(["keys", "create", "--json", *arguments], {"ATLAS_KEY_PEPPER": pepper}) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_from_the_command_to_the_first_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the command prints is all that it takes: the row goes into the file, the pepper into the environment."""
    assert main(["keys", "create", "--tenant", "a", "--id", "team-a"], {}) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    secret = next(line for line in lines if line.startswith("atl_"))
    row = next(line for line in lines if line.startswith("- {"))
    pepper = next(line for line in lines if line.startswith("export ")).partition("=")[2]
    file = tmp_path / "atlas.yaml"
    file.write_text(f"keys:\n  {row}\n")
    app = create(load(file, {"ATLAS_KEY_PEPPER": pepper}))

    async def scenario() -> None:
        async with AtlasServer(app) as atlas, RawClient.to(atlas.base_url) as client:
            body = ask("mock-fast", stream=False)
            assert (await client.request("POST", CHAT, json=body)).status == 401
            assert (await client.request("POST", CHAT, carried(secret, "authorization"), json=body)).status == 200

    run(scenario())


def test_rotation_with_overlap(capsys: pytest.CaptureFixture[str]) -> None:
    """Old and new key of a tenant work side by side on the same streams, each until its row goes or expires."""
    old, new = (printed(capsys, "--tenant", "a", "--expires", span) for span in ("1h", "90d"))
    assert old["pepper"] is None

    async def scenario() -> None:
        async with house(keys=[old["row"], new["row"]], key_pepper=PEPPER) as it:
            answer = await it.ask(carried(old["key"], "x-api-key"), model="mock-fast")
            path = f"/v1/streams/{sid_of(answer)}"
            assert (await it.call("GET", path, carried(new["key"], "api-key"))).status == 200
        async with house(keys=[new["row"]], key_pepper=PEPPER) as it:
            assert (await it.ask(carried(old["key"], "x-api-key"), model="mock-fast")).status == 401

    run(scenario())


def test_expiry_spares_what_runs() -> None:
    """A key that expires opens nothing from that moment on; the response that it began runs to its end."""

    async def scenario() -> None:
        gate, clock = Gate(2), ManualClock(now=1_800_000_000.0)
        short = made("a", expires="2027-01-15T08:01:00Z")  # a minute from there
        plan = Plan(gate=gate)
        async with house(plan, clock=clock, **keyed(short)) as it, it.chat(short.headers()) as answer:
            await answer.until_frames(2)
            path = f"/v1/streams/{sid_of(answer)}"
            assert (await it.call("GET", path, short.headers())).status == 200
            clock.advance(60)
            refused = await it.call("GET", path, short.headers())
            assert (refused.status, refused.json["error"]["code"]) == (401, "expired_api_key")
            gate.open()
            assert fold(await answer.read()).text == plan.text()

    run(scenario())


CLIENTS: dict[str, Callable[..., Any]] = {
    "openai": lambda url, key: openai.AsyncOpenAI(base_url=url + "/v1", api_key=key, max_retries=0),
    "anthropic, x-api-key": lambda url, key: anthropic.AsyncAnthropic(base_url=url, api_key=key, max_retries=0),
    "anthropic, bearer": lambda url, key: anthropic.AsyncAnthropic(base_url=url, auth_token=key, max_retries=0),
}


async def said(client: Any) -> str:
    """What the mock answers to a client of either kind."""
    if isinstance(client, openai.AsyncOpenAI):
        answer = await client.chat.completions.create(model="mock-fast", messages=HELLO)
        return str(answer.choices[0].message.content)
    message = await client.messages.create(model="mock-fast", max_tokens=500, messages=HELLO)
    return str(message.content[0].text)


@pytest.mark.parametrize("name", CLIENTS)
def test_stock_clients_show_their_key(name: str) -> None:
    """Each SDK works with a key where it takes one, and raises its own class of error for each way to be refused."""
    theirs: Any = anthropic if name.startswith("anthropic") else openai

    async def scenario() -> None:
        good, scraper, other = made("a"), made("a", "metrics"), made("b", expires="2020-01-01")
        async with house(**keyed(good, scraper, other)) as it:

            def client(key: Made | str) -> Any:
                return CLIENTS[name](it.atlas.base_url, key if isinstance(key, str) else key.secret)

            async with client(good) as one:
                assert "Hello" in await said(one)
                assert "mock-fast" in [model.id async for model in one.models.list()]
            for key, status, error in (
                ("sk-garbage", 401, theirs.AuthenticationError),
                (other, 401, theirs.AuthenticationError),
                (scraper, 403, theirs.PermissionDeniedError),
            ):
                async with client(key) as one:
                    with pytest.raises(error) as caught:
                        await said(one)
                    assert caught.value.status_code == status

    run(scenario())


def test_sync_client() -> None:
    """The synchronous SDK shows its key as the asynchronous one does."""

    def blocking(url: str, key: str) -> str:
        with OpenAI(base_url=url, api_key=key, max_retries=0) as client:
            return str(client.chat.completions.create(model="mock-fast", messages=HELLO).choices[0].message.content)

    async def scenario() -> None:
        key = made("a")
        async with house(**keyed(key)) as it:
            assert "Hello" in await asyncio.to_thread(blocking, it.url, key.secret)

    run(scenario())


def test_both_dialects_refuse_in_their_own_shape() -> None:
    """Each dialect's caller reads refusals as its own API words them."""

    async def scenario() -> None:
        key = made("a")
        async with house(**keyed(key)) as it:
            openai_error = (await it.call("POST", CHAT, json={})).json
            assert set(openai_error["error"]) == {"message", "type", "param", "code"}
            refused = await it.call("POST", "/v1/messages", {"anthropic-version": "2023-06-01"}, json={})
            assert (refused.status, refused.json["type"]) == (401, "error")
            assert refused.json["error"]["type"] == "authentication_error"
            both = key.headers() | carried("sk-other", "x-api-key")
            for path in (CHAT, "/v1/messages"):
                assert (await it.call("POST", path, both, json={})).status == 400

    run(scenario())


def test_the_log_names_the_key_and_never_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    """A finished stream's line names the operator's id of the key; secret, hash and pepper are in no line at all."""
    caplog.set_level(logging.DEBUG)
    key = made("a", id="team-a")

    async def scenario() -> None:
        gate = Gate(2)
        async with house(Plan(gate=gate), **keyed(key)) as it:
            assert (await it.ask(key.headers(), model="mock-fast")).status == 200
            async with it.chat(key.headers("api-key")) as hung_up:
                await hung_up.until_frames(2)
            await it.call("GET", "/v1/streams", carried(key.secret[:-1], "api-key"))
            await it.call("GET", "/v1/streams", key.headers() | carried("x", "api-key"))
            await eventually(lambda: it.channels == 0)

    run(scenario())
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    ends = [line for line in lines if line["message"] == "stream ended"]
    assert [line["key"] for line in ends] == ["team-a", "team-a"]
    text = "\n".join(map(json.dumps, lines)) + caplog.text
    for canary in (key.secret[13:], key.row["hash"][12:], PEPPER):
        assert canary not in text
