"""What runs in each forked process of a node, by its name.

Each child dies with its parent, takes its orders by SIGTERM only (Ctrl-C is the parent's), and ends its loop in order.
What it fails of it says in one line to its parent, for the reason that people are shown (`last_words`).
The code of a third party is imported only in the process that was forked for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Coroutine
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from ...bus import loop
from ...bus.broker import BrokerSettings
from ...bus.broker_service import run_broker
from ...bus.client import Client, connect
from ...bus.context import ComponentContext, Local
from ...bus.messages import Role
from ...bus.security import load_keys
from ...config.adapters import addresses_of
from ...config.roles import uids_of
from ...errors import CoveyError
from ...plugins.manager import PluginManager
from .lives import POLL
from .settings import JOIN_TOPICS

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15

LAST_WORDS = 2000
"""Bytes of a process's last words: a message with its hint; a pipe holds more."""


def die_with(parent: int) -> bool:
    """Have the kernel kill this process when its parent ends; return whether that is still there."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return os.getppid() == parent


def run(name: str, parent: int, work: Callable[[], None], told: int) -> int:
    """Make this process a child of `parent`, then do the work; returns its exit code.

    `told` is the pipe for its last words. It is a pipe and no file, because a full disk is one thing to tell of.
    """
    if not die_with(parent):
        return 1
    ctypes.CDLL(None).prctl(_PR_SET_NAME, f"covey:{name}".encode()[:15], 0, 0, 0)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    set_up_logging(name)
    try:
        work()
    except Exception as problem:
        words = last_words(problem)
        if not all(isinstance(cause, CoveyError) for cause in causes(problem)):
            traceback.print_exc()
        print(f"covey {name}: {words}", file=sys.stderr, flush=True)
        with contextlib.suppress(OSError):
            os.write(told, words.encode()[:LAST_WORDS])
        return 1
    return 0


def causes(problem: BaseException) -> list[BaseException]:
    """Return what lies behind the groups of task groups."""
    if isinstance(problem, BaseExceptionGroup):
        return [cause for one in problem.exceptions for cause in causes(one)]
    return [problem]


def last_words(problem: BaseException) -> str:
    """Return one line that says what a process failed of; where, when it was no error that we know."""
    found = []
    for cause in causes(problem):
        if isinstance(cause, CoveyError):
            found.append(f"error[{cause.code}]: {cause}")
            continue
        frames = traceback.extract_tb(cause.__traceback__)
        where = f" (at {frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        found.append(f"{type(cause).__name__}: {cause}{where}")
    words = "; ".join(" ".join(one.split()) for one in dict.fromkeys(found))
    return words.encode(errors="replace").decode()


def set_up_logging(name: str) -> None:
    """Log to standard error, with the process's name."""
    form = f"%(asctime)s {name} %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, force=True)


