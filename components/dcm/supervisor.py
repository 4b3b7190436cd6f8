"""The parent of all processes of a node: it forks them, sees them end, and ends them. It decides nothing else.

It knows neither ZeroMQ contexts nor threads, so that forking is safe, and has imported covey before the first fork, so
that the children share its memory. The broker and the DCM are its own to keep alive; all others are started and stopped
on the DCM's word, which comes over a socket pair as lines of JSON (`link.py`). Every child asks the kernel to be killed
when the parent dies, so no process outlives it, however it ends.

On SIGTERM or SIGINT the DCM stops the node in order; a second signal, or the deadline, ends it by force.
"""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ...controllers.description import preload
from ...errors import AlreadyRunning, CoveyError
from ...plugins.manager import PluginManager
from . import child
from .layout import Layout
from .link import read_lines, write_line
from .lock import FolderLock

PRELOAD = (
    "covey.bus.loop",
    "covey.bus.broker_service",
    "covey.bus.context",
    "covey.bus.driver",
    "covey.components.registry.service",
    "covey.components.liveness.service",
    "covey.components.groups.service",
    "covey.components.resources.service",
    "covey.components.dcm.service",
    "covey.controllers.runner",
    "concurrent.futures.thread",
)
"""What every child needs or one of them needs much of: imported once, shared by all."""

READY_LIMIT = 10.0
"""Seconds the broker may take to bind its sockets."""

SHUTDOWN_LIMIT = 20.0
"""Seconds an orderly end may take before what still runs is killed."""

CRASHES = 5
CRASH_WINDOW = 60.0
"""More than that many crashes of the broker or the DCM in so many seconds, and the node ends: it cannot work."""

BACKOFF = (0.05, 0.2, 0.5, 1.0, 2.0)


