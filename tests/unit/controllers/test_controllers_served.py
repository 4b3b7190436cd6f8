"""One controller as a service, without a bus: what it answers, and what becomes of what the author did wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from covey.bus.messages import Role
from covey.bus.service import Request, Service
from covey.controllers.binding import Bound
from covey.controllers.caller import Caller
from covey.controllers.classes import from_wire, resource_id
from covey.controllers.contract import Controller, Found, Resource, action
from covey.controllers.description import load_description
from covey.controllers.served import ServedController
from covey.errors import BadAttribute, CoveyError, Failed, PluginError, ResourceNotFound, Retry, Timeout, Unsupported
from covey.plugins.blame import Home

HERE = Path(__file__)
ASKED = Request("resources", 3, Role.COMPONENT)

YAML = """
covey: 1
controller: gpu
classes:
  Gpu:
    version: 1
    key: [Index]
    attributes:
      Index: {type: uint32, kind: persistent}
      Model: {type: string, kind: persistent}
      Temp: {type: float64, kind: dynamic, unit: Cel}
      Limit: {type: float64, kind: persistent, writable: true}
      Pin: {type: uint32, kind: persistent, sensitive: true}
      Seen: {type: timestamp, kind: dynamic}
    actions:
      Reset: {arguments: {Hard: {type: bool, default: false}}, result: {Took: {type: duration}}, deadline: 200ms}
