"""The verbs of `covey lab`."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from ...errors import Busy, Refused
from ..connection import offline
from ..options import settings
from ..output import Block, Fields, Stream, note
from ..verbs import Noun

command = Noun(
    "lab",
    help="A whole cluster on this machine, for trying things: every node has real processes, files and loopback "
    "addresses on two networks. Node k's state is DIR/n<k>, its YAML DIR/n<k>.yaml, its log DIR/n<k>.log; talk to it "
    "with `covey --state DIR/n<k> …`. Only processes that the lab itself started are ever touched.",
)

UP_SECONDS = 60.0
_ENDING = (signal.SIGTERM, signal.SIGHUP)


def _dir(function: Any) -> Any:
    return click.option(
        "--dir",
        "folder",
        type=click.Path(path_type=Path),
        default="covey-lab",
        show_default=True,
        help="The lab's folder.",
    )(function)


@command.verb("up", examples=["covey lab up --nodes 3 --detach", "covey lab up --dir /tmp/two --nodes 2"])
@click.option("--nodes", type=int, metavar="N", help="How many (default: 3, or as many as the lab has).")
@click.option("--servers", type=int, metavar="N", help="How many registry servers (default: 3, or 1 with fewer nodes).")
@_dir
@click.option(
    "--isolation",
    type=click.Choice(["process", "inline"]),
    default="process",
    show_default=True,
    help="One process for each component, or all of a node in one.",
)
@click.option("--open", "open_", is_flag=True, help="A new lab without encryption between its nodes.")
@click.option("--detach", is_flag=True, help="Return when all nodes are online, and leave them running.")
def up(nodes: int | None, servers: int | None, folder: Path, isolation: str, open_: bool, detach: bool) -> int:
    """Bring up a cluster on this machine, and wait until all its nodes are online.

    It writes a YAML file and a key for each node, starts the daemons, defines a cluster named lab on n1 and the other
    nodes into it, each with a join token of its own, and makes the first of them registry servers. Of a lab that
    exists, it starts what does not run; with more --nodes or --servers it grows. A node takes eight processes and some
    120 MB; with --isolation inline, one process and less.

    With --detach it returns then, and the lab goes on until `covey lab down`. Without, it shows the live table until
    Ctrl-C, and then stops the nodes that it started; what ran before goes on, and the files stay. SIGTERM and a
    terminal that closes do the same. Waits for 60s unless --timeout says otherwise; if it fails, what was started is
    left running to be looked at. It is refused when the machine has no memory for so many nodes.
    """
    import asyncio

    from .table import blocks, look_at

    with _alone(folder):
        lab, choice = _written(nodes, servers, folder, isolation, open_)
        started = _started(lab)
    if choice is not None:
        choice.release()
    if not detach:
        return _attended(lab, started)
    data = asyncio.run(look_at(lab))
    return offline(data, lambda found: [*blocks(found), "", next_steps(lab)])


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other `covey lab up` out of a folder, which is made for it; and removed again when there is no lab in it."""
    from ...components.dcm.lock import FolderLock
    from .folder import exists, make_folder

    new = make_folder(folder)
    path = folder / ".up.lock"
    with FolderLock(path) as lock:
        if lock.holder is not None:
            who = f", process {lock.holder}" if lock.holder else ""
            raise Busy(f"another `covey lab up` is at work in {folder}{who}", "wait for it, or take another --dir")
        try:
            yield
        finally:
            if new and not exists(folder):
                path.unlink()
                folder.rmdir()


def _written(nodes: int | None, servers: int | None, folder: Path, isolation: str, open_: bool) -> tuple[Any, Any]:
    """Return the lab with its files, and the port that is held for it when it is new."""
    from . import folder as folders
    from . import ports
    from .memory import must_fit
    from .processes import running

    if folders.exists(folder):
        lab = folders.load(folder)
        count = lab.nodes if nodes is None else nodes
        folders.check(folder, count)
        must_fit(count - sum(running(node) is not None for node in lab), isolation)
        return folders.grown(lab, count, isolation, servers), None
    count = 3 if nodes is None else nodes
    folders.check(folder, count)
    serving = folders.usual_servers(count) if servers is None else servers
    folders.check_servers(serving, count)
    must_fit(count, isolation)
    choice = ports.choose(range(1, count + 1))
    mode = "open" if open_ else folders.MODE
    return folders.create(folder, count, choice.port, isolation, mode, serving), choice


