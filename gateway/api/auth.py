"""Who may call what: a credential becomes a principal, and a principal meets the scopes that a route declares.

Each route declares its `Access`: one of the framework as a dependency, a hot one beside its handler. `check_declared`
lets no app be built with a route that does not, so nothing is served that nobody thought of. What counts is the route
that was matched, never the path or the Host of the request, and it counts before the body is read.

Oddities, on purpose:
1. A key is found by a part of its digest, not by the id within it. So a wrong secret with an existing id and an id
   that nobody has are the same case and cost the same, and the cost does not grow with the number of keys. Callers
   cannot choose digests, as they do not know the pepper; the whole of it is compared in constant time.
2. No message repeats any part of what was sent as a credential, not even a scheme: it might be the secret.
"""

# No postponed annotations: the framework reads those of dependencies at run time.

import hmac
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute

from gateway.core.clock import Clock
from gateway.core.errors import RequestError
from gateway.core.keys import digest, is_key
from gateway.core.principal import Principal, Scope
from gateway.telemetry.audit import Refusals

_CARRYING = frozenset({b"authorization", b"x-api-key", b"api-key"})
CARRIERS = "'Authorization: Bearer <key>', 'x-api-key: <key>' or 'api-key: <key>'"
_PRINCIPAL = "atlas.principal"
_INDEXED_BYTES = 8
_EVERYBODY = Principal()
_NOBODY = Principal("", None, frozenset())


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A configured key: its digest, whose it is, and until when in Unix seconds."""

    digest: bytes = field(repr=False)
    principal: Principal
    expires: float | None = None


class LapsedKey(RequestError):
    """A known key is not valid any more; `who` it spoke for."""

    def __init__(self, message: str, code: str, who: Principal) -> None:
        super().__init__(message, status=401, code=code, headers={"www-authenticate": _INVALID})
        self.who = who


class Keyring:
    """The keys of one app. Without any, everybody is `local` and credentials are not looked at."""

    def __init__(self, keys: Iterable[Key], pepper: bytes, clock: Clock) -> None:
        self._keys = {key.digest[:_INDEXED_BYTES]: key for key in keys}
        self._pepper, self._clock = pepper, clock
        self._revoked: frozenset[str] = frozenset()
        self._refusals = Refusals(clock)

    def refused(self, error: RequestError, scope: Mapping[str, Any], who: Principal | None = None) -> RequestError:
        """Somebody is turned away with this error, which is returned; `who` it is, if the key is a known one."""
        client: tuple[str, int] | None = scope.get("client")
        self._refusals.record(
            error.code or "", who, status=error.status, client=client and client[0], method=scope.get("method", "")
        )
        return error

    @property
    def pepper(self) -> bytes:
        """What keys are hashed under; empty where none is configured."""
        return self._pepper

    @property
    def asks(self) -> bool:
        """Whether anybody is asked for a key."""
        return bool(self._keys)

    def revoke(self, key_ids: frozenset[str]) -> None:
        """These keys, by the operator's names, are refused from now on, and no others."""
        self._revoked = key_ids

    def replace(self, other: "Keyring") -> None:
        """Take over another one's keys; what was revoked stays so."""
        self._keys, self._pepper = other._keys, other._pepper  # noqa: SLF001  its own kind

    def is_revoked(self, key_id: str | None) -> bool:
        """Whether the key of this name was revoked."""
        return key_id in self._revoked

    def knows(self, key_id: str) -> bool:
        """Whether there is a key of this name, valid or not."""
        return any(key.principal.key_id == key_id for key in self._keys.values())

    def holder(self, key_id: str | None) -> Principal | None:
        """For whom the key of this name speaks now; None if it is gone, expired or revoked.

        Where there are no keys None is the name that everybody goes by.
        """
        if not self._keys:
            return _EVERYBODY if key_id is None else None
        named = (key for key in self._keys.values() if key.principal.key_id == key_id)
        return next((key.principal for key in named if self._refusal(key) is None), None)

    def principal(self, headers: Iterable[tuple[bytes, bytes]]) -> Principal:
        """Who sent these headers, whose names are in lower case.

        Raises:
            RequestError: 400 credentials that disagree, 401 without a key that is known and valid.
        """
        if not self._keys:
            return _EVERYBODY
        credential = _credential(headers)
        if not is_key(credential):
            raise _unknown()
        presented = digest(credential, self._pepper)
        key = self._keys.get(presented[:_INDEXED_BYTES])
        if key is None or not hmac.compare_digest(key.digest, presented):
            raise _unknown()
        if (refusal := self._refusal(key)) is not None:
            raise refusal
        return key.principal

    def _refusal(self, key: Key) -> "LapsedKey | None":
        """Why a key that is known is not valid now."""
        if key.expires is not None and self._clock.now() >= key.expires:
            return LapsedKey("the key has expired", "expired_api_key", key.principal)
        if self.is_revoked(key.principal.key_id):
            return LapsedKey("the key was revoked", "revoked_api_key", key.principal)
        return None