"""


class Gpu(Controller):
    """What it finds and answers is set by each test."""

    def __init__(self) -> None:
        self.found: Any = []
        self.answer: Any = {}
        self.asked: list[Any] = []

    def discover(self) -> Any:
        if isinstance(self.found, BaseException):
            raise self.found
        return self.found

    async def read(self, resource: Resource) -> Any:
        self.asked.append(resource)
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def set(self, resource: Resource, values: dict[str, Any]) -> Any:
        self.asked.append((resource, values))
        return self.answer

    @action("Gpu", "Reset")
    async def reset(self, resource: Resource, *, Hard: bool) -> Any:
        self.asked.append((resource, Hard))
        if self.answer == "hang":
            await asyncio.Event().wait()
        return self.answer


def run(tmp_path: Path, work: Callable[[ServedController, Gpu], Any]) -> Any:
    """Run a coroutine function with a served controller on node 3."""
    path = tmp_path / "gpu.yaml"
    path.write_text(YAML)

    async def main() -> Any:
        home = Home(HERE.name, (HERE,), (HERE,))
        caller, gpu = Caller("gpu", home), Gpu()
        bound = Bound("gpu", Gpu, load_description(path), {("Gpu", "Reset"): "reset"})
        try:
            return await work(
                ServedController("gpu", lambda: 3, home=home, bound=bound, controller=gpu, caller=caller), gpu
            )
        finally:
            caller.close()

    return asyncio.run(main())


def test_classes_can_be_read_without_the_file(tmp_path: Path) -> None:
    async def work(served: ServedController, gpu: Gpu) -> None:
        (one,) = await served.classes()
        assert from_wire(msgspec.json.decode(msgspec.json.encode(one))).name == "Gpu"
        assert await served.status() == {"name": "gpu", "state": "running", "reason": "", "why": "", "classes": ["Gpu"]}

    run(tmp_path, work)


def test_what_was_found(tmp_path: Path) -> None:
    async def work(served: ServedController, gpu: Gpu) -> None:
        gpu.found = (Found("Gpu", key={"Index": index}, Model="x", Limit=200, Pin=1234) for index in (0, 1))
        answer = await served.discover(ASKED)
        assert answer["findings"] == []
        attributes = {"Model": "x", "Limit": 200.0, "Pin": "<redacted>"}
        assert answer["found"] == [
            {"class": "Gpu", "id": resource_id(3, {"Index": index}), "key": {"Index": index}, "attributes": attributes}
            for index in (0, 1)
        ]

    run(tmp_path, work)


def test_what_does_not_fit_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    async def work(served: ServedController, gpu: Gpu) -> None:
        gpu.found = [
            Found("Gpu", key={"Index": 0}, Model="good"),
            Found("Gpu", key={"Index": 1}, Modell="typo", Limit="much"),
            Found("Gpu", key={"Index": -1}),
            Found("Gpu", key={"Index": 0}, Model="again"),
            Found("Cpu", key={"Index": 0}),
            {"class": "Gpu"},
        ]
        answer = await served.discover(ASKED)
        assert [(one["key"], one["attributes"]) for one in answer["found"]] == [
            ({"Index": 0}, {"Model": "good"}),
            ({"Index": 1}, {}),
        ]
        assert [one["code"] for one in answer["findings"]] == [
            "plugin.undeclared_attribute",
            "plugin.bad_value",
            "plugin.bad_value",
            "plugin.duplicate_resource",
            "plugin.unknown_class",
            "plugin.bad_value",
        ]
        assert "did you mean 'Model'?" in answer["findings"][0]["hint"]

    run(tmp_path, work)


def test_a_discovery_that_raises_is_remembered_until_one_does_not(tmp_path: Path) -> None:
    async def work(served: ServedController, gpu: Gpu) -> None:
        gpu.found = RuntimeError("no driver")
        with pytest.raises(PluginError, match="discover: RuntimeError: no driver"):
            await served.discover(ASKED)
        status = await served.status()
        assert (status["state"], status["reason"].partition(" (")[0]) == ("failed", "discover: RuntimeError: no driver")
        assert f"({HERE.name}:" in status["reason"]
        assert "in discover" in status["why"] and "caller.py" not in status["why"]
        gpu.found = Retry("busy")
        with pytest.raises(Retry):
            await served.discover(ASKED)
        assert (await served.status())["reason"] == "discover: busy"
        gpu.found = 3
        with pytest.raises(PluginError, match="discover: returned 3, not resources"):
            await served.discover(ASKED)
        gpu.found = []
        await served.discover(ASKED)
        assert (await served.status())["state"] == "running"

    run(tmp_path, work)


def test_reading(tmp_path: Path) -> None:
    async def work(served: ServedController, gpu: Gpu) -> None:
        gpu.found = [Found("Gpu", key={"Index": 0}, Model="x", Pin=7, Temp=1.0)]
        await served.discover(ASKED)
        gpu.answer = {"Temp": 41, "Seen": None, "Tmep": 3, "Pin": 8}
        answer = await served.read(ASKED, cls="Gpu", key={"Index": 0})
        assert answer["attributes"] == {"Temp": 41.0, "Seen": None, "Pin": "<redacted>"}
        assert [one["attribute"] for one in answer["findings"]] == ["Tmep"]
        (resource,) = gpu.asked
        assert (resource.class_name, resource.key, resource.id) == ("Gpu", {"Index": 0}, resource_id(3, {"Index": 0}))
        assert resource.attributes == {"Model": "x", "Pin": 7}, "the controller itself sees its secrets"
        gpu.answer = None
        assert (await served.read(ASKED, cls="Gpu", key={"Index": 5}))["attributes"] == {}
        assert gpu.asked[-1].attributes == {}

    run(tmp_path, work)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Retry("later"), Retry),
        (Failed("broken"), Failed),
        (ResourceNotFound("gone"), ResourceNotFound),
        (ValueError("oops"), PluginError),
        (SystemExit(1), PluginError),
    ],
)
def test_errors_of_a_read(tmp_path: Path, error: BaseException, expected: type[CoveyError]) -> None:
    async def work(served: ServedController, gpu: Gpu) -> None:
        gpu.answer = error
        with pytest.raises(expected):
            await served.read(ASKED, cls="Gpu", key={"Index": 0})
        assert (await served.status())["state"] == "running", "one resource's trouble is not the controller's"

    run(tmp_path, work)


def test_callers_are_held_to_the_class_too(tmp_path: Path) -> None:
    async def work(served: ServedController, gpu: Gpu) -> None:
        with pytest.raises(ResourceNotFound, match="has no class 'Cpu'"):
            await served.read(ASKED, cls="Cpu", key={})
        with pytest.raises(BadAttribute, match="the key is nothing"):
            await served.read(ASKED, cls="Gpu", key={})
        with pytest.raises(BadAttribute, match="Model cannot be set"):
            await served.set(ASKED, cls="Gpu", key={"Index": 0}, values={"Model": "y"})
        with pytest.raises(ResourceNotFound, match="has no action 'Rest'"):
            await served.action(ASKED, cls="Gpu", key={"Index": 0}, name="Rest")
        with pytest.raises(BadAttribute, match="no argument 'Soft'"):
            await served.action(ASKED, cls="Gpu", key={"Index": 0}, name="Reset", arguments={"Soft": True})
        assert gpu.asked == [], "nothing of it reached the controller"

    run(tmp_path, work)


def test_setting(tmp_path: Path) -> None:
    async def work(served: ServedController, gpu: Gpu) -> None:
        gpu.answer = {"Limit": 180}
        answer = await served.set(ASKED, cls="Gpu", key={"Index": 0}, values={"Limit": 180})
        assert answer == {"attributes": {"Limit": 180.0}, "findings": []}
        assert gpu.asked[0][1] == {"Limit": 180.0}

    run(tmp_path, work)


def test_defining_and_removing(tmp_path: Path) -> None:
    async def work(served: ServedController, gpu: Gpu) -> None:
        made: list[Any] = []
        gpu.define = lambda resource, values: made.append((resource, values))  # type: ignore[method-assign]
        gpu.undefine = made.append  # type: ignore[method-assign]
        answer = await served.define(ASKED, cls="Gpu", key={"Index": 7}, values={"Limit": 20})
        assert answer == {"attributes": {}, "findings": []}
        ((resource, values),) = made
        assert (resource.key, resource.id, values) == ({"Index": 7}, resource_id(3, {"Index": 7}), {"Limit": 20.0})
        await served.read(ASKED, cls="Gpu", key={"Index": 7})
        assert gpu.asked[-1].attributes == {"Limit": 20.0}, "what was defined is known to later calls"
        await served.undefine(ASKED, cls="Gpu", key={"Index": 7})
        await served.read(ASKED, cls="Gpu", key={"Index": 7})
        assert gpu.asked[-1].attributes == {}
        with pytest.raises(BadAttribute, match="Index"):
            await served.define(ASKED, cls="Gpu", key={}, values={"Limit": 20})

    run(tmp_path, work)


def test_setting_where_nobody_wrote_it(tmp_path: Path) -> None:
    async def work(served: ServedController, gpu: Gpu) -> None:
        gpu.set = lambda *arguments: Controller.set(gpu, *arguments)  # type: ignore[method-assign]
        with pytest.raises(Unsupported, match="Gpu has no method set"):
            await served.set(ASKED, cls="Gpu", key={"Index": 0}, values={"Limit": 180})

    run(tmp_path, work)


def test_actions(tmp_path: Path) -> None:
    async def work(served: ServedController, gpu: Gpu) -> None:
        gpu.answer = {"Took": 2, "Tok": 1}
        answer = await served.action(ASKED, cls="Gpu", key={"Index": 0}, name="Reset", arguments={"Hard": True})
        assert answer["result"] == {"Took": 2.0}
        assert [one["code"] for one in answer["findings"]] == ["plugin.undeclared_attribute"]
        gpu.answer = {"Took": 2}
        assert (await served.action(ASKED, cls="Gpu", key={"Index": 0}, name="Reset"))["findings"] == []
        assert [hard for _, hard in gpu.asked] == [True, False]
        gpu.answer = "hang"
        with pytest.raises(Timeout, match=r"reset: no answer within 0.2 s \(at test_controllers_served.py"):
            await served.action(ASKED, cls="Gpu", key={"Index": 0}, name="Reset")

    run(tmp_path, work)


def test_our_answer_comes_before_the_callers_patience_ends(tmp_path: Path) -> None:
    async def work(served: ServedController, gpu: Gpu) -> None:
        asked = Request("x", 1, Role.COMPONENT, budget=0.3)
        gpu.answer = "hang"
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(Timeout):
            await served.action(asked, cls="Gpu", key={"Index": 0}, name="Reset")
        assert loop.time() - began < 0.3

    run(tmp_path, work)


def test_one_that_could_not_be_loaded_says_so_at_every_verb() -> None:
    async def main() -> None:
        served = ServedController("gpu", lambda: 3, reason="import: libfoo.so not found (gpu.py:3)", why="story")
        status = await served.status()
        assert (status["state"], status["reason"], status["why"]) == ("failed", served.reason, "story")
        for call in (served.classes(), served.discover(ASKED), served.read(ASKED, cls="Gpu", key={})):
            with pytest.raises(PluginError, match=r"^import: libfoo.so not found") as caught:
                await call
            assert "covey plugin why gpu" in caught.value.hint

    asyncio.run(main())


def test_who_may_do_what() -> None:
    verbs = Service("controller.gpu", ServedController("gpu", lambda: 3)).verbs
    assert {name: one.role for name, one in verbs.items() if name not in ("ping", "describe")} == {
        "status": Role.LOOK,
        "classes": Role.LOOK,
        "read": Role.LOOK,
        "discover": Role.COMPONENT,
        "set": Role.COMPONENT,
        "define": Role.COMPONENT,
        "undefine": Role.COMPONENT,
        "action": Role.COMPONENT,
    }
