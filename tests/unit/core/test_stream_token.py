"""Tokens of streams, without a gateway."""

from string import ascii_letters

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.ids import new_sid
from gateway.core.keys import digest, new_key
from gateway.core.stream_token import PREFIX, StreamToken, opened

SECRET = b"a secret of the deployment"


@given(key_id=st.none() | st.text(min_size=1, max_size=64), expires=st.integers(0, 2**32 - 1), secret=st.binary())
def test_what_is_sealed_opens(key_id: str | None, expires: int, secret: bytes) -> None:
    """A token says what it was made of, to who knows the secret and asks about its stream, and to nobody else."""
    token = StreamToken(sid=new_sid(), key_id=key_id, expires=expires)
    shown = token.sealed(secret)
    assert opened(shown, token.sid, secret) == token
    assert opened(shown, new_sid(), secret) is None
    assert opened(shown, token.sid, secret + b"x") is None


@given(st.text())
def test_nothing_else_opens(shown: str) -> None:
    """Whatever is shown, it is refused without an error."""
    for each in (shown, PREFIX + shown):
        assert opened(each, new_sid(), SECRET) is None


def test_the_hash_of_a_key_is_no_token() -> None:
    """Who reads the configuration file cannot make tokens of the hashes in it."""
    key, sid = new_key(), new_sid()
    forged = StreamToken(sid=sid, key_id=key, expires=2**31).sealed(digest(key.encode(), SECRET))
    assert opened(forged, sid, SECRET) is None


def test_a_token_has_one_spelling() -> None:
    """No other text opens what a token opens, neither by spare bits nor by letters of no alphabet."""
    token = StreamToken(sid=new_sid(), key_id="k", expires=1)
    shown = token.sealed(SECRET)
    for other in (*(shown[:-1] + letter for letter in ascii_letters if letter != shown[-1]), shown + "=", shown + "!"):
        assert opened(other, token.sid, SECRET) is None
