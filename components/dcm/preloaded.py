"""Processes forked from one parent that has imported covey, so that many nodes of one machine import it once.

`Preloaded` starts that parent, a Python of its own without threads, and has it fork others, each in a session of its
own. What they run is named by whoever makes it, since the command line is above this floor. The parent ends with its
maker, and the kernel ends the others with the parent.
"""

from __future__ import annotations

import gc
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import IO

from ...controllers.description import preload
from .child import die_with
from .supervisor import PRELOAD

_REQUEST = 1 << 17  # bytes: the words and the environment


class Forked:
    """A process that was forked; used as a `subprocess.Popen` is."""

    def __init__(self, report: IO[bytes]) -> None:
        self._report = report
        self._code: int | None = None
        self.pid = int(report.readline())

    def poll(self) -> int | None:
        """Return the exit code (negative: the signal that ended it), None while it runs."""
        if self._code is None and select.select([self._report], [], [], 0)[0]:
            self._take()
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end at most `timeout` seconds; return the exit code. Raises subprocess.TimeoutExpired."""
        if self._code is None and not select.select([self._report], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        if self._code is None:
            self._take()
        return self._code or 0

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def _take(self) -> None:
        with self._report:  # nothing comes when the parent was killed, and then so was it
            self._code = int(self._report.readline() or -signal.SIGKILL)


class Preloaded:
    """The parent of forked processes, ended by `close`, or when this process is gone.

    They run the function `main` ("module:function", without arguments); `modules` are imported beforehand.
    """

    def __init__(self, main: str, *modules: str) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            words = [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), main, *modules]
            self._parent = subprocess.Popen(words, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])

    def start(
        self, words: Sequence[str], environment: Mapping[str, str], output: IO[bytes], errors: IO[bytes]
    ) -> Forked:
        """Fork a process whose command line and environment seem to be these, `PYTHONPATH` among it.

        What a Python reads at its start alone (other PYTHON… variables, `sitecustomize`) is as it was for the parent.
        """
        report, writes = os.pipe()
        try:
            order = json.dumps([list(words), dict(environment)]).encode()
            socket.send_fds(self._orders, [order], [output.fileno(), errors.fileno(), writes])
        finally:
            os.close(writes)
        return Forked(os.fdopen(report, "rb"))

    def close(self) -> None:
        """End the parent, and with it all that still run."""
        self._orders.close()
        self._parent.wait()


class _Parent:
    """What runs in the parent: takes orders, forks, tells of each process its id and later its exit code."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        self._selector = selectors.DefaultSelector()
        self._selector.register(orders, selectors.EVENT_READ)
        self._running: dict[int, tuple[int, int]] = {}  # by its pidfd: process id, where to report

    def serve(self) -> list[str] | None:
        """Return None when all is over; in a forked process, its command line."""
        while True:
            for key, _ in self._selector.select():
                if key.fd in self._running:
                    self._report(key.fd)
                    continue
                order, fds, _, _ = socket.recv_fds(self._orders, _REQUEST, 3)
                if not order:
                    return None
                words, environment = json.loads(order)
                if self._fork(*fds):
                    os.environ.clear()
                    os.environ.update(environment)
                    sys.path[:0] = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
                    return list(words)

    def _fork(self, output: int, errors: int, report: int) -> bool:
        """Return True in the new process."""
        parent = os.getpid()
        pid = os.fork()
        if pid:
            os.close(output)
            os.close(errors)
            os.write(report, b"%d\n" % pid)
            pidfd = os.pidfd_open(pid)
            self._running[pidfd] = (pid, report)
            self._selector.register(pidfd, selectors.EVENT_READ)
            return False
        os.setsid()
        if not die_with(parent):
            os._exit(1)
        os.dup2(output, 1)
        os.dup2(errors, 2)
        self._selector.close()
        self._orders.close()
        for pidfd, (_, other) in self._running.items():
            os.close(pidfd)
            os.close(other)
        for fd in (output, errors, report):
            os.close(fd)
        return True

    def _report(self, pidfd: int) -> None:
        pid, report = self._running.pop(pidfd)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        with suppress(BrokenPipeError), os.fdopen(report, "wb") as told:
            told.write(b"%d\n" % os.waitstatus_to_exitcode(status))


def _main() -> None:
    _, orders, main, *modules = sys.argv
    module, _, function = main.partition(":")
    for name in (module, *PRELOAD, *modules):
        import_module(name)
    preload()
    gc.freeze()
    words = _Parent(socket.socket(fileno=int(orders))).serve()
    if words is not None:
        sys.argv = words
        getattr(import_module(module), function)()


if __name__ == "__main__":
    _main()