class Supervisor:
    """One node's processes. `run()` returns the exit code when all have ended."""

    def __init__(self, config: Any) -> None:
        self._config = config
        self._plugins = PluginManager()  # found and, where they are our own, loaded for all processes at once
        self._selector = selectors.DefaultSelector()
        self._pids: dict[str, int] = {}
        self._told: dict[int, int] = {}  # by pid: the pipe for a process's last words
        self._stopping: dict[str, float] = {}  # asked to end, and when they are killed
        self._crashes: dict[str, deque[float]] = {}
        self._due: list[tuple[float, Callable[[], None]]] = []
        self._dcm: socket.socket | None = None
        self._ended = False
        self._exit_code = 0

    def run(self) -> int:
        """Start the broker and the DCM, then serve until the node is told to end."""
        for name in PRELOAD:
            import_module(name)
        child.load_own(self._plugins)
        gc.freeze()
        wakeup, signalled = socket.socketpair()
        for each in (wakeup, signalled):
            each.setblocking(False)
        signal.set_wakeup_fd(signalled.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        self._selector.register(wakeup, selectors.EVENT_READ, self._signalled)
        try:
            self._start_broker()
            self._start_dcm()
            preload()  # while those two start: the resources' and the controllers' processes will need it
            while self._pids and not self._ended:
                self._turn()
        finally:
            self._kill_all()
        return self._exit_code

    # --- the loop -------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        soonest = min([when for when, _ in self._due] + list(self._stopping.values()), default=None)
        wait = None if soonest is None else max(0.0, soonest - time.monotonic())
        for key, _ in self._selector.select(wait):
            if key in self._selector.get_map().values():  # else one before it in this turn has closed it
                key.data(key.fileobj)
        now = time.monotonic()
        due = [action for when, action in self._due if when <= now]
        self._due = [(when, action) for when, action in self._due if when > now]
        for action in due:
            action()
        for name, when in list(self._stopping.items()):
            if when <= now and name in self._pids:
                os.kill(self._pids[name], signal.SIGKILL)
                self._stopping[name] = now + SHUTDOWN_LIMIT

    def _signalled(self, wakeup: socket.socket) -> None:
        numbers = set(wakeup.recv(64)) & {signal.SIGTERM, signal.SIGINT}
        if not numbers:
            return
        if "dcm" in self._stopping or self._dcm is None:
            self._ended = True
            return
        self._stopping["dcm"] = time.monotonic() + SHUTDOWN_LIMIT
        self._tell({"shutdown": int(next(iter(numbers)))})

    # --- processes ------------------------------------------------------------------------------------------

    def _fork(self, name: str, work: Callable[[], None], keep: tuple[socket.socket, ...] = ()) -> None:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        told, words = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                for pipe in (told, *self._told.values()):
                    os.close(pipe)
                for key in list(self._selector.get_map().values()):
                    if key.fileobj not in keep and isinstance(key.fileobj, socket.socket):
                        key.fileobj.close()
                self._selector.close()
                code = child.run(name, parent, work, words)
            finally:
                os._exit(code)
        os.close(words)
        self._pids[name], self._told[pid] = pid, told
        pidfd = os.pidfd_open(pid)
        self._selector.register(pidfd, selectors.EVENT_READ, lambda _: self._reap(name, pid, pidfd))

    def _reap(self, name: str, pid: int, pidfd: int) -> None:
        self._selector.unregister(pidfd)
        os.close(pidfd)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        reason = _words(status) + self._last_words(pid)
        self._pids.pop(name, None)
        asked = self._stopping.pop(name, None) is not None
        if name == "dcm":
            self._dcm_ended(status, reason, asked)
        elif asked:
            self._tell({"stopped": name})
        elif name == "broker":
            print(f"covey: the broker ended ({reason}); it is started again", file=sys.stderr, flush=True)
            self._again(name, self._start_broker)
        else:
            self._tell({"exited": name, "status": status, "reason": reason})

    def _last_words(self, pid: int) -> str:
        """Return what a process that ended said last, as the end of a sentence; empty when it said nothing."""
        told = self._told.pop(pid)
        try:
            words = os.read(told, child.LAST_WORDS).decode(errors="replace")
        except BlockingIOError:  # it said nothing, and has left a process behind
            words = ""
        finally:
            os.close(told)
        return f": {words}" if words else ""

    def _dcm_ended(self, status: int, reason: str, asked: bool) -> None:
        if self._dcm:
            self._selector.unregister(self._dcm)
            self._dcm.close()
            self._dcm = None
        if asked or status == 0:
            self._exit_code = 0 if status == 0 else 1
            self._ended = True
            return
        print(f"covey: the DCM ended ({reason}); it is started again", file=sys.stderr, flush=True)
        self._again("dcm", self._start_dcm)

    def _again(self, name: str, start: Callable[[], None]) -> None:
        now = time.monotonic()
        crashes = self._crashes.setdefault(name, deque(maxlen=CRASHES + 1))
        crashes.append(now)
        if len(crashes) > CRASHES and crashes[0] > now - CRASH_WINDOW:
            print(f"covey: {name} ended {len(crashes)} times in {CRASH_WINDOW:g} s; the node ends", file=sys.stderr)
            self._exit_code, self._ended = 1, True
            return
        self._due.append((now + BACKOFF[min(len(crashes), len(BACKOFF)) - 1], start))

    def _start_broker(self) -> None:
        ready, told = socket.socketpair()
        with ready, told:
            self._fork("broker", lambda: child.broker(self._config, self._plugins, told), (told,))
            told.close()
            ready.settimeout(READY_LIMIT)
            try:
                answer = ready.recv(4096).decode()
            except TimeoutError:
                answer = f"it was not ready within {READY_LIMIT:g} s"
        if answer != "ready":
            raise CoveyError(f"the broker cannot run: {answer or 'it ended at once'}")

    def _start_dcm(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            running = sorted(set(self._pids) - {"broker", "dcm"})
            self._fork("dcm", lambda: child.dcm(self._config, self._plugins, theirs, running), (theirs,))
        self._dcm = ours
        lines = read_lines(ours)
        self._selector.register(ours, selectors.EVENT_READ, lambda _: self._orders(next(lines)))

    # --- the DCM's word -------------------------------------------------------------------------------------

    def _orders(self, orders: list[dict[str, Any]]) -> None:
        for order in orders:
            if "start" in order:
                self._order_start(str(order["start"]))
            else:
                self._order_stop(str(order["stop"]), float(order["deadline"]))

    def _order_start(self, name: str) -> None:
        if name not in self._pids:
            self._fork(name, lambda: child.component(self._config, self._plugins, name))
        self._tell({"started": name})

    def _order_stop(self, name: str, deadline: float) -> None:
        if name in self._pids:
            self._stopping[name] = time.monotonic() + deadline
            os.kill(self._pids[name], signal.SIGTERM)
        else:
            self._tell({"stopped": name})

    def _tell(self, line: dict[str, Any]) -> None:
        if self._dcm:
            try:
                write_line(self._dcm, line)
            except OSError:
                pass  # it is ending; its own end is seen next

    def _kill_all(self) -> None:
        """End what is left: the broker in order, all others by force."""
        for name, pid in self._pids.items():
            os.kill(pid, signal.SIGTERM if name == "broker" else signal.SIGKILL)
        deadline = time.monotonic() + 2.0
        for pid in self._pids.values():
            while os.waitpid(pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.005)
        self._pids.clear()
        for told in self._told.values():
            os.close(told)
        self._told.clear()


def _words(status: int) -> str:
    if status >= 0:
        return f"exit code {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def run(config: Any) -> int:
    """Run a node in the foreground until it is told to end; returns the exit code.

    `config` is the checked node file (`covey.config`). Raises AlreadyRunning when another daemon has the state folder.
    """
    folder = Path(config.node.state_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as why:
        raise CoveyError(
            f"the state folder {folder} cannot be made: {why.strerror or why}", "see state_dir in the node's file"
        ) from None
    with FolderLock(Layout(folder).lock) as lock:
        if lock.holder is not None:
            raise AlreadyRunning(
                f"process {lock.holder} runs on {folder} already", f"stop it first: kill {lock.holder}"
            )
        if config.isolation == "inline":
            from .inline import run_inline

            return run_inline(config)
        return Supervisor(config).run()
