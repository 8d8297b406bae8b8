"""All that an upstream can do wrong: invisible before content, never a body that looks like success behind it."""

import asyncio
from typing import Any

import openai
import pytest

from tests.e2e.house import CHAT, MESSAGES, MODEL, House, ask, house, run, sid_of
from tests.e2e.test_control import ended
from tests.e2e.test_pool import unlike
from tests.support.answer import body_of
from tests.support.chaos import Garbage, Gate, Plan, refusing, tokens_seen
from tests.support.fold import fold
from tests.support.signals import eventually

QUICK = {"tick_s": 0.02}
TOO_LATE = {"error": {"message": "it broke", "type": "server_error", "code": "server_error"}}

# The fault, and its category: what the attempt's line says.
BEFORE_CONTENT: dict[str, tuple[Plan, str]] = {
    "500": (refusing(500), "upstream_5xx"),
    "502 html": (Plan(status=502, body=b"<html>Bad Gateway</html>", content_type="text/html"), "upstream_5xx"),
    "503": (refusing(503, retry_after="9"), "overloaded"),
    "529": (refusing(529, retry_after="9"), "overloaded"),
    "429": (refusing(429, code="rate_limit_exceeded", retry_after="7"), "rate_limited"),
    "429 money": (refusing(429, code="insufficient_quota"), "quota"),
    "402": (refusing(402), "quota"),
    "401": (refusing(401, code="invalid_api_key"), "provider_auth"),
    "403": (refusing(403), "provider_permission"),
    "404": (refusing(404, code="model_not_found"), "model_not_found"),
    "302": (Plan(status=302, headers={"location": "http://127.0.0.1:9/"}, body=b""), "protocol"),
    "204": (Plan(status=204, body=b""), "protocol"),
    "html": (Plan(content_type="text/html", body=b"<html>sign in</html>"), "protocol"),
    "json instead": (Plan(content_type="application/json", body=b'{"choices": []}'), "protocol"),
    "json error with 200": (
        Plan(content_type="application/json", body=b'{"error": {"message": "later", "code": "slow_down"}}'),
        "overloaded",
    ),
    "no content type": (Plan(content_type=""), "protocol"),
    "gzip": (Plan(content_encoding="gzip"), "protocol"),
    "gzip that is none": (Plan(content_encoding="gzip", encoding_lies=True), "protocol"),
    "bad json": (Plan(garbage=Garbage(kind="json", at=1, count=3)), "protocol"),
    "bad utf-8": (Plan(garbage=Garbage(kind="utf8", at=1, count=3)), "protocol"),
    "arrays": (Plan(garbage=Garbage(kind="not_object", at=1, count=3)), "protocol"),
    "other shape": (Plan(garbage=Garbage(kind="shape", at=0, count=3)), "protocol"),
    "oversize": (Plan(garbage=Garbage(kind="oversize", at=1)), "protocol"),
    "no body": (Plan(end_at_byte=0), "stream_broken"),
    "early end": (Plan(end_at_byte=150), "stream_broken"),
    "fin": (Plan(cut_at_byte=150), "stream_broken"),
    "rst": (Plan(reset_at_byte=150), "stream_broken"),
    "only a role": (Plan(tokens=0, no_finish=True, no_done=True), "stream_broken"),
    "error event": (Plan(error_event_at=(0, {"error": {"message": "x"}})), "stream_error"),
    "overloaded in the stream": (
        Plan(error_event_at=(1, {"error": {"message": "x", "type": "overloaded_error"}})),
        "overloaded",
    ),
    "empty": (Plan(tokens=0), "empty"),
    "silent": (Plan(hold_headers=Gate()), "timeout_first_token"),
    "silent behind its head": (Plan(stall_at_event=0), "timeout_first_token"),
    "silent behind its role": (Plan(stall_at_event=1), "timeout_first_token"),
}
NEVER_OPEN = {"breaker": {"failures": 1_000_000, "samples": 1_000_000}}

RESTING = {"rate_limited", "quota", "provider_auth", "provider_permission"}
"""After these the only key is not used again for a while."""

