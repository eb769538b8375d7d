"""The OpenAPI 3.1 document, made from the table of routes and the schema's types."""

from __future__ import annotations

from typing import Any

import msgspec

from folkmoot import __version__
from folkmoot.api.routes import JSON, Spec

REFERENCE = "#/components/schemas/{name}"


def document(routes: tuple[Spec, ...]) -> dict[str, Any]:
    """Every route, status code and content type that the API can send."""
    kinds = [kind for spec in routes for kind in _kinds(spec)]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=REFERENCE)
    schema_of = list(zip(kinds, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for spec in routes:
        paths.setdefault(spec.path, {})[spec.method.lower()] = _operation(spec, schema_of)
    paths["/openapi.json"] = {"get": _own_operation()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Folkmoot", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _kinds(spec: Spec) -> list[Any]:
    kinds = [kind for content in spec.responses().values() for kind in content.values()]
    return kinds if spec.body is None else [*kinds, spec.body]


def _operation(spec: Spec, schemas: list[tuple[Any, dict[str, Any]]]) -> dict[str, Any]:
    def schema(kind: Any) -> dict[str, Any]:
        return next(found for known, found in schemas if known is kind)

    operation: dict[str, Any] = {
        "summary": spec.summary,
        "operationId": spec.endpoint.__name__,
        "responses": {
            str(status): {
                "description": "done" if status < 300 else "see the error's code and message",
                "content": {media: {"schema": schema(kind)} for media, kind in content.items()},
            }
            for status, content in spec.responses().items()
        },
    }
    if spec.parameters:
        operation["parameters"] = list(spec.parameters)
    if spec.body is not None:
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema(spec.body)}}}
    if spec.keyed:
        operation["security"] = [{"key": []}, {}]
    return operation


def _own_operation() -> dict[str, Any]:
    return {
        "summary": "This document",
        "operationId": "get_openapi",
        "responses": {
            "200": {"description": "done", "content": {JSON: {"schema": {"type": "object"}}}},
            "403": {
                "description": "see the error's code and message",
                "content": {JSON: {"schema": {"$ref": REFERENCE.format(name="Failure")}}},
            },
        },
    }
