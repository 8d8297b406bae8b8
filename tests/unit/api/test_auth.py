"""Credentials become principals, or a refusal that gives nothing away."""

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.auth import Access, Key, Keyring
from gateway.core.errors import RequestError
from gateway.core.keys import digest, new_key
from gateway.core.principal import Principal, Scope
from tests.support.clock import ManualClock

PEPPER = b"canary-pepper-of-the-tests"
SECRET, OTHER = new_key(), new_key()
WHO, ELSE = Principal("a", "team-a", frozenset({Scope.INFER})), Principal("b", "team-b", frozenset({Scope.CONTROL}))
AUTHORIZATION, X_API_KEY, API_KEY = b"authorization", b"x-api-key", b"api-key"


def keyring(clock: ManualClock | None = None, expires: float | None = None) -> Keyring:
    """Two keys; the first may expire."""
    keys = [
        Key(digest=digest(SECRET.encode(), PEPPER), principal=WHO, expires=expires),
        Key(digest=digest(OTHER.encode(), PEPPER), principal=ELSE),
    ]
    return Keyring(keys, PEPPER, clock or ManualClock())


def bearer(credential: str) -> tuple[bytes, bytes]:
    """The header."""
    return AUTHORIZATION, b"Bearer " + credential.encode()


def refusal(*headers: tuple[bytes, bytes]) -> RequestError:
    """How the keyring refuses these headers."""
    with pytest.raises(RequestError) as caught:
        keyring().principal(headers)
    return caught.value


@pytest.mark.parametrize(
    "headers",
    [
        [bearer(SECRET)],
        [(AUTHORIZATION, b"bearer  " + SECRET.encode() + b" ")],
        [(X_API_KEY, SECRET.encode())],
        [(API_KEY, b" " + SECRET.encode())],
        [(API_KEY, SECRET.encode()), bearer(SECRET), (X_API_KEY, SECRET.encode())],
        [(X_API_KEY, b""), bearer(SECRET), (b"x-other", b"x")],
        [(AUTHORIZATION, b""), (X_API_KEY, SECRET.encode())],
    ],
)
def test_each_carrier_carries(headers: list[tuple[bytes, bytes]]) -> None:
    """A key is accepted from each of the three headers, from several that agree, and beside empty ones."""
    assert keyring().principal(headers) is WHO


CONFLICTS = [
    [bearer(SECRET), (X_API_KEY, OTHER.encode())],
    [(X_API_KEY, SECRET.encode()), (API_KEY, b"sk-other")],
    [bearer("sk-other"), (API_KEY, SECRET.encode())],
    [(X_API_KEY, SECRET.encode()), (X_API_KEY, OTHER.encode())],
    [bearer(SECRET), bearer(OTHER)],
    [(X_API_KEY, SECRET.encode()), (X_API_KEY, b""), (X_API_KEY, b"x")],
]


@pytest.mark.parametrize("headers", CONFLICTS)
def test_carriers_that_disagree(headers: list[tuple[bytes, bytes]]) -> None:
    """Two credentials that differ are refused, valid or not, on different headers or twice on one: none is chosen."""
    error = refusal(*headers)
    assert (error.status, error.code) == (400, "conflicting_credentials")
    assert "x-api-key" in error.message
    assert SECRET not in error.message


@pytest.mark.parametrize(
    "value",
    [b"Basic dXNlcjpwYXNz", b"Bearer", b"Bearer  ", SECRET.encode(), b"Token " + SECRET.encode()],
    ids=["basic", "nothing", "blank", "no scheme", "another scheme"],
)
def test_malformed_authorization(value: bytes) -> None:
    """Another scheme, none, or one without a token is a 401 that says what is expected and repeats nothing."""
    for headers in ([(AUTHORIZATION, value)], [(X_API_KEY, SECRET.encode()), (AUTHORIZATION, value)]):
        error = refusal(*headers)
        assert (error.status, error.code, error.param) == (401, "invalid_authorization", "Authorization")
        assert error.message == "the Authorization header must be 'Bearer <key>'"
        assert error.headers["www-authenticate"] == 'Bearer realm="atlas", error="invalid_token"'


