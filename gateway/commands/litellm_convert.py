"""A configuration of LiteLLM's proxy as one of Atlas, and what of it has no equivalent.

A `model_name` becomes a route, each of its deployments an endpoint. Fallbacks become further endpoints of the route.
"""

from __future__ import annotations

import re
from typing import Any

from gateway.commands.litellm_endpoints import SHELL_VARIABLE, NoEquivalent, Report, endpoint, mapping, text, weights
from gateway.commands.litellm_vendors import STRATEGIES

_EXPLAINED = {
    "litellm_settings.drop_params": "members are passed on, under the vendor's own names where its preset knows them",
    "litellm_settings.set_verbose": "see server.log_level",
    "litellm_settings.json_logs": "logs always are JSON",
    "litellm_settings.cache": "answers are not cached",
    "litellm_settings.cache_params": "answers are not cached",
    "litellm_settings.callbacks": "Atlas has metrics at /metrics and one log line a stream",
    "litellm_settings.success_callback": "Atlas has metrics at /metrics and one log line a stream",
    "litellm_settings.failure_callback": "Atlas has metrics at /metrics and one log line a stream",
    "router_settings.enable_pre_call_checks": "always on, where an endpoint's profile says what it can take",
    "router_settings.num_retries": "Atlas retries by the kind of error, within a bound for each route",
    "litellm_settings.num_retries": "Atlas retries by the kind of error, within a bound for each route",
    "general_settings.database_url": "Atlas needs no database: keys and budgets stand in the file",
}
_CONVERTED = frozenset({
    "router_settings.routing_strategy", "router_settings.fallbacks", "litellm_settings.fallbacks",
    "router_settings.default_fallbacks", "litellm_settings.default_fallbacks", "router_settings.model_group_alias",
    "router_settings.timeout", "litellm_settings.request_timeout", "router_settings.allowed_fails",
    "litellm_settings.allowed_fails", "router_settings.cooldown_time", "litellm_settings.cooldown_time",
    "router_settings.redis_host", "router_settings.redis_port", "router_settings.redis_password",
    "router_settings.redis_url", "general_settings.master_key",
})  # fmt: skip
_SECTIONS = frozenset({"model_list", "litellm_settings", "router_settings", "general_settings", "credential_list"})


def convert(given: dict[str, Any]) -> tuple[dict[str, Any], Report]:
    """The sections of Atlas's file, and what is to be told."""
    report = Report()
    work = _Conversion(given, report)
    work.deployments()
    work.routes()
    result: dict[str, Any] = {}
    if (url := _redis(given)) is not None:
        result["journal"] = {"kind": "redis", "url": url}
    result["endpoints"], result["routes"] = work.endpoints, work.routed
    _leftovers(given, report)
    return result, report


