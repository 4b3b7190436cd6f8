"""Every code block of the documentation is executed, in order, against a real cluster."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from covey.components.dcm.balance_file import load_balance
from covey.config import check_node
from covey.controllers.description import read_description
from covey.controllers.options import known_options
from covey.plugins.manager import PluginManager
from fake_packages import put_example

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NEEDS = {"resources.md": "controller-notes"}
"""The example package that is installed where a page is run."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    """Return (language, text) of the page's code blocks in those languages."""
    return [(found[1], found[2]) for found in BLOCK.finditer(page.read_text()) if found[1] in languages]


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cv") as name:
        yield Path(name)


def test_blocks_are_in_languages_that_are_executed() -> None:
    known = {"sh", "python", "yaml", "toml"}
    for page in PAGES:
        assert {found[1] for found in BLOCK.finditer(page.read_text())} <= known, page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_yaml_blocks_are_what_they_say(page: Path, folder: Path) -> None:
    for number, (_, text) in enumerate(blocks(page, "yaml")):
        path = folder / f"block{number}.yaml"
        path.write_text(text)
        if "pools" in yaml.safe_load(text):
            load_balance(path)
            findings = []
        elif "controller" in yaml.safe_load(text):
            _, findings = read_description(path)
        else:
            (folder / "spool.yaml").touch()  # the file that one page names
            findings = check_node(path, options_of=known_options(PluginManager()))
        assert not findings, [finding.render() for finding in findings]


def test_the_package_of_the_readme_names_the_controller_of_the_readme() -> None:
    page = ROOT / "README.md"
    [(_, package)] = blocks(page, "toml")
    [(_, code)] = [found for found in blocks(page, "python") if "covey.Controller" in found[1]]
    found = tomllib.loads(package)
    [(name, target)] = found["project"]["entry-points"]["covey.controllers"].items()
    module, _, cls = target.partition(":")
    assert f"class {cls}(covey.Controller)" in code
    assert f'description = "{name}.yaml"' in code
    assert found["tool"]["setuptools"]["package-data"] == {module: ["*.yaml"]}


@pytest.mark.cluster
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_programs_run(page: Path, folder: Path) -> None:
    found = blocks(page, "sh", "python")
    if not any(language == "sh" for language, _ in found):
        return
    script = ["set -e", "trap 'covey lab down >/dev/null 2>&1' EXIT"]
    for number, (language, text) in enumerate(found):
        if language == "sh":
            script.append(text)
        else:
            (folder / f"block{number}.py").write_text(text)
            script.append(f"{sys.executable} -W error block{number}.py")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    environment.pop("COVEY_STATE", None)
    if page.name in NEEDS:
        environment["PYTHONPATH"] = str(put_example(folder / "site", ROOT / "examples" / NEEDS[page.name]))
    run(script, folder, environment)


def run(script: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Run lines of shell in a session of their own, of which nothing stays, however it ends."""
    with (folder / "said").open("w+") as said:
        shell = subprocess.Popen(
            ["bash", "-c", "\n".join(script)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            code: int | str = shell.wait(240)
        except subprocess.TimeoutExpired:
            code = "none: it hangs"
            os.killpg(shell.pid, signal.SIGTERM)  # it takes the lab down
            with suppress(subprocess.TimeoutExpired):
                shell.wait(60)
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        said.seek(0)
        assert code == 0, f"exit code {code}\n{said.read()}"