ANSWERED: dict[str, tuple[int, str, str]] = {
    "upstream_5xx": (502, "upstream_error", "provider"),
    "overloaded": (503, "overloaded", "provider"),
    "rate_limited": (429, "rate_limit_exceeded", "provider"),
    "quota": (429, "insufficient_quota", "provider"),
    "provider_auth": (502, "provider_auth", "provider"),
    "provider_permission": (502, "provider_permission", "provider"),
    "model_not_found": (404, "model_not_found", "caller"),  # the client named it: the route is a wildcard
    "protocol": (502, "protocol", "provider"),
    "stream_broken": (502, "stream_broken", "provider"),
    "stream_error": (502, "stream_error", "provider"),
    "empty": (502, "empty", "provider"),
    "timeout_first_token": (504, "timeout_first_token", "provider"),
    "timeout_idle": (504, "timeout_idle", "provider"),
}


def short(category: str) -> dict[str, Any]:
    """The settings of an endpoint that is to be late soon; whoever fails by anything else has all the time it needs."""
    late = category.removeprefix("timeout_")
    return {} if late == category else {"timeouts": {f"{late}_s": 0.3}}


@pytest.mark.parametrize("name", BEFORE_CONTENT)
def test_fallback_is_invisible(name: str) -> None:
    """Whatever fails before content, another endpoint answers, and the client cannot tell but by the headers."""
    plan, category = BEFORE_CONTENT[name]

    async def scenario() -> None:
        good = Plan(tokens=12)
        async with unlike((plan, short(category)), (good, {}), streams=QUICK) as it:
            async with it.chat() as streamed:
                folded = fold(await streamed.read())
            assert (folded.text, folded.finish, folded.done) == (good.text(), "stop", True)
            assert len(folded.ids) == 1
            whole = await it.ask()
            assert whole.json["choices"][0]["message"]["content"] == good.text()
            for answer in (streamed, whole):
                attempts = (await ended(it, sid_of(answer)))["attempts"]
                rests = answer is whole and category in RESTING
                assert (attempts[0], attempts[-1]) == ("up2: ok" if rests else f"up: {category}", "up2: ok")
                assert answer.headers["x-atlas-endpoint"] == "up2"
                assert answer.headers["x-atlas-attempts"] == str(len(attempts))
                assert len(attempts) <= 3

    run(scenario())


@pytest.mark.parametrize("name", BEFORE_CONTENT)
def test_failure_before_content_is_plain_http(name: str) -> None:
    """With nobody else to ask, a failure before content is the table's status and body, streamed or not."""
    plan, category = BEFORE_CONTENT[name]
    status, code, whose = ANSWERED[category]

    async def scenario() -> None:
        async with unlike((plan, short(category)), (Plan(), {}), streams=QUICK) as it:
            off = {"x-atlas-fallback": "off"}
            for answer in await asyncio.gather(it.ask(off, stream=True), it.ask(off)):
                assert answer.headers["content-type"] == "application/json"
                error = answer.json["error"]
                assert (answer.status, error["code"], error["whose"]) == (status, code, whose), answer
                assert error["attempts"][0] == f"up: {category}"
                assert answer.headers["x-should-retry"] in {"true", "false"}
                assert answer.headers["x-request-id"].startswith("req_")
                if status in {429, 503} and answer.headers["x-should-retry"] == "true":
                    assert 1 <= int(answer.headers["retry-after"]) <= 60
                shown = await ended(it, sid_of(answer))
                assert (shown["state"], shown["reason"]) == ("failed", category)
                assert shown["error"]["attempts"] == shown["attempts"] == error["attempts"]
            assert not it.ups[1].requests

    run(scenario())


@pytest.mark.parametrize(
    ("plan", "status", "code"),
    [
        (refusing(400, message="temperature is too hot"), 400, "bad_request"),
        (refusing(422, message="odd"), 400, "bad_request"),
        (refusing(400, code="context_length_exceeded"), 400, "context_length_exceeded"),
        (refusing(400, code="content_filter"), 400, "content_filter"),
        (refusing(413), 413, "request_too_large"),
    ],
)
def test_the_callers_own_faults_are_not_tried_elsewhere(plan: Plan, status: int, code: str) -> None:
    """What is wrong with the request itself is asked once, of one endpoint, and told as it was said."""

    async def scenario() -> None:
        async with house(plan, Plan()) as it:
            answer = await it.ask()
            error = answer.json["error"]
            assert (answer.status, error["code"], answer.headers["x-should-retry"]) == (status, code, "false")
            assert plan.refused is not None
            assert error["message"] == plan.refused.message
            assert (len(it.ups[0].requests), len(it.ups[1].requests)) == (1, 0)

    run(scenario())


