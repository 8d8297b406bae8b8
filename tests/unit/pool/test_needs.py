"""What a request needs: read from its header, inferred from its members, refused by name where nobody has it."""

import random
from typing import Any

import pytest

from gateway.core.chat import ChatRequest, ImagePart, Message, TextPart, Tool
from gateway.core.errors import RequestError
from gateway.pool.admission import EndpointLimits
from gateway.pool.candidate import Candidate, Standing, introduce
from gateway.pool.capability import FEATURES, IMAGES, SCHEMA, TOOLS, Capability, Needs, feature_names
from gateway.pool.needs import needs_of, parse_needs
from gateway.pool.selection import Selector
from gateway.pool.strategies import load_strategy


def request(text: str = "hi", *parts: Any, **members: Any) -> ChatRequest:
    """A request of one turn."""
    message = Message(role="user", parts=(TextPart(text=text), *parts))
    return ChatRequest(dialect="openai_chat", model="r", messages=(message,), **members)


def selector(*profiles: Capability, strategy: str = "priority", limits: EndpointLimits | None = None) -> Selector:
    """A route whose endpoints have these profiles."""
    standings = [Standing(profile=each, limits=limits or EndpointLimits()) for each in profiles]
    found = [Candidate(f"e{at}", random.Random(at), each) for at, each in enumerate(standings)]
    introduce([found])
    return Selector("r", found, strategy, load_strategy(strategy), random.Random(1))


def names(found: Selector, asked: ChatRequest, stated: str = "") -> list[str]:
    """The ranked endpoints for a request with this header."""
    choice = found.choose(found.needs(asked, parse_needs(stated)), 1.0)
    return [each.name for each in choice.ranked]


def test_header() -> None:
    """Strengths, sizes and features are read from one header."""
    found = parse_needs("strengths=coding+Math, context=128000,output=8000, tools ,images")
    assert found.strengths == {"coding", "math"}
    assert (found.context_tokens, found.output_tokens) == (128000, 8000)
    assert feature_names(found.features) == ["tools", "images"]
    assert parse_needs("") == Needs()


@pytest.mark.parametrize(
    "text",
    ["context", "context=many", "context=1e9", "tools=yes", "coding", "strengths=", "strengths=a++b", "tools,tools",
     "context=1,context=2", "strengths", "=", "x" * 2000, "Tools"],
)  # fmt: skip
def test_bad_header_is_refused_by_name(text: str) -> None:
    """A header that cannot be read is a 400 that says what is expected, never ignored."""
    with pytest.raises(RequestError) as caught:
        parse_needs(text)
    assert (caught.value.status, caught.value.param) == (400, "x-atlas-needs")
    assert "must be" in caught.value.message


def test_needs_are_inferred() -> None:
    """Tools, images, a schema and the answer's length need not be stated."""
    asked = request("x", ImagePart(url="data:"), tools=(Tool(name="f"),), schema={}, max_output_tokens=50)
    found = needs_of(asked)
    assert found.features == TOOLS | IMAGES | SCHEMA
    assert found.output_tokens == 50
    assert found.leanings == {"tools", "vision", "structured"}
    assert needs_of(request(tools=(Tool(name="f"),), tool_choice="none")).features == 0
    assert "reasoning" in needs_of(request(effort="high")).leanings


def test_who_lacks_what_is_needed_is_not_asked() -> None:
    """A request with images goes to the endpoint that sees; a long one to the larger window."""
    found = selector(Capability(lacks=IMAGES, context_tokens=1000), Capability(context_tokens=100_000))
    assert names(found, request()) == ["e0", "e1"]
    assert names(found, request("x", ImagePart(url="data:"))) == ["e1"]
    assert names(found, request("word " * 10_000)) == ["e1"]
    assert names(found, request(), "context=50000") == ["e1"]


def test_unmet_needs_are_named() -> None:
    """What no endpoint has is a 400 that says what is missing, by the endpoint that comes nearest."""
    found = selector(Capability(lacks=IMAGES | TOOLS, context_tokens=8000), Capability(context_tokens=1000))
    with pytest.raises(RequestError) as caught:
        names(found, request(), "context=128000,strengths=coding,images")
    assert caught.value.status == 400
    assert caught.value.code == "unmet_needs"
    assert caught.value.message.endswith("missing: context=128000 (of 1000), strengths=coding")


def test_unknown_profiles_pass_but_have_no_strengths() -> None:
    """An endpoint of which nothing is known is asked for anything but a strength."""
    found = selector(Capability())
    assert names(found, request(), "context=1000000,images,tools") == ["e0"]
    with pytest.raises(RequestError, match="strengths=coding"):
        names(found, request(), "strengths=coding")


def test_nothing_is_measured_where_nothing_depends_on_it() -> None:
    """A route without profiles, limits and prices does not count anybody's words."""
    plain, limited = selector(Capability()), selector(Capability(), limits=EndpointLimits(tpm=9))
    asked = request("word " * 100)
    assert plain.needs(asked) == Needs()
    assert limited.needs(asked).input_tokens > 50


def test_a_choice_explains_itself() -> None:
    """The status object says who was considered, why the first one won, and who was left out and why."""
    found = selector(Capability(), Capability(), Capability(lacks=TOOLS))
    found.candidates[0].disabled = True
    found.candidates[0].refresh()
    choice = found.choose(found.needs(request(tools=(Tool(name="f"),))), 1.0)
    assert choice.shown() == {
        "strategy": "priority",
        "considered": ["e1"],
        "chosen": "e1",
        "why": "first in order",
        "left_out": {"e0": "disabled"},
    }
    assert found.recent(3.0) == [{"ago_s": 2.0, "chosen": "e1", "why": "first in order", "of": 1}]


def test_features_have_names() -> None:
    """Each feature can be asked for and configured."""
    assert feature_names(sum(FEATURES.values())) == list(FEATURES)
