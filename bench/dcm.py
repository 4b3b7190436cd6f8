"""What a node costs and how quickly it changes places: a move between two clusters, memory by process, idle computing.

Starts real daemons on this machine: two clusters of a few nodes, and one more node that is defined to both. `--chaos N`
moves that node N times under load instead, and kills its daemon at random moments; the books must add up: in exactly
one cluster each time, no process, socket or file left behind. `--cluster 3,10,30` measures something else: whole
clusters whose nodes are all started at once, until all are online.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from covey.errors import CoveyError
from covey.testing import Cluster, Node

GOALS = {"move": 300.0, "process": 80.0, "inline": 45.0, "client": 0.5, "server": 1.0}
"""Milliseconds; MB; MB; percent of a core; percent of a core."""

TOGETHER = 30.0
"""Seconds for a cluster whose nodes are all started at once to be online."""

QUIET = 1.5
"""Seconds between two moves: what one of them makes others do is over by then."""


def together(nodes: int, isolation: str) -> Cluster:
    """Start clusters A and B of `nodes` nodes each, and one node more that is defined to both and online in A."""
    lab = Cluster(2 * nodes + 1, isolation=isolation, fresh=True)
    try:
        for node in lab:
            node.start()
        for node in lab:
            node.wait_up()
        moving = lab[2 * nodes + 1]
        for name, first in (("A", 1), ("B", nodes + 1)):
            founder = lab[first]
            founder.call("dcm", "cluster_define", name=name)
            founder.wait_online()
            for number in range(first + 1, first + nodes):
                founder.define(lab[number])
            founder.define(moving)
        for node in lab:
            node.wait_online()
    except BaseException:
        lab.close()
        raise
    return lab


def spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "min": round(min(values), 1),
        "median": round(statistics.median(values), 1),
        "max": round(max(values), 1),
    }


# --- one move after the other ---------------------------------------------------------------------------------


def moves(node: Node, rounds: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Move a node to and fro; return how long it took, each step by itself too. The first two are not counted."""
    found = []
    for number in range(rounds + 2):
        time.sleep(QUIET)
        found.append(node.call("dcm", "node_move", to="BA"[number % 2], timeout=90.0))
        note(f"move {number - 1 if number > 1 else 'cold'}: {found[-1]['ms']:.0f} ms")
    counted = found[2:]
    steps: dict[str, list[float]] = {step["step"]: [] for step in counted[0]["steps"]}
    for one in counted:
        for step in one["steps"]:
            steps[step["step"]].append(step["ms"])
    return {"ms": spread([one["ms"] for one in counted]), "steps": {name: spread(ms) for name, ms in steps.items()}}


# --- what a node costs ----------------------------------------------------------------------------------------


def memory(node: Node) -> dict[str, float]:
    """Return the memory (PSS, MB) of each process of a node, and their sum under ""."""
    found: dict[str, float] = {}
    for pid, name in node.processes().items():
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                found[name] = round(found.get(name, 0.0) + int(line.split()[1]) / 1024, 1)
    return {"": round(sum(found.values()), 1), **found}


def computed(node: Node) -> float:
    """Return the seconds of computing that a node's processes have used so far."""
    ticks = 0
    for pid in node.processes():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def idle(nodes: Sequence[Node], seconds: float) -> list[float]:
    """Return the share of a core, in percent, that each node uses while nothing is asked of it."""
    time.sleep(2.0)
    before = [(computed(node), time.monotonic()) for node in nodes]
    time.sleep(seconds)
    return [
        round(100 * (computed(node) - used) / (time.monotonic() - at), 2)
        for node, (used, at) in zip(nodes, before, strict=True)
    ]


# --- a whole cluster at once ----------------------------------------------------------------------------------


def at_once(size: int, isolation: str, note: Callable[[str], None]) -> dict[str, Any]:
    """Start all nodes of a cluster at the same moment; return the seconds until the first and the last are online."""
    servers = 3 if size >= 3 else 1
    with closing(Cluster(size, isolation=isolation, servers=servers, fresh=True)) as lab:
        began = time.monotonic()
        lab.up()
        note(f"{size} nodes are defined and online after {time.monotonic() - began:.1f} s, one by one")
        for node in lab:
            node.kill()
        began = time.monotonic()
        for node in lab:
            node.start()
        first = last = 0.0
        seen = -1
        while not last:
            time.sleep(0.1)
            try:
                online = sum(one["state"] == "online" for one in lab[1].call("dcm", "node_ls"))
            except CoveyError:
                continue
            if online != seen:
                note(f"  {time.monotonic() - began:5.1f} s: {online} online")
            seen = online
            first = first or (time.monotonic() - began if online else 0.0)
            last = time.monotonic() - began if online == size else 0.0
        busy = round(sum(computed(node) for node in lab), 1)
        return {"nodes": size, "first": round(first, 1), "all": round(last, 1), "computing": busy}


