"""`covey lab`, as a person uses it: up, look, kill, start, stop, up again with more, down."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from covey.cli.lab import processes
from covey.components.dcm.lock import FolderLock
from covey.testing import Answer, run_covey

pytestmark = pytest.mark.cluster

COVEY = [sys.executable, "-P", "-m", "covey.cli"]
LIMIT = 120


class Lab:
    """A lab's folder, with a short name: sockets lie in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *words: str) -> Answer:
        return run_covey(words, os.environ, LIMIT)

    def lab(self, *words: str) -> Any:
        """Run `covey lab WORDS` and return the data, or the error."""
        done = self.run("lab", *words, "--dir", str(self.folder), "-o", "json")
        found = json.loads(done.out)
        assert (done.code == 0) is ("data" in found), done
        return found["data"] if "data" in found else found["error"]

    def pids(self) -> dict[str, int | None]:
        return {node["name"]: node["pid"] for node in self.lab("status")["nodes"]}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with tempfile.TemporaryDirectory(prefix="cv", ignore_cleanup_errors=True) as name:
        made = Lab(Path(name) / "lab")
        try:
            yield made
        finally:
            if (made.folder / "lab.yaml").exists():
                made.run("lab", "down", "--dir", str(made.folder))
            shutil.rmtree(name, ignore_errors=True)


def test_from_up_to_down(lab: Lab) -> None:
    up = lab.lab("up", "--nodes", "2", "--isolation", "inline", "--detach")
    assert [(node["name"], node["running"], node["state"]) for node in up["nodes"]] == [
        ("n1", True, "online"),
        ("n2", True, "online"),
    ]
    first = lab.pids()
    again = lab.lab("up", "--detach")
    assert [node["pid"] for node in again["nodes"]] == list(first.values())
    with subprocess.Popen([*COVEY, "lab", "up", "--dir", lab.folder], stdout=subprocess.PIPE, text=True) as watched:
        assert watched.stdout is not None
        assert json.loads(watched.stdout.readline())["nodes"][0]["pid"] == first["n1"]
        os.kill(watched.pid, signal.SIGINT)
        watched.communicate(timeout=LIMIT)
    assert (watched.returncode, lab.pids()) == (0, first), "what ran before goes on"

    for verb, states in (("pause", {"T"}), ("resume", {"S", "R", "D"})):
        assert lab.lab(verb, "2")["pid"] == first["n2"]
        stat = Path(f"/proc/{first['n2']}/stat").read_text()
        assert stat.rpartition(")")[2].split()[0] in states, verb

    killed = lab.lab("kill", "2")
    assert killed["pid"] == first["n2"]
    assert lab.pids() == {"n1": first["n1"], "n2": None}
    assert lab.lab("kill", "n2")["code"] == "core.refused"
    started = lab.lab("start", "2")
    assert lab.pids()["n2"] == started["pid"] != first["n2"]
    waited = lab.run("--state", str(lab.folder / "n1"), "cluster", "wait-for", "online", "--timeout", "60s")
    assert waited.code == 0, waited.err

    assert lab.lab("stop", "n2")["how"] == "stopped"
    grown = lab.lab("up", "--nodes", "3", "--isolation", "inline", "--detach")
    assert [node["state"] for node in grown["nodes"]] == ["online"] * 3

    ends = lab.lab("down")
    assert [(end["name"], end["how"]) for end in ends][-1] == ("n1", "stopped")
    assert len(ends) == 3
    assert set(lab.pids().values()) == {None}
    assert lab.lab("down") == []
    assert (lab.folder / "n3.yaml").exists()


def test_only_one_command_at_a_time_brings_a_lab_up(lab: Lab) -> None:
    with FolderLock(lab.folder / ".up.lock"):
        error = lab.lab("up", "--nodes", "1", "--detach")
    assert error["code"] == "dcm.busy"
    assert str(os.getpid()) in error["message"]
    assert not (lab.folder / "lab.yaml").exists()


def test_a_node_that_does_not_start_shows_the_end_of_its_log(lab: Lab) -> None:
    lab.lab("up", "--nodes", "1", "--isolation", "inline", "--detach")
    lab.lab("down")
    file = lab.folder / "n1.yaml"
    file.write_text(file.read_text().replace("port:", "prot:"))
    for words in (["up", "--detach"], ["start", "1"]):
        error = lab.lab(*words)
        assert error["code"] == "lab.failed"
        assert "exit code 10" in error["message"]
        assert "did you mean 'port'?" in error["message"]


def test_ctrl_c_ends_a_lab_that_is_watched(lab: Lab) -> None:
    command = [*COVEY, "lab", "up", "--nodes", "1", "--isolation", "inline", "--dir", str(lab.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as watched:
        assert watched.stdout is not None
        first = json.loads(watched.stdout.readline())  # the first line of the live table: all are online
        assert [node["state"] for node in first["nodes"]] == ["online"]
        pid = first["nodes"][0]["pid"]
        family = processes.members(pid)
        os.kill(watched.pid, signal.SIGINT)
        watched.communicate(timeout=LIMIT)
    assert watched.returncode == 0
    assert not [process for process in family if processes.look(process.pid) == process]
    assert lab.pids() == {"n1": None}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_lab_that_is_ended_while_it_comes_up_leaves_nothing(lab: Lab, number: signal.Signals) -> None:
    command = [*COVEY, "lab", "up", "--nodes", "1", "--isolation", "inline", "--dir", str(lab.folder), "--detach"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as coming:
        assert coming.stderr is not None
        assert "n1 started" in coming.stderr.readline()
        os.kill(coming.pid, number)
        _, said = coming.communicate(timeout=LIMIT)
    assert (coming.returncode, "n1 stopped" in said) == (130, True), said
    assert lab.pids() == {"n1": None}


def test_a_lab_whose_reader_goes_away_is_stopped(lab: Lab) -> None:
    command = [*COVEY, "lab", "up", "--nodes", "1", "--isolation", "inline", "--dir", str(lab.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as watched:
        assert watched.stdout is not None
        pid = json.loads(watched.stdout.readline())["nodes"][0]["pid"]
        watched.stdout.close()
        os.kill(pid, signal.SIGKILL)  # a change, which nobody reads
        watched.wait(timeout=LIMIT)
    assert watched.returncode == 141
    assert lab.pids() == {"n1": None}
