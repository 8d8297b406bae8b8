"""Agents through HTTP: as models of official clients, and as runs that are streams like any other."""

import json
from typing import Any

import openai
import pytest
from anthropic import AsyncAnthropic

from tests.e2e.agent_house import ANSWER, BOTH, IN_ROW, asked, begin, plan, progress, says, steps, team
from tests.e2e.house import MESSAGES, house, run, sid_of
from tests.e2e.test_control import ended, native_text
from tests.support.chaos import ChaosProvider, Gate, Plan, Tool, refusing
from tests.support.signals import eventually
from tests.support.sse import data_frames

QUICK = {"tick_s": 0.02}
RUNS = "/v1/agents/team/runs"


def test_the_openai_client_drives_an_agent() -> None:
    """The official client streams an agent as it streams a model: the answer alone, one finish, the tree's usage."""

    async def scenario() -> None:
        async with house(**team()) as it, it.sdk() as client:
            plan(it, BOTH)
            stream = await client.chat.completions.create(
                model="agent/team", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            )
            chunks = [chunk async for chunk in stream]
            text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
            finishes = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
            assert (text, finishes) == (ANSWER.text(), ["stop"])
            assert asked(it.up)[0] == asked(it.up)[-1] == "boss"
            assert sorted(asked(it.up)[1:-1]) == ["ada", "bob"]
            usage = chunks[-1].usage
            assert usage is not None
            assert usage.completion_tokens >= 12 + 8 + 8
            assert "agent/team" in [model.id async for model in client.models.list()]

    run(scenario())


def test_whole_answers_too() -> None:
    """An agent answers clients that do not stream, and its limit on the length is told as every model's is."""

    async def scenario() -> None:
        async with house(**team()) as it, it.sdk() as client:
            it.up.plans["sage"] = [Plan(tokens=5), Plan(tokens=5, finish_reason="length")]
            whole = await client.chat.completions.create(model="agent/sage", messages=MESSAGES)
            assert (whole.choices[0].message.content, whole.choices[0].finish_reason) == (Plan(tokens=5).text(), "stop")
            short = await client.chat.completions.create(model="agent/sage", messages=MESSAGES, max_tokens=5)
            assert short.choices[0].finish_reason == "length"

    run(scenario())


def test_the_anthropic_client_drives_an_agent() -> None:
    """The same agent by the other client's API."""

    async def scenario() -> None:
        async with house(**team()) as it:
            it.up.plans["sage"] = Plan(tokens=9)
            async with (
                AsyncAnthropic(base_url=it.atlas.base_url, api_key="sk-caller", max_retries=0) as client,
                client.messages.stream(
                    model="agent/sage", max_tokens=100, messages=[{"role": "user", "content": "Say it."}]
                ) as stream,
            ):
                text = "".join([piece async for piece in stream.text_stream])
                message = await stream.get_final_message()
            assert (text, message.stop_reason) == (Plan(tokens=9).text(), "end_turn")

    run(scenario())


def test_a_task_aware_agent_passes_tool_calls_on() -> None:
    """A tool of the caller's is called through an agent, with the finish that clients wait for."""

    async def scenario() -> None:
        async with house(**team()) as it, it.sdk() as client:
            it.up.plans["sage"] = Plan(tokens=0, tools=(Tool(id="call_1", name="look", arguments='{"at":"it"}'),))
            look: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
            answer = await client.chat.completions.create(model="agent/sage", messages=MESSAGES, tools=[look])
            calls: Any = answer.choices[0].message.tool_calls
            assert (calls[0].function.arguments, answer.choices[0].finish_reason) == ('{"at":"it"}', "tool_calls")

    run(scenario())