def _started(lab: Any) -> set[int]:
    """Bring the lab up; return the numbers of the nodes that were started for it."""
    import asyncio

    from .launch import bring_down, bring_up
    from .processes import leave

    started: list[Any] = []
    try:
        asyncio.run(_interruptible(bring_up(lab, settings().seconds(UP_SECONDS), _report, started)))
    except (KeyboardInterrupt, asyncio.CancelledError):
        _report("interrupted; stopping what was started")
        asyncio.run(bring_down(lab, _report, {daemon.node.number for daemon in started}))
        raise KeyboardInterrupt from None
    finally:
        leave(started)
    return {daemon.node.number for daemon in started}


def _report(text: str) -> None:
    with suppress(OSError):  # the terminal is gone, say: what is under way goes on
        note(f"lab: {text}")


async def _interruptible(work: Coroutine[Any, Any, None]) -> None:
    """Do it; SIGTERM and a closed terminal end it as Ctrl-C does, between two steps. What is ignored stays so."""
    import asyncio

    doing = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    usual = [number for number in _ENDING if signal.getsignal(number) is signal.SIG_DFL]
    for number in usual:
        loop.add_signal_handler(number, doing.cancel)
    try:
        await doing
    finally:
        for number in usual:
            loop.remove_signal_handler(number)


def next_steps(lab: Any) -> str:
    """Return what a person could try now, with the nodes there are."""
    from .folder import option

    where = option(lab.folder)
    first, last = lab.node("1"), lab.node(str(lab.nodes))
    states = [shlex.quote(str(node.state)) for node in (first, last)]
    hints = [f"covey --state {states[0]} cluster status", f"covey --state {states[1]} resource ls Host"]
    if last != first:
        hints.append(f"covey lab kill {last.number}{where}")
    return "try: " + "\n     ".join([*hints, f"covey lab down{where}"])


def _attended(lab: Any, started: set[int]) -> int:
    import asyncio

    from .launch import bring_down
    from .table import show_until

    async def attend() -> None:
        ended = asyncio.Event()
        for number in (signal.SIGINT, *_ENDING):
            if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGINT:
                asyncio.get_running_loop().add_signal_handler(number, ended.set)
        whole = len(started) == lab.nodes
        _report(
            "all nodes are online; Ctrl-C stops " + ("the lab" if whole else "what was started now, and this table")
        )
        try:
            await show_until(lab, ended, Stream(settings()))
        finally:  # also when nobody reads what it prints
            if whole:
                _report("stopping the lab; `covey lab up --detach` leaves one running")
            else:
                _report("what ran before goes on; `covey lab down` stops it")
            await bring_down(lab, _report, started)

    asyncio.run(attend())
    return 0


@command.verb("down", examples=["covey lab down", "covey lab down --dir /tmp/two"])
@_dir
def down(folder: Path) -> int:
    """Stop all nodes of the lab, registry servers last. The files stay: `covey lab up` goes on with them.

    A node that does not stop in time is killed. To remove the lab, remove its folder afterwards.
    """
    import asyncio

    from .folder import load
    from .launch import bring_down

    lab = load(folder)
    ends = asyncio.run(bring_down(lab, _report))

    def text(data: list[dict[str, Any]]) -> list[Block]:
        said = "the lab is down" if data else "the lab was down already"
        return [f"{said}; its files stay, and go with: rm -r {shlex.quote(str(lab.folder))}"]

    return offline(ends, text)


@command.verb("status", examples=["covey lab status", "covey lab status -o json"])
@_dir
def status(folder: Path) -> int:
    """Show the nodes of the lab: process, whether it runs, and what the cluster says of it."""
    import asyncio

    from .folder import load
    from .table import blocks, look_at

    return offline(asyncio.run(look_at(load(folder))), blocks)


def _found(folder: Path, typed: str) -> Any:
    from .folder import load, option
    from .processes import running

    node = load(folder).node(typed)
    daemon = running(node)
    if daemon is None:
        raise Refused(f"{node.name} does not run", f"`covey lab start {node.number}{option(node.folder)}` starts it")
    return daemon


def _fields(data: dict[str, Any]) -> list[Block]:
    return [Fields(list(data.items()))]


