"""The JSON Schema for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from covey.config import check_node, node_schema
from covey.config.findings import Source
from covey.config.tree import parse, plain

HERE = Path(__file__).parent
CONTROLLERS = {"host", "filesystem", "adapter", "exec"}
SOURCES = {"machine-id", "dmi", "generated", "file", "command", "value", "card"}
DOCUMENTED = """\
# yaml-language-server: $schema=covey-node.schema.json
node:
  name: n1
  state_dir: ./n1
  identity: machine-id
  adapters: [127.1.0.1/16, 127.2.0.1/16]
  port: 7400
security:
  mode: curve
  key: {file: n1.key}
  roles: {admin: [root], operator: []}
isolation: process
liveness: {interval: 1s}
controllers:
  filesystem: {poll: 30s}
  exec: {enabled: false}
"""
GOOD = [
    DOCUMENTED,
    DOCUMENTED.replace("curve", "open"),
    DOCUMENTED.replace("7400", "${env:PORT:-7400}").replace("1s", "'${env:INTERVAL:-2s}'").replace("curve", "open"),
    "node: {name: n1, adapters: auto}\nsecurity: {mode: curve}\n",
    "node: {name: n1, adapters: auto}\nsecurity: {key: {file: n1.key}}\n",
    'node: {name: n1, adapters: ["::1/128"], identity: {file: id}}\nsecurity: {mode: open}\n',
    "node: {name: n1, adapters: [127.0.0.1/8], identity: {command: [id, -u]}}\nsecurity: {mode: open}\n",
    "node: {name: n1, adapters: [127.0.0.1/8], identity: {card: {slot: 1}}}\nsecurity: {mode: open}\n",
    "node: {name: n1, adapters: [127.0.0.1/8], identity: card}\nsecurity: {mode: open}\n",
]


def validator(**names: Any) -> jsonschema.Draft202012Validator:
    schema = node_schema(**names)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def as_an_editor_sees_it(text: str) -> Any:
    root, _ = parse(text.replace("${", "$!{").encode(), Source("f"), {})
    assert root is not None
    return _restored(plain(root))


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _restored(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_restored(item) for item in value]
    return value.replace("$!{", "${") if isinstance(value, str) else value


@pytest.mark.parametrize("text", GOOD)
@pytest.mark.parametrize("names", [{}, {"controllers": CONTROLLERS, "identity_sources": SOURCES}])
def test_good_files_are_valid(text: str, names: dict[str, Any]) -> None:
    validator(**names).validate(as_an_editor_sees_it(text))


def test_what_the_check_accepts_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    for text in GOOD:
        path.write_text(text)
        if not check_node(path, controllers=CONTROLLERS, identity_sources=SOURCES, env={}):
            validator(controllers=CONTROLLERS, identity_sources=SOURCES).validate(as_an_editor_sees_it(text))


@pytest.mark.parametrize(
    "name",
    [
        "unknown_top_level",
        "unknown_in_section",
        "unknown_controller",
        "unknown_identity_source",
        "missing_security",
        "port_is_text",
        "port_too_high",
        "no_is_text",
        "name_all_digits",
        "duration_without_unit",
        "duration_in_words",
        "mode_misspelt",
        "adapters_empty",
        "adapter_without_prefix",
        "identity_command_is_text",
        "five_mistakes",
        "unknown_identity_source_with_value",
        "identity_of_two_sources",
        "empty_section",
        "identity_without_its_value",
    ],
)
def test_an_editor_shows_these_mistakes_too(name: str) -> None:
    data = as_an_editor_sees_it((HERE / "bad" / f"{name}.yaml").read_text())
    assert list(validator(controllers=CONTROLLERS, identity_sources=SOURCES).iter_errors(data))


def test_every_setting_is_described_and_nothing_else_is_allowed() -> None:
    schema = node_schema()
    sections = [schema, *schema["$defs"].values()]
    for section in sections:
        assert section["type"] == "object"
        assert section["additionalProperties"] is False
        for name, field in section["properties"].items():
            about = field.get("description") or schema["$defs"][field["$ref"].rpartition("/")[2]].get("description")
            assert about, name


def test_defaults_and_examples_are_valid_themselves() -> None:
    schema = node_schema()
    checked = 0
    for section in (schema, *schema["$defs"].values()):
        for field in section["properties"].values():
            inside = jsonschema.Draft202012Validator({**field, "$defs": schema["$defs"]})
            for value in [*field.get("examples", []), *([field["default"]] if "default" in field else [])]:
                inside.validate(value)
                checked += 1
    assert checked > 10


def test_the_installed_controllers_are_named() -> None:
    settings = node_schema(controllers=CONTROLLERS)["properties"]["controllers"]
    assert sorted(settings["properties"]) == sorted(CONTROLLERS)
    assert settings["additionalProperties"] is False
