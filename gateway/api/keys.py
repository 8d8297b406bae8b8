"""POST /v1/keys/{key_id}/revoke: every replica refuses the key from now on, and cancels what runs in its name.

Whoever reads streams of the tenant's other keys with it is cut off.

A key goes by its name in the configuration. Take it out of there as well: a journal in memory knows of a revocation
until the process ends (`durable: false`), one in Redis for about a year.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from gateway.api.auth import ADMIN, principal_of
from gateway.api.paths import REQUEST_ID
from gateway.core.errors import RequestError
from gateway.streams.journal import ReaderRevoked
from gateway.telemetry.audit import record

if TYPE_CHECKING:
    from gateway.api.auth import Keyring
    from gateway.backing import Backing
    from gateway.pipeline import Pipeline
    from gateway.streams.control import StreamControl
    from gateway.streams.lifecycle import Record

REASON = "key_revoked"


class Revocations:
    """What follows when keys are revoked, here or on another replica."""

    def __init__(self, keyring: Keyring, pipeline: Pipeline, control: StreamControl) -> None:
        self._keyring, self._pipeline, self._control = keyring, pipeline, control

    def revoked(self, key_ids: frozenset[str]) -> None:
        """These are refused from now on, and no others; their streams that are owned here are cancelled."""
        self._keyring.revoke(key_ids)
        hub = self._pipeline.hub
        for session in hub.sessions():
            self.owned(session.record)
        for reader in [reader for channel in hub.channels.values() for reader in channel.readers]:
            if self._keyring.is_revoked(reader.key_id):
                reader.fail(ReaderRevoked())

    def owned(self, record: Record) -> None:
        """A stream is owned here from now on: its caller may have been let in before the key was revoked."""
        if self._keyring.is_revoked(record.key_id):
            self._pipeline.spawn(self._control.cancel_quietly(record, REASON))


def router(keyring: Keyring, backing: Backing) -> APIRouter:
    """The route, bound to one app's keys."""
    routes = APIRouter(prefix="/v1/keys", tags=["keys"], dependencies=[Depends(ADMIN)])

    @routes.post("/{key_id}/revoke", summary="Refuse this key everywhere, and cancel what runs in its name")
    async def revoke(request: Request, key_id: str) -> Response:
        if not keyring.knows(key_id):
            msg = f"no key {key_id!r:.64} is configured here"
            raise RequestError(msg, status=404, code="key_not_found", param="key_id")
        await backing.revoke(key_id)
        who = principal_of(request.scope)
        record("key.revoke", "revoked", who, subject=key_id, request=request.scope.get(REQUEST_ID))
        body = {"id": key_id, "object": "key", "revoked": True, "durable": backing.shared}
        return Response(msgspec.json.encode(body), media_type="application/json")

    return routes
