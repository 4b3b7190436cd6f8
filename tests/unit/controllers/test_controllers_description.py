"""Resource description files: what a good one becomes, and where the mistakes of bad ones are."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import msgspec
import pytest
import yaml
from covey.config.codes import FINDINGS
from covey.controllers.classes import from_wire, resource_id, resource_path, to_wire
from covey.controllers.description import json_schema, load_description, read_description
from covey.errors import InvalidFile

ROOT = Path(__file__).parents[3]
GPU = """\
covey: 1                       # format version
controller: gpu
classes:
  GpuDevice:
    version: 1
    summary: One graphics processor.
    key: [Index]
    attributes:
      Index:       {type: uint32, kind: persistent, summary: Position on the bus.}
      Model:       {type: string, kind: persistent, summary: Maker's name for it.}
      TempCelsius: {type: float64, kind: dynamic, unit: Cel, summary: Core temperature.}
      PowerLimit:  {type: float64, kind: persistent, unit: W, writable: true, default: 250, summary: Allowed draw.}
      Clocks:      {type: [uint32], kind: dynamic, unit: MHz}
    actions:
      Reset: {summary: Reset it., arguments: {Hard: {type: bool, default: false}}, deadline: 30s, result: {}}
    discover: {every: 5m}
    poll: {every: 30s}
    depends: [Host]            # classes that must be known first
"""


@pytest.fixture
def gpu(tmp_path: Path) -> Path:
    path = tmp_path / "gpu.yaml"
    path.write_text(GPU)
    return path


def found(path: Path, text: str) -> list[tuple[str, int, int]]:
    """The findings in a text: code without its prefix, line, column."""
    path.write_text(text)
    description, findings = read_description(path)
    assert (description is None) == any(one.severity == "error" for one in findings)
    assert all(one.code in FINDINGS for one in findings)
    return [(one.code.removeprefix("description."), one.line, one.column) for one in findings]


def hint(path: Path) -> str:
    (one,) = read_description(path)[1]
    return one.hint


def test_the_example_of_the_interface(gpu: Path) -> None:
    description = load_description(gpu)
    (one,) = description.classes
    assert (description.controller, one.name, one.version, one.key) == ("gpu", "GpuDevice", 1, ("Index",))
    assert [attribute.name for attribute in one.attributes] == ["Index", "Model", "TempCelsius", "PowerLimit", "Clocks"]
    limit, clocks = one.attribute("PowerLimit"), one.attribute("Clocks")
    assert limit is not None and clocks is not None
    assert (limit.type, limit.unit, limit.writable, limit.default, limit.kind) == (
        "float64",
        "W",
        True,
        250.0,
        "persistent",
    )
    assert (clocks.type, clocks.many, clocks.type_text) == ("uint32", True, "list of uint32")
    (action,) = one.actions
    assert (action.name, action.deadline, action.arguments[0].default) == ("Reset", 30.0, False)
    assert (one.discover_every, one.poll_every, one.depends) == (300.0, 30.0, ("Host",))
    assert one.attribute("Nothing") is None and one.action("Nothing") is None


def test_a_class_survives_the_wire(gpu: Path) -> None:
    (one,) = load_description(gpu).classes
    carried = msgspec.msgpack.decode(msgspec.msgpack.encode(to_wire(one)))
    assert from_wire(carried) == one


def test_the_fingerprint_changes_with_the_meaning_only(gpu: Path) -> None:
    (one,) = load_description(gpu).classes
    gpu.write_text(GPU.replace("Core temperature.", "How hot.").replace("every: 30s", "every: 20s"))
    assert load_description(gpu).classes[0].fingerprint == one.fingerprint
    changes = [
        ("unit: Cel", "unit: K"),
        ("type: string", "type: binary"),
        ("{type: bool, default: false", "{sensitive: true, type: bool"),
    ]
    for old, new in changes:
        gpu.write_text(GPU.replace(old, new))
        assert load_description(gpu).classes[0].fingerprint != one.fingerprint, new


def test_ids_are_the_same_whatever_the_order_of_the_key() -> None:
    assert resource_id(3, {"a": 1, "b": "x"}) == resource_id(3, {"b": "x", "a": 1})
    assert resource_id(3, {"a": 1}) != resource_id(4, {"a": 1})
    assert resource_id(3, {"a": 1}) != resource_id(3, {"a": "1"})
    assert resource_path("Gpu", "3-abc") == "/resources/Gpu/3-abc"
    assert resource_id(3, {"Name": "lo"}) == "3-23a47dd1cb69"


MODEL = "type: string, kind: persistent"
MISTAKES = [
    ("type: uint32, kind: p", "type: ¦Unit32, kind: p", "unknown_type", "did you mean 'uint32'?"),
    ("type: string", "type: ¦text", "unknown_type", "did you mean 'string'?"),
    ("type: string", "type: ¦'string[]'", "unknown_type", "write [string] for a list"),
    ("type: string", "type: ¦'list of int32'", "unknown_type", "write [int32] for a list"),
    ("type: [uint32]", "type: ¦[uint32, bool]", "wrong_type", "write [string]"),
    ("type: [uint32]", "type: [¦boolean]", "unknown_type", "did you mean 'bool'?"),
    ("key: [Index]", "key: [¦Indx]", "undeclared_attribute", "did you mean 'Index'?"),
    ("key: [Index]", "key: [Index, ¦Index]", "bad_key_attribute", "leave one out"),
    ("key: [Index]", "key: ¦[]", "bad_length", ""),
    ("type: uint32, kind: persistent", "type: uint32, kind: ¦dynamic", "bad_key_attribute", "write persistent"),
    ("type: uint32, kind: p", "writable: ¦true, type: uint32, kind: p", "bad_key_attribute", "leave it out"),
    ("type: uint32, kind: p", "sensitive: ¦true, type: uint32, kind: p", "bad_key_attribute", "leave it out"),
    ("type: uint32, kind: p", "type: ¦float32, kind: p", "bad_key_attribute", "write string"),
    ("type: uint32, kind: p", "type: ¦[uint32], kind: p", "bad_key_attribute", "write string"),
    ("unit: Cel, summary", "¦units: Cel, summary", "unknown_key", "did you mean 'unit'?"),
    (MODEL, "type: string, ¦unit: m, kind: persistent", "unit_without_number", "leave it out"),
    (MODEL, "type: duration, ¦unit: s, kind: persistent", "unit_without_number", "seconds"),
    ("default: 250", "default: ¦much", "bad_default", "for example 1"),
    ("default: false", "default: ¦no", "bad_default", "for example true"),
    ("bool, default: false", "duration, default: ¦5", "bad_default", "for example 30s"),
    ("bool, default: false", "[timestamp], default: ¦[yesterday]", "bad_default", "for example [2026"),
    ("kind: dynamic, unit: Cel", "kind: ¦volatile, unit: Cel", "bad_value", "allowed: dynamic, persistent"),
    ("Model:       {type", "¦Model No:    {type", "bad_name", "write ModelNo"),
    ("Model:       {type", "¦class:       {type", "bad_name", "write Class"),
    ("Model:       {type", "¦key:         {type", "bad_name", "write Key"),
    ("deadline: 30s", "deadline: ¦30", "needs_unit", "write 30s"),
    ("deadline: 30s", "effects: [¦Modle]", "undeclared_attribute", "did you mean 'Model'?"),
    ("every: 5m", "every: ¦5 minutes", "bad_duration", "write 5m"),
    ("every: 5m", "every: ¦5ms", "out_of_range", "1s"),
    ("depends: [Host]", "depends: [¦GpuDevice]", "bad_depends", "leave it out"),
    ("    version: 1", "    version: ¦0", "out_of_range", ""),
    ("    version: 1", "    version: ¦'1'", "wrong_type", "without quotes"),
    ("covey: 1  ", "covey: ¦2  ", "wrong_type", ""),
    ("controller: gpu", "controller: ¦g pu", "bad_value", ""),
    ("  GpuDevice:\n    version: 1\n", "  ¦GpuDevice:\n", "missing", "write version: 1"),
    ("0, summary", "0, deprecated: {since: '2', use: ¦Power}, summary", "undeclared_attribute", "'PowerLimit'"),
]


@pytest.mark.parametrize(("old", "new", "code", "told"), MISTAKES, ids=[new for _, new, _, _ in MISTAKES])
def test_one_mistake(gpu: Path, old: str, new: str, code: str, told: str) -> None:
    """The broken bar shows where the finding must be."""
    assert GPU.count(old) == 1, "the mistake must be made in one place"
    marked = GPU.replace(old, new)
    before = marked.partition("¦")[0].split("\n")
    assert found(gpu, marked.replace("¦", "")) == [(code, len(before), len(before[-1]) + 1)]
    assert told in hint(gpu)


def test_all_mistakes_at_once(gpu: Path) -> None:
    text = (
        GPU.replace("uint32, kind: pers", "Unit32, kind: pers")
        .replace("[Index]", "[Indx]")
        .replace("30s, re", "30, re")
    )
    text = text.replace("unit: Cel", "untis: Cel").replace("every: 5m", "every: soon")
    codes = [code for code, _, _ in found(gpu, text)]
    assert codes == ["undeclared_attribute", "unknown_type", "unknown_key", "needs_unit", "bad_duration"]


def test_hints_when_applied_make_the_file_good(gpu: Path) -> None:
    """The typical slip: each mistake's own hint leads back to a file without findings."""
    bad = GPU.replace("type: uint32, kind: pers", "type: Unit32, kind: pers").replace("every: 30s", "every: 30 seconds")
    assert len(found(gpu, bad)) == 2
    assert found(gpu, bad.replace("Unit32", "uint32").replace("30 seconds", "30s")) == []


def test_a_sensitive_default_is_not_shown(gpu: Path) -> None:
    gpu.write_text(GPU.replace("writable: true, default: 250", "sensitive: true, default: hunter2"))
    (one,) = read_description(gpu)[1]
    assert one.code == "description.bad_default"
    assert "hunter2" not in one.message + one.hint


def test_the_environment_has_no_say(gpu: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPU_NAME", "gpu")
    assert found(gpu, GPU.replace("controller: gpu", "controller: '${env:GPU_NAME}'"))[0][0] == "unset_variable"


HEAD = "covey: 1\ncontroller: x\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "covey: 1",
        "classes: 3",
        HEAD + "classes: {A: 3, B: {key: 3, attributes: [], actions: {X: 1}}}",
        HEAD + "classes: {A: {key: [[1]], attributes: {B: {type: {}, default: {}}}, depends: 3}}",
        HEAD + "classes: {A: {key: [B], attributes: {B: {type: [[string]], deprecated: []}}, actions: {C: []}}}",
    ],
)
def test_whatever_the_shape_there_are_findings_and_no_exception(gpu: Path, text: str) -> None:
    assert found(gpu, text)


def test_load_raises_with_every_finding(gpu: Path) -> None:
    gpu.write_text(GPU.replace("type: string", "type: sting").replace("every: 5m", "every: 5"))
    with pytest.raises(InvalidFile) as caught:
        load_description(gpu)
    assert "gpu.yaml:10:27: error[description.unknown_type]" in str(caught.value)
    assert [one["line"] for one in caught.value.details["findings"]] == [10, 16]


def test_the_schema_allows_what_is_shipped(gpu: Path) -> None:
    schema = json_schema()
    files = [gpu, *ROOT.glob("controllers/*/*.yaml"), *ROOT.glob("examples/*/src/*/*.yaml")]
    assert len(files) >= 5
    for file in files:
        jsonschema.validate(yaml.safe_load(file.read_text()), schema)
        assert read_description(file)[1] == []
