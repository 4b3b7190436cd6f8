"""Runs a command for a controller: no shell, a clean environment, an end at its deadline, bounded output.

Knows no resource class. A command runs in a process group of its own; at the deadline, or when it prints too much, all
of the group are killed. Once it has ended, what it started and left running is not waited for, and lives on: a service
that a command started must. Odd: it asks the kernel to be killed when the thread that waits for it ends, so that a node
that is killed leaves no command behind (what that one had started by then stays, and goes with a node that ends in
order). Blocks: for plain methods of controllers, which run in a thread of their own.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .contract import Failed, Node, Resource

MOST_OUTPUT = 64 * 1024
"""Bytes that a command may print on either output. A command with more is at fault: its output is no status."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where commands are looked for when the daemon was started without a PATH."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code (negative: the signal that ended it) and what it printed."""

    code: int
    output: str
    errors: str

    @property
    def reason(self) -> str:
        """How it ended, with the first line of its error output, for a message."""
        how = f"ended by signal {-self.code}" if self.code < 0 else f"exit code {self.code}"
        line = next((line.strip() for line in self.errors.splitlines() if line.strip()), "")
        return f"{how}: {line[:200]}" if line else how


def environment(node: Node, resource: Resource | None = None) -> dict[str, str]:
    """Return what a command finds in its environment: where it runs and which resource is meant, and little else."""
    found = {name: os.environ[name] for name in ("HOME", "TMPDIR") if name in os.environ}
    found |= {"PATH": os.environ.get("PATH") or PATH, "LC_ALL": "C.UTF-8"}
    found |= {"COVEY_NODE": str(node.number), "COVEY_NODE_NAME": node.name, "COVEY_CLUSTER": node.cluster}
    if resource is not None:
        found |= {f"COVEY_KEY_{name}": as_text(value) for name, value in resource.key.items()}
    return found


def as_text(value: object) -> str:
    """Return a value as one argument of a command: `true`, `5`, a list as `a,b`, what is not known as nothing."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(as_text(item) for item in value)
    return "" if value is None else str(value)


def run(
    words: Sequence[str], *, env: Mapping[str, str], timeout: float, folder: str | Path = "/", entered: str = ""
) -> Done:
    """Run a command in `folder` and wait for its end, at most `timeout` seconds. `entered` is its standard input.

    Raises Failed when it cannot be started, is killed at its deadline or prints more than `MOST_OUTPUT` bytes.
    """
    until = time.monotonic() + timeout
    try:
        with _starting:
            process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE if entered else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=folder,
                env=dict(env),
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509  one system call, looked up beforehand
            )
            _running.add(process)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise Failed(f"{words[0]} cannot be started: {why}", "is it installed, and executable for this user?") from None
    try:
        with process:
            return _finish(process, words[0], until, timeout, entered)
    finally:
        _running.discard(process)
        if process.returncode is None:  # only when this thread is broken off
            _kill(process)


_running: set[subprocess.Popen[bytes]] = set()
"""Commands under way. A node that ends in order takes them along, with all that they started."""

_starting = threading.Lock()
"""Held while a command is started: it may have started others before it is known to be under way."""


@atexit.register
def _end_all() -> None:
    _starting.acquire(timeout=2.0)  # and never released: nothing is started any more
    for process in list(_running):
        if process.returncode is None:
            _kill(process)


_prctl = ctypes.CDLL(None).prctl


def _die_with(parent: int) -> Callable[[], None]:
    def ask() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it ended before the question
            os._exit(1)

    return ask


def _finish(process: subprocess.Popen[bytes], name: str, until: float, timeout: float, entered: str) -> Done:
    printed: dict[int, bytes] = {}
    pidfd = os.pidfd_open(process.pid)
    try:
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.write(entered.encode())
                process.stdin.close()
        with selectors.DefaultSelector() as selector:
            selector.register(pidfd, selectors.EVENT_READ)
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                os.set_blocking(pipe.fileno(), False)
                printed[pipe.fileno()] = b""
                selector.register(pipe, selectors.EVENT_READ)
            ended = False
            while not ended:
                ready = selector.select(max(0.0, until - time.monotonic()))
                if not ready and time.monotonic() >= until:
                    _kill(process)
                    raise Failed(f"{name} did not end within {timeout:g} s; it was killed, with all it started")
                ended = any(key.fd == pidfd for key, _ in ready)
                for pipe in (process.stdout, process.stderr):  # after its end: what is there already, and no more
                    assert pipe is not None
                    if pipe.fileno() in selector.get_map() and not _read(pipe, printed):
                        selector.unregister(pipe)
                if max(map(len, printed.values())) > MOST_OUTPUT:
                    _kill(process)
                    raise Failed(f"{name} prints more than {MOST_OUTPUT} bytes; it was killed", "print less")
        output, errors = (found.decode(errors="replace") for found in printed.values())
        return Done(process.wait(), output, errors)
    finally:
        os.close(pidfd)


def _read(pipe: IO[bytes], printed: dict[int, bytes]) -> bool:
    """Take what is there; return whether more may come."""
    while len(printed[pipe.fileno()]) <= MOST_OUTPUT:
        try:
            found = os.read(pipe.fileno(), MOST_OUTPUT)
        except BlockingIOError:
            return True
        if not found:
            return False
        printed[pipe.fileno()] += found
    return True


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # not reaped yet, so the number is still its own
