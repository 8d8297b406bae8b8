"""The official openai SDK as the judge: what it accumulates through Atlas is what it accumulates from the provider."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.lib.streaming.chat import ChatCompletionStreamState

from tests.e2e.house import MESSAGES, MODEL, House, house, run, sdk
from tests.support.chaos import AZURE_FIRST, Gate, Plan, Tool, refusing, tokens_seen, usage_of

OURS = {"id", "created", "model"}
TOOLS: Any = [{"type": "function", "function": {"name": name, "parameters": {}}} for name in ("add", "look")]
CALLS = (
    Tool(id="call_a", name="add", arguments='{"a": 1, "b": "zwei \\" \\u2028"}'),
    Tool(id="call_b", name="look", arguments="{}"),
    Tool(id="call_c", name="add", arguments='{"a": 3}'),
)
LOGPROBS = {"logprobs": {"content": [{"token": "t", "logprob": -0.5, "bytes": [116], "top_logprobs": []}]}}
ANSWERS: dict[str, tuple[Plan, dict[str, Any]]] = {
    "text": (Plan(tokens=60), {}),
    "text and usage": (Plan(tokens=60), {"stream_options": {"include_usage": True}}),
    "usage on every chunk": (Plan(usage="every"), {"stream_options": {"include_usage": True}}),
    "usage with the finish": (Plan(usage="finish"), {"stream_options": {"include_usage": True}}),
    "two choices": (Plan(tokens=12), {"n": 2}),
    "length": (Plan(finish_reason="length"), {"max_tokens": 8}),
    "filtered": (Plan(finish_reason="content_filter"), {}),
    "stop": (Plan(), {"stop": ["END", "\n"]}),
    "refusal": (Plan(refusal=True), {}),
    "reasoning": (Plan(reasoning=5), {}),
    "openrouter's reasoning": (Plan(reasoning=5, reasoning_key="reasoning"), {}),
    "one tool": (Plan(tokens=0, tools=CALLS[:1]), {"tools": TOOLS}),
    "parallel tools": (Plan(tokens=3, tools=CALLS), {"tools": TOOLS, "parallel_tool_calls": True}),
    "log-probabilities": (Plan(extra_choice=LOGPROBS), {"logprobs": True, "top_logprobs": 0}),
    "fingerprint": (Plan(extra_chunk={"system_fingerprint": "fp_1", "service_tier": "default"}), {}),
    "azure": (Plan(preamble=(AZURE_FIRST,)), {}),
    "vendor's own": (Plan(extra_delta={"vendor": "x"}, extra_chunk={"provider": "somebody"}), {}),
    "finish with the last word": (Plan(finish_with_last=True), {}),
    "without [DONE]": (Plan(no_done=True), {}),
    "windows line ends": (Plan(newline="\r\n", comment=" OPENROUTER PROCESSING"), {}),
    "byte by byte": (Plan(chunking=1), {"stream_options": {"include_usage": True}}),
    "in one piece": (Plan(tokens=500, chunking="whole"), {}),
    "json": (Plan(body=None), {"response_format": {"type": "json_object"}}),
}


async def accumulated(client: AsyncOpenAI, model: str, **body: Any) -> dict[str, Any]:
    """What the SDK makes of a stream, without what each gateway names by itself."""
    state = ChatCompletionStreamState()
    stream: Any = await client.chat.completions.create(model=model, messages=MESSAGES, stream=True, **body)
    async for chunk in stream:
        state.handle_chunk(chunk)
    return shown(state.current_completion_snapshot)


def shown(completion: Any) -> dict[str, Any]:
    """A completion as plain data; an empty text and none are the same to every reader."""
    data = completion.model_dump(exclude=OURS)
    for choice in data["choices"]:
        choice["message"]["content"] = choice["message"]["content"] or None
        choice["message"].pop("parsed", None)
    return dict(data)


@asynccontextmanager
async def both(plan: Plan) -> AsyncIterator[tuple[House, AsyncOpenAI, AsyncOpenAI]]:
    """The SDK before Atlas, and before the provider itself."""
    async with house(plan) as it, it.sdk() as through, sdk(it.up.base_url) as direct:
        yield it, through, direct


@pytest.mark.parametrize("name", ANSWERS)
def test_streams_accumulate_to_the_same(name: str) -> None:
    """Streamed through Atlas, the SDK accumulates exactly what it accumulates from the provider directly."""
    plan, body = ANSWERS[name]

    async def scenario() -> None:
        async with both(plan) as (_, through, direct):
            got, wanted = await accumulated(through, MODEL, **body), await accumulated(direct, "any", **body)
            assert got == wanted
            if not plan.refusal and plan.tokens:
                assert got["choices"][0]["message"]["content"] == plan.text()

    run(scenario())


@pytest.mark.parametrize("name", ANSWERS)
def test_whole_answers_are_the_same(name: str) -> None:
    """Not streamed, the SDK gets from Atlas the answer that the provider itself gives."""
    plan, body = ANSWERS[name]
    body = {member: value for member, value in body.items() if member != "stream_options"}
    if name == "log-probabilities":
        plan = plan.with_(tokens=1, role_chunk=False, finish_with_last=True)  # a whole answer has each of them once

    async def scenario() -> None:
        async with both(plan.with_(usage="always")) as (_, through, direct):
            got = shown(await through.chat.completions.create(model=MODEL, messages=MESSAGES, **body))
            wanted = shown(await direct.chat.completions.create(model="any", messages=MESSAGES, **body))
            for each in (got, wanted):  # a preamble and such stand in streams only
                each.pop("prompt_filter_results", None)
            if "vendor" in wanted["choices"][0]["message"]:  # told once in a whole answer, once a chunk in a stream
                got["choices"][0]["message"].pop("vendor")
                wanted["choices"][0]["message"].pop("vendor")
            assert got == wanted

    run(scenario())


def test_parallel_calls_that_all_say_index_0() -> None:
    """Vendors that number every parallel tool call 0 come out as separate calls, streamed and not."""

    async def scenario() -> None:
        async with house(Plan(tokens=0, tools=CALLS, tool_index_zero=True)) as it, it.sdk() as client:
            streamed = await accumulated(client, MODEL, tools=TOOLS)
            whole = shown(await client.chat.completions.create(model=MODEL, messages=MESSAGES, tools=TOOLS))
            for answer in (streamed, whole):
                choice = answer["choices"][0]
                calls = [
                    (call["id"], call["function"]["name"], call["function"]["arguments"])
                    for call in choice["message"]["tool_calls"]
                ]
                assert calls == [(tool.id, tool.name, tool.arguments) for tool in CALLS]
                assert choice["finish_reason"] == "tool_calls"

    run(scenario())


def test_usage_is_shown_if_asked_for() -> None:
    """Atlas always asks the provider for usage; the client sees the chunk if it asked, and only then."""

    async def scenario() -> None:
        async with house() as it, it.sdk() as client:
            for options, asked in (({}, False), ({"include_usage": False}, False), ({"include_usage": True}, True)):
                given: Any = {"stream_options": options} if options else {}
                stream: Any = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True, **given)
                chunks = [chunk async for chunk in stream]
                assert it.up.last.json["stream_options"]["include_usage"] is True
                last = chunks[-1]
                assert (last.choices == []) == asked
                assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
                if asked:
                    assert last.usage.model_dump(exclude_none=True) == usage_of(Plan(), it.up.last.json)

    run(scenario())


def test_usage_is_counted_where_the_provider_does_not_say() -> None:
    """A provider that reports no usage gets it estimated, marked so in the stream's status."""

    async def scenario() -> None:
        async with house(Plan(usage="never", tokens=40)) as it, it.sdk() as client:
            answer = await client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
            usage = answer.parse().usage
            assert usage is not None
            assert usage.completion_tokens >= 40
            assert (await it.status(answer.headers["x-atlas-stream-id"]))["usage"]["estimated"] is True

    run(scenario())


