"""An OpenAPI schema in words, for a page that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Field:
    """One line of a table."""

    name: str
    type: str
    meaning: str


def context(schema: Schema) -> dict[str, Any]:
    """What the template `api.html` asks for."""
    return {
        "schema": schema,
        "about": schema["info"]["description"].replace("`", ""),
        "fields_of": lambda operation: fields_of(operation, schema),
        "fields_of_model": fields_of_model,
        "model_of": model_of,
    }


def fields_of(operation: Schema, schema: Schema) -> list[Field]:
    """What a request may say, in its form or its address."""
    if "requestBody" in operation:
        (content,) = operation["requestBody"]["content"].values()
        fields = fields_of_model(schema["components"]["schemas"][_name(content["schema"])])
    else:
        fields = [
            Field(one["name"], words_of(one["schema"]), _meaning(one, one["schema"], one["required"]))
            for one in operation.get("parameters", [])
        ]
    # What is null there is not given at all.
    return [replace(field, type=field.type.removesuffix(", or null")) for field in fields]


def fields_of_model(model: Schema) -> list[Field]:
    """The fields of what is sent or answered."""
    required = model.get("required", [])
    return [
        Field(name, words_of(one), _meaning(one, one, name in required))
        for name, one in model.get("properties", {}).items()
    ]


def model_of(answer: Schema) -> str | None:
    """The name of what is answered, where it is JSON."""
    content = answer.get("content", {}).get("application/json")
    return None if content is None else _name(content["schema"])


def words_of(schema: Schema) -> str:
    """A type as people say it.

    >>> words_of({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]})
    'text, several times, or null'
    >>> words_of({"type": "integer", "minimum": 1, "maximum": 100})
    'whole number, 1 to 100'
    """
    if "anyOf" in schema:
        return ", or ".join(map(words_of, schema["anyOf"]))
    if "$ref" in schema:
        return _name(schema)
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    kind = schema.get("type", "anything")
    if kind == "array":
        inner = words_of(schema["items"])
        return f"list of {inner}" if "$ref" in schema["items"] else f"{inner}, several times"
    if kind == "string" and {"contentMediaType", "format"} & schema.keys():
        return "file"
    names = {"string": "text", "integer": "whole number", "number": "number", "null": "null"}
    words = names.get(kind, str(kind))
    # What is larger than any count is not worth saying.
    bounds = [schema.get("minimum"), schema.get("maximum")]
    if bounds[0] is not None and bounds[1] is not None and bounds[1] < 2**53:
        words += f", {bounds[0]:g} to {bounds[1]:g}"
    return words


def _meaning(told: Schema, schema: Schema, required: bool) -> str:
    words = [told.get("description", "").replace("`", "")]
    if schema.get("default") is not None:
        words.append(f"{schema['default']} if not given.")
    if required and {"contentMediaType", "format"} & schema.keys():
        words.append("Must be given.")
    return " ".join(filter(None, words))


def _name(schema: Schema) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]