def until_told(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine until it ends or SIGTERM comes, which cancels it in order."""

    async def guarded() -> None:
        task = asyncio.ensure_future(main)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            pass

    loop.run(guarded())


def raise_file_limit() -> None:
    """Allow this process as many open files as the system lets it: each connection is one, a stranger's as well."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def broker(config: Any, plugins: PluginManager, told: socket.socket) -> None:
    """The broker alone: nothing may hold its loop. Says through `told` that it listens, or why not."""
    raise_file_limit()

    async def main() -> None:
        try:
            async with run_broker(broker_settings(config, plugins)):
                told.sendall(b"ready")
                told.close()
                await asyncio.Event().wait()
        except CoveyError as problem:
            told.sendall(str(problem).encode())
            raise

    until_told(main())


def dcm(config: Any, plugins: PluginManager, link: socket.socket, running: list[str]) -> None:
    """The DCM, which has the processes forked that it needs."""
    from .link import ForkSpawner

    async def main() -> None:
        spawner = ForkSpawner(link, running)
        async with connect(endpoint=endpoint(config), name="dcm", component=True) as bus:
            await run_dcm(config, bus, plugins, spawner, spawner.shutdown)

    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # its orders come over the link
    loop.run(main())


async def run_dcm(config: Any, bus: Client, plugins: PluginManager, spawner: Any, shutdown: asyncio.Event) -> None:
    """Run the DCM's service until `shutdown` is set and the node has left in order."""
    from .service import DcmContext, main

    await main(DcmContext(config, Path(config.node.state_dir), spawner, bus, plugins, shutdown))


def component(config: Any, plugins: PluginManager, name: str) -> None:
    """A component, all shipped controllers, or one third-party controller."""

    async def main() -> None:
        async with connect(endpoint=endpoint(config), name=name, component=True) as bus:
            await run_component(name, bus, plugins, alone=True)

    until_told(main())


async def run_component(name: str, bus: Client, plugins: PluginManager, *, alone: bool = False) -> None:
    """Run what a process is named after, with a connection of its own. `alone`: nothing else runs in this process.

    It is run once for each life (`lives.py`): when the node moves to another cluster it is cancelled, as at its end,
    and run again with the local configuration of then.
    """
    await bus.wait_for_service("dcm")
    main = _main_of(name, plugins, alone)
    kept: dict[str, Any] = {}
    while True:
        context = ComponentContext(name, bus, msgspec.convert(await bus.call("dcm", "local"), Local), kept)
        life = context.local.boot_id
        work = asyncio.ensure_future(main(context))
        over = asyncio.ensure_future(_another_life(bus, name, life))
        try:
            await asyncio.wait((work, over), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
        finally:
            for task in (work, over):
                task.cancel()
            await asyncio.gather(work, over, return_exceptions=True)
        await _another_life(bus, name, "")


def _main_of(name: str, plugins: PluginManager, alone: bool) -> Callable[[ComponentContext], Coroutine[Any, Any, None]]:
    if name == "controllers" or name.startswith("controller:"):
        from ...controllers.runner import run_controllers

        return partial(run_controllers, plugins=plugins, name=name.partition(":")[2], alone=alone)
    declared = {found.name: found for _, found in plugins.call("covey_component")}
    if name not in declared:  # none of ours, which are loaded before the processes are forked
        plugins.load("covey.components")
        declared = {found.name: found for _, found in plugins.call("covey_component")}
    module, _, function = declared[name].main.partition(":")
    found: Callable[[ComponentContext], Coroutine[Any, Any, None]] = getattr(import_module(module), function)
    return found


async def _another_life(bus: Client, name: str, life: str) -> None:
    """Wait until this process is to be in another life than this one."""
    while True:
        try:
            if await bus.call("dcm", "life", component=name, boot_id=life, timeout=POLL + 10) != life:
                return
        except CoveyError:
            await asyncio.sleep(0.1)  # the DCM is being restarted


def endpoint(config: Any) -> str:
    """Where the node's broker listens for its own processes."""
    return f"ipc://{Path(config.node.state_dir).absolute()}/run/bus.sock"


def load_own(plugins: PluginManager) -> None:
    """Load covey's own components: once, for all processes of a node."""
    plugins.load("covey.components", [one.name for one in plugins.loadable("covey.components") if one.shipped])


def broker_settings(config: Any, plugins: PluginManager) -> BrokerSettings:
    """Read the node file's part that concerns the broker; raises KeyFileError, CoveyError."""
    reserved = [one.name for one in plugins.candidates("covey.components")]
    curve = config.security.mode == "curve"
    addresses = addresses_of(config.node.adapters)
    if not addresses:
        hint = "write the addresses, each as ADDRESS/PREFIX"
        raise CoveyError("adapters: auto finds no address by which another machine could reach this one", hint)
    return BrokerSettings(
        folder=str(Path(config.node.state_dir).absolute() / "run"),
        adapters=addresses,
        port=config.node.port,
        roles={
            **{uid: Role.OPERATOR for name in config.security.roles.operator for uid in _uids(name)},
            **{uid: Role.ADMIN for name in config.security.roles.admin for uid in _uids(name)},
        },
        reserved=(*reserved, "bus", "controllers"),
        keys=load_keys(config.security.key.file) if curve else None,
        join_topics=JOIN_TOPICS if curve else (),
        lab=config.lab,
    )


def _uids(name: str) -> frozenset[int]:
    found = uids_of(name)
    if found is None:
        logging.getLogger(__name__).warning("security.roles: there is no user or group '%s' here", name)
    return found or frozenset()
