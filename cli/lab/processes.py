"""The daemons of a lab: started apart from the terminal, found again, stopped or killed; never anybody else's process.

Knows /proc and signals, nothing of covey's bus. A record beside the node's YAML names the process that was started by
its id *and* its start time in this boot of the machine, so that an id the kernel used again is not mistaken for it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...errors import LabFailed, Refused
from .folder import Node, option

_BEGIN = "--- lab: "
VANISH_SECONDS = 5.0
"""How long the processes of a killed daemon may take to notice that their parent is gone."""


class Process(NamedTuple):
    """A process of this machine: the start time tells it from a later one with the same id."""

    pid: int
    parent: int
    session: int
    started: int
    state: str


@dataclass
class Running:
    """The daemon of a node that runs."""

    node: Node
    pid: int
    child: subprocess.Popen[bytes] | None = None

    def ended(self) -> int | None:
        """Return the exit code if this very command started it and it ended, else None."""
        return None if self.child is None else self.child.poll()


def start(node: Node) -> Running:
    """Start a node's daemon in a session of its own; raises Refused when it runs already."""
    found = running(node)
    if found is not None:
        hint = f"`covey lab stop {node.number}{option(node.folder)}` stops it"
        raise Refused(f"{node.name} runs already, process {found.pid}", hint)
    command = [sys.executable, "-P", "-m", "covey.cli", "node", "start", str(node.file)]
    environment = {name: value for name, value in os.environ.items() if name != "COVEY_STATE"}
    with node.log.open("ab") as log:
        log.write(f"{_BEGIN}{time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command)}\n".encode())
        log.flush()
        child = subprocess.Popen(
            command,
            cwd=node.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    process = look(child.pid)
    record = {"pid": child.pid, "started": process.started if process else 0, "boot": _boot()}
    node.record.write_text(json.dumps(record) + "\n")
    return Running(node, child.pid, child)


def leave(daemons: list[Running]) -> None:
    """Go on without these daemons: they outlive this command, and nobody here waits for them."""
    for daemon in daemons:
        if daemon.child is not None and daemon.child.poll() is None:
            daemon.child.returncode = 0  # else the object complains when it is collected


def running(node: Node) -> Running | None:
    """Return the daemon of a node if the process that was started for it is still there."""
    try:
        record = json.loads(node.record.read_text())
        pid, started, boot = int(record["pid"]), int(record["started"]), record["boot"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    process = look(pid)
    if boot != _boot() or process is None or process.started != started or process.state in "ZX":
        return None
    return Running(node, pid)


def kill(daemon: Running) -> int:
    """Kill the daemon's parent process only, and wait until all its processes are gone; return how many there were.

    Raises LabFailed when some are left: the death of the parent must end them all.
    """
    family = members(daemon.pid)
    os.kill(daemon.pid, signal.SIGKILL)
    left = wait_gone(daemon, family, VANISH_SECONDS)
    if left:
        raise LabFailed(
            f"{daemon.node.name} was killed, and {len(left)} of its {len(family)} processes are still there: "
            + ", ".join(str(process.pid) for process in left),
            "they should have ended with their parent: this is a bug",
        )
    return len(family)


def freeze(daemon: Running, frozen: bool) -> int:
    """Stop all processes of a daemon where they stand, or let them go on; return how many there are."""
    family = members(daemon.pid)
    for process in family:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGSTOP if frozen else signal.SIGCONT)
    return len(family)


def stop(daemon: Running, seconds: float) -> bool:
    """Ask a daemon to stop, and wait; return whether it and all its processes were gone in time."""
    family = members(daemon.pid)
    os.kill(daemon.pid, signal.SIGTERM)
    return not wait_gone(daemon, family, seconds)


def wait_gone(daemon: Running, family: list[Process], seconds: float) -> list[Process]:
    """Wait until the processes are gone; return those that are not."""
    end = time.monotonic() + seconds
    while True:
        daemon.ended()
        left = [process for process in family if _alive(process)]
        if not left or time.monotonic() > end:
            return left
        time.sleep(0.02)


def members(pid: int) -> list[Process]:
    """Return a daemon and all that descend from it or are in its session."""
    everybody = all_processes()
    family = {process.pid: process for process in everybody if pid in (process.pid, process.session)}
    grew = True
    while grew:
        found = [each for each in everybody if each.parent in family and each.pid not in family]
        family.update({process.pid: process for process in found})
        grew = bool(found)
    return list(family.values())


def look(pid: int) -> Process | None:
    """Read one process from /proc; None when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    # the name in brackets may hold anything, so the fields are counted from the last bracket
    fields = text.rpartition(")")[2].split()
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), fields[0])


def all_processes() -> list[Process]:
    """Return every process of the machine."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [process for pid in pids if (process := look(pid)) is not None]


def tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of what the last start logged, indented, for an error message."""
    try:
        found = path.read_text(errors="replace").rpartition(_BEGIN)[2].splitlines()[1:]
    except OSError as problem:
        return f"    ({problem})"
    return "\n".join(f"    {line}" for line in found[-lines:]) or "    (nothing)"


def _alive(process: Process) -> bool:
    now = look(process.pid)
    return now is not None and now.started == process.started and now.state not in "ZX"


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
