"""A controller class against its description file: every way in which they can disagree."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from covey.controllers.binding import bind
from covey.controllers.contract import Controller, Found, action
from covey.errors import InvalidFile, PluginError

YAML = """
covey: 1
controller: gpu
classes:
  Gpu:
    version: 1
    key: [Index]
    attributes:
      Index: {type: uint32, kind: persistent}
      Temp: {type: float64, kind: dynamic}
      Limit: {type: float64, kind: persistent, writable: true}
    actions:
      Reset: {arguments: {Hard: {type: bool, default: false}}}
"""

GOOD = """
from covey import Controller, action

class Gpu(Controller):
    description = "gpu.yaml"
    def discover(self): return []
    def read(self, resource): return {}
    def set(self, resource, values): return {}
    @action("Gpu", "Reset")
    def reset(self, resource, *, Hard=False): return {}
"""


def made(folder: Path, code: str = GOOD, yaml: str | None = YAML) -> Any:
    """The class Gpu of a module that lies in the folder, beside its description."""
    if yaml is not None:
        (folder / "gpu.yaml").write_text(yaml)
    module = ModuleType("gpu_under_test")
    module.__file__ = str(folder / "gpu_under_test.py")
    sys.modules["gpu_under_test"] = module
    exec(compile(code, module.__file__, "exec"), module.__dict__)
    return module.__dict__["Gpu"]


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    sys.modules.pop("gpu_under_test", None)


def refusal(folder: Path, old: str, new: str, name: str = "gpu") -> str:
    assert GOOD.count(old) == 1
    with pytest.raises(PluginError) as caught:
        bind(name, made(folder, GOOD.replace(old, new)))
    return str(caught.value)


def test_one_that_fits(tmp_path: Path) -> None:
    bound = bind("gpu", made(tmp_path))
    assert (bound.name, [one.name for one in bound.classes]) == ("gpu", ["Gpu"])
    assert bound.actions == {("Gpu", "Reset"): "reset"}
    assert bind("", made(tmp_path)).name == "gpu"


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('"gpu.yaml"', '""', "Gpu names no description file"),
        ('"gpu.yaml"', "None", "Gpu names no description file"),
        ('"gpu.yaml"', '"gpus.yaml"', "is not there (did you mean gpu.yaml?)"),
        ("discover", "find", "it has no method discover"),
        ("def read", "def reed", "Gpu has dynamic attributes, and there is no method read"),
        ('"Gpu", "Reset"', '"Gpuu", "Reset"', "there is no class 'Gpuu' (did you mean 'Gpu'?)"),
        (
            '"Gpu", "Reset"',
            '"Gpu", "Rest"',
            "method reset is not declared (did you mean 'Reset'?)",
        ),
        ('@action("Gpu", "Reset")', "", "the action Gpu.Reset is declared, and no method is marked with it"),
        ("*, Hard=False", "", "it does not take the declared argument 'Hard'"),
        ("*, Hard=False", "*, Hard=False, Soft", "it needs 'Soft', which is no declared argument"),
        ("self, resource, *, Hard=False", "self, *, Hard=False", "its first parameter must take the resource"),
        (
            "    @action",
            '    @action("Gpu", "Reset")\n    def again(self, resource, **more): ...\n    @action',
            "marked on several methods: again, reset",
        ),
    ],
)
def test_one_that_does_not(tmp_path: Path, old: str, new: str, text: str) -> None:
    assert text in refusal(tmp_path, old, new)


def test_everything_is_told_at_once(tmp_path: Path) -> None:
    text = GOOD.replace("discover", "find").replace("def read", "def reed").replace('"Reset"', '"Rest"')
    with pytest.raises(PluginError) as caught:
        bind("gpu", made(tmp_path, text))
    parts = ("no method discover", "no method read", "Gpu.Rest", "Gpu.Reset is declared")
    for part in parts:
        assert part in str(caught.value)


def test_the_entry_points_name_is_the_controllers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bound = bind("cpu", made(tmp_path))
    assert (bound.name, [one.controller for one in bound.classes]) == ("cpu", ["cpu"])
    assert "'controller: gpu' is not the name of the entry point, 'cpu', which is used" in caplog.text


def test_arguments_may_be_taken_by_a_catch_all(tmp_path: Path) -> None:
    assert bind("gpu", made(tmp_path, GOOD.replace("*, Hard=False", "**more")))


def test_a_broken_description_shows_its_findings(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="unknown attribute type 'uint3'"):
        bind("gpu", made(tmp_path, yaml=YAML.replace("uint32", "uint3")))


def test_a_package_that_does_not_ship_its_yaml(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="does the package ship its YAML files"):
        bind("gpu", made(tmp_path, yaml=None))


@pytest.mark.parametrize(
    ("thing", "text"),
    [
        (3, "a int"),
        (int, "the class int"),
        (Controller(), "a Controller"),
        (Path, "the class Path"),
    ],
)
def test_what_is_no_controller(thing: Any, text: str) -> None:
    with pytest.raises(PluginError, match=f"{text}.* is not a covey.Controller"):
        bind("x", thing)


def test_the_base_of_several_controllers_needs_no_description(tmp_path: Path) -> None:
    code = GOOD.replace("class Gpu(Controller)", "class Base(Controller): pass\nclass Gpu(Base)")
    assert bind("gpu", made(tmp_path, code)).name == "gpu"


def test_the_description_lies_beside_the_module_that_names_it(tmp_path: Path) -> None:
    """A class that inherits the description from another package finds it there."""
    base = made(tmp_path)

    class Derived(base):  # type: ignore[misc]
        pass

    assert bind("gpu", Derived).name == "gpu"


def test_action_without_names() -> None:
    with pytest.raises(TypeError, match=r'@covey.action\("GpuDevice", "Reset"\)'):

        @action  # type: ignore[arg-type]
        def reset() -> None: ...


def test_found_copies_its_key() -> None:
    key = {"Index": 1}
    found = Found("Gpu", key=key, Model="x", class_name="too")
    key["Index"] = 2
    assert (found.class_name, found.key) == ("Gpu", {"Index": 1})
    assert found.attributes == {"Model": "x", "class_name": "too"}
    assert repr(found) == "Found('Gpu', key={'Index': 1}, …)"