def test_a_run_tells_its_tree() -> None:
    """The native feed of a run shows plan, steps, who was asked and why, what workers say, and then the answer."""

    async def scenario() -> None:
        async with house(**team()) as it:
            plan(it, IN_ROW)
            answer = await it.call("POST", RUNS, json={"input": "Build it.", "stream": True})
            assert answer.headers["content-type"].startswith("text/event-stream")
            feed = answer.body
            assert [row["id"] for row in progress(feed, "plan")[0]["steps"]] == ["hull", "sail"]
            assert [row["step"] for row in progress(feed, "step_done")] == ["hull", "sail"]
            assert progress(feed, "selected")[0]["endpoint"] == "up"
            said = [row for row in progress(feed, "text") if row["agent"] == "ada"]
            assert "".join(row["text"] for row in said) == Plan().text()
            assert {row["parent"] for row in said} == {"run"}
            assert native_text(feed) == ANSWER.text()
            assert data_frames(feed)[-1].json["state"] == "completed"
            again = await it.native(sid_of(answer))
            assert again.body == feed
            assert (await it.native(sid_of(answer), "?format=wire")).body == feed

    run(scenario())


def test_a_run_ends_as_its_status_object() -> None:
    """Whoever waits for a run gets its status with the text, the calls that were made, and what they cost."""

    async def scenario() -> None:
        rows: list[Any] = []
        async with house(**team()) as it:
            plan(it, BOTH)
            it.app.services.pipeline.bookkeeping._on_settled += (rows.append,)
            answer = await it.call("POST", RUNS, json={"input": "Build it."})
            assert (answer.status, answer.json["state"], answer.json["output"]) == (200, "completed", ANSWER.text())
            calls = answer.json["run"]["calls"]
            assert (calls[0]["task"], calls[-1]["task"]) == ("planning", "synthesis")
            assert sorted(call["step"] for call in calls) == ["hull", "run", "run", "sail"]
            assert [row.stream for row in rows] == [answer.json["id"]] * 4
            assert sorted(row.leg for row in rows) == [1, 2, 3, 4]
            assert {row.end for row in rows} == {"completed"}
            total = sum(row.usage.input_tokens + row.usage.output_tokens for row in rows)
            assert total == answer.json["usage"]["input_tokens"] + answer.json["usage"]["output_tokens"]
            known = (await it.call("GET", "/v1/agents/ada")).json["statistics"]
            assert (known[0]["endpoint"], known[0]["calls"], known[0]["success"]) == ("up", 1, 1.0)
            metrics = (await it.call("GET", "/metrics")).body.decode()
            assert 'atlas_agent_runs_total{agent="team",outcome="completed"} 1.0' in metrics
            assert 'atlas_agent_step_duration_seconds_count{agent="team"} 2.0' in metrics

    run(scenario())


def test_a_run_goes_on_without_its_caller() -> None:
    """A caller of a run may hang up: the run is there when it comes back, unless its header says otherwise."""

    async def scenario() -> None:
        gate = Gate()
        async with house(**team()) as it:
            plan(it, IN_ROW, ANSWER.with_(gate=gate))
            async with it.client() as client:
                stream = await client.stream("POST", RUNS, json={"input": "Build it.", "stream": True})
                await gate.held()
            gate.open()
            shown = await ended(it, sid_of(stream))
            assert shown["state"] == "completed"

    run(scenario())


def test_the_same_key_is_the_same_run() -> None:
    """An idempotency key that is repeated finds its run."""

    async def scenario() -> None:
        async with house(**team()) as it:
            plan(it, BOTH)
            headers, body = {"idempotency-key": "k"}, {"input": "Build it."}
            first = await it.call("POST", RUNS, headers, json=body)
            again = await it.call("POST", RUNS, headers, json=body)
            assert (again.json["id"], again.json["output"]) == (first.json["id"], ANSWER.text())
            assert len(it.up.requests) == 4

    run(scenario())


