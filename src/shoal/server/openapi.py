"""The operators' API described as OpenAPI 3.1, from the table that serves it."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from shoal.server.routes import ROUTES, Route
from shoal.wire.messages import VERSION, Problem

_PLACE = "#/components/schemas/{name}"


def description(federation: str) -> dict[str, Any]:
    """The whole document, as JSON's values.

    >>> sorted(description("hearts")["paths"]["/v1/runs"])
    ['get', 'post']
    """
    kinds = [kind for route in ROUTES for kind in (route.body, route.answer) if kind is not None]
    schemas, components = msgspec.json.schema_components([Problem, *kinds], ref_template=_PLACE)
    schema_of = dict(zip(map(str, [Problem, *kinds]), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Shoal: {federation}", "version": str(VERSION)},
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}],
    }


def _operation(route: Route, schema_of: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {route.kind: {} if route.answer is None else {"schema": schema_of[str(route.answer)]}}
    said: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "description": f"Takes the token of the {route.role}.",
        "responses": {
            str(route.status): {"description": "Done.", "content": told},
            "default": {
                "description": "Not done, and why.",
                "content": {"application/json": {"schema": schema_of[str(Problem)]}},
            },
        },
    }
    named = re.findall(r"\{([a-z]+)\}", route.path)
    if named:
        said["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in named
        ]
    if route.body is not None:
        said["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema_of[str(route.body)]}},
        }
    return said