def test_refused_connection() -> None:
    """A provider that is down is passed over; alone, it is a 502 that says so."""

    async def scenario() -> None:
        async with house(Plan(), Plan(tokens=9)) as it:
            it.up.refuse()
            answer = await it.ask()
            assert answer.json["choices"][0]["message"]["content"] == Plan(tokens=9).text()
            alone = await it.ask({"x-atlas-fallback": "off"})
            assert (alone.status, alone.json["error"]["code"]) == (502, "connect")

    run(scenario())


def test_the_first_error_is_told() -> None:
    """When all endpoints fail the first error is reported, every attempt is listed, and the soonest retry is named."""

    async def scenario() -> None:
        limited = refusing(429, code="rate_limit_exceeded", message="slowly", retry_after="30")
        async with house(limited, refusing(429, code="rate_limit_exceeded", retry_after="12")) as it:
            answer = await it.ask()
            error = answer.json["error"]
            assert (answer.status, error["message"]) == (429, "slowly")
            assert error["attempts"] == ["up: rate_limited", "up2: rate_limited"]
            assert answer.headers["retry-after"] == "12"

    run(scenario())


def test_a_short_retry_after_is_waited_for() -> None:
    """Alone, an endpoint that asks to come back at once is asked once more, and the client sees an answer."""

    async def scenario() -> None:
        async with house() as it:
            it.up.script = [refusing(429, code="rate_limit_exceeded", retry_after_ms="20")]
            answer = await it.ask()
            assert (answer.status, answer.headers["x-atlas-attempts"]) == (200, "2")

    run(scenario())


def test_keys_do_not_leak_by_error_texts() -> None:
    """A provider that repeats its key in its refusal does not tell it to Atlas's clients."""

    async def scenario() -> None:
        key = "sk-chaos"
        for status, code in ((401, "invalid_api_key"), (403, None), (400, None), (500, None)):
            async with house(refusing(status, code=code, message=f"Incorrect API key provided: {key}. Bad.")) as it:
                answer = await it.ask()
                assert answer.status >= 400
                assert key not in answer.body.decode()
                assert key not in str(await ended(it, sid_of(answer)))
                assert key not in (await it.native(sid_of(answer))).body.decode()

    run(scenario())


# --- a connection that was kept


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_a_stale_connection_is_repeated(how: str) -> None:
    """A kept connection that dies as the next request goes out costs the client nothing, not even an attempt."""

    async def scenario() -> None:
        async with house() as it:
            for _ in range(3):
                await it.ask()
                dead = {"cut_at_byte": 0} if how == "fin" else {"reset_at_byte": 0}
                it.up.script = [Plan(count="wire", **dead)]  # type: ignore[arg-type]
                answer = await it.ask({"x-atlas-fallback": "off"})
                assert answer.json["choices"][0]["message"]["content"] == Plan().text()
                assert it.up.requests[-2].reused
            it.up.close_idle()
            assert (await it.ask()).status == 200

    run(scenario())


def test_of_many_stale_connections_none_is_repeated_on_another() -> None:
    """The repeat after a stale connection takes a new one, however many old ones are left."""

    async def scenario() -> None:
        gate = Gate()
        async with house(Plan(gate=gate)) as it:
            several = [asyncio.ensure_future(it.ask()) for _ in range(4)]
            await it.up.received(4)
            gate.open()
            assert {answer.status for answer in await asyncio.gather(*several)} == {200}
            await eventually(lambda: it.channels == 0)
            assert it.up.open == 4
            it.up.script = [Plan(count="wire", reset_at_byte=0)]
            answer = await it.ask({"x-atlas-fallback": "off"})
            assert answer.status == 200
            assert not it.up.last.reused

    run(scenario())


def test_connections_are_kept() -> None:
    """Answers that end well leave their connection for the next request."""

    async def scenario() -> None:
        async with house() as it:
            for stream in (True, False, True):
                assert (await it.ask(stream=stream)).status == 200
                await eventually(lambda: it.channels == 0)
            assert it.up.ever == 1

    run(scenario())


# --- behind content

