"""Tokens that let their bearer read one stream for a minute: what they look like, and how forgeries are told.

`ast_<base64url>` of when it expires (Unix seconds, 4 bytes), a MAC (32 bytes), and the name of the key in whose name it
was issued. The MAC is HMAC-SHA256 over stream, expiry and name, under a key derived from the deployment's secret: that
secret also hashes API keys, and neither of the two may pass for the other.
"""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

PREFIX = "ast_"
LIFETIME_S = 60
_DOMAIN = b"atlas stream token v1"
_EXPIRY_BYTES, _MAC_BYTES = 4, 32
_MAX_LENGTH = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamToken:
    """What a token says, once it is known to be ours: for whose key it speaks, and until when in Unix seconds.

    `key_id` is None where no keys are configured.
    """

    sid: str
    key_id: str | None
    expires: int

    def sealed(self, secret: bytes) -> str:
        """The token as its bearer shows it; there is one spelling of it."""
        name = (self.key_id or "").encode()
        expires = self.expires.to_bytes(_EXPIRY_BYTES, "big")
        mac = hmac.digest(hmac.digest(secret, _DOMAIN, "sha256"), expires + self.sid.encode() + b"\0" + name, "sha256")
        return PREFIX + urlsafe_b64encode(expires + mac + name).rstrip(b"=").decode("ascii")


def opened(shown: str, sid: str, secret: bytes) -> StreamToken | None:
    """What the token says of this stream, expired or not; None for anything that was not issued for it."""
    claimed = _claimed(shown, sid)
    if claimed is None or not hmac.compare_digest(claimed.sealed(secret).encode(), shown.encode()):
        return None
    return claimed


def _claimed(shown: str, sid: str) -> StreamToken | None:
    """What the token says, true or not; None for what cannot be one."""
    encoded = shown.removeprefix(PREFIX)
    if encoded == shown or len(shown) > _MAX_LENGTH or not encoded.isascii():
        return None
    try:
        packed = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        name = packed[_EXPIRY_BYTES + _MAC_BYTES :].decode()
    except ValueError:
        return None
    return StreamToken(sid=sid, key_id=name or None, expires=int.from_bytes(packed[:_EXPIRY_BYTES], "big"))
