"""Reading one stream without a key: for browsers, whose EventSource sends no headers.

Whoever may read a stream asks for a token of it and hands it to a page, which shows it as the query parameter `token`.
It opens the GET routes of that one stream and nothing else. It speaks for the key that asked: when that one is revoked,
expires or leaves the configuration, so does the token. It is looked at when a request begins: what is open stays open,
until the key is revoked.

Query strings end up in the logs of proxies and in histories. That is why a token lives for a minute, and why keys are
not taken there.
"""

# No postponed annotations: the framework reads those of dependencies at run time.

from collections.abc import Awaitable, Callable

from fastapi import Request

from gateway.api.auth import READ, Access, Keyring, admitted, carries_credential, unauthorized
from gateway.core.clock import Clock
from gateway.core.errors import RequestError
from gateway.core.ids import parse_sid
from gateway.core.principal import Principal
from gateway.core.stream_token import LIFETIME_S, StreamToken, opened

PARAMETER = "token"


class StreamTokens:
    """Issues tokens and knows them again. `shared_secret` is asked where the operator configured no pepper."""

    def __init__(self, keyring: Keyring, shared_secret: Callable[[], Awaitable[bytes]], clock: Clock) -> None:
        self._keyring, self._shared_secret, self._clock = keyring, shared_secret, clock

    async def issue(self, sid: str, who: Principal) -> tuple[str, int]:
        """A token for a stream that `who` may read, and when it expires in Unix seconds.

        Raises:
            JournalUnavailable: the secret is in the journal's Redis, which does not answer.
        """
        token = StreamToken(sid=sid, key_id=who.key_id, expires=int(self._clock.now()) + LIFETIME_S)
        return token.sealed(await self._secret()), token.expires

    async def principal(self, shown: str, stream_id: str) -> Principal:
        """Whom a token of this stream speaks for.

        Raises:
            RequestError: 401, the same for forged ones, those of other streams and of keys that are gone; and expired.
            JournalUnavailable: as with `issue`.
        """
        token = opened(shown, parse_sid(stream_id) or "", await self._secret())
        who = None if token is None else self._keyring.holder(token.key_id)
        if token is None or who is None:
            raise _refused("the token is not one of this stream", "invalid_stream_token")
        if self._clock.now() >= token.expires:
            raise _refused("the token has expired; ask for a new one", "expired_stream_token")
        return Principal(who.tenant, who.key_id, frozenset())

    async def _secret(self) -> bytes:
        return self._keyring.pepper or await self._shared_secret()


class OrToken(Access):
    """Besides those with one of the scopes, whoever shows a token of the stream that the path names."""

    async def __call__(self, request: Request) -> Principal:
        """Admit the caller of a framework's route."""
        shown = request.query_params.getlist(PARAMETER)
        if not shown:
            return await super().__call__(request)
        keyring: Keyring = request.app.services.keyring
        if len(shown) > 1 or (keyring.asks and carries_credential(request.scope["headers"])):
            msg = "the request carries two credentials; send a key in a header or one ?token=, not both"
            raise keyring.refused(RequestError(msg, code="conflicting_credentials"), request.scope)
        tokens: StreamTokens = request.app.services.tokens
        try:
            who = await tokens.principal(shown[0], request.path_params["stream_id"])
        except RequestError as error:
            raise keyring.refused(error, request.scope) from None
        return admitted(request.scope, who)


READ_OR_TOKEN = OrToken(*READ.scopes)


def _refused(message: str, code: str) -> RequestError:
    return unauthorized(message, code, param=PARAMETER)