def clusters(sizes: Sequence[int], isolation: str, note: Callable[[str], None]) -> dict[str, Any]:
    rows = [at_once(size, isolation, note) for size in sizes]
    met = {"cluster": all(row["all"] <= TOGETHER for row in rows)}
    load = {"load": round(os.getloadavg()[0], 2), "cpus": os.cpu_count()}
    return {"schema": "covey/bench.dcm/1", "isolation": isolation, "clusters": rows, "met": met, **load}


# --- chaos ----------------------------------------------------------------------------------------------------


class Load:
    """Writes to both clusters all the time, from a thread for each."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.written = 0
        self._over = threading.Event()
        self._threads = [threading.Thread(target=asyncio.run, args=(self._write(node),)) for node in nodes]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    async def _write(self, node: Node) -> None:
        async with node.connect() as bus:
            while not self._over.is_set():
                try:
                    await bus.call("registry", "put", key="/app/load", value=self.written)
                    self.written += 1
                except CoveyError:
                    pass
                await asyncio.sleep(0.02)


def leftovers(lab: Cluster) -> dict[str, int]:
    """Count what could leak: processes and open files of every node, and files below the state folders."""
    processes = [pid for node in lab for pid in node.processes()]
    files = [path for node in lab for path in node.state.rglob("*") if path.is_file() and path.parent.name != "core"]
    opened = sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in processes)
    return {"processes": len(processes), "open": opened, "files": len(files)}


def where(node: Node) -> str:
    """Wait until a node is settled; return the one cluster in which it is, by its pointers and by its state."""

    def settled(said: Any) -> bool:
        return bool(said["node_state"] == "online")

    node.wait("the move to be over", lambda said: said["state"] == "idle", 90, ask=("dcm", "node_moving"))
    name = str(node.wait("the node to be online", settled, 90)["name"])
    pointed = {one["name"]: (one["current"], one["target"]) for one in node.call("dcm", "cluster_ls")}
    other = "AB".replace(name, "")
    assert pointed == {name: (True, True), other: (False, False)}, pointed
    return name


def chaos(lab: Cluster, nodes: int, count: int, seed: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Move the last node `count` times, killing it half of the times; return the counts. Raises when one is wrong."""
    chance = random.Random(seed)
    moving = lab[2 * nodes + 1]
    founders = {"A": lab[1], "B": lab[nodes + 1]}
    numbers = {"A": nodes + 1, "B": nodes + 1}
    tally = {"moved": 0, "killed": 0, "came back in the target": 0, "came back where it was": 0}
    load = Load(list(founders.values()))
    try:
        at = where(moving)
        before = leftovers(lab)
        for number in range(count):
            target = "AB".replace(at, "")
            kill = chance.random() < 0.5
            asked = threading.Thread(target=_ask, args=(moving, target))
            asked.start()
            if kill:
                time.sleep(chance.random() * 0.4)
                moving.kill()
                moving.start()
                tally["killed"] += 1
            asked.join()
            tally["moved"] += not kill
            came = where(moving)
            if kill:
                tally["came back in the target" if came == target else "came back where it was"] += 1
            for name, founder in founders.items():
                what = f"node {numbers[name]} to be seen right in {name}"
                founder.wait(what, _seen(numbers[name], inside=name == came), 30)
            at = came
            if number % 20 == 19:
                note(f"{number + 1}: {tally}, in {at}, {leftovers(lab)}")
        time.sleep(QUIET)
        return {**tally, "before": before, "after": leftovers(lab), "written": load.written}
    finally:
        load.end()


def _ask(node: Node, target: str) -> None:
    with contextlib.suppress(CoveyError):  # its daemon is killed meanwhile
        node.call("dcm", "node_move", to=target, timeout=90.0)


def _seen(number: int, *, inside: bool) -> Callable[[Any], bool]:
    return lambda status: (number in status["view"]["members"]) == inside


# --- the program ----------------------------------------------------------------------------------------------