class Access:
    """What a route asks for: any one of `scopes`; without any it is open to everybody.

    As a dependency of the framework it gives the principal.
    """

    __slots__ = ("_needed", "scopes")

    def __init__(self, *scopes: Scope) -> None:
        self.scopes = frozenset(scopes)
        self._needed = " or ".join(scopes)

    async def __call__(self, request: Request) -> Principal:
        """Admit the caller of a framework's route."""
        keyring: Keyring = request.app.services.keyring
        return self.admit(request.scope, keyring)

    def admit(self, scope: MutableMapping[str, Any], keyring: Keyring) -> Principal:
        """Let the caller in, as the principal that `principal_of` finds from then on.

        Raises:
            RequestError: 400 or 401 as the keyring says, 403 a valid key without the scope.
        """
        who = _NOBODY
        if self.scopes:
            try:
                who = keyring.principal(scope["headers"])
            except RequestError as error:
                raise keyring.refused(error, scope, error.who if isinstance(error, LapsedKey) else None) from None
            if self.scopes.isdisjoint(who.scopes):
                raise keyring.refused(self._forbidden(), scope, who)
        return admitted(scope, who)

    def _forbidden(self) -> RequestError:
        challenge = f'Bearer realm="atlas", error="insufficient_scope", scope="{" ".join(sorted(self.scopes))}"'
        return RequestError(
            f"this key may not do that: it needs the scope {self._needed}",
            status=403, code="missing_scope", headers={"www-authenticate": challenge},
        )  # fmt: skip


OPEN = Access()
INFER = Access(Scope.INFER)
CONTROL = Access(Scope.CONTROL)
READ = Access(Scope.INFER, Scope.CONTROL)
METRICS = Access(Scope.METRICS)
ADMIN = Access(Scope.ADMIN)

FRAMEWORK_ROUTES: Mapping[str, Access] = {
    "openapi": OPEN,  # the description of a public API holds nothing of anybody's
    "swagger_ui_html": OPEN,
    "swagger_ui_redirect": OPEN,
    "redoc_html": OPEN,
}
"""What the framework adds by itself, by name."""


def admitted(scope: MutableMapping[str, Any], who: Principal) -> Principal:
    """Let this caller in, as the principal that `principal_of` finds from then on."""
    scope[_PRINCIPAL] = who
    return who


def principal_of(scope: Mapping[str, Any]) -> Principal:
    """Who was admitted to the route that this request matched; KeyError if nobody was."""
    who: Principal = scope[_PRINCIPAL]
    return who


def declared(routes: Iterable[BaseRoute]) -> dict[tuple[str, str], Access | None]:
    """The access of each route by method and path; None where a route does not declare any."""
    found: dict[tuple[str, str], Access | None] = {}
    for route in iter_route_contexts(list(routes)):
        access = _access_of(route)
        for method in sorted(route.methods or {"*"}):
            found[method, str(route.path)] = access
    return found


def check_declared(routes: Iterable[BaseRoute]) -> None:
    """Refuse an app with a route that nobody declared the access of.

    Raises:
        TypeError: naming the routes.
    """
    missing = [" ".join(route) for route, access in declared(routes).items() if access is None]
    if missing:
        msg = f"routes without a declared access, see gateway.api.auth: {', '.join(missing)}"
        raise TypeError(msg)


def _access_of(route: Any) -> Access | None:
    dependant = getattr(route, "dependant", None)
    if dependant is None:
        return FRAMEWORK_ROUTES.get(route.name)
    calls = [dependency.call for dependency in dependant.dependencies]
    return next((call for call in calls if isinstance(call, Access)), None)


def carries_credential(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether any header is one that credentials come in."""
    return any(name in _CARRYING for name, _ in headers)


def _credential(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The one credential in these headers.

    Raises:
        RequestError: 400 several that differ, 401 none.
    """
    found: bytes | None = None
    for name, value in headers:
        if name not in _CARRYING:
            continue
        credential = _bearer(value) if name == b"authorization" else value.strip()
        if credential and found is not None and credential != found:
            msg = f"the request carries two credentials that differ; send one key, as {CARRIERS}"
            raise RequestError(msg, code="conflicting_credentials")
        found = credential or found
    if found is None:
        msg = f"no API key was sent; send it as {CARRIERS}"
        raise unauthorized(msg, "missing_api_key", challenge=_CHALLENGE)
    return found


def _bearer(value: bytes) -> bytes:
    """The token of an Authorization header; empty for an empty header."""
    scheme, _, token = value.strip().partition(b" ")
    token = token.strip()
    if scheme and (scheme.lower() != b"bearer" or not token):
        msg = "the Authorization header must be 'Bearer <key>'"
        raise unauthorized(msg, "invalid_authorization", param="Authorization")
    return token


_CHALLENGE = 'Bearer realm="atlas"'
_INVALID = _CHALLENGE + ', error="invalid_token"'  # RFC 6750, section 3.1


def _unknown() -> RequestError:
    """The one refusal of every credential that is not a valid key."""
    return unauthorized("the API key is not known here", "invalid_api_key")


def unauthorized(message: str, code: str, *, param: str | None = None, challenge: str = _INVALID) -> RequestError:
    """The refusal of a credential, or of a request without one."""
    return RequestError(message, status=401, code=code, param=param, headers={"www-authenticate": challenge})