@command.verb("kill", examples=["covey lab kill 3"])
@click.argument("node", metavar="N")
@_dir
def kill(node: str, folder: Path) -> int:
    """Kill a node's daemon with SIGKILL, as a crash of the machine would.

    Only the daemon's parent process is killed; all its others must go with it, and the command fails when one stays.
    """
    import time

    from . import processes

    daemon = _found(folder, node)
    began = time.monotonic()
    count = processes.kill(daemon)
    data = {
        "node": daemon.node.number,
        "name": daemon.node.name,
        "pid": daemon.pid,
        "processes": count,
        "ms": round((time.monotonic() - began) * 1000, 1),
    }
    return offline(data, lambda found: [f"{found['name']} killed; processes that are gone: {found['processes']}"])


@command.verb("pause", examples=["covey lab pause 3"])
@click.argument("node", metavar="N")
@_dir
def pause(node: str, folder: Path) -> int:
    """Freeze all processes of a node with SIGSTOP, as a machine that hangs: alive, and silent.

    The others take it for dead after some seconds. `covey lab resume` lets it go on; then it joins anew.
    """
    return _freeze(folder, node, True)


@command.verb("resume", examples=["covey lab resume 3"])
@click.argument("node", metavar="N")
@_dir
def resume(node: str, folder: Path) -> int:
    """Let a node go on that `covey lab pause` froze."""
    return _freeze(folder, node, False)


def _freeze(folder: Path, typed: str, frozen: bool) -> int:
    from . import processes

    daemon = _found(folder, typed)
    count = processes.freeze(daemon, frozen)
    data = {"node": daemon.node.number, "name": daemon.node.name, "pid": daemon.pid, "processes": count}
    done = "stand still" if frozen else "go on"
    return offline(data, lambda found: [f"{found['name']}: its {found['processes']} processes {done}"])


@command.verb("stop", examples=["covey lab stop 3"])
@click.argument("node", metavar="N")
@_dir
def stop(node: str, folder: Path) -> int:
    """Stop a node's daemon in order with SIGTERM, and wait until it is gone. It is killed if it does not stop."""
    from .launch import STOP_SECONDS, end

    return offline(end(_found(folder, node), _report, settings().seconds(STOP_SECONDS)), _fields)


@command.verb("cut", examples=["covey lab cut 1 2", "covey lab cut 1 2 --one-way --network 127.1.0.0/16"])
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@click.option("--one-way", is_flag=True, help="Only what A sends to B is lost; what B sends arrives.")
@click.option("--network", metavar="X", help="Only on this network or subnetwork, by name, or prefix (default: all).")
@_dir
def cut(first: str, second: str, one_way: bool, network: str | None, folder: Path) -> int:
    """Cut the traffic between two nodes, as a pulled cable would: nobody is told, it is silent.

    It goes on until `covey lab heal`, or until the node's daemon is started anew. Only nodes of a lab let themselves be
    cut off (`lab: true` in their YAML, which loopback addresses alone may have).
    """
    import asyncio

    from .faults import cut as cut_off

    daemons = [_found(folder, typed) for typed in (first, second)]
    data = asyncio.run(cut_off(daemons[0].node, daemons[1].node, one_way, network))
    way = "to" if one_way else "and"
    return offline(
        data, lambda found: [f"cut: n{found['from']} {way} n{found['to']} on {', '.join(found['networks'])}"]
    )


@command.verb("heal", examples=["covey lab heal"])
@_dir
def heal(folder: Path) -> int:
    """Undo every cut: from now on everything passes again between all nodes of the lab."""
    import asyncio

    from .faults import heal as mend
    from .folder import load
    from .processes import running

    nodes = [node for node in load(folder) if running(node) is not None]
    healed = asyncio.run(mend(nodes))
    return offline({"nodes": healed}, lambda found: [f"no cut is left on {len(found['nodes'])} nodes"])


@command.verb("start", examples=["covey lab start 3"])
@click.argument("node", metavar="N")
@_dir
def start(node: str, folder: Path) -> int:
    """Start a node's daemon, and wait until its bus answers.

    A node that is defined joins by itself: `covey --state DIR/n1 cluster wait-for online` waits for that.
    """
    import asyncio

    from . import processes
    from .folder import load
    from .launch import greeted

    found = load(folder).node(node)
    daemon = processes.start(found)

    async def wait() -> None:
        await greeted(daemon, asyncio.get_running_loop().time() + settings().seconds(30.0))

    asyncio.run(wait())
    processes.leave([daemon])
    data = {"node": found.number, "name": found.name, "pid": daemon.pid, "log": str(found.log)}
    return offline(data, _fields)