class _Conversion:
    """One file on its way. `groups` are the endpoints of each model name, in the order of the file."""

    def __init__(self, given: dict[str, Any], report: Report) -> None:
        self.report = report
        self._router, self._module = mapping(given.get("router_settings")), mapping(given.get("litellm_settings"))
        self._rows: list[Any] = given["model_list"]
        credentials = given.get("credential_list")
        self._credentials = {
            str(row.get("credential_name")): mapping(row.get("credential_values"))
            for row in (credentials if isinstance(credentials, list) else ())
            if isinstance(row, dict)
        }
        self.endpoints: list[dict[str, Any]] = []
        self.routed: list[dict[str, Any]] = []
        self.groups: dict[str, list[dict[str, Any]]] = {}
        self._sources: dict[str, list[dict[str, Any]]] = {}

    def _setting(self, name: str) -> Any:
        """A setting that may stand in either section."""
        return self._router.get(name, self._module.get(name))

    def deployments(self) -> None:
        """Every deployment as an endpoint."""
        for at, row in enumerate(self._rows):
            model = row.get("model_name") if isinstance(row, dict) else None
            where = f"model_list[{at}] ({model})"
            if not isinstance(model, str):
                self.report.lose(f"model_list[{at}]", "it has no model_name")
                continue
            try:
                found = endpoint(where, self._credited(row), self._name, self.report)
            except NoEquivalent as error:
                self.report.lose(where, str(error))
                continue
            self.endpoints.append(self._with_defaults(_starred(found, model)))
            self.groups.setdefault(model, []).append(self.endpoints[-1])
            self._sources.setdefault(model, []).append(row)

    def _credited(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with the credential that it names."""
        given = row.get("litellm_params")
        if not isinstance(given, dict) or "litellm_credential_name" not in given:
            return row
        return {**row, "litellm_params": {**self._credentials.get(str(given["litellm_credential_name"]), {}), **given}}

    def _with_defaults(self, found: dict[str, Any]) -> dict[str, Any]:
        """The endpoint with what LiteLLM sets for all of them."""
        total = self._router.get("timeout", self._module.get("request_timeout"))
        if isinstance(total, int | float) and not isinstance(total, bool) and total > 0:
            found["timeouts"] = {"total_s": float(total), **found.get("timeouts", {})}
        breaker: dict[str, Any] = {}
        fails, rest = self._setting("allowed_fails"), self._setting("cooldown_time")
        if isinstance(fails, int) and fails > 0:
            breaker["failures"] = fails
        if isinstance(rest, int | float) and 0 < rest <= 300:
            breaker["open_s"] = float(rest)
        return {**found, "breaker": breaker} if breaker else found

    def _name(self, wish: str) -> str:
        """A free name as near to the wish as may be."""
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", wish).strip("-._")[:56] or "endpoint"
        taken = {each["name"] for each in self.endpoints}
        numbered = (name if number == 1 else f"{name}-{number}" for number in range(1, len(taken) + 2))
        return next(each for each in numbered if each not in taken)

    def routes(self) -> None:
        """A route for each model name, and for each other name of one."""
        for model, members in self.groups.items():
            self.routed.append(self._route(model, members))
        aliases = self._router.get("model_group_alias")
        for alias, target in (aliases if isinstance(aliases, dict) else {}).items():
            named = target.get("model") if isinstance(target, dict) else target
            found = next((route for route in self.routed if route["model"] == named), None)
            if found is None or alias in self.groups:
                self.report.lose(
                    f"router_settings.model_group_alias.{alias}", f"there is no route {named!r:.60} to copy"
                )
            else:
                self.routed.append({**found, "model": str(alias), "endpoints": list(found["endpoints"])})

    def _route(self, model: str, members: list[dict[str, Any]]) -> dict[str, Any]:
        names = [each["name"] for each in members]
        further = [name for name in self._fallbacks(model) if name not in names]
        route: dict[str, Any] = {"model": model, "strategy": "priority", "endpoints": [*names, *further]}
        if len(names) > 1 and further:
            self.report.hint(f"route {model}: {', '.join(names)} are tried in this order, as a route that has "
                             "fallbacks behind its own endpoints cannot also share its load among them")  # fmt: skip
        elif len(names) > 1 and not any("priority" in each for each in members):
            route["strategy"] = self._strategy(model, members)
        return route

    def _strategy(self, model: str, members: list[dict[str, Any]]) -> str:

        wanted = str(self._router.get("routing_strategy", "simple-shuffle"))
        strategy, difference = STRATEGIES.get(wanted, ("weighted", "it is not known here"))
        if difference is not None:
            self.report.hint(f"routing_strategy {wanted!r:.60} became {strategy}: {difference}")
        if strategy == "weighted":
            for each, weight in zip(members, weights(self._sources[model]), strict=True):
                if weight is not None:
                    each["weight"] = weight
        return strategy

    def _fallbacks(self, model: str) -> list[str]:
        """The names of the endpoints to go on with after the route's own."""
        found: list[str] = []
        for wanted in self._fallback_models(model):
            by_id = [each["name"] for each in self.endpoints if each["name"] == wanted]
            names = [each["name"] for each in self.groups.get(wanted, ())] or by_id
            if not names:
                self.report.lose(f"fallbacks of {model}", f"there is no {wanted!r:.60}")
            found += [name for name in names if name not in found]
        return found

    def _fallback_models(self, model: str) -> list[str]:
        rules = self._setting("fallbacks")
        for rule in rules if isinstance(rules, list) else ():
            if isinstance(rule, dict) and isinstance(rule.get(model), list):
                return [each for each in rule[model] if isinstance(each, str)]
        default = self._setting("default_fallbacks")
        return [
            each for each in (default if isinstance(default, list) else ()) if isinstance(each, str) and each != model
        ]


def _starred(found: dict[str, Any], model: str) -> dict[str, Any]:
    """The endpoint of a wildcard: `openai/*` passes on what the star stood for."""
    if model.endswith("/*") and found["model"].endswith("*"):
        return {**found, "model": "*"}
    return found


def _redis(given: dict[str, Any]) -> str | None:
    """The address of the Redis over which LiteLLM's replicas share their state."""
    router = mapping(given.get("router_settings"))
    if router.get("redis_url"):
        return text(router["redis_url"])
    if not router.get("redis_host"):
        return None
    password = f":{text(router['redis_password'])}@" if router.get("redis_password") else ""
    return f"redis://{password}{text(router['redis_host'])}:{text(router.get('redis_port') or 6379)}"


def _leftovers(given: dict[str, Any], report: Report) -> None:
    """Tell of everything that was not looked at."""
    for section in ("litellm_settings", "router_settings", "general_settings"):
        for member in mapping(given.get(section)):
            place = f"{section}.{member}"
            if place not in _CONVERTED:
                report.lose(place, _EXPLAINED.get(place, "no equivalent"))
    for section in sorted(str(name) for name in given.keys() - _SECTIONS):
        report.lose(section, "no equivalent")
    if SHELL_VARIABLE.search(str(given)):
        report.hint("variables like ${NAME} stay as they are: Atlas reads them from its environment, without envsubst")
    if mapping(given.get("general_settings")).get("master_key"):
        report.hint("keys are kept as hashes, so the master key cannot be taken over; make one with "
                    "`atlas keys create --tenant NAME --scopes infer,control,admin,metrics`")  # fmt: skip
    report.hint("clients find Atlas at http://HOST:8080/v1, LiteLLM's own port is 4000; see server.port")