BEHIND_CONTENT: dict[str, tuple[Plan, str]] = {
    "early end": (Plan(tokens=20, end_at_byte=2000), "stream_broken"),
    "fin": (Plan(tokens=20, cut_at_byte=2000), "stream_broken"),
    "rst": (Plan(tokens=20, reset_at_byte=2000), "stream_broken"),
    "end without a terminal": (Plan(no_finish=True, no_done=True), "stream_broken"),
    "one of two choices ends": (Plan(choices=2, end_at_byte=None, stall_at_event=19, no_done=True), "timeout_idle"),
    "three malformed": (Plan(garbage=Garbage(kind="json", at=5, count=3)), "protocol"),
    "three bad utf-8": (Plan(garbage=Garbage(kind="utf8", at=5, count=3)), "protocol"),
    "oversize": (Plan(garbage=Garbage(kind="oversize", at=5)), "protocol"),
    "error event": (Plan(error_event_at=(5, {"error": {"message": "it broke"}})), "stream_error"),
    "typed error event": (Plan(error_event_at=(5, TOO_LATE)), "upstream_5xx"),
    "openrouter's error": (
        Plan(
            error_event_at=(
                5,
                {"choices": [{"index": 0, "delta": {}, "finish_reason": "error", "error": {"message": "x"}}]},
            )
        ),
        "stream_error",
    ),
    "stall": (Plan(stall_at_event=5), "timeout_idle"),
}  # fmt: skip


@pytest.mark.parametrize("name", BEHIND_CONTENT)
def test_failure_behind_content_never_looks_like_success(name: str) -> None:
    """What breaks behind content ends in the dialect's error, without `[DONE]`; not streamed, in an error status."""
    plan, category = BEHIND_CONTENT[name]
    status, code, whose = ANSWERED[category]

    async def scenario() -> None:
        async with unlike((plan, short(category)), (Plan(), {}), streams=QUICK) as it:
            async with it.chat() as streamed:
                folded = fold(await streamed.read())
            assert (streamed.status, streamed.ended) == (200, "complete")
            assert (folded.done, folded.finish if "choices" not in name else None) == (False, None)
            assert folded.error is not None
            assert (folded.error["code"], folded.error["whose"]) == (code, whose)
            assert 0 < tokens_seen(1, folded.text) <= it.up.last.tokens
            assert not it.ups[1].requests  # what a client has seen a part of is not begun again
            whole = await it.ask({"x-atlas-fallback": "off"})
            error = whole.json["error"]
            assert (whole.status, error["code"], error["whose"]) == (status, code, whose)
            assert error["attempts"][0] == f"up: ok, then {category}"
            for answer in (streamed, whole):
                shown = await ended(it, sid_of(answer))
                assert (shown["state"], shown["reason"]) == ("failed", category)
            async with it.sdk() as client:
                stream: Any = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
                with pytest.raises(openai.APIError):
                    async for _ in stream:
                        pass

    run(scenario())


# --- what is no failure

