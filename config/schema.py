"""The JSON Schema of a node's YAML, for editors: what `covey config schema` prints.

Made from the model, so it cannot lag behind it. It says less than `covey config check`: limits of durations and what
concerns several values are checked there only. Every file that passes the check is valid by the schema.
Odd: wherever something else than free text is wanted, text with a `${env:…}` is allowed too.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import BaseModel

from .node import AnyOptions, NodeConfig, OptionsOf
from .values import BUILT_IN_SOURCES

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_VARIABLE = {"type": "string", "pattern": r"\$\{env:"}
_ABOUT = ("description", "default", "examples")
_FORMED = ("pattern", "enum", "const")


def node_schema(
    *,
    controllers: Collection[str] | None = None,
    identity_sources: Collection[str] | None = None,
    options_of: OptionsOf | None = None,
) -> dict[str, Any]:
    """Return the schema (draft 2020-12). The first two are the names installed here; None: any name is allowed.

    `options_of` gives the models of the controllers' options; None: any options are allowed.
    """
    schema = NodeConfig.model_json_schema()
    if controllers is not None:
        settings = schema["properties"]["controllers"]
        settings["properties"] = dict.fromkeys(sorted(controllers), settings["additionalProperties"])
        settings["additionalProperties"] = False
        if options_of is not None:
            for name in controllers:
                settings["properties"][name] = _with_options(schema["$defs"], name, options_of(name))
    if identity_sources is not None:
        schema["$defs"]["NodeSection"]["properties"]["identity"]["anyOf"] = _identity(identity_sources)
    parts = {name: _tidy(part) for name, part in schema.pop("$defs").items()}
    return {"$schema": _DIALECT, "title": "covey node", **_tidy(schema), "$defs": parts}


def _with_options(parts: dict[str, Any], name: str, model: type[BaseModel] | None) -> dict[str, Any]:
    """The settings of one controller, its own options among them; their parts are added to `parts`."""
    if model is AnyOptions:
        return {"$ref": "#/$defs/ControllerSettings"}
    general = parts["ControllerSettings"]
    own: dict[str, Any] = {"type": "object", "maxProperties": 0}
    if model is not None:
        own = model.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
        parts.update({f"{name}.{part}": found for part, found in own.pop("$defs", {}).items()})
    return {**general, "properties": {**general["properties"], "options": own}}


def _identity(sources: Collection[str]) -> list[dict[str, Any]]:
    text = {"type": "string", "minLength": 1}
    shapes: dict[str, dict[str, Any]] = {
        "file": text,
        "value": text,
        "command": {"type": "array", "items": text, "minItems": 1},
    }
    alone = [name for name in sorted(sources) if not BUILT_IN_SOURCES.get(name)]
    valued = {name: shapes.get(name, {}) for name in sorted(sources) if BUILT_IN_SOURCES.get(name) != ""}
    section = {"type": "object", "properties": valued, "additionalProperties": False}
    return [{"enum": alone}, {**section, "minProperties": 1, "maxProperties": 1}]


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """Drop the titles (they repeat the keys) and allow variables where text of any form would not do."""
    found = {key: value for key, value in schema.items() if key != "title"}
    if "properties" in found:
        found["properties"] = {name: _tidy(field) for name, field in found["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(found.get(key), dict):
            found[key] = _tidy(found[key])
    if "anyOf" in found:
        found["anyOf"] = [_tidy(choice) for choice in found["anyOf"]]
    if found.get("type") in ("integer", "number", "boolean") or any(key in found for key in _FORMED):
        about = {key: found.pop(key) for key in _ABOUT if key in found}
        return {**about, "anyOf": [found, _VARIABLE]}
    return found
