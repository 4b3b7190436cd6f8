"""The house rules that no reader should have to check: floors, purity, sizes, imports, documentation."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import covey

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("bus", "cli", "components", "config", "controllers", "plugins")
SOURCES = sorted(
    path.relative_to(ROOT)
    for path in [*ROOT.glob("*.py"), *(p for one in PACKAGES for p in (ROOT / one).rglob("*.py"))]
)
FLOORS = {"errors": -1, "config": 0, "plugins": 1, "bus": 1, "controllers": 2, "components": 3, "cli": 4, "testing": 4}
COMPONENTS = ("registry", "liveness", "groups", "resources", "dcm")  # an import may only point to the left
IMPURE = {"random", "uuid", "os", "zmq", "asyncio", "threading", "logging", "time", "datetime", "socket", "secrets"}
LONGEST = 600


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


@cache
def imports(path: Path) -> list[tuple[int, str]]:
    """Return (line, absolute dotted name) of every import of a source file; `from . import x` gives the module x."""
    return [(node.lineno, name) for node in ast.walk(tree(path)) for name in imported(path, node)]


def imported(path: Path, node: ast.AST) -> list[str]:
    """Return what one node of a source file imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    package = ("covey", *path.parent.parts)
    base = list(package[: len(package) - node.level + 1]) if node.level else []
    name = ".".join([*base, *([node.module] if node.module else [])])
    return [f"{name}.{alias.name}" for alias in node.names]


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the statements below a node that are run when its module is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.stmt | ast.excepthandler) and not isinstance(
            child, ast.FunctionDef | ast.AsyncFunctionDef
        ):
            yield child
            yield from at_import(child)


def room(path: Path) -> str:
    """Return the top-level room a source file belongs to."""
    return path.parts[0].removesuffix(".py")


def test_imports_only_go_down() -> None:
    wrong = []
    for path, (line, name) in [(each, found) for each in SOURCES for found in imports(each)]:
        parts = name.split(".")
        if parts[0] in FLOORS or parts[0] in ("cli", "components"):
            wrong.append(f"{path}:{line}: '{name}' from the root would be a second copy")
        if parts[0] != "covey" or len(parts) < 2 or parts[1] not in FLOORS or path == Path("__init__.py"):
            continue
        here, there = room(path), parts[1]
        if here != there and FLOORS[there] >= FLOORS[here]:
            wrong.append(f"{path}:{line}: {here} (floor {FLOORS[here]}) imports {there} (floor {FLOORS[there]})")
        if here == there == "components" and len(parts) > 2 and parts[2] in COMPONENTS and path.parts[1] in COMPONENTS:
            upward = COMPONENTS.index(parts[2]) > COMPONENTS.index(path.parts[1])
            if upward and parts[3:4] != ["messages"]:
                wrong.append(f"{path}:{line}: component {path.parts[1]} imports {parts[2]}, which stands on it")
    assert not wrong, "\n".join(wrong)


PURE = [Path("bus", name) for name in ("session.py", "dialler.py", "acceptor.py")]
PURE += [path for path in SOURCES if path.name == "machine.py"]


def test_a_machine_is_pure() -> None:
    assert all((ROOT / path).exists() for path in PURE)
    wrong = [f"{path}:{line}: {name}" for path in PURE for line, name in imports(path) if name.split(".")[0] in IMPURE]
    assert not wrong, "\n".join(wrong)


def test_no_file_is_too_long() -> None:
    lines = {path: len((ROOT / path).read_text().splitlines()) for path in SOURCES}
    wrong = [f"{path} has {count} lines; split it by its nouns" for path, count in lines.items() if count > LONGEST]
    assert not wrong, "\n".join(wrong)


def test_every_module_says_what_it_is_for() -> None:
    silent = [str(path) for path in SOURCES if not (ast.get_docstring(tree(path)) or "").strip()]
    assert not silent, silent


def test_every_component_has_the_same_shape() -> None:
    for name in COMPONENTS:
        files = {path.name for path in (ROOT / "components" / name).iterdir()}
        missing = {"__init__.py", "messages.py", "machine.py", "service.py", "settings.py", "README.md"} - files
        assert not missing, f"components/{name} lacks {sorted(missing)}"


def test_each_module_imports_alone() -> None:
    """Without circles a module finds the same whoever imported what before; a package is there before its modules."""
    names = {".".join(["covey", *path.with_suffix("").parts]).removesuffix(".__init__"): path for path in SOURCES}
    needs: dict[str, set[str]] = {}
    for name, path in names.items():
        found = {each for node in at_import(tree(path)) for each in imported(path, node)}
        modules = {each if each in names else each.rpartition(".")[0] for each in found}
        packages = {".".join(each.split(".")[:depth]) for each in modules for depth in range(1, each.count(".") + 1)}
        own = {package for package in packages if name.startswith(f"{package}.")}
        needs[name] = (modules | (packages - own)) & set(names) - {name}
    order = list(TopologicalSorter(needs).static_order())  # a CycleError names the circle
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *order], capture_output=True, text=True, check=False
    )
    assert (done.returncode, len(order)) == (0, len(names)), done.stderr


def test_every_error_has_its_own_code_and_a_text_to_explain_it() -> None:
    errors = importlib.import_module("covey.errors")
    classes = [each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, errors.CoveyError)]
    codes = [each.code for each in classes]
    assert len(codes) == len(set(codes))
    for each in classes:
        assert inspect.getdoc(each), each
        assert each.exit_code in errors.EXIT_CODES, each


def test_the_package_lists_every_folder() -> None:
    listed = set(_pyproject()["tool"]["setuptools"]["packages"])
    there = {".".join(["covey", *path.parent.parts]) for path in SOURCES if path.name == "__init__.py"}
    assert listed == there


def test_top_level_stays_small() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    top = {name.partition("/")[0] for name in files}
    allowed = {
        *PACKAGES,
        "tests",
        "docs",
        "examples",
        "bench",
        ".ci",
        "__init__.py",
        "errors.py",
        "testing.py",
        "py.typed",
    }
    allowed |= {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "Makefile", ".gitignore"}
    assert top <= allowed, sorted(top - allowed)


def _pyproject() -> dict[str, dict[str, dict[str, list[str]]]]:
    tomllib = importlib.import_module("tomllib")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())  # type: ignore[no-any-return]


def test_the_version_is_said_once() -> None:
    assert covey.__version__ == _pyproject()["project"]["version"]  # type: ignore[comparison-overlap]