HARMLESS: dict[str, Plan] = {
    "one malformed event": Plan(garbage=Garbage(kind="json", at=3)),
    "two malformed events": Plan(garbage=Garbage(kind="utf8", at=3, count=2)),
    "a stray page": Plan(garbage=Garbage(kind="html", at=3)),
    "no [DONE]": Plan(no_done=True),
    "no finish": Plan(no_finish=True),
    "no [DONE], connection close": Plan(no_done=True, framing="close"),
    "rubbish behind [DONE]": Plan(epilogue=b"data: {oops}\n\n"),
    "cut behind [DONE]": Plan(epilogue=b"data: {oops}\n\n" * 50).with_(
        cut_at_byte=len(body_of(Plan(), ask("any", stream_options={"include_usage": True}))) + 60
    ),
    "a bom": Plan(prologue=b"\xef\xbb\xbf"),
    "comments": Plan(comment=" PROCESSING"),
    "bare returns": Plan(newline="\r"),
    "event names": Plan(frame_lines=("event: message", "id: 7", "retry: 5")),
    "no space": Plan(data_prefix="data:"),
    "usage on every chunk": Plan(usage="every"),
    "three bytes at a time": Plan(chunking=3),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_oddities_are_no_failures(name: str) -> None:
    """What vendors do out of the ordinary, but mean well, changes nothing for the client."""
    plan = HARMLESS[name]

    async def scenario() -> None:
        async with house(plan) as it:
            async with it.chat() as streamed:
                folded = fold(await streamed.read())
            assert (folded.text, folded.finish, folded.done, folded.error) == (plan.text(), "stop", True, None)
            whole = await it.ask()
            choice = whole.json["choices"][0]
            assert (choice["message"]["content"], choice["finish_reason"]) == (plan.text(), "stop")
            for answer in (streamed, whole):
                assert (await ended(it, sid_of(answer)))["state"] == "completed"

    run(scenario())


def test_answers_without_content_that_are_right() -> None:
    """An answer that was filtered, or spent all its tokens unseen, is an answer, though it has no content."""

    async def scenario() -> None:
        for reason in ("length", "content_filter"):
            async with house(Plan(tokens=0, finish_reason=reason)) as it:
                async with it.chat() as streamed:
                    folded = fold(await streamed.read())
                assert (folded.text, folded.finish, folded.done) == ("", reason, True)
                assert (await it.ask()).json["choices"][0]["finish_reason"] == reason
                assert len(it.up.requests) == 2

    run(scenario())


# --- cut anywhere


async def _survives(it: House, at: int, how: str, plan: Plan) -> None:
    """One request whose provider dies at that byte of the wire, head included; asked again it answers."""
    model = f"{how}{at}"
    cut = {"cut_at_byte": at} if how == "fin" else {"reset_at_byte": at}
    it.up.plans[model] = [plan.with_(count="wire", **cut), plan]
    answer = await it.call("POST", CHAT, {"connection": "close"}, json=ask(f"chaos/{model}"))
    assert answer.status == 200, (at, answer)
    folded = fold(answer.body)
    assert folded.done != (folded.error is not None), (at, answer.body)
    seen = tokens_seen(1, folded.text)
    assert not folded.done or (seen == plan.tokens and folded.finish == "stop"), (at, answer.body)
    shown = await ended(it, sid_of(answer))
    assert shown["state"] == ("completed" if folded.done else "failed")
    native = await it.native(sid_of(answer))
    assert native.body.count(b"\nevent: end\n") == 1


@pytest.mark.parametrize("how", ["fin", "rst"])
def test_cut_at_any_byte(how: str) -> None:
    """Cut at any byte, what the client has is a prefix of the truth, and whole if the one end of it says success."""

    async def scenario() -> None:
        plan = Plan(tokens=6)
        wire = len(body_of(plan, ask())) + 400
        async with house(plan, plan, endpoint=NEVER_OPEN, streams={"tick_s": 0.05}) as it:
            for first in range(0, wire, 16 * 24):
                await asyncio.gather(*(_survives(it, at, how, plan) for at in range(first, first + 16 * 24, 16)))
            await eventually(lambda: it.channels == 0 and it.atlas.connections == 0)

    run(scenario())


def test_a_role_is_not_said_twice() -> None:
    """An attempt that died behind its role chunk leaves no trace: one id, one role, in the answer of the next."""

    async def scenario() -> None:
        async with house(Plan(error_event_at=(1, TOO_LATE)), Plan(seed=1)) as it, it.chat() as answer:
            folded = fold(await answer.read())
            roles = [chunk for chunk in folded.chunks if chunk["choices"][0]["delta"].get("role")]
            assert (len(roles), len(folded.ids), folded.text) == (1, 1, Plan().text())

    run(scenario())


def test_a_hundred_at_once_leave_nothing() -> None:
    """A hundred streams at once, half of them broken, end each by itself and leave no task and no socket."""

    async def scenario() -> None:
        async with house(endpoint=NEVER_OPEN) as it:
            plans = [Plan(tokens=30, seed=n + 1) for n in range(100)]
            for n, plan in enumerate(plans):
                it.up.plans[f"m{n}"] = plan if n % 2 else plan.with_(reset_at_byte=3000)
            answers = await asyncio.gather(*(it.ask(stream=True, model=f"chaos/m{n}") for n in range(100)))
            for n, answer in enumerate(answers):
                folded = fold(answer.body)
                seen = tokens_seen(n + 1, folded.text)
                assert folded.done == bool(n % 2)
                assert (seen == 30) == folded.done
            await eventually(lambda: it.channels == 0)

    run(scenario())
