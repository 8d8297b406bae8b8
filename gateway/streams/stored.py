"""What is kept beside a log so that another replica can go on with it: the request, and what its caller chose."""

from __future__ import annotations

import msgspec

from gateway.core.chat import ChatRequest, decode_request, encode_request


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """`data` is the request as `core.chat.encode_request` makes it; `fallback` the level that its caller allows."""

    data: bytes
    fallback: str
    request_id: str
    key: str | None

    @classmethod
    def of(cls, request: ChatRequest, fallback: str, request_id: str, key: str | None) -> Stored:
        """To be kept."""
        return cls(encode_request(request), fallback, request_id, key)

    @property
    def request(self) -> ChatRequest:
        """The request."""
        return decode_request(self.data)


encode = msgspec.msgpack.Encoder().encode
"""As it lies beside the log."""
decode = msgspec.msgpack.Decoder(Stored).decode
"""What `encode` made; raises msgspec.MsgspecError for anything else."""
