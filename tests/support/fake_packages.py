"""Packages on the disk as pip leaves them: modules, and metadata with entry points. For `PYTHONPATH` of a daemon."""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Mapping
from pathlib import Path


def put_package(site: Path, package: str, files: Mapping[str, str], controllers: Mapping[str, str]) -> None:
    """Install a package into the folder `site`: its files by name, its controllers by entry point name."""
    for name, text in files.items():
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    info = site / f"{package.replace('-', '_')}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    lines = "".join(f"{name} = {value}\n" for name, value in controllers.items())
    (info / "entry_points.txt").write_text(f"[covey.controllers]\n{lines}")


def put_example(site: Path, example: Path) -> Path:
    """Install one of the packages of examples/ into the folder `site`, which is returned."""
    project = tomllib.loads((example / "pyproject.toml").read_text())["project"]
    source = example / "src"
    files = {str(path.relative_to(source)): path.read_text() for path in source.glob("*/*.[py][ya]*")}
    put_package(site, project["name"], files, project["entry-points"]["covey.controllers"])
    return site


def put_controller(
    site: Path, name: str, discover: str, *, package: str = "", before: str = "", title: str = ""
) -> None:
    """Install a controller; `discover` is the body of that method.

    Its one class is `title` (default: the name capitalised) with the key `Index`.
    """
    package = package or f"covey-{name}"
    module = package.replace("-", "_")
    title = title or name.capitalize()
    description = f"""\
        covey: 1
        controller: {name}
        classes:
          {title}:
            version: 1
            summary: For tests.
            key: [Index]
            attributes:
              Index: {{type: uint32, kind: persistent, summary: Which one.}}
        """
    code = f"""\
import os
import time
import covey
{before}


class {title}(covey.Controller):
    description = "{name}.yaml"

    def discover(self):
{textwrap.indent(textwrap.dedent(discover).strip(), "        ")}
"""
    files = {f"{module}/__init__.py": code, f"{module}/{name}.yaml": description}
    put_package(site, package, files, {name: f"{module}:{title}"})
