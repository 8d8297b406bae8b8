"""The bill of a leg."""

import random

from gateway.core.chat import ChatRequest, Message, TextPart
from gateway.core.events import Leg
from gateway.core.tokens import Counted
from gateway.core.usage import Usage
from gateway.pool.endpoint import Endpoint
from gateway.pool.group import ProviderGroup
from gateway.pool.prices import Price, PriceList, Tariff
from gateway.pool.settlement import Account, Books, Row
from gateway.providers.mock import MockProvider
from tests.support.clock import ManualClock

FIRST, SECOND = Leg(1, "a", "mock", "priority", ""), Leg(2, "b", "mock", "priority", "")
REQUEST = ChatRequest(
    dialect="openai_chat", model="any/model-x", messages=(Message(role="user", parts=(TextPart(text="x" * 420),)),)
)


def books() -> Books:
    """Books in which `a` costs a dollar a token of output, and `b` is unknown."""
    return Books(PriceList({"a": Tariff(price=Price(input=0, output=1e6))}), ManualClock())


def account(at: Books) -> Account:
    """The account of a stream on a route to both; closing `b` stops nothing."""
    mock = MockProvider()
    endpoints = (
        Endpoint(name="a", provider=mock, model="*"),
        Endpoint(name="b", provider=mock, model="fixed", stops_on_close=False),
    )
    group = ProviderGroup(model="any/*", endpoints=endpoints, rng=random.Random(1), clock=lambda: 0.0)
    return at.account(group, REQUEST)


def row(leg: Leg, *, finished: bool) -> Row:
    """A leg that is over."""
    return Row(
        stream="str_1", tenant="t", key="team", leg=leg, usage=Usage(output_tokens=3), finished=finished,
        end="completed", duration_s=1.5,
    )  # fmt: skip


def test_each_leg_is_billed_by_its_endpoint() -> None:
    """Endpoint, the provider's model name and the price are those of the leg, whoever else was asked."""
    it = account(books())
    first, second = it.settle(row(FIRST, finished=True)), it.settle(row(SECOND, finished=True))
    assert (first.endpoint, first.model, first.cost_usd, first.leg) == ("a", "model-x", 3.0, 1)
    assert (second.endpoint, second.model, second.cost_usd, second.leg) == ("b", "fixed", None, 2)
    assert (first.tenant, first.key, first.route, first.duration_s) == ("t", "team", "any/*", 1.5)


def test_only_a_cut_leg_is_billed_beyond() -> None:
    """Where closing does not stop the bill a cut leg's usage is a lower bound; a finished one's is the truth."""
    it = account(books())
    cut, whole = it.settle(row(SECOND, finished=False)), it.settle(row(SECOND, finished=True))
    assert (cut.billed_beyond, cut.usage.estimated) == (True, True)
    assert (whole.billed_beyond, whole.usage.estimated) == (False, False)
    stopped = it.settle(row(FIRST, finished=False))
    assert (stopped.billed_beyond, stopped.usage.estimated) == (False, False)


def test_what_one_stream_teaches_the_next_one_uses() -> None:
    """Ratios are the app's, apart by endpoint: answers of a dense model make prompt and answer dearer for the next."""
    at = books()
    before = account(at).input_tokens(FIRST)
    assert before == account(at).input_tokens(SECOND)
    for _ in range(9):
        account(at).learn(FIRST, Counted(size=2100, events=9), Usage(output_tokens=1000))
    assert account(at).input_tokens(FIRST) > 1.8 * before
    assert account(at).input_tokens(SECOND) == before
    assert account(at).output_tokens(FIRST, Counted(size=2100, events=9)) > 900
    assert account(books()).input_tokens(FIRST) == before


def test_hidden_reasoning_teaches_nothing_wrong() -> None:
    """Reasoning that is billed and not shown is taken out before the text's density is learnt."""
    at = books()
    account(at).learn(FIRST, Counted(size=840, events=9), Usage(output_tokens=4200, reasoning_tokens=4000))
    assert account(at).output_tokens(FIRST, Counted(size=840, events=9)) == 200
