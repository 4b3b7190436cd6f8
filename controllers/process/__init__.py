"""The controller of class `Process`: how many processes of a name or command line run, and what they use.

What is watched stands in the node's YAML (`options: {watch: …}`); a process that does not run is a resource with
`Count` 0, so that a condition can tell. Values come from psutil. Odd: one look at all processes serves every resource
that is read within `FRESH`; a zombie does not count, since it runs no more.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from re import _parser as parser  # type: ignore[attr-defined]  # there is no public way to what a pattern is made of
from typing import Annotated, Any, Self

import psutil
from pydantic import AfterValidator, Field, model_validator

from ...config.findings import quoted
from ...config.node import Settings
from ...config.wording import refusal
from ...errors import BadAttribute
from ..contract import Controller, Failed, Found, Resource, action

FRESH = 0.5
"""Seconds for which a look at all processes is good; over less a share of processor time is noise."""


FEW = 16
"""Times that a part of a pattern may be repeated without counting as a repeat."""

LONGEST = 4096
"""Characters of a command line that are looked at: any user of the machine writes his own, and long ones take long."""


def _pattern(written: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what later Pythons may read otherwise
            nested = _repeats_repeats(parser.parse(written))
        re.compile(written)
    except re.error as error:
        where = f" at its character {error.pos + 1}" if error.pos is not None else ""
        text = f"{quoted(written)} is no regular expression: {error.msg}{where}"
        raise refusal("bad_value", text, r"quote it, and write \. for a dot") from None
    except (OverflowError, RecursionError):
        raise refusal("bad_value", f"{quoted(written)} is too large for a regular expression", "shorten it") from None
    if nested:
        text = f"{quoted(written)} repeats what itself repeats: on some command lines that takes for ever"
        raise refusal("bad_value", text, "write a+ for (a+)+; a part that is repeated holds no other + or *")
    return written


def _repeats_repeats(tree: Any, inside: bool = False) -> bool:
    """Whether a repeat without a small bound stands in another one: then a match may take 2**length steps."""
    if isinstance(tree, (list, tuple, parser.SubPattern)):
        items = list(tree)
        if len(items) == 2 and items[0] in (parser.MAX_REPEAT, parser.MIN_REPEAT):
            _, most, body = items[1]
            long = most > FEW
            return (inside and long) or _repeats_repeats(body, inside or long)
        return any(_repeats_repeats(item, inside) for item in items)
    return False


class Watch(Settings):
    """Which processes are meant: one of the two."""

    name: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="The exact name of the process, as `ps -C` takes it.", examples=["nginx"]
    )
    command: Annotated[str, Field(min_length=1), AfterValidator(_pattern)] | None = Field(
        default=None,
        description="A Python regular expression, looked for in the first 4096 characters of the command line, its "
        "arguments joined by blanks.",
        examples=[r"python3 .*web\.py"],
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.name is None) == (self.command is None):
            raise refusal("config.missing", "either 'name' or 'command' says which processes are meant", "write one")
        return self


class ProcessOptions(Settings):
    """What the controller `process` watches."""

    watch: dict[Annotated[str, Field(min_length=1, max_length=64)], Watch] = Field(
        default={}, description="By name of the resource: {name: NAME} or {command: PATTERN}. Default: nothing."
    )


class Process(Controller):
    """Processes that the node's YAML says to watch."""

    description = "process.yaml"
    options: ProcessOptions

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looked = -FRESH
        self._running: list[tuple[psutil.Process, str, str]] = []
        self._before: dict[str, tuple[float, dict[tuple[int, float], float], float | None]] = {}

    def discover(self) -> Iterator[Found]:
        """One resource for each entry of `watch`, whether anything of it runs or not."""
        for name, watch in self.options.watch.items():
            yield Found("Process", key={"Name": name}, ProcessName=watch.name, Pattern=watch.command)

    def read(self, resource: Resource) -> dict[str, Any]:
        """Number, processor time and memory of what runs now."""
        name = resource.key["Name"]
        used: dict[tuple[int, float], float] = {}
        memory = 0
        for process in self._meant(name):
            with suppress(psutil.NoSuchProcess), process.oneshot():
                times = process.cpu_times()
                memory += process.memory_info().rss
                used[process.pid, process.create_time()] = times.user + times.system
        started = min((start for _, start in used), default=None)
        return {
            "Count": len(used),
            "Pids": sorted(pid for pid, _ in used),
            "CpuPercent": self._share(name, used),
            "Memory": memory,
            "StartTime": None if started is None else datetime.fromtimestamp(started, UTC),
        }

    @action("Process", "Signal")
    def signal(self, resource: Resource, *, Signal: str) -> dict[str, Any]:
        """Send a signal to all that run. Nothing is sent if one of them belongs to this node's own daemon."""
        number = _signal(Signal)
        self._looked = -FRESH
        meant = self._meant(resource.key["Name"])
        own = [one.pid for one in meant if _is_own(one.pid)]
        if own:
            text = f"process {own[0]} is of this node's own daemon; nothing was sent"
            raise Failed(text, "stop a node with `covey node stop`")
        sent = 0
        for process in meant:
            try:
                process.send_signal(number)  # looks first whether the number is another process's by now
                sent += 1
            except psutil.NoSuchProcess:
                continue
            except psutil.AccessDenied:
                text = f"process {process.pid} may not be signalled by this node's user; {sent} were before it"
                raise Failed(text, "run the node as a user that may") from None
        self._looked = -FRESH
        return {"Sent": sent}

    def _meant(self, name: str) -> list[psutil.Process]:
        watch = self.options.watch[name]
        pattern = None if watch.command is None else re.compile(watch.command)
        return [
            process
            for process, called, command in self._look()
            if (called == watch.name if pattern is None else pattern.search(command) is not None)
        ]

    def _look(self) -> list[tuple[psutil.Process, str, str]]:
        """Every process with its name and command line, as they were at most `FRESH` ago."""
        with self._lock:
            if time.monotonic() - self._looked >= FRESH:
                commands = any(watch.command is not None for watch in self.options.watch.values())
                self._running = list(_all(commands))
                self._looked = time.monotonic()
            return self._running

    def _share(self, name: str, used: dict[tuple[int, float], float]) -> float | None:
        with self._lock:
            now = time.monotonic()
            at, before, share = self._before.get(name, (None, {}, None))
            if at is None:
                self._before[name] = (now, used, None)
            elif now - at >= FRESH:
                more = sum(max(0.0, seconds - before.get(process, 0.0)) for process, seconds in used.items())
                share = round(more / (now - at) * 100.0, 1)
                self._before[name] = (now, used, share)
            return share


def _all(commands: bool) -> Iterator[tuple[psutil.Process, str, str]]:
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied), process.oneshot():
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process, process.name(), " ".join(process.cmdline())[:LONGEST] if commands else ""


def _signal(written: str) -> signal.Signals:
    try:
        return (
            signal.Signals(int(written)) if written.isdecimal() else signal.Signals["SIG" + written.removeprefix("SIG")]
        )
    except (KeyError, ValueError):
        raise BadAttribute(f"there is no signal {written!r}; nothing was sent", "for example TERM, HUP, 9") from None


def _is_own(pid: int) -> bool:
    """Whether a process is in the process group that the daemon and all its parts are in."""
    try:
        return os.getpgid(pid) == os.getpgid(0)
    except ProcessLookupError:
        return False