UNCHANGED: dict[str, Any] = {
    "messages": [
        {"role": "system", "content": "Be brief.", "name": "house"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it? \u2028 \U0001f600", "cache_control": {"type": "ephemeral"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {"type": "vendor_part", "payload": [1, None, {"x": 1.5}]},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ],
    "tools": [
        {"type": "function", "function": {"name": "f", "description": "d", "strict": True, "parameters": {"a": {}}}},
        {"type": "custom", "custom": {"name": "c"}},
    ],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    "temperature": 0.1,
    "top_p": 1,
    "n": 1,
    "stop": ["a", "b"],
    "seed": 2**63 - 1,
    "logit_bias": {"50256": -100},
    "metadata": {"k": "v"},
    "max_completion_tokens": 77,
    "stream_options": {"include_usage": False, "include_obfuscation": False},
    "vendor_field": {"deep": [{"er": None}], "big": 12345678901234567890},
}


def test_the_body_reaches_the_provider_unchanged() -> None:
    """Every member, known to Atlas or not, reaches the provider as it was given, but for model, stream and usage."""

    async def scenario() -> None:
        async with house() as it, it.sdk() as client:
            given = {**UNCHANGED}
            await client.chat.completions.create(
                model=MODEL, messages=given["messages"],
                extra_body={name: value for name, value in given.items() if name != "messages"},
            )  # fmt: skip
            options = {**UNCHANGED["stream_options"], "include_usage": True}
            assert it.up.last.json == {**UNCHANGED, "model": "any", "stream": True, "stream_options": options}
            assert it.up.last.headers["authorization"] == "Bearer sk-chaos"
            assert "sk-caller" not in str(it.up.last.headers)

    run(scenario())


def test_stream_helper_parses_json() -> None:
    """The SDK's own stream helper works through Atlas, structured output included."""

    async def scenario() -> None:
        async with house(Plan(tokens=12)) as it, it.sdk() as client:
            async with client.chat.completions.stream(model=MODEL, messages=MESSAGES) as stream:
                kinds = [event.type async for event in stream]
                final = await stream.get_final_completion()
            assert final.choices[0].message.content == Plan(tokens=12).text()
            assert kinds[-1] == "content.done"

    run(scenario())


def test_json_mode_of_the_mock() -> None:
    """JSON mode and a schema give JSON that parses, on the built-in mock, through the SDK."""

    async def scenario() -> None:
        async with house() as it, it.sdk() as client:
            schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
            wanted: Any = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
            answer = await client.chat.completions.create(model="mock", messages=MESSAGES, response_format=wanted)
            text = answer.choices[0].message.content
            assert isinstance(json.loads(text or "")["n"], int)

    run(scenario())


def test_the_blocking_client() -> None:
    """The SDK's blocking client, in a thread, streams and asks like the asynchronous one."""

    async def scenario() -> None:
        async with house(Plan(tokens=30)) as it:

            def blocking() -> tuple[str, str | None, list[str]]:
                with OpenAI(base_url=it.url, api_key="x", max_retries=0) as client:
                    stream = client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
                    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
                    whole = client.chat.completions.create(model=MODEL, messages=MESSAGES)
                    return text, whole.choices[0].message.content, [model.id for model in client.models.list()]

            streamed, whole, models = await asyncio.to_thread(blocking)
            assert streamed == whole == Plan(tokens=30).text()
            assert "chaos/*" in models

    run(scenario())


def test_models() -> None:
    """The models listed are those that can be asked for; one that does not exist is the SDK's NotFoundError."""

    async def scenario() -> None:
        async with house() as it, it.sdk() as client:
            listed = [model async for model in client.models.list()]
            assert {"mock", "mock-fast", "mock-slow", "chaos/*"} <= {model.id for model in listed}
            assert {model.object for model in listed} == {"model"}
            assert (await client.models.retrieve("chaos/deep/name")).id == "chaos/deep/name"
            assert (await client.models.retrieve("mock")).owned_by == "atlas"
            with pytest.raises(openai.NotFoundError, match="mock-fast"):
                await client.models.retrieve("gpt-none")

    run(scenario())


def test_headers_of_an_answer() -> None:
    """Every answer names its request, its stream, where its events are, who answered and after how many attempts."""

    async def scenario() -> None:
        async with house(Plan(), Plan()) as it, it.sdk() as client:
            for stream in (True, False):
                it.up.script = [refusing(500)] * 2
                raw: Any = await client.chat.completions.with_raw_response.create(
                    model=MODEL, messages=MESSAGES, stream=stream
                )
                headers, sid = raw.headers, raw.headers["x-atlas-stream-id"]
                assert raw.request_id == headers["x-request-id"]
                assert headers["location"] == f"/v1/streams/{sid}/events"
                assert headers["x-atlas-endpoint"] == "up2"
                assert headers["x-atlas-attempts"] == str(len((await it.status(sid))["attempts"]))
                if stream:
                    assert headers["cache-control"] == "no-cache, no-transform"
                    assert headers["x-accel-buffering"] == "no"
                    await raw.http_response.aread()
                it.up.script = []

    run(scenario())


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("plan", "kind", "code"),
    [
        (refusing(400, message="bad temperature"), openai.BadRequestError, "bad_request"),
        (refusing(400, code="context_length_exceeded"), openai.BadRequestError, "context_length_exceeded"),
        (refusing(401, code="invalid_api_key"), openai.InternalServerError, "provider_auth"),
        (refusing(403), openai.InternalServerError, "provider_permission"),
        (refusing(404, code="model_not_found"), openai.NotFoundError, "model_not_found"),
        (refusing(413), openai.APIStatusError, "request_too_large"),
        (refusing(422, message="odd"), openai.BadRequestError, "bad_request"),
        (refusing(429, code="rate_limit_exceeded", retry_after="7"), openai.RateLimitError, "rate_limit_exceeded"),
        (refusing(429, code="insufficient_quota"), openai.RateLimitError, "insufficient_quota"),
        (refusing(500, retry_after="9"), openai.InternalServerError, "upstream_error"),
        (refusing(503, retry_after="9"), openai.InternalServerError, "overloaded"),
    ],
)
def test_errors_are_the_sdks_own(plan: Plan, kind: type[openai.APIStatusError], code: str, stream: bool) -> None:
    """An upstream's refusal reaches the caller as the SDK's exception of the table's status, with code and reason."""

    async def scenario() -> None:
        async with house(plan) as it, it.sdk() as client:
            with pytest.raises(kind) as caught:
                await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=stream)
            assert caught.value.code == code
            assert caught.value.request_id is not None
            assert caught.value.response.headers["x-should-retry"] in {"true", "false"}
            assert caught.value.body["whose"] in {"caller", "provider"}  # type: ignore[index]

    run(scenario())


