"""What authors test with, and what users import: `covey.testing`, the names of `covey`, and the example package."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import covey
import pytest
from covey.testing import check_controller

ROOT = Path(__file__).parents[3]

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
      Temp: {type: float64, kind: dynamic}
"""


@pytest.fixture
def described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A description that the classes of this module find beside it."""
    (tmp_path / "gpu.yaml").write_text(YAML)
    monkeypatch.setattr(sys.modules[__name__], "__file__", str(tmp_path / "module.py"))
    return tmp_path


class Gpu(covey.Controller):
    """A controller that does what it says."""

    description = "gpu.yaml"

    async def discover(self) -> Any:
        yield covey.Found("Gpu", key={"Index": 0}, Model="x")

    async def read(self, resource: covey.Resource) -> dict[str, Any]:
        return {"Temp": 40 + resource.key["Index"]}


def test_a_good_controller(described: Path) -> None:
    (one,) = check_controller(Gpu)
    assert (one["key"], one["attributes"]) == ({"Index": 0}, {"Model": "x", "Temp": 40.0})


FULL = YAML.replace(
    "kind: dynamic}",
    """kind: dynamic, unit: Cel}
      Limit: {type: float64, kind: persistent, unit: W, writable: true, default: 250}
    actions:
      Reset: {summary: Reset it., arguments: {Hard: {type: bool, default: false}}, deadline: 30s, result: {}}
    depends: [Host]""",
)


class Full(Gpu):
    """All that the interface shows of a controller."""

    @covey.action("Gpu", "Reset")
    async def reset(self, resource: covey.Resource, *, Hard: bool = False) -> None: ...


def test_the_example_of_the_interface(described: Path) -> None:
    (described / "gpu.yaml").write_text(FULL)
    (one,) = check_controller(Full)
    assert one["attributes"] == {"Model": "x", "Temp": 40.0}


class Drifted(Gpu):
    """Reports one attribute too many and one too few."""

    async def read(self, resource: covey.Resource) -> dict[str, Any]:
        return {"Tmep": 40}


def test_drift_is_found_in_both_directions(described: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        check_controller(Drifted)
    text = str(caught.value)
    assert "plugin.undeclared_attribute: Gpu reports 'Tmep'" in text and "did you mean 'Temp'?" in text
    assert "Gpu.Temp is declared, and was never reported" in text


class Raising(Gpu):
    """Has a bug."""

    async def read(self, resource: covey.Resource) -> dict[str, Any]:
        raise KeyError("x")


def test_a_bug_is_a_failed_check(described: Path) -> None:
    with pytest.raises(AssertionError, match="read: KeyError: 'x'"):
        check_controller(Raising)


def test_a_class_that_does_not_fit_is_a_failed_check(described: Path) -> None:
    (described / "gpu.yaml").write_text(YAML + "    actions: {Reset: {}}\n")
    with pytest.raises(AssertionError, match=r"the action Gpu\.Reset is declared"):
        check_controller(Gpu)


# --- the names of covey -------------------------------------------------------------------------------------


def exported() -> set[str]:
    """The names that type checkers see."""
    tree = ast.parse((ROOT / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    names = {alias.asname for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    return {str(name) for name in names}


def test_type_checkers_and_programs_see_the_same_names() -> None:
    for name in exported():
        assert getattr(covey, name).__name__ if name != "hookimpl" else covey.hookimpl
        assert name in dir(covey)
    errors = {name for name, found in vars(covey.errors).items() if isinstance(found, type)}
    assert set(covey._HOMES) <= exported() <= set(covey._HOMES) | errors


def test_unknown_names_are_ordinary_errors() -> None:
    with pytest.raises(AttributeError, match="module 'covey' has no attribute 'Contoller'"):
        covey.Contoller  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(covey, "Any_")


def python(*code: str, **env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(code)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_covey_imports_nothing_else() -> None:
    loaded = python("import sys; before = set(sys.modules); import covey", "print(list(set(sys.modules) - before))")
    assert {one.partition(".")[0] for one in ast.literal_eval(loaded)} - sys.stdlib_module_names == {"covey"}
    assert "asyncio" not in loaded


def test_the_contract_alone_is_light() -> None:
    loaded = python(
        "import covey, sys; covey.Controller, covey.Found, covey.action, covey.Retry", "print(list(sys.modules))"
    )
    heavy = {"zmq", "pydantic", "yaml", "psutil", "asyncio", "msgspec", "pluggy"}
    assert heavy.isdisjoint(ast.literal_eval(loaded))


# --- the example package ------------------------------------------------------------------------------------

EXAMPLES = sorted((ROOT / "examples").glob("controller-*"))


def test_the_examples_own_tests_pass() -> None:
    sources = os.pathsep.join(str(example / "src") for example in EXAMPLES)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    done = subprocess.run(
        [*command, "--rootdir", str(ROOT / "examples"), "-c", str(EXAMPLES[0] / "pyproject.toml"), *EXAMPLES],
        capture_output=True,
        text=True,
        check=False,
        cwd=EXAMPLES[0],
        env={**os.environ, "PYTHONPATH": sources, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_an_example_imports_covey_by_its_front_door_only(example: Path) -> None:
    for path in example.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            for name in _imported(node):
                assert name.partition(".")[0] != "covey" or name in ("covey", "covey.testing"), f"{path}: {name}"


def _imported(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield node.module or ""
