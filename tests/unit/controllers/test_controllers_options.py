"""Options of controllers, and classes that a controller makes from them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from covey.bus.messages import Role
from covey.bus.service import Request
from covey.config import check_node, node_schema
from covey.config.node import AnyOptions
from covey.controllers.binding import bind, described
from covey.controllers.caller import Caller
from covey.controllers.contract import Controller, Found, Node, Resource, action
from covey.controllers.options import known_options, make, options_model
from covey.controllers.served import ServedController
from covey.errors import PluginError, Unsupported
from covey.plugins.blame import home_of
from covey.plugins.manager import PluginManager
from covey.testing import check_controller
from pydantic import BaseModel, ConfigDict


class SlotOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    slots: int = 1
    state: str = "free"


class Slots(Controller):
    """Has as many resources as its options say, of a class that they name."""

    options: SlotOptions

    def __init__(self) -> None:
        self.found = [{"Number": number} for number in range(self.options.slots)]

    def describe(self) -> Any:
        number = {"type": "uint32", "kind": "persistent"}
        state = {"type": "string", "kind": "dynamic"}
        take = {"arguments": {"Who": {"type": "string"}}, "result": {"Was": {"type": "string"}}}
        one = {"version": 1, "key": ["Number"], "attributes": {"Number": number, "State": state}}
        return {"Slot": {**one, "actions": {"Take": take}}} if self.found else {}

    def discover(self) -> Iterator[Found]:
        for key in self.found:
            yield Found("Slot", key=key)

    def read(self, resource: Resource) -> dict[str, Any]:
        return {"State": self.options.state}

    def run(self, resource: Resource, action: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"Was": f"{action} {resource.key['Number']} {arguments['Who']} on {self.node.name}"}


def test_options_are_there_before_the_object_is_made() -> None:
    made: Any = make(Slots, {"slots": 3}, node=Node(5, "n5", "lab"))
    assert (len(made.found), made.options.state, made.node.number) == (3, "free", 5)
    assert make(Slots).options == SlotOptions()
    with pytest.raises(PluginError, match=r"unknown key 'slot'.*did you mean 'slots'.*'state' must be text, not 5"):
        make(Slots, {"slot": 1, "state": 5})


def test_made_classes_are_checked_and_served_like_those_of_a_file() -> None:
    found = check_controller(Slots, {"slots": 2})
    assert [(one["key"], one["attributes"]) for one in found] == [
        ({"Number": 0}, {"State": "free"}),
        ({"Number": 1}, {"State": "free"}),
    ]
    assert check_controller(Slots, {"slots": 0}) == [], "no class at all is allowed"

    async def act() -> dict[str, Any]:
        controller = make(Slots, {})
        bound = described(bind("slots", Slots), controller.describe())
        caller = Caller("slots", home_of(__name__))
        served = ServedController("slots", lambda: 1, bound=bound, controller=controller, caller=caller)
        request = Request("test", 1, Role.COMPONENT)
        return await served.action(request, cls="Slot", key={"Number": 0}, name="Take", arguments={"Who": "me"})

    assert asyncio.run(act())["result"] == {"Was": "Take 0 me on n1"}


class Both(Slots):
    description = "both.yaml"

    @action("Slot", "Take")
    def take(self, resource: Resource, *, Who: str) -> None: ...


class Silent(Slots):
    run = Controller.run


class Untyped(Slots):
    options: int  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("controller", "classes", "words"),
    [
        (Both, {}, ["both.yaml", "Slot.Take of method take must come to run"]),
        (Untyped, {}, ["no pydantic model", "options: GpuOptions"]),
        (Silent, make(Slots).describe(), ["Slot has actions, and there is no method run"]),
        (Slots, [1], ["not a mapping of classes"]),
        (Slots, {"Slot": {"version": 1, "key": ["X"]}}, ["has no 'attributes'", "which is not declared"]),
        (Slots, {"Slot": {1, 2}}, ["set is not JSON serializable"]),
    ],
)
def test_a_controller_that_describes_itself_wrongly(
    controller: type[Controller], classes: Any, words: list[str]
) -> None:
    with pytest.raises(PluginError) as caught:
        described(bind("slots", controller), classes)
    for each in words:
        assert each in str(caught.value)


class Nowhere(Slots):
    def discover(self) -> Iterator[Found]:
        raise Unsupported("this machine has no slots", "buy one")


def test_a_machine_that_cannot_have_any_is_no_failure() -> None:
    async def look() -> tuple[Any, Any]:
        bound = described(bind("slots", Nowhere), make(Nowhere).describe())
        caller = Caller("slots", home_of(__name__))
        served = ServedController("slots", lambda: 1, bound=bound, controller=make(Nowhere), caller=caller)
        return await served.discover(Request("test", 1, Role.COMPONENT)), await served.status()

    answer, status = asyncio.run(look())
    assert answer["found"] == []
    assert [one["message"] for one in answer["findings"]] == ["this machine has no slots"]
    assert (status["state"], status["reason"]) == ("running", "")


YAML = r"""node: {name: n1, adapters: [127.1.0.1/16]}
security: {mode: open}
controllers:
  host: {options: {a: 1}}
  adapter: {options: {}}
  theirs: {options: {anything: [goes]}}
  process:
    options:
      watch:
        nginx: {name: nginx}
        web: {command: 'python3 (.*web\.py'}
        none: {nam: x}
      wach: 1
  exec: {options: {files: [nowhere.yaml]}}
"""


def test_mistakes_in_options_of_shipped_controllers_have_their_place(tmp_path: Path) -> None:
    file = tmp_path / "n1.yaml"
    file.write_text(YAML)
    plugins = PluginManager()
    found = check_node(file, options_of=known_options(plugins), env={})
    assert [(one.line, one.column, one.code) for one in found] == [
        (4, 10, "config.no_options"),
        (11, 24, "config.bad_value"),
        (12, 16, "config.unknown_key"),
        (13, 7, "config.unknown_key"),
        (14, 28, "config.bad_value"),
    ]
    assert found[2].hint.startswith("did you mean 'name'?")
    assert str(tmp_path / "nowhere.yaml") in found[4].message
    assert known_options(plugins)("theirs") is AnyOptions
    assert options_model(Slots) is SlotOptions


def test_an_editor_knows_the_options_of_shipped_controllers() -> None:
    names = ["host", "process", "exec", "ocf", "service", "theirs"]
    check = jsonschema.Draft202012Validator(node_schema(controllers=names, options_of=known_options(PluginManager())))
    good = yaml.safe_load(YAML)
    del good["controllers"]["adapter"], good["controllers"]["process"]["options"]["wach"]
    good["controllers"]["host"]["options"] = {}
    good["controllers"]["process"]["options"]["watch"].pop("none")
    good["controllers"]["ocf"] = {"options": {"agents": {"a": {"agent": "ocf:x:Y", "parameters": {"b": 1, "c": True}}}}}
    assert list(check.iter_errors(good)) == []
    bad = yaml.safe_load(YAML)["controllers"]
    for name in ("host", "process"):
        assert list(check.iter_errors({**good, "controllers": {name: bad[name]}}))
