"""The types of single values: sizes, durations, URLs, words that YAML mistakes for something else."""

import ipaddress
import re
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, StringConstraints

_SIZE = re.compile(r"([0-9]{1,15})\s*(B|[KMG]i?B)?", re.IGNORECASE)
_UNSENDABLE = re.compile(r"[\x00-\x1f\x7f-\x9f]|[^\x00-\xff]")
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_size(value: object) -> int:
    """Bytes of `50MiB`, `64KB` or a number; K, M and G are powers of 1000, Ki, Mi and Gi powers of 1024.

    Raises ValueError for anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a number of bytes or a size like 50MiB or 64KB")
    return int(match[1]) * _UNITS[(match[2] or "B").lower()]


def check_url(value: str) -> str:
    """The URL without a closing slash; raises ValueError unless it is http or https with a host and a sane port."""
    wrong = "must be a URL like https://host:port/path"
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # from None: the original message quotes the value, and with it any credentials
        raise ValueError(wrong) from None
    if not usable or re.search(r"\s", value):
        raise ValueError(wrong)
    return value.rstrip("/")


def host_url(value: str, port: int) -> str:
    """The URL of a server named as OLLAMA_HOST names one: `host`, `host:port`, `:port` or a URL.

    A host alone has `port`, a URL the port of its scheme (github.com/ollama/ollama, envconfig). An address to bind to,
    `0.0.0.0` or `[::]`, is this machine. What cannot be read so is returned as it came, for `check_url` to refuse.
    """
    plain = value.strip().strip("\"'").strip()
    try:
        parts = urlsplit(plain if "://" in plain else f"http://{_bracketed(plain)}")
        host, given = parts.hostname or "127.0.0.1", parts.port
    except ValueError:
        return value
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - replaced, not bound to
    default = None if "://" in plain else port
    user, at, _ = parts.netloc.rpartition("@")
    shown = f"[{host}]" if ":" in host else host
    number = default if given is None else given
    netloc = f"{user}{at}{shown}" + ("" if number is None else f":{number}")
    return parts._replace(netloc=netloc).geturl().rstrip("/")


def _bracketed(host: str) -> str:
    """A bare IPv6 address in brackets."""
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host


def check_header(value: SecretStr) -> SecretStr:
    """A value that an HTTP header can carry; raises ValueError, which does not quote it, for any other."""
    if _UNSENDABLE.search(value.get_secret_value()):
        raise ValueError("holds a control character (a line end at its end?) or a letter that no HTTP header can carry")
    return value


def check_origin(value: str) -> str:
    """The origin as browsers send it, in lower case; raises ValueError unless it is scheme and host, or `*` for any."""
    if value == "*":
        return value
    url = urlsplit(check_url(value))
    if url.path or url.query or url.fragment or "@" in url.netloc:
        raise ValueError("must be an origin like https://chat.example.com: scheme, host and port, without a path")
    return url.geturl().lower()


def is_loopback(host: str) -> bool:
    """Whether an address to bind to is reachable from this machine only; unknown names count as not."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def off_word(value: object) -> object:
    """`off` where YAML made False of it."""
    return "off" if value is False else value


def none_word(value: object) -> object:
    """`none` where YAML made null of it."""
    return "none" if value is None else value


def _checked(value: object) -> object:
    return check_url(value) if isinstance(value, str) else value


Size: TypeAlias = Annotated[int, BeforeValidator(parse_size), Field(ge=1)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Word: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Origin: TypeAlias = Annotated[Word, AfterValidator(check_origin)]
Name: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Module: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Url: TypeAlias = Annotated[str, BeforeValidator(_checked)]
HeaderSecret: TypeAlias = Annotated[SecretStr, Field(min_length=1), AfterValidator(check_header)]
HeaderName: TypeAlias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$", to_lower=True)]
