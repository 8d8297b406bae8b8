"""What keys look like, and what is kept of them."""

import hashlib
import hmac
import re

import pytest

from gateway.core.keys import digest, id_of, is_key, new_key, parse_digest, show_digest


def test_the_form_of_a_key() -> None:
    """A key is `atl_<8>_<32>` in base62; its id is the part that may be shown."""
    key = new_key()
    assert re.fullmatch(r"atl_[0-9A-Za-z]{8}_[0-9A-Za-z]{32}", key)
    assert id_of(key) == key[4:12]
    assert is_key(key.encode())


def test_no_two_keys_are_alike() -> None:
    """Each key is fresh, its id as well as its secret, and every character of base62 is used."""
    keys = [new_key() for _ in range(500)]
    assert len({id_of(key) for key in keys}) == len({key[13:] for key in keys}) == 500
    assert len(set("".join(key[13:] for key in keys))) == 62


def test_what_is_kept_is_an_hmac_of_the_whole_key() -> None:
    """Anybody can compute the row's hash from key and pepper with standard tools."""
    kept = digest(b"atl_x", b"pepper")
    assert kept == hmac.new(b"pepper", b"atl_x", hashlib.sha256).digest()
    assert show_digest(kept) == "hmac-sha256:" + kept.hex()
    assert parse_digest(show_digest(kept)) == kept


@pytest.mark.parametrize("text", ["", "hmac-sha256:", "00" * 32, "hmac-sha256:" + "0" * 62, "hmac-sha256:" + "x" * 64])
def test_other_hashes_are_refused(text: str) -> None:
    """Nothing but the one form is taken for a hash."""
    with pytest.raises(ValueError, match=r"hmac|hex"):
        parse_digest(text)


@pytest.mark.parametrize(
    "text",
    [b"", b"sk-x", b"atl_", b"atl_" + b"a" * 41, b"atl_aaaaaaaa_" + b"a" * 31 + b"\n", b"ATL_aaaaaaaa_" + b"a" * 32],
)
def test_what_is_no_key(text: bytes) -> None:
    """A credential that is not formed like a key is told apart without a hash."""
    assert not is_key(text)
