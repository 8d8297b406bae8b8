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
    503: Category.OVERLOADED,
    529: Category.OVERLOADED,
}


def by_status(status: int) -> Category:
    """The category of an HTTP status; unknown ones by their class. A redirect or another 2xx is a protocol error."""
    if (category := _BY_STATUS.get(status)) is not None:
        return category
    if 400 <= status < 500:
        return Category.BAD_REQUEST
    return Category.UPSTREAM_5XX if 500 <= status < 600 else Category.PROTOCOL
