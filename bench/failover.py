"""How long writes stop when the primary's node is killed, and that no acknowledged write is lost by that.

Real daemons, a registry server on each. On every node a client begins a put every few milliseconds, whatever became of
the one before. The node of the primary is ended with SIGKILL; what counts is the time from there until a put that began
when its last process was gone is acknowledged through another node (`first`), and through every other (`every`). Then
the node is started again, and when its copy is level, the next one is killed. At the end every acknowledged value must
be read, by an exact read and in every copy. See README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bus_common import answer, commands, run
from bus_systems import Failed, Party, started
from covey.bus.client import Client, connect
from covey.errors import CoveyError
from covey.testing import Cluster, Node
from registry_covey import cluster
from rounds import look_around

PREFIX = "/app/failover/"
WAITING = 256
"""Puts under way at most for one client; while so many wait, none begins."""

AFTER = 1.0
"""Seconds that writes are accepted before the next kill."""

LAG = 100
"""Entries that a copy may lack to count as level, while writes go on."""

LIMIT = 60.0
GOAL = 3.0
"""Seconds for p99 of `first`."""


# --- a client, a process of its own -----------------------------------------------------------------------------------


class Writer:
    """Puts without end; remembers what was acknowledged, and when."""

    def __init__(self, bus: Client, node: int, every: float) -> None:
        self._bus, self._node, self._every = bus, node, every
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0
        self._acknowledged: list[tuple[float, float, str]] = []  # began, ended, key
        self.errors: Counter[str] = Counter()
        self.heard = asyncio.Event()

    async def write(self) -> None:
        """Begin puts until cancelled."""
        while True:
            if len(self._tasks) < WAITING:
                self._number += 1
                task = asyncio.create_task(self._put(f"{PREFIX}{self._node}-{self._number:07d}"))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(self._every)

    async def _put(self, key: str) -> None:
        began = time.monotonic()
        try:
            await self._bus.call("registry", "put", key=key, value=key)
        except CoveyError as problem:
            self.errors[problem.code] += 1
            return
        self._acknowledged.append((began, time.monotonic(), key))
        self.heard.set()

    async def after(self, moment: float) -> float:
        """Wait until a put that began after a moment, just now, is acknowledged; return when."""
        looked = max(len(self._acknowledged) - WAITING, 0)
        while True:
            self.heard.clear()
            for began, ended, _ in self._acknowledged[looked:]:
                if began >= moment:
                    return ended
            looked = len(self._acknowledged)
            await self.heard.wait()

    async def end(self) -> list[str]:
        """Wait for the puts under way; return all keys that were acknowledged."""
        await asyncio.gather(*self._tasks)
        return [key for _, _, key in self._acknowledged]


async def writer(said: dict[str, Any]) -> None:
    """Be the client of a node."""
    async with connect(said["state"]) as bus:
        found = Writer(bus, said["node"], said["every"])
        writing = asyncio.create_task(found.write())
        async for command in commands():
            if command["do"] == "after":
                answer(at=await found.after(command["moment"]))
            else:
                writing.cancel()
                Path(said["keys"]).write_text("\n".join(await found.end()))
                answer(errors=found.errors)


# --- the bench --------------------------------------------------------------------------------------------------------


def started_writers(stack: ExitStack, nodes: Cluster, every: float) -> dict[int, Party]:
    """Start the client of every node."""
    found = {}
    for node in nodes:
        keys = str(nodes.folder / f"keys-{node.number}")
        said = {"state": str(node.state), "node": node.number, "keys": keys, "every": every}
        found[node.number] = started(stack, "failover.py", "writer", said)
    return found


def level(nodes: Cluster, lag: int = LAG) -> int:
    """Wait until every node is online and no copy lacks more entries; return who is the primary."""
    nodes.wait_online(LIMIT)

    def reached(status: Any) -> bool:
        return status["writable"] and all(
            server["state"] in ("primary", "follower") and (server["lag"] or 0) <= lag for server in status["servers"]
        )

    primary: int = nodes[1].wait("all copies to be level", reached, LIMIT, ask=("registry", "status"))["primary"]
    return primary


def freeze(node: Node) -> None:
    """Stop all processes of a node where they are: connections stay open and nothing answers, as when a machine is
    lost. The daemon first: it would start again what it believes to hang."""
    for pid in (node.pid, *(pid for pid in node.processes() if pid != node.pid)):
        os.kill(pid, signal.SIGSTOP)


def kill(nodes: Cluster, writers: dict[int, Party], frozen: bool) -> dict[str, float]:
    """Kill or freeze the primary's node; return how long no write was accepted through another, and through every."""
    victim = level(nodes)
    for party in writers.values():
        party.ask(do="after", moment=time.monotonic())  # writes are accepted everywhere
    time.sleep(AFTER)
    others = [party for number, party in writers.items() if number != victim]
    moment = time.monotonic()
    if frozen:
        freeze(nodes[victim])
    else:
        nodes[victim].kill()
    dead = time.monotonic()  # until then it may have acknowledged something
    for party in others:
        party.say(do="after", moment=dead)
    taken = [party.hear()["at"] - moment for party in others]
    if frozen:
        nodes[victim].kill()
    nodes[victim].start()
    return {"node": victim, "first": min(taken), "every": max(taken)}


