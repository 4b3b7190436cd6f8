"""What a node costs and how quickly it comes and changes places: idle computing and memory of the nodes of a cluster of
three, by process and isolation; the start of a node; a move between two clusters.

Starts real daemons on this machine, for each isolation: a cluster of three nodes (one registry server), which is idle,
and of which one node is ended and started again; then two clusters, and one more node that is defined to both. Idleness
is measured as time of processors, which other work on the machine disturbs little. `--chaos N`
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

from boot import boot
from covey.errors import CoveyError
from covey.testing import Cluster, Node

GOALS = {"move": 300.0, "process": 80.0, "inline": 45.0, "client": 0.5, "server": 1.0, "start": 1.5}
"""Milliseconds; MB; MB; percent of a core; percent of a core; seconds."""

SETTLED = 70.0
"""Seconds until a new cluster is idle: the links by which its nodes were defined are closed after 60."""

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


def spread(values: Sequence[float], digits: int = 1) -> dict[str, float]:
    return {
        "min": round(min(values), digits),
        "median": round(statistics.median(values), digits),
        "max": round(max(values), digits),
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


def computed(node: Node) -> dict[str, tuple[float, int]]:
    """Return the seconds of processor time that each process of a node has used so far, and how often it slept."""
    found: dict[str, tuple[float, int]] = {}
    for pid, name in node.processes().items():
        used, sleeps = found.get(name, (0.0, 0))
        for thread in Path(f"/proc/{pid}/task").iterdir():
            used += int((thread / "schedstat").read_text().split()[0]) / 1e9
            sleeps += int((thread / "status").read_text().split("voluntary_ctxt_switches:")[1].split()[0])
        found[name] = used, sleeps
    return found


def idle(nodes: Sequence[Node], seconds: float) -> list[dict[str, dict[str, float]]]:
    """Return for each node which share of a core, in percent, each of its processes uses while nothing is asked of it,
    and how often its threads wake in a second; of all of them under ""."""
    before = [(computed(node), time.monotonic()) for node in nodes]
    time.sleep(seconds)
    found = []
    for node, (earlier, at) in zip(nodes, before, strict=True):
        now, took = computed(node), time.monotonic() - at
        each = {
            name: {"share": 100 * (now[name][0] - used) / took, "wakes": (now[name][1] - sleeps) / took}
            for name, (used, sleeps) in earlier.items()
        }
        each[""] = {what: sum(one[what] for one in each.values()) for what in ("share", "wakes")}
        found.append({name: {what: round(v, 3) for what, v in one.items()} for name, one in sorted(each.items())})
    return found


def starts(lab: Cluster, rounds: int, note: Callable[[str], None]) -> dict[str, Any]:
    """End the last node and start it again; return the seconds until it is online, and what processors worked for it
    (`cpu`), which other work disturbs less. The first round is not counted."""
    node = list(lab)[-1]
    found, worked = [], []
    for number in range(rounds + 1):
        node.stop()
        found.append(asyncio.run(boot(node, lab[1]))["online"])
        worked.append(sum(used for used, _ in computed(node).values()))
        note(f"start {number or 'cold'}: {found[-1]:.2f} s, {worked[-1]:.2f} s of processors")
    return {**spread(found[1:], 2), "cpu": spread(worked[1:], 2)}


def of_three(isolation: str, seconds: float, rounds: int, note: Callable[[str], None]) -> dict[str, Any]:
    """Measure a cluster of three nodes, of which the first is the registry server."""
    with closing(Cluster(3, isolation=isolation, fresh=True)) as lab:
        lab.up()
        note(f"three nodes are up ({isolation}); they are left alone for {SETTLED + seconds:.0f} s")
        time.sleep(SETTLED if seconds >= 1 else 0.0)
        server, client = idle([lab[1], lab[3]], seconds)
        found = {"idle": {"client": client, "server": server}}
        found["memory"] = {"client": memory(lab[3]), "server": memory(lab[1])}
        return {**found, "start": starts(lab, rounds, note)} if rounds else found


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
        busy = round(sum(used for node in lab for used, _ in computed(node).values()), 1)
        return {"nodes": size, "first": round(first, 1), "all": round(last, 1), "computing": busy}


def clusters(sizes: Sequence[int], isolation: str, note: Callable[[str], None]) -> dict[str, Any]:
    rows = [at_once(size, isolation, note) for size in sizes]
    met = {"cluster": all(row["all"] <= TOGETHER for row in rows)}
    load = {"load": round(os.getloadavg()[0], 2), "cpus": os.cpu_count()}
    return {"schema": "covey/bench.dcm/2", "isolation": isolation, "clusters": rows, "met": met, **load}


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


def measure(said: Any, isolation: str, note: Callable[[str], None]) -> dict[str, Any]:
    """Run what was asked for."""
    if said.cluster:
        return clusters([int(size) for size in said.cluster.split(",")], isolation, note)
    found: dict[str, Any] = {"schema": "covey/bench.dcm/2", "isolation": isolation, "nodes": said.nodes}
    if not said.chaos:
        found |= of_three(isolation, said.idle, said.starts, note)
    if said.chaos or said.moves:
        began = time.monotonic()
        with closing(together(said.nodes, isolation)) as lab:
            note(f"two clusters of {said.nodes} and a node more are up after {time.monotonic() - began:.1f} s")
            if said.chaos:
                return {**found, "chaos": chaos(lab, said.nodes, said.chaos, said.seed, note)}
            found["move"] = moves(lab[2 * said.nodes + 1], said.moves, note)
    found["load"], found["cpus"] = round(os.getloadavg()[0], 2), os.cpu_count()
    found["met"] = {
        "memory": found["memory"]["server"][""] <= GOALS[isolation],
        **{who: each[""]["share"] <= GOALS[who] for who, each in found["idle"].items()},
    }
    if "move" in found:
        found["met"]["move"] = found["move"]["ms"]["median"] <= GOALS["move"]
    if "start" in found:
        found["met"]["start"] = found["start"]["median"] <= GOALS["start"]
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

    costs, limit = found["memory"], GOALS[found["isolation"]]
    lines = [f"\nisolation {found['isolation']}, a cluster of three"]
    for who, each in found["idle"].items():
        whole = each[""]
        lines += [
            f"  idle {who}: {whole['share']:.2f} % of a core, at most {GOALS[who]:g}: {verdict(who)}; "
            f"{whole['wakes']:.0f} wake-ups a second",
            "    " + ", ".join(_process(name, one) for name, one in each.items() if name),
        ]
    lines.append(
        f"  memory (PSS) of the registry server's node: {costs['server']['']:g} MB, at most {limit:g}: "
        f"{verdict('memory')}; of a client's: {costs['client']['']:g} MB"
    )
    lines.append("    " + ", ".join(f"{_short(name)} {mb:g}" for name, mb in costs["server"].items() if name))
    if "start" in found:
        s = found["start"]
        lines.append(
            f"  start of a node until it is online: {s['median']:.2f} s ({s['min']:.2f}-{s['max']:.2f}), at most "
            f"{GOALS['start']:g}: {verdict('start')}; {s['cpu']['median']:.2f} s of processors"
        )
    if "move" in found:
        ms, steps = found["move"]["ms"], found["move"]["steps"]
        lines += [
            f"  a move, request to online: {ms['median']:.0f} ms ({ms['min']:.0f}-{ms['max']:.0f}), at most "
            f"{GOALS['move']:g}: {verdict('move')}",
            "    " + ", ".join(f"{name} {ms['median']:.0f}" for name, ms in steps.items()),
        ]
    load = f"load {found['load']} on {found['cpus']} CPUs"
    return "\n".join([*lines, f"{load}: with a load near the number of CPUs the times mean little"])


def _process(name: str, one: dict[str, float]) -> str:
    return f"{_short(name)} {one['share']:.2f} ({one['wakes']:.0f})"


def _short(process: str) -> str:
    return process.removeprefix("covey:")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure idle computing, memory, start and moves of nodes.")
    parser.add_argument("--nodes", type=int, default=1, help="nodes of each cluster beside the moving one (default 1)")
    parser.add_argument("--moves", type=int, default=11, help="moves that count (default 11; 0: none)")
    parser.add_argument("--starts", type=int, default=7, help="starts of a node that count (default 7; 0: none)")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds of idleness (default 30)")
    parser.add_argument("--isolation", choices=["process", "inline"], help="default both, for --cluster inline")
    parser.add_argument("--cluster", default="", metavar="SIZES", help="instead: whole clusters, as 3,10,30")
    parser.add_argument("--chaos", type=int, default=0, metavar="N", help="instead: N moves under load, with kills")
    parser.add_argument("--seed", type=int, default=1, help="of the kills (default 1)")
    parser.add_argument("--json", action="store_true", help="an object for each isolation; progress to stderr")
    said = parser.parse_args(arguments)
    if said.nodes < 1:
        parser.error("it takes one node at least")

    def note(line: str) -> None:
        print(line, file=sys.stderr if said.json else sys.stdout, flush=True)

    both = ["inline"] if said.cluster else ["process", "inline"]
    for isolation in [said.isolation] if said.isolation else both:
        found = measure(said, isolation, note)
        print(json.dumps(found) if said.json else text(found))


if __name__ == "__main__":
    main()
