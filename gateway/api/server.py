"""uvicorn's HTTP protocol with one addition: the app can reach the connection's transport.

ASGI has no way to reset a connection, and closing one whose client does not read waits for that client for ever.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class Protocol(HttpToolsProtocol):
    """Puts the transport into the scope as the extension `atlas.transport`."""

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        scope: Any = self.scope
        scope["extensions"] = {"atlas.transport": self.transport}