def test_a_plan_is_repaired_once() -> None:
    """A model that plans a circle is told so once; a second one ends the run, with a reason and without a leak."""

    async def scenario() -> None:
        circle = steps(("hull", "ada", ("sail",)), ("sail", "bob", ("hull",)))
        async with house(**team()) as it:
            plan(it, circle, says(BOTH), ANSWER)
            good = await it.call("POST", RUNS, json={"input": "Build it."})
            assert good.json["output"] == ANSWER.text()
            assert "circle" in json.dumps(it.up.requests[1].json["messages"])
            plan(it, circle, says("no"))
            bad = await it.call("POST", RUNS, json={"input": "Build it."})
            assert (bad.status, bad.json["error"]["code"]) == (502, "protocol")
            assert "no usable plan" in bad.json["error"]["message"]
            assert (await ended(it, sid_of(bad)))["state"] == "failed"

    run(scenario())


def test_a_budget_ends_a_run() -> None:
    """A run that has used its tokens ends as incomplete for its budget, and asks nobody further."""

    async def scenario() -> None:
        limits = {"limits": {"tokens": 300}}
        async with house(**team(sage=limits, **limits)) as it:
            plan(it, IN_ROW)
            it.up.plans |= {"ada": Plan(tokens=2000), "bob": Plan(tokens=2000), "sage": Plan(tokens=2000)}
            for name in ("team", "sage"):
                shown = await ended(it, await begin(it, name))
                assert (shown["state"], shown["reason"]) == ("incomplete", "budget"), shown
                assert shown["usage"]["output_tokens"] < 400
            assert asked(it.up).count("boss") == 1
            cut = await it.ask(model="agent/sage")
            assert cut.json["choices"][0]["finish_reason"] == "length"
            assert Plan(tokens=2000).text().startswith(cut.json["choices"][0]["message"]["content"])

    run(scenario())


def test_a_budget_of_the_caller_holds_for_the_tree() -> None:
    """What a caller lets a run take is the bound of all its calls together, and the run says that it ended for it."""

    async def scenario() -> None:
        async with house(**team()) as it:
            plan(it, IN_ROW)
            it.up.plans |= {"ada": Plan(tokens=2000), "bob": Plan(tokens=2000)}
            body = {"input": "Build it.", "background": True}
            begun = await it.call("POST", RUNS, {"x-atlas-budget": "tokens=300"}, json=body)
            shown = await ended(it, begun.json["id"])
            assert (shown["state"], shown["reason"]) == ("incomplete", "budget")
            assert shown["usage"]["output_tokens"] < 400
            assert it.app.services.pipeline.budgets.open == 0

    run(scenario())


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"n": 2}, 400, "n"),
        ({"logprobs": True}, 400, "logprobs"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "tools"),
        ({"model": "agent/nobody"}, 404, "model"),
    ],
)
def test_what_an_agent_cannot_be_asked(body: dict[str, Any], status: int, param: str) -> None:
    """What no agent can answer is refused before anything begins, with the member's name."""

    async def scenario() -> None:
        async with house(**team()) as it, it.sdk() as client:
            with pytest.raises(openai.APIStatusError) as refused:
                await client.chat.completions.create(**{"model": "agent/team", "messages": MESSAGES, **body})
            error: Any = refused.value
            assert (error.status_code, error.param) == (status, param)
            assert (it.up.requests, it.channels) == ([], 0)

    run(scenario())


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/agents/nobody/runs", {"input": "x"}, 404, "agent_not_found"),
        (RUNS, {"input": ""}, 400, "invalid_value"),
        (RUNS, {"input": "x", "colour": "red"}, 400, "invalid_body"),
        (RUNS, {"input": [{"role": "tool", "content": "x"}]}, 400, "invalid_body"),
        (RUNS, ["x"], 400, "invalid_json"),
    ],
)
def test_bad_runs(path: str, body: Any, status: int, code: str) -> None:
    """A run that cannot begin is refused in words, and leaves nothing."""

    async def scenario() -> None:
        async with house(**team()) as it:
            answer = await it.call("POST", path, json=body)
            assert (answer.status, answer.json["error"]["code"]) == (status, code)
            assert it.channels == 0

    run(scenario())


