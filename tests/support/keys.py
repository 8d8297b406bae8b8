"""API keys for tests: the secret, the row for the settings, and the pepper under which it was hashed."""

from dataclasses import dataclass
from typing import Any

from gateway.core.keys import digest, new_key, show_digest

PEPPER = "canary-pepper-of-the-tests"
CARRIERS = ("authorization", "x-api-key", "api-key")


@dataclass(frozen=True, slots=True)
class Made:
    """A key as its owner has it (`secret`) and as the gateway keeps it (`row`)."""

    secret: str
    row: dict[str, Any]

    def headers(self, carrier: str = "authorization") -> dict[str, str]:
        """The key on one of the carriers."""
        return carried(self.secret, carrier)


def made(tenant: str, *scopes: str, **members: Any) -> Made:
    """A fresh key; without scopes it has the default ones."""
    secret = new_key()
    kept = show_digest(digest(secret.encode(), PEPPER.encode()))
    row = {"id": f"{tenant}-{secret[4:12]}", "hash": kept, "tenant": tenant, **members}
    return Made(secret, row | ({"scopes": list(scopes)} if scopes else {}))


def carried(credential: str, carrier: str) -> dict[str, str]:
    """Headers that carry a credential."""
    return {carrier: f"Bearer {credential}" if carrier == "authorization" else credential}


def keyed(*keys: Made) -> dict[str, Any]:
    """The sections of the settings that hold these keys."""
    return {"keys": [key.row for key in keys], "key_pepper": PEPPER}
