"""Help is quick because nothing heavy is loaded for it: which modules, not how many milliseconds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "zmq",
    "msgspec",
    "pydantic",
    "rich",
    "psutil",
    "yaml",
    "lz4",
    "pluggy",
    "asyncio",
    "ssl",
    "importlib.metadata",
}
PROGRAM = """
import json, sys
from covey.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert end.code in (0, None), end.code
print("LOADED " + json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize(
    "words", [["--help"], ["tap", "--help"], ["registry", "get", "--help"], ["lab", "up", "--help"], ["node", "--help"]]
)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    # -S -I would hide the installed package; the editable install's own hook loads nothing of the list
    run = subprocess.run([sys.executable, "-P", "-c", PROGRAM, *words], capture_output=True, text=True, check=True)
    loaded = set(json.loads(run.stdout.rpartition("LOADED ")[2]))
    assert "Usage: covey" in run.stdout
    assert not loaded & HEAVY
    assert not {name for name in loaded if name.startswith(("covey.bus", "covey.components", "covey.controllers"))}


def test_the_root_loads_only_the_noun_that_is_used() -> None:
    run = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, "group", "--help"], capture_output=True, text=True, check=True
    )
    nouns = {name for name in json.loads(run.stdout.rpartition("LOADED ")[2]) if name.startswith("covey.cli.")}
    assert "covey.cli.group" in nouns
    assert not nouns & {"covey.cli.tap", "covey.cli.registry", "covey.cli.lab.commands"}
