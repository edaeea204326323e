"""The OpenAPI document: each operation with the problem response, and an example of its body and its answer.

Examples are made from the schemas, so that they cannot contradict them: a default, the first choice, or a value of the type.
"""

from __future__ import annotations

from typing import Any

DEPTH = 6
PROBLEM = {
    "title": "Problem",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "errors"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}


def complete(document: dict[str, Any]) -> dict[str, Any]:
    """Add the problem response and the examples to every operation of `document`, which is changed and returned."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = PROBLEM
    for item in document["paths"].values():
        for operation in item.values():
            _complete(operation, schemas)
    return document


def _complete(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    contents = [operation.get("requestBody", {}).get("content", {})]
    contents += [each.get("content", {}) for each in operation["responses"].values()]
    for content in contents:
        for kind in content.values():
            if "example" not in kind and "examples" not in kind:
                kind["example"] = example(kind.get("schema", {}), schemas)
    operation["responses"]["default"] = {
        "description": "An error (RFC 9457)",
        "content": {
            "application/problem+json": {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "example": {
                    "type": "about:blank",
                    "title": "Not Found",
                    "status": 404,
                    "detail": "no project 'fish' is visible to you; GET /api/v1/projects lists the visible projects",
                    "instance": "/api/v1/projects/fish",
                    "errors": [],
                },
            }
        },
    }


def example(schema: dict[str, Any], schemas: dict[str, Any], depth: int = 0) -> Any:
    """A value that `schema` accepts; None for what is deeper than `DEPTH` levels."""
    if depth > DEPTH:
        return None
    if "$ref" in schema:
        return example(schemas.get(schema["$ref"].rpartition("/")[2], {}), schemas, depth + 1)
    for key in ("example", "default", "const"):
        if key in schema:
            return schema[key]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return example(schema[key][0], schemas, depth)
    return _of_type(schema, schemas, depth)


def _of_type(schema: dict[str, Any], schemas: dict[str, Any], depth: int) -> Any:
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        return {name: example(each, schemas, depth + 1) for name, each in schema.get("properties", {}).items()}
    if kind == "array":
        length = max(schema.get("minItems", 1), 1)
        if "prefixItems" in schema:
            return [example(each, schemas, depth + 1) for each in schema["prefixItems"]]
        return [example(schema.get("items", {}), schemas, depth + 1) for _ in range(length)]
    if kind in {"integer", "number"}:
        return _number(schema)
    if kind == "boolean":
        return True
    if kind == "null":
        return None
    return {"date-time": "2026-01-31T12:00:00Z", "binary": "(file)", "json-string": "{}"}.get(
        schema.get("format", ""), "text"[: schema.get("maxLength", 80)]
    )


def _number(schema: dict[str, Any]) -> float | int:
    least: Any = schema.get("minimum", schema.get("exclusiveMinimum"))
    most: Any = schema.get("maximum", schema.get("exclusiveMaximum"))
    if least is None:
        return 1 if most is None else min(1, most)
    if "exclusiveMinimum" not in schema:
        return least
    if schema.get("type") == "number" and most is not None:
        return (least + most) / 2
    return least + 1
