"""The gateway's own OpenAPI document, and requests generated from it by schemathesis: sensible ones and nonsense."""

import asyncio
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.api.auth import declared
from gateway.app import create
from tests.e2e.house import house, run, sid_of
from tests.support.server import atlas_settings

EXAMPLES = 12
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def test_the_document_says_who_may_call() -> None:
    """Every route that wants a key says so, and no other; those that a token opens say that, too."""
    app = create(atlas_settings())
    paths = app.openapi()["paths"]
    for (method, path), access in declared(app.routes).items():
        operation = paths.get(path.replace(":path}", "}"), {}).get(method.lower())
        if operation is not None and access is not None:
            assert ("security" in operation) == bool(access.scopes), (method, path)
    by_token = {path for path, methods in paths.items() for each in methods.values()
                if {"stream_token": []} in each.get("security", [])}  # fmt: skip
    assert by_token == {f"/v1/streams/{{stream_id}}{rest}" for rest in ("", "/events", "/text")}


def test_nothing_that_the_document_allows_is_answered_otherwise() -> None:
    """No generated request meets a 5xx, or an answer of a status, type or shape that the document does not describe."""

    async def scenario() -> None:
        async with house() as it:
            known = sid_of(await it.ask(model="mock-fast", max_tokens=2))
            await asyncio.to_thread(_throw_everything, it.app.openapi(), it.atlas.base_url, known)

    run(scenario())


def _throw_everything(document: dict[str, Any], base_url: str, known: str) -> None:
    for result in schemathesis.openapi.from_dict(document).get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def throw(case: Any) -> None:
            if case.path_parameters and "stream_id" in case.path_parameters and len(str(case.path_parameters)) % 2:
                case.path_parameters["stream_id"] = known
            case.validate_response(case.call(base_url=base_url, timeout=20), checks=CHECKS)

        throw()
