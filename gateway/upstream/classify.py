"""What an error answer means, by its status: the half of the classification that all wires share. Pure.

An adapter looks at its vendor's codes first and falls back to this.
"""

from gateway.core.errors import Category

_BY_STATUS = {
    401: Category.PROVIDER_AUTH,
    402: Category.QUOTA,
    403: Category.PROVIDER_PERMISSION,
    404: Category.MODEL_NOT_FOUND,
    408: Category.UPSTREAM_5XX,
    413: Category.TOO_LARGE,
    424: Category.UPSTREAM_5XX,
    429: Category.RATE_LIMITED,
    498: Category.OVERLOADED,  # Groq: its flex tier has no capacity left
    499: Category.UPSTREAM_5XX,  # Ollama: the request was cancelled on its side
    503: Category.OVERLOADED,
    504: Category.UPSTREAM_5XX,
    529: Category.OVERLOADED,
}
_BY_CLASS = frozenset({400, 405, 406, 409, 415, 422, 500, 501, 502, *range(520, 528), 530})
"""What the class of the status says all about; 520 to 530 are a content network's (Cloudflare's) words for 502."""


def by_status(status: int) -> Category:
    """The category of an HTTP status; unknown ones by their class. A redirect or another 2xx is a protocol error."""
    if (category := _BY_STATUS.get(status)) is not None:
        return category
    if 400 <= status < 500:
        return Category.BAD_REQUEST
    return Category.UPSTREAM_5XX if 500 <= status < 600 else Category.PROTOCOL


def is_known(status: int) -> bool:
    """Whether the status says what it means; of others only the class is known, and they are worth counting."""
    return status in _BY_STATUS or status in _BY_CLASS