def measure(said: Any, note: Callable[[str], None]) -> dict[str, Any]:
    """Run what was asked for."""
    if said.cluster:
        return clusters([int(size) for size in said.cluster.split(",")], said.isolation or "inline", note)
    said.isolation = said.isolation or "process"
    began = time.monotonic()
    with closing(together(said.nodes, said.isolation)) as lab:
        note(f"two clusters of {said.nodes} and a node more are up after {time.monotonic() - began:.1f} s")
        found: dict[str, Any] = {"schema": "covey/bench.dcm/1", "isolation": said.isolation, "nodes": said.nodes}
        if said.chaos:
            return {**found, "chaos": chaos(lab, said.nodes, said.chaos, said.seed, note)}
        moving, server = lab[2 * said.nodes + 1], lab[1]
        found["move"] = moves(moving, said.moves, note)
        client_share, server_share = idle([moving, server], said.idle)
        found["idle"] = {"client": client_share, "server": server_share}
        found["memory"] = {"client": memory(moving), "server": memory(server)}
        found["load"], found["cpus"] = round(os.getloadavg()[0], 2), os.cpu_count()
        found["met"] = {
            "move": found["move"]["ms"]["median"] <= GOALS["move"],
            "memory": found["memory"]["server"][""] <= GOALS[said.isolation],
            **{who: share <= GOALS[who] for who, share in found["idle"].items()},
        }
        return found


def text(found: dict[str, Any]) -> str:
    """Return the tables."""
    if "clusters" in found:
        verdict_all = "met" if found["met"]["cluster"] else "MISSED"
        lines = [
            f"  {row['nodes']:3} nodes: all online after {row['all']:.1f} s (the first after {row['first']:.1f} s), "
            f"{row['computing']:.1f} s of computing"
            for row in found["clusters"]
        ]
        limit = f"  at most {TOGETHER:g} s: {verdict_all}; load {found['load']} on {found['cpus']} CPUs"
        return "\n".join([f"\nisolation {found['isolation']}, all nodes started at once", *lines, limit])
    if "chaos" in found:
        return "\n".join(f"  {name}: {value}" for name, value in found["chaos"].items())

    def verdict(goal: str) -> str:
        return "met" if found["met"][goal] else "MISSED"

    move, costs, shares = found["move"], found["memory"], found["idle"]
    limit = GOALS[found["isolation"]]
    each = ", ".join(f"{name.removeprefix('covey:')} {mb:g}" for name, mb in costs["server"].items() if name)
    steps = ", ".join(f"{name} {ms['median']:.0f}" for name, ms in move["steps"].items())
    ms = move["ms"]
    return "\n".join(
        [
            f"\nisolation {found['isolation']}",
            f"  a move, request to online: {ms['median']:.0f} ms ({ms['min']:.0f}-{ms['max']:.0f}), at most "
            f"{GOALS['move']:g}: {verdict('move')}",
            f"    {steps}",
            f"  memory (PSS) of a registry server's node: {costs['server']['']:g} MB, at most {limit:g}: "
            f"{verdict('memory')}; of a client: {costs['client']['']:g} MB",
            f"    {each}",
            f"  idle: client {shares['client']:g} % of a core, at most {GOALS['client']:g}: {verdict('client')}; "
            f"server {shares['server']:g} %, at most {GOALS['server']:g}: {verdict('server')}",
            f"load {found['load']} on {found['cpus']} CPUs: with a load near the number of CPUs the times mean little",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure moves between clusters, memory and idle computing of a node.")
    parser.add_argument("--nodes", type=int, default=1, help="nodes of each cluster beside the moving one (default 1)")
    parser.add_argument("--moves", type=int, default=11, help="moves that count (default 11)")
    parser.add_argument("--idle", type=float, default=20.0, help="seconds of idleness (default 20)")
    parser.add_argument("--isolation", choices=["process", "inline"], help="default process, for --cluster inline")
    parser.add_argument("--cluster", default="", metavar="SIZES", help="instead: whole clusters, as 3,10,30")
    parser.add_argument("--chaos", type=int, default=0, metavar="N", help="instead: N moves under load, with kills")
    parser.add_argument("--seed", type=int, default=1, help="of the kills (default 1)")
    parser.add_argument("--json", action="store_true", help="one object; progress goes to standard error")
    said = parser.parse_args(arguments)
    if said.nodes < 1 or said.moves < 1:
        parser.error("it takes one node and one move at least")

    def note(line: str) -> None:
        print(line, file=sys.stderr if said.json else sys.stdout, flush=True)

    found = measure(said, note)
    print(json.dumps(found) if said.json else text(found))


if __name__ == "__main__":
    main()
