"""What callers of both dialects are answered for every case of the corpus, through a running Atlas."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import Category, Failure
from gateway.dialects.openai_errors import retry_headers
from tests.corpus.test_errors import FILES, NOW, loaded, provoked
from tests.e2e.house import MESSAGES, House, house, run
from tests.support.chaos import Plan
from tests.support.clock import ManualClock
from tests.support.http import Answer, data_frames

ROUTES = {"openai_chat": "chaos", "anthropic": "claude", "ollama": "llama"}
DIALECTS = {"/v1/chat/completions": "x-request-id", "/v1/messages": "request-id"}
"""The paths, and the header that each SDK takes a request's name from."""

WAIT_S = 1.0
"""What a client is asked to wait where the provider did not say how long."""

_LONG = json.dumps({"error": {"message": "m" * 60_000, "type": "server_error"}}).encode()

SHOWN = {"message", "type", "param", "code", "whose", "provider_code", "attempts"}


def plan_of(case: dict[str, Any]) -> Plan:
    """The case as a provider sends it."""
    headers = {name: value for name, value in case["headers"].items() if name != "content-type"}
    return Plan(
        status=case["status"],
        headers=headers,
        content_type=case["headers"].get("content-type", "text/plain"),
        body=case["body"].encode(case.get("encoding", "utf-8")),
        framing="chunked",
    )


async def ask(it: House, path: str, case: Path, *, stream: bool) -> Answer:
    """One request, on the wire of the case."""
    model = f"{ROUTES[loaded(case)['kind']]}/{case.stem}"
    body = {"model": model, "max_tokens": 9, "messages": MESSAGES, "stream": stream}
    return await it.call("POST", path, json=body)


def expected(case: dict[str, Any]) -> Failure:
    """The failure; who names a model that does not exist is told so."""
    failure = provoked(case).failure
    named = failure.category is Category.MODEL_NOT_FOUND
    return Failure(failure.category, failure.message, failure.retry_after_s, status=404 if named else None)


def assert_answer(answer: Answer, path: str, failure: Failure) -> None:
    """The answer is the failure's, in the shape of the path."""
    row = failure.consequence
    status, kind = row.messages_answer if path == "/v1/messages" else (row.status, row.type)
    assert answer.status == status
    said = answer.json["error"]
    assert (said["type"], said["code"], said["whose"]) == (kind, row.code, row.whose)
    assert said["message"] == failure.message
    assert said.keys() <= SHOWN
    assert said["attempts"]
    wait = WAIT_S if failure.retry_after_s is None and row.status in {429, 503} else failure.retry_after_s
    wanted = dict(retry_headers(retry=row.retry, retry_after_s=wait))
    found = {name: answer.headers.get(name) for name in ("x-should-retry", "retry-after")}
    assert found == {name: wanted.get(name.encode(), b"").decode() or None for name in found}
    assert answer.headers[DIALECTS[path]]
    assert path != "/v1/messages" or answer.json["request_id"] == answer.headers["request-id"]


def assert_end(answer: Answer, path: str, failure: Failure) -> None:
    """The stream ends with the failure, said in the shape of the path; nothing else says that it ended."""
    *before, last = data_frames(answer.body)
    assert (last.event == "error") == (path == "/v1/messages")
    assert last.json["error"]["code"] == failure.consequence.code
    assert not any(word in str(frame.data) for frame in before for word in ("[DONE]", "message_stop"))


def test_answers() -> None:
    """Every case is answered in both shapes with its status, its type, whose it is, and whether to come again."""
    cases = {path: loaded(path) for path in FILES}
    failures = {path: expected(case) for path, case in cases.items()}

    async def check(it: House, path: str, case: Path, stream: bool) -> None:
        answer = await ask(it, path, case, stream=stream)
        try:
            (assert_end if answer.status == 200 and stream else assert_answer)(answer, path, failures[case])
        except AssertionError as error:
            error.add_note(f"{case.stem} on {path}, stream {stream}: {answer}")
            raise

    async def scenario() -> None:
        async with house(clock=ManualClock(NOW), kinds=tuple(ROUTES), endpoint={"breaker": {"enabled": False}}) as it:
            it.up.plans.update({path.stem: plan_of(case) for path, case in cases.items()})
            asked = [(path, case, stream) for case in FILES for path in DIALECTS for stream in (True, False)]
            found = await asyncio.gather(*(check(it, *each) for each in asked), return_exceptions=True)
        wrong = [each for each in found if isinstance(each, Exception)]
        if wrong:
            raise ExceptionGroup("wrongly answered", wrong)

    run(scenario())


@pytest.mark.parametrize(("body", "message"), [(b"x" * 200_000, "the provider answered 500"), (_LONG, "m" * 512)])
def test_large_bodies(body: bytes, message: str) -> None:
    """Of an error that is larger than any should be, the client gets a short one, and the next request is served."""

    async def scenario() -> None:
        plan = Plan(status=500, body=body, content_type="application/json", framing="chunked")
        async with house(plan) as it:
            answer = await it.ask()
            assert (answer.status, answer.json["error"]["message"]) == (502, message)
            it.up.default = Plan()
            assert (await it.ask()).status == 200

    run(scenario())
