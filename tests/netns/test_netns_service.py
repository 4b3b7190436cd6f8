"""The controller `service` against a real systemd, which is process 1 of namespaces of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

BOX = Path(__file__).parent.parent / "support" / "systemd_box.sh"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None or not Path("/lib/systemd/systemd").exists(),
    reason="needs root, unshare(1) and systemd",
)

UNITS = {
    "probe.service": "[Unit]\nDescription=A probe = with signs\nDefaultDependencies=no\n"
    "[Service]\nExecStart=/bin/sleep 1000\nExecReload=/bin/true\n",
    "broken.service": "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nExecStart=/bin/false\n",
    "tester.service": "[Unit]\nDefaultDependencies=no\nWants=probe.service\nAfter=probe.service\n"
    "SuccessAction=exit\nFailureAction=exit\n"
    "[Service]\nType=oneshot\nExecStart={python} {program} {result}\n",
}

PROGRAM = """
import json, sys
from covey.controllers.contract import Failed, Resource
from covey.controllers.options import make
from covey.controllers.service import Service
from covey.testing import check_controller

def resource(name):
    return Resource("Service", {"Name": name}, "x")

def failure(act, name):
    try:
        act(resource(name))
    except Failed as error:
        return str(error)

told = {"default": check_controller(Service)}
told["named"] = check_controller(Service, {"units": ["probe", "brok*", "nowhere"]})
controller = make(Service)
probe = resource("probe.service")
told["states"] = []
for act in (controller.restart, controller.reload, controller.stop, controller.stop, controller.start):
    act(probe)
    read = controller.read(probe)
    told["states"].append([act.__name__, read["ActiveState"], bool(read["MainPid"]), bool(read["StartTime"])])
told["broken"] = failure(controller.start, "broken.service")
told["after"] = controller.read(resource("broken.service"))["ActiveState"]
told["nowhere"] = failure(controller.start, "nowhere.service")
with open(sys.argv[1], "w") as file:
    json.dump(told, file)
"""


@pytest.fixture
def groups() -> Iterator[list[Path]]:
    """Control groups for the box alone, so that what systemd makes of them can be removed."""
    root = Path("/sys/fs/cgroup")
    parents = [root / "systemd", root / "unified"] if (root / "unified").is_dir() else [root]
    made = [parent / f"covey{os.getpid()}" for parent in parents]
    try:
        for one in made:
            one.mkdir()
    except OSError as error:
        pytest.skip(f"control groups cannot be made here: {error}")
    try:
        yield made
    finally:
        for one in made:
            for folder, _, _ in os.walk(one, topdown=False):
                with suppress(FileNotFoundError):
                    Path(folder).rmdir()


def test_services_of_a_real_systemd(tmp_path: Path, groups: list[Path]) -> None:
    units, result, ready, program = (tmp_path / name for name in ("units", "result", "ready", "program.py"))
    units.mkdir()
    for name, text in UNITS.items():
        (units / name).write_text(text.format(python=sys.executable, program=program, result=result))
    program.write_text(PROGRAM)
    enter = "".join(f"echo $$ > {one}/cgroup.procs; " for one in groups)
    apart = "--mount --pid --fork --kill-child=KILL --mount-proc --cgroup --uts --net --ipc"
    words = ["sh", "-c", f'{enter} exec unshare {apart} sh "$@"', "sh", str(BOX), str(units), str(ready)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    if not ready.exists():
        pytest.skip(f"no systemd can be booted here: {done.stderr}")
    assert result.exists(), f"{done.stdout}\n{done.stderr}"
    told: dict[str, Any] = json.loads(result.read_text())
    default = {one["key"]["Name"]: one["attributes"] for one in told["default"]}
    probe = default["probe.service"]
    assert "broken.service" not in default, "neither active nor started at boot"
    assert (probe["Description"], probe["LoadState"]) == ("A probe = with signs", "loaded")
    assert (probe["ActiveState"], probe["SubState"], probe["Enabled"]) == ("active", "running", "static")
    assert probe["MainPid"] > 1 and probe["Restarts"] == 0 and probe["StartTime"].startswith("20")
    named = {one["key"]["Name"]: one["attributes"]["LoadState"] for one in told["named"]}
    assert named == {"probe.service": "loaded", "nowhere.service": "not-found"}, "broken.service is not loaded"
    assert told["states"] == [
        ["restart", "active", True, True],
        ["reload", "active", True, True],
        ["stop", "inactive", False, False],
        ["stop", "inactive", False, False],
        ["start", "active", True, True],
    ]
    assert told["broken"].startswith("systemctl start: exit code 1: Job for broken.service failed")
    assert told["after"] == "failed"
    assert "Unit nowhere.service not found" in told["nowhere"]