def test_a_run_means_one_thing() -> None:
    """Bodies of runs are read as strictly as others: one that gives its input twice is refused."""

    async def scenario() -> None:
        async with house(**team()) as it:
            typed = {"content-type": "application/json"}
            answer = await it.call("POST", RUNS, typed, b'{"input": "x", "input": "y"}')
            assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_json")
            assert "'input'" in answer.json["error"]["message"]

    run(scenario())


def test_a_failing_worker_is_reported() -> None:
    """A worker whose provider refuses is tried again, then reported; the answer is given without it."""

    async def scenario() -> None:
        async with house(**team(limits={"retries": 0}), streams=QUICK) as it:
            plan(it, BOTH)
            it.up.plans["ada"] = refusing(400, message="no")
            answer = await it.call("POST", RUNS, json={"input": "Build it."})
            assert answer.json["output"] == ANSWER.text()
            told = json.dumps(it.up.last.json["messages"])
            assert "failed: bad_request" in told
            known = (await it.call("GET", "/v1/agents/ada")).json["statistics"]
            assert (known[0]["endpoint"], known[0]["success"]) == ("none", 0.0)

    run(scenario())


def test_two_runs_side_by_side() -> None:
    """Two runs of one agent share nothing: one is cancelled, the other gives its whole answer."""

    async def scenario() -> None:
        gate = Gate()
        async with house(**team()) as it:
            it.up.plans["sage"] = [ANSWER.with_(gate=gate), Plan(tokens=6)]
            held = await begin(it, "sage")
            await gate.held()
            other = await it.call("POST", "/v1/agents/sage/runs", json={"input": "Hello"})
            assert other.json["output"] == Plan(tokens=6).text()
            assert (await it.control(held, "cancel")).json["upstream"] == "closed"
            await eventually(lambda: it.channels == 0, what="all streams to be settled")

    run(scenario())


def test_tasks_find_their_providers() -> None:
    """A coding and an extraction task go to different endpoints of one route, and the run says for which reason."""

    async def scenario() -> None:
        async with ChaosProvider(Plan(tokens=3)) as coder, ChaosProvider(Plan(tokens=4)) as reader:
            rows = [
                {"name": name, "base_url": up.base_url, "keys": ["sk-chaos"], "model": "m",
                 "profile": {"strengths": {strength: 0.9}}}
                for name, up, strength in (("coder", coder, "coding"), ("reader", reader, "extraction"))
            ]  # fmt: skip
            route = {"model": "any-of-them", "endpoints": ["coder", "reader"], "strategy": "task_aware"}
            sections = team(sage={"route": "any-of-them"})
            async with house(Plan(), checked=False, endpoints=rows, routes=[route], **sections) as it:
                for text, name, why in (
                    ("Write a Python function that adds.", "coder", "coding 0.9"),
                    ("Extract all names from the following text: Ada, Bob.", "reader", "extraction 0.9"),
                ):
                    body = {"input": text, "stream": True}
                    feed = (await it.call("POST", "/v1/agents/sage/runs", json=body)).body
                    chosen = progress(feed, "selected")[0]
                    assert (chosen["endpoint"], chosen["strategy"], chosen["why"]) == (name, "task_aware", why)
                    assert sorted(chosen["considered"]) == ["coder", "reader"]
                assert (len(coder.requests), len(reader.requests)) == (1, 1)

    run(scenario())


def test_the_log_line_of_a_run_names_its_request(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever has the id of a request for a run finds the line of its end by it."""
    caplog.set_level("INFO", "atlas.requests")

    async def scenario() -> None:
        async with house(**team()) as it:
            answer = await it.call("POST", "/v1/agents/sage/runs", json={"input": "Say it."})
            (line,) = [each.__dict__ for each in caplog.records if each.message == "stream ended"]
            assert line["request"] == answer.headers["x-request-id"]

    run(scenario())
