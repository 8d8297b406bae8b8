"""Reading YAML: lines, variables, traps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.yaml_lines import Reading


def value(text: str, **variables: str) -> object:
    """The value of a document without problems."""
    reading = Reading(name="f", variables=variables)
    found = reading.read(text)
    assert reading.problems == []
    return found


def problems(text: str, **variables: str) -> list[str]:
    """What is wrong with a document."""
    reading = Reading(name="f", variables=variables)
    reading.read(text)
    return [str(problem) for problem in reading.problems]


@pytest.mark.parametrize("word", ["off", "no", "yes", "3.10", "2026-11-20", "0777", "12:30:00", "none", "1e3", "true"])
def test_scalars_keep_their_text(word: str) -> None:
    """A model called `3.10` or `no` keeps its name: YAML's guesses about types are not asked for."""
    assert value(f"a: {word}") == {"a": word}


@pytest.mark.parametrize("nothing", ["", "~", "null", "# all commented out"])
def test_null_members_are_absent(nothing: str) -> None:
    """A section whose members are all commented out has its defaults."""
    assert value(f"a: {nothing}\nb: x") == {"b": "x"}


def test_quoted_null_is_a_word() -> None:
    """Quotes make a word of anything."""
    assert value("a: 'null'\nb: ''") == {"a": "null", "b": ""}


def test_lines_of_members_and_items() -> None:
    """Every member and item knows its line, also after comments and inside flow style."""
    reading = Reading(name="f", variables={})
    reading.read("# c\na:\n  - x\n  - {k: 1,\n     l: 2}\nb: 3\n")
    assert reading.lines == {
        (): 2,
        ("a",): 2,
        ("a", 0): 3,
        ("a", 1): 4,
        ("a", 1, "k"): 4,
        ("a", 1, "l"): 5,
        ("b",): 6,
    }


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("${X}", "x"),
        ("'${X}'", "x"),
        ("http://${X}:${Y:-80}/v1", "http://x:80/v1"),
        ("${Y:-}z", "z"),
        ("${EMPTY:-d}", "d"),
        ("${X:-d}", "x"),
        ("$${X}", "${X}"),
        ("a$X", "a$X"),
        ("${N}", "${X}"),
    ],
)
def test_variables(text: str, meant: str) -> None:
    """References are replaced once, defaults hold for unset and empty variables, and `$${` is a plain `${`."""
    assert value(f"a: {text}", X="x", EMPTY="", N="${X}") == {"a": meant}


def test_value_from_a_variable_is_never_yaml() -> None:
    """A secret with YAML's special characters in it stays one text."""
    assert value('a: ["${X}"]', X="k: [1, 2] # 'q' \"") == {"a": ["k: [1, 2] # 'q' \""]}


def test_missing_variable_names_itself_and_its_line() -> None:
    """A variable that is not set fails with its name and line, and every one of them is reported."""
    assert problems("a: ${NOPE}\nb:\n  - ${OTHER}", OTHRE="1") == [
        "f:1: a: the environment variable NOPE is not set",
        "f:3: b[0]: the environment variable OTHER is not set; did you mean 'OTHRE'?",
    ]


@pytest.mark.parametrize("wrong", ["'${'", "'${}'", "'${A-B}'", "'${A'", "'${1}'"])
def test_malformed_reference(wrong: str) -> None:
    """A reference with a slip in it is refused rather than passed to a provider as text."""
    assert problems(f"a: {wrong}", A="1") == [
        "f:1: a: a variable is written ${NAME} or ${NAME:-default}, and a plain ${ as $${"
    ]


def test_duplicate_keys_are_refused() -> None:
    """Of two members with one name none is silently dropped."""
    assert problems("a:\n  b: 1\n  c: 2\n  b: 3") == ["f:4: a.b: given twice; the first is on line 2"]


@pytest.mark.parametrize("tagged", ["!!python/object/apply:os.system [ls]", "!!int 3", "!x {}", "!!set {}"])
def test_tags_are_refused(tagged: str) -> None:
    """No tag constructs anything."""
    assert problems(f"a: {tagged}") == ["f:1: a: tags are not supported"]


def test_keys_are_words() -> None:
    """A list as a key is a problem, not a crash."""
    assert problems("? [a, b]\n: 1") == ["f:1: a key must be a word"]


def test_recursive_alias_ends() -> None:
    """A document that contains itself is refused instead of being read for ever."""
    assert problems("&a [*a]") == ["f:1: nested deeper than 32 levels"]


def test_unquoted_variable_in_a_list_gets_a_hint() -> None:
    """`keys: [${KEY}]` is not YAML, and the message says how to write it."""
    (problem,) = problems("a: 1\nkeys: [${KEY}]")
    assert problem.startswith("f:2: not valid YAML: ")
    assert problem.endswith('stands in quotes, as "${NAME}"')


def test_control_characters_are_a_problem_not_a_crash() -> None:
    """Bytes that YAML forbids are reported."""
    assert problems("a: \x00") == ["f: not valid YAML: it holds characters that YAML does not allow"]


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No document makes the reader raise."""
    Reading(name="f", variables={}).read(text)


@given(st.dictionaries(st.from_regex(r"[A-Z]{1,5}", fullmatch=True), st.text(max_size=20), min_size=1))
def test_quoted_reference_gives_exactly_the_variable(variables: dict[str, str]) -> None:
    """Whatever a variable holds, a quoted reference to it is that text and nothing else."""
    reading = Reading(name="f", variables=variables)
    document = "\n".join(f'{name}: "${{{name}}}"' for name in variables)
    assert reading.read(document) == variables
