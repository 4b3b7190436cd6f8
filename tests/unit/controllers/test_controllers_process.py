"""The controller `process` against real processes of this test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psutil
import pytest
from covey.controllers import process as module
from covey.controllers.contract import Resource
from covey.controllers.options import make
from covey.controllers.process import Process
from covey.errors import BadAttribute, Failed, PluginError
from covey.testing import check_controller

MARK = uuid.uuid4().hex
"""In the command line of the processes started here, and of no other."""

WATCH = {"marked": {"command": f"sleep.* {MARK}$"}, "nobody": {"name": f"no-{MARK[:8]}"}}

Start = Callable[..., psutil.Process]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start()` starts a process that waits for its end, known by its command line."""
    with ExitStack() as stack:

        def one(own_group: bool = True) -> psutil.Process:
            words = [sys.executable, "-S", "-c", "import sys; sys.stdin.read()", "sleeper", MARK]
            done = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=own_group)
            stack.enter_context(done)
            stack.callback(done.kill)
            return psutil.Process(done.pid)

        yield one


def read(controller: Any, name: str) -> dict[str, Any]:
    found: dict[str, Any] = controller.read(Resource("Process", {"Name": name}, "x"))
    return found


def test_what_runs_is_counted_and_what_does_not_is_there_with_none(start: Start) -> None:
    one, two = start(), start()
    found = {each["key"]["Name"]: each["attributes"] for each in check_controller(Process, {"watch": WATCH})}
    assert found["nobody"] == {
        "ProcessName": WATCH["nobody"]["name"],
        "Pattern": None,
        "Count": 0,
        "Pids": [],
        "CpuPercent": None,
        "Memory": 0,
        "StartTime": None,
    }
    got = found["marked"]
    assert (got["Count"], got["Pids"], got["CpuPercent"]) == (2, sorted([one.pid, two.pid]), None)
    assert got["Pattern"] == WATCH["marked"]["command"] and got["ProcessName"] is None
    assert got["Memory"] > 2**20
    assert got["StartTime"].startswith("20")
    named = make(Process, {"watch": {"me": {"name": psutil.Process().name()}}})
    assert os.getpid() in read(named, "me")["Pids"]


def test_the_share_of_a_processor_is_that_since_the_read_before(monkeypatch: pytest.MonkeyPatch) -> None:
    controller: Any = make(Process, {"watch": WATCH})
    now = iter([10.0, 10.1, 20.0, 20.2])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    first, second = (7, 1.0), (8, 2.0)  # process id and start: a number that is used again is another process
    looks = [{first: 5.0}, {first: 5.0}, {first: 8.0, second: 1.0}, {first: 99.0}]
    assert [controller._share("marked", used) for used in looks] == [None, None, 40.0, 40.0]


def test_a_signal_reaches_all_that_run_and_never_the_daemon(start: Start) -> None:
    controller: Any = make(Process, {"watch": WATCH})
    resource = Resource("Process", {"Name": "marked"}, "x")
    for wrong in ("TREM", "0", "99", "-9"):
        with pytest.raises(BadAttribute, match="there is no signal"):
            controller.signal(resource, Signal=wrong)
    one, two = start(), start()
    assert controller.signal(resource, Signal="SIGCONT") == {"Sent": 2}
    assert controller.signal(resource, Signal=str(int(signal.SIGKILL))) == {"Sent": 2}
    gone, alive = psutil.wait_procs([one, two], timeout=30)
    assert len(gone) == 2 and not alive
    assert read(controller, "marked")["Count"] == 0
    assert controller.signal(resource, Signal="TERM") == {"Sent": 0}
    ours, other = start(own_group=False), start()
    with pytest.raises(Failed, match=f"process {ours.pid} is of this node's own daemon"):
        controller.signal(resource, Signal="KILL")
    assert ours.is_running() and other.is_running()


def test_wrong_options_are_told_all_at_once() -> None:
    with pytest.raises(PluginError) as caught:
        make(Process, {"watch": {"a": {"name": "x", "command": "y"}, "b": {"command": "("}}, "wach": {}})
    for words in ("either 'name' or 'command'", "'(' is no regular expression", "did you mean 'watch'?"):
        assert words in caught.value.message