async def there(nodes: Cluster, number: int, consistency: str) -> dict[str, str]:
    """Return the keys and values that a node reads."""
    found: dict[str, str] = {}
    async with nodes[number].connect() as bus:
        after = ""
        while items := (
            await bus.call("registry", "ls", prefix=PREFIX, consistency=consistency, after=after, limit=1000)
        )["items"]:
            found |= {item["key"]: item["value"] for item in items}
            after = items[-1]["key"]
    return found


def lost(nodes: Cluster, keys: list[str]) -> dict[str, list[str]]:
    """Return what of the acknowledged keys is not read, or wrongly: exactly, and in each node's copy."""
    looks = {"exact": (1, "linear")} | {f"copy of node {node.number}": (node.number, "stale") for node in nodes}
    missed = {}
    for name, (number, consistency) in looks.items():
        found = asyncio.run(there(nodes, number, consistency))
        missed[name] = sorted(key for key in keys if found.get(key) != key)
    return missed


def percentile(values: list[float], part: float) -> float:
    """Return the smallest value that is not below so many of all."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


def measure(said: argparse.Namespace, note: Any) -> dict[str, Any]:
    """Run it all."""
    machine = look_around()
    with ExitStack() as stack:
        nodes = cluster(stack, said.servers)
        try:
            writers = started_writers(stack, nodes, said.every)
            kills = []
            for number in range(1, said.kills + 1):
                kills.append(kill(nodes, writers, said.freeze))
                note(
                    "kill {}: node {node}, accepted again after {first:.2f} s, everywhere {every:.2f} s".format(
                        number, **kills[-1]
                    )
                )
            level(nodes)
            errors: Counter[str] = Counter()
            keys: list[str] = []
            for number, party in writers.items():
                errors.update(party.ask(do="end")["errors"])
                keys += (nodes.folder / f"keys-{number}").read_text().split()
            level(nodes, 0)
            missed = lost(nodes, keys)
        except (Failed, AssertionError):
            nodes.show()
            raise
    summary = {
        row: {"p50": percentile(values, 0.5), "p99": percentile(values, 0.99), "max": max(values), "min": min(values)}
        for row in ("first", "every")
        if (values := [one[row] for one in kills])
    }
    return {
        "schema": "covey/bench.failover/1",
        "machine": machine,
        "load": round(os.getloadavg()[0], 2),
        "servers": said.servers,
        "ended_by": "SIGSTOP" if said.freeze else "SIGKILL",
        "kills": kills,
        **summary,
        "acknowledged": len(keys),
        "errors": dict(errors),
        "lost": missed,
        "met": summary["first"]["p99"] <= GOAL and not any(missed.values()),
    }


def text(found: dict[str, Any]) -> str:
    """Return the table."""
    rows = {"first": "through another node", "every": "through every other node"}
    times = f"{found['ended_by']} of the primary's node, {len(found['kills'])} times"
    lines = ["", f"seconds until a write was accepted again; {times}"]
    lines.append(f"  {'':<28}{'min':>8}{'p50':>8}{'p99':>8}{'max':>8}")
    for row, words in rows.items():
        values = found[row]
        lines.append(f"  {words:<28}" + "".join(f"{values[each]:>8.2f}" for each in ("min", "p50", "p99", "max")))
    missing = {look: len(keys) for look, keys in found["lost"].items()}
    lines.append(f"acknowledged writes: {found['acknowledged']:,}; not there afterwards: {missing}")
    lines.append(f"errors that clients saw meanwhile: {found['errors'] or 'none'}")
    verdict = "met" if found["met"] else "MISSED"
    lines.append(f"goal: p99 at most {GOAL:g} s through another node and nothing lost: {verdict}")
    lines.append(f"load {found['load']} on {found['machine']['cpus']} CPUs")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Kill the primary's node again and again; measure and check.")
    parser.add_argument("--servers", type=int, choices=(3, 5), default=3, help="registry servers (default 3)")
    parser.add_argument(
        "--every",
        type=float,
        default=0.02,
        help="seconds between two puts of a client: how exact it is (default 0.02)",
    )
    parser.add_argument("--kills", type=int, default=50, help="how often (default 50)")
    parser.add_argument(
        "--freeze", action="store_true", help="stop the node's processes (SIGSTOP) before they are killed"
    )
    parser.add_argument("--json", action="store_true", help="one object; progress goes to standard error")
    said = parser.parse_args(arguments)
    if said.kills < 1 or said.every <= 0:
        parser.error("it takes one kill, and some time between two puts")

    def note(line: str) -> None:
        print(line, file=sys.stderr if said.json else sys.stdout, flush=True)

    found = measure(said, note)
    print(json.dumps(found) if said.json else text(found))
    if any(found["lost"].values()):
        sys.exit(1)


if __name__ == "__main__":
    if sys.argv[1:2] == ["writer"]:
        run({"writer": writer})
    else:
        main()
