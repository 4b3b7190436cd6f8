"""How a lab comes up and goes down: daemons, a cluster on the first node, the others defined into it, all online.

It does what a person would do by hand, with the same verbs, and can be asked again at any moment: what is there already
is left as it is. Progress is told in one line for each thing that happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ...errors import LabFailed, NoDaemon, Timeout
from ..connection import Session, opened
from ..options import Settings
from ..waiting import until
from .folder import Lab, Node
from .processes import Running, kill, running, start, stop, tail

Report = Callable[[str], None]

STOP_SECONDS = 25.0
"""How long a daemon may take to leave in order; it gives itself 20 s before it ends its components by force."""


async def bring_up(lab: Lab, seconds: float, report: Report, started: list[Running]) -> None:
    """Start what does not run, define what is not defined, wait until all are online.

    `started` gets each daemon as soon as it is started: the caller wants them also when this is interrupted.
    """
    end = asyncio.get_running_loop().time() + seconds
    daemons = []
    for node in lab:
        daemons.append(begin(node, report, started))
    for daemon in daemons:
        await greeted(daemon, end)
    first = next(iter(lab))
    async with opened(Settings(state=str(first.state)), _left(end)) as session:
        await _define_cluster(lab, session, report)
        await _define_nodes(lab, session, report)
        await _all_online(session, report)
        await _define_servers(lab, session, report)


def begin(node: Node, report: Report, started: list[Running]) -> Running:
    """Find a node's daemon, or start it and put it into `started` before anything else can go wrong."""
    found = running(node)
    if found is not None:
        report(f"{node.name} runs already, process {found.pid}")
        return found
    started.append(start(node))
    report(f"{node.name} started, process {started[-1].pid}, log {node.log}")
    return started[-1]


async def greeted(daemon: Running, end: float) -> None:
    """Wait until a daemon answers on its bus; raises LabFailed with the end of its log when it ended instead."""
    node = daemon.node
    while True:
        try:
            async with opened(Settings(state=str(node.state)), _left(end)) as session:
                await session.bus.wait_for_service("dcm", timeout=_left(end))
                return
        except NoDaemon as problem:
            alive = running(node) is not None  # asked first: what has ended then has an exit code
            code = daemon.ended()
            if code is not None or not alive:
                how = "ended" if code is None else f"ended with exit code {code}"
                raise LabFailed(
                    f"{node.name} {how} before its bus answered; the end of its log:\n{tail(node.log)}",
                    f"the whole log is {node.log}, its configuration {node.file}",
                ) from None
            if _left(end) <= 0:
                raise Timeout(
                    f"{node.name} runs, and its bus does not answer: {problem.message}; the end of its log:\n"
                    + tail(node.log),
                    "it may still happen; --timeout waits longer",
                ) from None
        await asyncio.sleep(0.05)


async def _define_cluster(lab: Lab, session: Session, report: Report) -> None:
    if await session.call("dcm", "cluster_ls"):
        return
    made = await session.call("dcm", "cluster_define", name=lab.cluster)
    report(
        f"cluster {lab.cluster} defined on n1"
        + (f", id {made['id']}" if isinstance(made, dict) and "id" in made else "")
    )


async def _define_nodes(lab: Lab, session: Session, report: Report) -> None:
    status = await until(
        session,
        lambda: session.call("dcm", "cluster_status"),
        lambda data: f"registry: {data['registry']['phase']}",
        lambda data: data["registry"]["writable"] and "online" in (each["state"] for each in data["nodes"]),
        "the registry to take writes and n1 to be online",
        report,
    )
    known = {int(found["number"]) for found in status["nodes"]}
    for node in lab:
        if node.number in known:
            continue
        address = f"{node.addresses[0]}:{node.port}"
        token = await _token(node, session.left) if lab.mode == "curve" else None
        await session.call(
            "dcm", "node_define", address=address, name=node.name, number=node.number, id=None, token=token
        )
        report(f"{node.name} defined at {address}")


async def _token(node: Node, seconds: float) -> str:
    """Let a new node hand out a join token, as its administrator would."""
    async with opened(Settings(state=str(node.state)), seconds) as session:
        made = await session.call("dcm", "node_prepare")
        return str(made["token"])


async def _all_online(session: Session, report: Report) -> None:
    await until(
        session,
        lambda: session.call("dcm", "cluster_status"),
        _states,
        lambda data: all(found["state"] == "online" for found in data["nodes"]),
        "all nodes to be online",
        report,
    )


async def _define_servers(lab: Lab, session: Session, report: Report) -> None:
    """Make the first nodes registry servers, one after the other, and wait until each votes."""

    def voting(data: dict[str, Any]) -> set[int]:
        return {int(one["number"]) for one in data["servers"] if one["state"] in ("primary", "follower")}

    for number in range(2, lab.servers + 1):
        status = await session.call("registry", "status")
        if number in {int(one["number"]) for one in status["servers"]}:
            continue
        await session.call("dcm", "registry_define_server", number=number)
        await until(
            session,
            lambda: session.call("registry", "status"),
            lambda data: "registry servers: " + ", ".join(f"{one['number']} {one['state']}" for one in data["servers"]),
            lambda data, number=number: number in voting(data),  # type: ignore[misc]  # bound now
            f"registry server {number} to vote",
            report,
        )


def _states(data: dict[str, Any]) -> str:
    return ", ".join(f"{found['name']} {found['state']}" for found in data["nodes"])


async def bring_down(lab: Lab, report: Report, only: set[int] | None = None) -> list[dict[str, Any]]:
    """Stop all daemons (or those of some nodes) in order, registry servers last; kill one that does not stop."""
    nodes = [node for node in lab if only is None or node.number in only]
    found = [daemon for node in nodes if (daemon := running(node)) is not None]
    ends = []
    servers = range(lab.servers, 0, -1)
    batches = [[d for d in found if d.node.number not in servers]]
    batches += [[d for d in found if d.node.number == number] for number in servers]
    for batch in batches:
        ends += await asyncio.gather(*(asyncio.to_thread(end, daemon, report) for daemon in batch))
    return ends


def end(daemon: Running, report: Report, seconds: float = STOP_SECONDS) -> dict[str, Any]:
    """Stop one daemon and wait; kill it when it does not stop in time."""
    how = "stopped"
    if not stop(daemon, seconds):
        report(f"{daemon.node.name} did not stop within {seconds:g} s; killing it")
        if running(daemon.node) is not None:
            kill(daemon)
        how = "killed"
    report(f"{daemon.node.name} {how}")
    daemon.node.record.unlink(missing_ok=True)
    return {"node": daemon.node.number, "name": daemon.node.name, "pid": daemon.pid, "how": how}


def _left(end: float) -> float:
    return max(end - asyncio.get_running_loop().time(), 0.0)
