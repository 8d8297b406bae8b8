"""One deployment of LiteLLM's `model_list` as an endpoint of Atlas, and what of it has no equivalent."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.commands.litellm_vendors import COMPATIBLE, VENDORS, WITHOUT_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_ENVIRONMENT = "os.environ/"
_CHAT_MODES = (None, "chat", "completion", "responses")
_VARIABLE = r"[A-Z][A-Z0-9_]*(?::-[^}]*)?\}"
SHELL_VARIABLE, _PLAIN_BRACE = re.compile(r"\$\{" + _VARIABLE), re.compile(r"\$\{(?!" + _VARIABLE + ")")
"""LiteLLM knows no ${NAME}: something fills these in before it reads its file. Atlas reads them itself."""
_NO_CHAT = re.compile(r"(?:^|[-/_.])(?:embed|rerank|whisper|tts|dall-e|moderation|transcribe|imagen|gpt-image)")
"""How the names of models read that answer no chat; most files do not say their mode."""
_HERE = frozenset({
    "model", "api_key", "api_base", "base_url", "api_version", "rpm", "tpm", "weight", "order", "timeout",
    "stream_timeout", "max_parallel_requests", "organization", "extra_headers", "custom_llm_provider",
    "litellm_credential_name", "input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost",
    "cache_creation_input_token_cost", "proxy",
})  # fmt: skip
_PRICES = (
    ("input_cost_per_token", "input"), ("output_cost_per_token", "output"), ("cache_read_input_token_cost", "cached"),
    ("cache_creation_input_token_cost", "cache_creation"),
)  # fmt: skip
_LACKS = (("supports_function_calling", "tools"), ("supports_vision", "images"), ("supports_response_schema", "schema"))


class NoEquivalent(Exception):
    """A deployment that Atlas cannot ask; the message says why."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is told to the operator: `lost` has no equivalent, `hints` are worth knowing."""

    lost: list[str] = field(default_factory=list[str])
    hints: list[str] = field(default_factory=list[str])

    def lose(self, where: str, why: str) -> None:
        """Something of the file is not in the result."""
        self.lost.append(f"{where}: {why}")

    def hint(self, text: str) -> None:
        """Said once, however often it applies."""
        if text not in self.hints:
            self.hints.append(text)


@dataclass(frozen=True, slots=True)
class _Told:
    """Numbers of one deployment, and whom to tell of what is none."""

    where: str
    report: Report

    def numbers(
        self, given: Mapping[str, Any], names: Iterable[tuple[str, str]], kind: type[int | float]
    ) -> dict[str, Any]:
        """Positive numbers, or the variables that hold them, under Atlas's names of (theirs, ours)."""
        found: dict[str, Any] = {}
        for theirs, ours in names:
            value = given.get(theirs)
            if str(value).startswith(_ENVIRONMENT):
                found[ours] = text(value)
            elif (number := _number(value)) is not None:
                found[ours] = kind(number)
            elif value is not None:
                self.report.lose(f"{self.where}.{theirs}", "a positive number was expected")
        return found


def endpoint(where: str, row: Mapping[str, Any], name: Callable[[str], str], report: Report) -> dict[str, Any]:
    """The endpoint of one deployment. `name` makes a free name of a wish.

    Raises:
        NoEquivalent: Atlas has no wire for it.
    """
    given, info, route = mapping(row.get("litellm_params")), mapping(row.get("model_info")), str(row.get("model_name"))
    if route.endswith("*") and not route.endswith("/*"):
        raise NoEquivalent("a wildcard stands behind a slash, as in `openai/*`")
    if info.get("mode") not in _CHAT_MODES:
        raise NoEquivalent(f"mode {info['mode']}: Atlas serves chat models only")
    vendor, model = _vendor(given)
    if info.get("mode") is None and _NO_CHAT.search(model):
        raise NoEquivalent(f"{model!r:.60} is no chat model by its name, and Atlas serves no others; "
                           "`mode: chat` in its model_info says that it is one")  # fmt: skip
    found: dict[str, Any] = {"name": name(_wish(row, info, vendor))}
    found |= _address(where, vendor, model, given, report)
    told = _Told(where, report)
    found |= _limits(told, {**row, **given}) | _timeouts(told, given) | _profile(told, info)
    found |= _price({**info, **given}) | told.numbers(given, (("order", "priority"),), int)
    if headers := _headers(where, given, report):
        found["headers"] = headers
    for member in sorted(given.keys() - _HERE):
        report.lose(f"{where}.litellm_params.{member}", "no equivalent")
    return {member: value for member, value in found.items() if value is not None}


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def text(value: Any) -> str:
    """A value of the file as one of Atlas's: variables in its way, and nothing that it would take for one."""
    plain = str(value)
    if plain.startswith(_ENVIRONMENT):
        return "${" + plain.removeprefix(_ENVIRONMENT).strip() + "}"
    return _PLAIN_BRACE.sub("$${", plain)


