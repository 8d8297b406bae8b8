"""API keys: what they look like, and the form in which they are kept.

`atl_<id>_<secret>`: 8 and 32 characters of base62 from the system's randomness, 190 bits of secret. The id is none: it
tells keys apart where no more than a part of one may be shown. What is kept of a key is `hmac-sha256:<hex>`, the
HMAC-SHA256 of the whole of it under the pepper, so that a configuration file gives nobody access.
"""

import hmac
import re
import secrets
import string

_ALPHABET = string.digits + string.ascii_letters
_ID_LENGTH, _SECRET_LENGTH = 8, 32
_KEY = re.compile(rb"atl_[0-9A-Za-z]{%d}_[0-9A-Za-z]{%d}" % (_ID_LENGTH, _SECRET_LENGTH))
_KEPT = "hmac-sha256:"


def new_key() -> str:
    """A fresh key."""
    return f"atl_{_random(_ID_LENGTH)}_{_random(_SECRET_LENGTH)}"


def id_of(key: str) -> str:
    """The part of a key that may be shown."""
    return key.split("_")[1]


def is_key(credential: bytes) -> bool:
    """Whether this looks like a key of ours."""
    return _KEY.fullmatch(credential) is not None


def digest(key: bytes, pepper: bytes) -> bytes:
    """What is kept of a key, 32 bytes."""
    return hmac.digest(pepper, key, "sha256")


def show_digest(kept: bytes) -> str:
    """`hmac-sha256:<hex>`."""
    return _KEPT + kept.hex()


def parse_digest(shown: str) -> bytes:
    """The 32 bytes of `hmac-sha256:<hex>`.

    Raises:
        ValueError: when it is anything else.
    """
    kept = bytes.fromhex(shown.removeprefix(_KEPT))
    if not shown.startswith(_KEPT) or len(kept) != 32:
        msg = f"expected {_KEPT}<64 hexadecimal digits>"
        raise ValueError(msg)
    return kept


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