def test_conflict_and_unprocessable() -> None:
    """A cancelled answer is the SDK's ConflictError, a reused key its UnprocessableEntityError; neither is retried."""

    async def scenario() -> None:
        async with house(Plan(gate=Gate())) as it, it.sdk(max_retries=2) as client:
            asked = asyncio.ensure_future(client.chat.completions.create(model=MODEL, messages=MESSAGES))
            await it.up.received()
            sid = (await it.call("GET", "/v1/streams")).json["data"][0]["id"]
            await it.control(sid, "cancel")
            with pytest.raises(openai.ConflictError):
                await asked
            it.up.default = Plan()
            key = {"Idempotency-Key": "k"}
            await client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_headers=key)
            with pytest.raises(openai.UnprocessableEntityError):
                await client.chat.completions.create(model=MODEL, messages=MESSAGES, n=2, extra_headers=key)
            assert len(it.up.requests) == 2

    run(scenario())


async def _collect(stream: Any, chunks: list[Any]) -> None:
    async for chunk in stream:
        chunks += [chunk]


def test_the_sdk_raises_on_a_broken_stream() -> None:
    """A stream that breaks behind content makes the SDK raise, with the words and the code of the error."""

    async def scenario() -> None:
        async with house(Plan(tokens=20, reset_at_byte=2500)) as it, it.sdk() as client:
            stream: Any = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
            chunks: list[Any] = []
            with pytest.raises(openai.APIError) as caught:
                await _collect(stream, chunks)
            assert caught.value.code == "stream_broken"
            body: Any = caught.value.body
            assert body["attempts"] == ["up: ok, then stream_broken"]
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
            assert 0 < tokens_seen(1, text) < 20

    run(scenario())


def test_retries_of_the_sdk_are_told_when() -> None:
    """The SDK's own retry obeys Atlas: it comes back after an overload, and not after a refusal for good."""

    async def scenario() -> None:
        async with house(Plan(), endpoint={"timeouts": {"first_token_s": 5}}) as it, it.sdk(max_retries=2) as client:
            it.up.script = [refusing(429, code="rate_limit_exceeded")]
            answer = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
            assert answer.choices[0].message.content == Plan().text()
            assert len(it.up.requests) == 2
            it.up.default = refusing(429, code="insufficient_quota")
            with pytest.raises(openai.RateLimitError):
                await client.chat.completions.create(model=MODEL, messages=MESSAGES)
            assert len(it.up.requests) == 3

    run(scenario())
