"""JSON as a careful server reads it: what means two things is refused, everything else is read."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import RequestError
from gateway.dialects import openai_chat
from gateway.dialects.strict_json import MAX_DEPTH, MAX_VALUES, decode_object

_NAMES = st.sampled_from(["a", "b", "ab", "", "é", '"', "\\", ":", '":', "a\n"])
_LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | _NAMES | st.sampled_from(["a:", '{"a":1,"a":2}'])


class Pairs(list[tuple[str, Any]]):
    """An object that may hold a key twice."""


_VALUES = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(_NAMES, inner), max_size=4).map(Pairs),
    max_leaves=12,
)


def written(value: Any, draw: Any) -> str:
    """`value` as JSON, keys in any spelling, spaces anywhere."""
    space = draw(st.sampled_from(["", " ", "\n\t "]))
    if isinstance(value, Pairs):
        return (
            space + "{" + ",".join(f"{_key(name, draw)}{space}:{written(v, draw)}" for name, v in value) + space + "}"
        )
    if isinstance(value, list):
        return space + "[" + ",".join(written(item, draw) for item in value) + space + "]"
    return space + json.dumps(value) + space


def _key(name: str, draw: Any) -> str:
    if draw(st.booleans()):
        return '"' + "".join(f"\\u{ord(letter):04x}" for letter in name) + '"'
    return json.dumps(name, ensure_ascii=False)


def duplicates(text: str) -> list[str]:
    """The keys that an object of `text` gives more than once."""
    found: list[str] = []

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        found.extend(name for name in names if names.count(name) > 1)
        return dict(pairs)

    json.loads(text, object_pairs_hook=members)
    return found


@settings(max_examples=300)
@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=4).map(Pairs), st.data())
def test_duplicates(value: Pairs, data: st.DataObject) -> None:
    """A body is refused if and only if some object in it gives a key twice, and the message names such a key."""
    text = written(value, data.draw)
    twice = duplicates(text)
    if twice:
        with pytest.raises(RequestError) as caught:
            decode_object(text.encode())
        assert any(repr(name) in caught.value.message for name in twice)
    else:
        assert decode_object(text.encode()) == json.loads(text)


@pytest.mark.parametrize("shape", [("[", "]"), ('{"a":', "}")])
def test_depth(shape: tuple[str, str]) -> None:
    """The deepest allowed nesting is read, one more level is refused, and so are a hundred thousand."""

    def nested(levels: int) -> bytes:
        inner = shape[0] * (levels - 1) + "1" + shape[1] * (levels - 1)
        return f'{{"a":{inner}}}'.encode()

    decode_object(nested(MAX_DEPTH))
    for levels in (MAX_DEPTH + 1, 500, 100_000):
        with pytest.raises(RequestError, match="deeper than 32"):
            decode_object(nested(levels))


def test_a_duplicate_among_many_keys() -> None:
    """It is found in a time that grows with the body, not with the square of it: this one would take hours."""
    keys = ",".join(f'"k{number}":1' for number in range(200_000))
    with pytest.raises(RequestError, match="a key twice: 'k7'"):
        decode_object(f'{{{keys},"k7":1}}'.encode())


@pytest.mark.parametrize("value", ["[]", "{}", '""', "1", '{"a":1}', '"[,{"'])
def test_many_values(value: str) -> None:
    """A body of so many values is read, one of more is refused before it is decoded, however large each of them is."""

    def body(values: int) -> bytes:
        inner = values // (2 if value[0] in "[{" else 1)
        return f'{{"a":[{",".join([value] * inner)}]}}'.encode().ljust(2 * MAX_VALUES + 1)

    decode_object(body(MAX_VALUES - 2))
    with pytest.raises(RequestError, match="more than 250000 values"):
        decode_object(body(MAX_VALUES + 10))


@pytest.mark.parametrize("text", [",[{" * 300_000, '\\"' * 300_000, "\\" * 400_000 + "," * 300_000])
def test_long_strings(text: str) -> None:
    """What stands within strings counts for nothing, and never looks like their end."""
    assert decode_object(json.dumps({"a": text}).encode()) == {"a": text}


@pytest.mark.parametrize("rest", [b'"', b'"\\"', b"x", b'x"', b'"a', b'a"\\', b'","', b'"["'])
def test_hostile_bytes_are_judged_in_one_pass(rest: bytes) -> None:
    """Whatever a large body is made of, it is refused without being looked at again and again."""
    with pytest.raises(RequestError):
        decode_object(b"," * 240_000 + rest * 300_000)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1} ,',
        b'{"a":"\xff"}',
        b"",
        b"[]",
        b'"a"',
        b"null",
        b'{"a":1e999}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":"\\ud800"}',
        b"{'a':1}",
        b'{"a":01}',
        b"\x00",
        b'{"a":1,}',
        b"1",
        b"true",
    ],
)
def test_not_json(body: bytes) -> None:
    """What is no JSON object by the letter of RFC 8259 is refused."""
    with pytest.raises(RequestError) as caught:
        decode_object(body)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\ue+-.019aN \n', max_size=40).map(str.encode))
def test_noise(body: bytes) -> None:
    """No bytes raise anything but a RequestError, and what is accepted is what Python reads."""
    try:
        value = decode_object(body)
    except RequestError:
        return
    assert value == json.loads(body)


_MEMBERS = (
    "stream", "n", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "tools", "tool_choice",
    "response_format", "stream_options", "messages", "model",
)  # fmt: skip
_ANY = st.recursive(
    _LEAVES | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["type", "text", "image_url", "url", "function", "name", "role", "content", "schema"]),
            inner,
        )
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(_MEMBERS), _ANY, max_size=3), _ANY)
def test_requests(changes: dict[str, Any], message: Any) -> None:
    """A body with anything in any place is a request or a RequestError with status 400, nothing else."""
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}, message], **changes}
    try:
        openai_chat.parse(json.dumps(body).encode())
    except RequestError as error:
        assert error.status == 400  # noqa: PT017 - it may be raised or not