def _vendor(given: Mapping[str, Any]) -> tuple[str, str]:
    """The vendor in LiteLLM's words, and the vendor's own name of the model."""
    model = str(given.get("model") or "")
    if not model:
        raise NoEquivalent("it has no model")
    if model == "*":
        raise NoEquivalent("every vendor at once; name them one by one, as `openai/*`")
    before, _, rest = model.partition("/")
    explicit = given.get("custom_llm_provider")
    if explicit is not None:
        vendor, model = str(explicit), rest if before == explicit else model
    elif rest and (before in VENDORS or before in COMPATIBLE):
        vendor, model = before, rest
    else:
        vendor = next((name for stem, name in WITHOUT_PREFIX if model.startswith(stem) and "/" not in model), before)
    if vendor not in VENDORS and vendor not in COMPATIBLE:
        raise NoEquivalent(f"Atlas has no wire for {vendor!r:.60}; if it speaks OpenAI's chat API, write "
                           f"`openai/MODEL` with its api_base" if rest or explicit
                           else f"the vendor of {model!r:.60} is not named, as in `openai/{model:.60}`")  # fmt: skip
    return vendor, model


def _wish(row: Mapping[str, Any], info: Mapping[str, Any], vendor: str) -> str:
    """What the endpoint would best be called."""
    return str(info.get("id") or f"{row.get('model_name')}-{vendor}".replace("*", "any"))


def _address(where: str, vendor: str, model: str, given: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Wire, address, keys and model."""
    base, known = given.get("api_base") or given.get("base_url"), VENDORS.get(vendor)
    found: dict[str, Any] = {}
    if vendor == "azure":
        found |= {"preset": "azure", "base_url": _azure(where, model, base, given, report)}
    elif known is None or (vendor == "openai" and base is not None and "api.openai.com" not in str(base)):
        if base is None:
            raise NoEquivalent(f"{vendor} needs an api_base")
        found |= {"kind": "openai_chat", "base_url": text(base)}
    else:
        found["preset"] = known.preset
        if base is not None:
            found["base_url"] = _without_version(text(base)) if vendor == "anthropic" else text(base)
    key = given.get("api_key")
    if key is None and known is not None and known.key is not None:
        found["keys"] = ["${" + known.key + "}"]
    elif key is not None:
        found["keys"] = [text(key)]
        if not str(key).startswith(_ENVIRONMENT) and not SHELL_VARIABLE.fullmatch(str(key)):
            report.hint('keys stand in the file itself: better put them into variables, as keys: ["${NAME}"]')
    return {**found, "model": text(model)}


def _azure(where: str, model: str, base: Any, given: Mapping[str, Any], report: Report) -> str:
    """The address of a deployment: the older API where a version is named, else the newer one."""
    root = text(base or f"{_ENVIRONMENT}AZURE_API_BASE").rstrip("/")
    if root.startswith("${"):
        report.hint(f"{where}: the address in {root} must not end with a slash")
    version = given.get("api_version")
    if "/openai/" in root:
        return root
    return f"{root}/openai/v1" if version is None else f"{root}/openai/deployments/{model}?api-version={text(version)}"


def _without_version(base: str) -> str:
    return re.sub(r"/v1(/messages)?/?$", "", base)


def _limits(told: _Told, given: Mapping[str, Any]) -> dict[str, Any]:
    names = (("max_parallel_requests", "max_concurrent"), ("rpm", "rpm"), ("tpm", "tpm"))
    found = told.numbers(given, names, int)
    return {"limits": found} if found else {}


def _timeouts(told: _Told, given: Mapping[str, Any]) -> dict[str, Any]:
    found = told.numbers(given, (("timeout", "total_s"), ("stream_timeout", "first_token_s")), float)
    return {"timeouts": found} if found else {}


def _profile(told: _Told, info: Mapping[str, Any]) -> dict[str, Any]:
    found = told.numbers(info, (("max_input_tokens", "context_tokens"), ("max_output_tokens", "output_tokens")), int)
    if lacks := [feature for member, feature in _LACKS if info.get(member) is False]:
        found["lacks"] = lacks
    return {"profile": found} if found else {}


def _price(given: Mapping[str, Any]) -> dict[str, Any]:
    """USD a million tokens; what costs nothing costs nothing."""
    found: dict[str, Any] = {}
    for theirs, ours in _PRICES:
        if (usd := 0.0 if given.get(theirs) == 0 else _number(given.get(theirs))) is not None:
            found[ours] = round(usd * 1e6, 6)
    return {"price": found} if {"input", "output"} <= found.keys() else {}


def _headers(where: str, given: Mapping[str, Any], report: Report) -> dict[str, str]:
    found = {str(name): text(value) for name, value in mapping(given.get("extra_headers")).items()}
    bad = [name for name in found if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", name)]
    for name in bad:
        del found[name]
        report.lose(f"{where}.litellm_params.extra_headers", f"{name!r:.80} is no name of an HTTP header")
    organization = given.get("organization")
    if isinstance(organization, list):
        report.lose(f"{where}.litellm_params.organization", "several of them; write an endpoint for each")
    elif organization is not None:
        found["openai-organization"] = text(organization)
    return found


def _number(value: Any) -> float | None:
    """The positive number that this is; None for anything else."""
    try:
        found = 0.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return found if 0 < found < float("inf") else None


def weights(rows: Iterable[Mapping[str, Any]]) -> list[float | None]:
    """How traffic is shared among deployments: by weight, else by requests, else by tokens a minute; 1 is the most."""
    listed = [{**row, **mapping(row.get("litellm_params"))} for row in rows]
    for member in ("weight", "rpm", "tpm"):
        values = [_number(row.get(member)) or 0.0 for row in listed]
        if any(values):
            most = max(values)
            return [max(round(value / most, 4), 0.0001) for value in values]
    return [None] * len(listed)
