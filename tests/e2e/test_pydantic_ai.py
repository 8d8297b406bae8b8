"""pydantic-ai as a client: its agents run over both dialects, against the mock and providers on either wire."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from anthropic import AsyncAnthropic
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from tests.e2e.house import House, house, run
from tests.support.chaos import Plan, Tool

KINDS = ("openai_chat", "anthropic")
CALL = Tool(id="call_a", name="add", arguments='{"a": 1, "b": 2}')
both_models = pytest.mark.parametrize("dialect", ["openai", "anthropic"])
every_route = pytest.mark.parametrize("model", ["chaos/any", "claude/any"])


@asynccontextmanager
async def agent(dialect: str, it: House, model: str) -> AsyncIterator[Agent]:
    """An agent whose model asks Atlas in a dialect."""
    if dialect == "anthropic":
        async with AsyncAnthropic(base_url=it.atlas.base_url, api_key="x", max_retries=0) as client:
            yield Agent(AnthropicModel(model, provider=AnthropicProvider(anthropic_client=client)))
    else:
        async with it.sdk() as other:
            yield Agent(OpenAIChatModel(model, provider=OpenAIProvider(openai_client=other)))


@both_models
def test_mock(dialect: str) -> None:
    """An agent over the mock runs, and says the same streamed."""

    async def scenario() -> None:
        async with house() as it, agent(dialect, it, "mock-fast-20") as made:
            whole = await made.run("Say it.")
            async with made.run_stream("Say it.") as stream:
                assert await stream.get_output() == whole.output
            assert whole.output

    run(scenario())


@every_route
@both_models
def test_run_and_stream(dialect: str, model: str) -> None:
    """Text and usage arrive whole, run and streamed; reasoning is apart from the text."""

    async def scenario() -> None:
        plan = Plan(tokens=25, reasoning=3)
        async with house(plan, kinds=KINDS) as it, agent(dialect, it, model) as made:
            whole = await made.run("Say it.")
            assert whole.output == plan.text()
            async with made.run_stream("Say it.") as stream:
                texts = [text async for text in stream.stream_text(delta=True, debounce_by=None)]
                assert "".join(texts) == plan.text()
                assert len(texts) > 1
            assert stream.usage.output_tokens == 28

    run(scenario())


@every_route
@both_models
def test_tool(dialect: str, model: str) -> None:
    """The agent's tool is called with its arguments, and the answer after the result is the run's."""

    async def scenario() -> None:
        async with house(Plan(tokens=5), kinds=KINDS) as it, agent(dialect, it, model) as made:
            called: list[tuple[int, int]] = []

            @made.tool_plain
            def add(a: int, b: int) -> int:
                """Adds two numbers."""
                called.append((a, b))
                return a + b

            it.up.script = [Plan(tokens=0, tools=(CALL,))]
            whole = await made.run("What is 1 + 2?")
            assert (whole.output, called, len(it.up.requests)) == (Plan(tokens=5).text(), [(1, 2)], 2)

    run(scenario())