def test_no_credential() -> None:
    """Without a key the answer says how to send one, and that no credential was seen."""
    error = refusal((b"accept", b"*/*"), (X_API_KEY, b" "))
    assert (error.status, error.code) == (401, "missing_api_key")
    assert "Authorization: Bearer <key>" in error.message
    assert error.headers["www-authenticate"] == 'Bearer realm="atlas"'


WRONG = st.one_of(
    st.text(string.printable, min_size=1),
    st.text(string.ascii_letters + string.digits, min_size=32, max_size=32).map(lambda tail: SECRET[:13] + tail),
    st.text(string.ascii_letters + string.digits, min_size=8, max_size=8).map(lambda id_: f"atl_{id_}_{SECRET[13:]}"),
    st.integers(0, 44).map(lambda at: SECRET[:at] + SECRET[at + 1 :]),
).filter(lambda text: text.strip() not in {"", SECRET, OTHER})


@given(WRONG)
def test_every_wrong_key_is_refused_alike(credential: str) -> None:
    """An unknown id, a wrong secret and plain garbage give one and the same answer, with no part of what was sent."""
    error = refusal((X_API_KEY, credential.encode()))
    assert (error.status, error.code, error.message) == (401, "invalid_api_key", "the API key is not known here")
    assert error.headers == {"www-authenticate": 'Bearer realm="atlas", error="invalid_token"'}


@given(st.binary(max_size=80))
def test_any_bytes_are_a_refusal(value: bytes) -> None:
    """No bytes in a header make the check raise anything but its refusals."""
    for name in (AUTHORIZATION, X_API_KEY):
        assert refusal((name, value)).status == 401


def test_expiry_is_enforced_at_use() -> None:
    """A key is valid up to its last moment and not at it, without a restart; others are not touched."""
    clock = ManualClock(now=1_800_000_000.0)
    ring = keyring(clock, expires=1_800_000_060.0)
    clock.advance(59.9)
    assert ring.principal([bearer(SECRET)]) is WHO
    clock.advance(0.1)
    with pytest.raises(RequestError) as caught:
        ring.principal([bearer(SECRET)])
    assert (caught.value.status, caught.value.code) == (401, "expired_api_key")
    assert ring.principal([bearer(OTHER)]) is ELSE


def test_another_pepper_opens_nothing() -> None:
    """The hashes alone, or with a wrong pepper, admit nobody."""
    ring = Keyring([Key(digest=digest(SECRET.encode(), PEPPER), principal=WHO)], b"another pepper..", ManualClock())
    with pytest.raises(RequestError, match="not known here"):
        ring.principal([bearer(SECRET)])


def test_without_keys_everybody_is_local() -> None:
    """Without keys headers are not looked at: whatever an SDK sends, and however it disagrees, is ignored."""
    ring = Keyring([], b"", ManualClock())
    for headers in ([], *CONFLICTS, [(AUTHORIZATION, b"nonsense")]):
        assert ring.principal(headers) == Principal("local", None, frozenset(Scope))


def test_scopes_are_alternatives() -> None:
    """A route that names two scopes takes either; a key without any of them is told which, once it is known."""
    scope: dict[str, Any] = {"headers": [bearer(SECRET)]}
    assert Access(Scope.INFER, Scope.CONTROL).admit(scope, keyring()) is WHO
    with pytest.raises(RequestError) as caught:
        Access(Scope.CONTROL, Scope.METRICS).admit(scope, keyring())
    assert (caught.value.status, caught.value.code) == (403, "missing_scope")
    assert "control or metrics" in caught.value.message
    with pytest.raises(RequestError) as caught:
        Access(Scope.CONTROL).admit({"headers": [bearer("sk-garbage")]}, keyring())
    assert caught.value.status == 401


def test_open_routes_know_nobody() -> None:
    """An open route admits everybody as nobody: no tenant of a real key can be had there."""
    scope: dict[str, Any] = {"headers": [bearer(SECRET)]}
    who = Access().admit(scope, keyring())
    assert (who.tenant, who.key_id, who.scopes) == ("", None, frozenset())


def test_representations_give_nothing_away() -> None:
    """Neither the pepper nor a digest is in what a debugger or a traceback prints."""
    kept = digest(SECRET.encode(), PEPPER)
    text = f"{keyring()!r} {Key(digest=kept, principal=WHO)!r}"
    assert repr(kept) not in text
    assert kept.hex() not in text
    assert PEPPER.decode() not in text
