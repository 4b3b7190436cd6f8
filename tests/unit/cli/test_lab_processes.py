"""The daemons of a lab: found again, killed with all that is theirs, and never mistaken for another process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from covey.cli.lab import processes
from covey.cli.lab.folder import Node
from covey.errors import LabFailed, Refused

# a parent with two children that end with it, as those of a daemon do; "x" tells that they are there
DAEMON = """
import ctypes, os, signal, sys
def wait():
    while True:
        signal.pause()
for number in range(2):
    if os.fork() == 0:
        if sys.argv[1] == "follow":
            ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
        os.write(1, b"x")
        wait()
wait()
"""


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(1, tmp_path, 20400)


class Daemon:
    def __init__(self, node: Node, how: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", DAEMON, how], stdout=subprocess.PIPE, start_new_session=True
        )
        assert self.process.stdout is not None
        assert self.process.stdout.read(2) == b"xx"
        found = processes.look(self.process.pid)
        assert found is not None
        self.started = found.started
        self.write(node)

    def write(self, node: Node, **change: object) -> None:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        record = {"pid": self.process.pid, "started": self.started, "boot": boot, **change}
        node.record.write_text(json.dumps(record))


@pytest.fixture
def daemon(node: Node, request: pytest.FixtureRequest) -> Iterator[Daemon]:
    made = Daemon(node, getattr(request, "param", "follow"))
    family = processes.members(made.process.pid)
    yield made
    for each in family:
        now = processes.look(each.pid)
        if now is not None and now.started == each.started:  # its state may have changed since
            with suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
    made.process.wait()
    assert made.process.stdout is not None
    made.process.stdout.close()


def test_it_is_found_by_its_record(node: Node, daemon: Daemon) -> None:
    found = processes.running(node)
    assert found is not None
    assert found.pid == daemon.process.pid
    assert len(processes.members(found.pid)) == 3
    with pytest.raises(Refused, match=str(found.pid)):
        processes.start(node)


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "another"}, {"pid": 2**22}, {"pid": None}])
def test_a_process_that_only_has_its_number_is_not_it(node: Node, daemon: Daemon, change: dict[str, object]) -> None:
    daemon.write(node, **change)
    assert processes.running(node) is None


def test_without_a_record_nothing_runs(node: Node) -> None:
    assert processes.running(node) is None
    node.record.write_text("not json")
    assert processes.running(node) is None


def test_kill_waits_until_all_its_processes_are_gone(node: Node, daemon: Daemon) -> None:
    found = processes.running(node)
    assert found is not None
    family = processes.members(found.pid)
    assert processes.kill(found) == 3
    for process in family:
        left = processes.look(process.pid)
        assert left is None or left.state == "Z"  # a zombie waits for this test, its parent
    assert processes.running(node) is None


@pytest.mark.parametrize("daemon", ["stay"], indirect=True)
def test_kill_names_what_stays(node: Node, daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "VANISH_SECONDS", 0.05)
    found = processes.running(node)
    assert found is not None
    with pytest.raises(LabFailed, match="2 of its 3 processes are still there"):
        processes.kill(found)


def test_stop_asks_and_waits(node: Node, daemon: Daemon) -> None:
    found = processes.running(node)
    assert found is not None
    assert processes.stop(found, 5.0)
    assert processes.running(node) is None


def test_the_tail_is_that_of_the_last_start(node: Node) -> None:
    node.log.write_text("--- lab: a\nold\n--- lab: b\nnew 1\nnew 2\n")
    assert processes.tail(node.log) == "    new 1\n    new 2"
    assert processes.tail(node.log, 1) == "    new 2"
    assert "No such file" in processes.tail(node.log.with_name("none"))


def test_a_process_with_an_odd_name_is_read(tmp_path: Path) -> None:
    program = tmp_path / "a) S 1 (b"
    program.symlink_to(sys.executable)
    child = subprocess.Popen([program, "-c", "input()"], stdin=subprocess.PIPE)
    found = processes.look(child.pid)
    child.communicate(b"\n")
    assert found is not None
    assert found.parent == os.getpid()
