"""LangChain as a client: both of its chat models ask Atlas, and reach the mock and providers on either wire."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.e2e.house import House, house, run
from tests.support.chaos import Plan, Tool

KINDS = ("openai_chat", "anthropic")
CALL = Tool(id="call_a", name="add", arguments='{"a": 1, "b": 2}')
both_models = pytest.mark.parametrize("dialect", ["openai", "anthropic"])
every_route = pytest.mark.parametrize("model", ["chaos/any", "claude/any"])


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@asynccontextmanager
async def chat(dialect: str, it: House, model: str) -> AsyncIterator[BaseChatModel]:
    """LangChain's model of a dialect; it never closes its sockets itself."""
    if dialect == "anthropic":
        options: dict[str, Any] = {"model_name": model, "base_url": it.atlas.base_url, "api_key": SecretStr("x")}
        claude = ChatAnthropic(**options, max_retries=0, stop=None, timeout=30)
        yield claude
        await claude._async_client.close()
    else:
        gpt = ChatOpenAI(model=model, base_url=it.url, api_key=SecretStr("x"), max_retries=0)
        yield gpt
        await gpt.root_async_client.close()


@both_models
def test_mock(dialect: str) -> None:
    """The mock answers LangChain, asked in one piece and streamed, with equal text."""

    async def scenario() -> None:
        async with house() as it, chat(dialect, it, "mock-fast-20") as model:
            whole = await model.ainvoke("Say it.")
            streamed = [chunk async for chunk in model.astream("Say it.")]
            assert whole.text
            assert "".join(chunk.text for chunk in streamed) == whole.text

    run(scenario())


@every_route
@both_models
def test_invoke_and_stream(dialect: str, model: str) -> None:
    """Text and usage arrive whole; what the client does not ask for is counted nevertheless."""

    async def scenario() -> None:
        plan = Plan(tokens=25)
        async with house(plan, kinds=KINDS) as it, chat(dialect, it, model) as asked:
            whole: Any = await asked.ainvoke("Say it.")
            assert whole.text == plan.text()
            assert whole.usage_metadata["output_tokens"] == 25
            streamed: list[Any] = [chunk async for chunk in asked.astream("Say it.")]
            assert "".join(chunk.text for chunk in streamed) == plan.text()
            assert len([chunk for chunk in streamed if chunk.text]) > 1
            listed = (await it.call("GET", "/v1/streams")).json["data"]
            assert [row["state"] for row in listed] == ["completed", "completed"]
            for row in listed:
                usage = (await it.status(row["id"]))["usage"]
                assert (usage["output_tokens"], usage["estimated"]) == (25, False)

    run(scenario())


@every_route
@both_models
def test_tools(dialect: str, model: str) -> None:
    """A bound tool is called, in one piece and streamed; the result goes back and the next answer is text."""

    async def scenario() -> None:
        plan = Plan(tokens=0, tools=(CALL,))
        async with house(plan, kinds=KINDS) as it, chat(dialect, it, model) as plain:
            asked = plain.bind_tools([add])
            answer: Any = await asked.ainvoke("What is 1 + 2?")
            assert [(call["name"], call["args"]) for call in answer.tool_calls] == [("add", {"a": 1, "b": 2})]
            merged: Any = AIMessageChunk(content="")
            async for chunk in asked.astream("What is 1 + 2?"):
                merged = merged + chunk
            assert [(call["name"], call["args"]) for call in merged.tool_calls] == [("add", {"a": 1, "b": 2})]
            it.up.default = Plan(tokens=5)
            told = await add.ainvoke(answer.tool_calls[0])
            last = await asked.ainvoke([("human", "What is 1 + 2?"), answer, told])
            assert last.text == Plan(tokens=5).text()
            assert "3" in str(it.up.last.json["messages"][-1]["content"])

    run(scenario())
