"""A registry with many keys: how quickly it is there again, how much memory it needs, how much disk it leaves.

Real daemons. All keys are written, then each is written again so that old log files can go; meanwhile the size of the
folder is looked at. Then all nodes are ended with SIGKILL and started again, some rounds long: the time counts from the
start of the last server's process until exact reads are open (phase 1). See README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from bus_systems import started
from covey.errors import CoveyError
from covey.testing import Cluster, Node
from registry_common import key_of
from registry_covey import cluster
from rounds import look_around, spread

LOOK = 0.01
LIMIT = 120.0
VALUE = 256
GOALS = {"start": 3.0, "memory": 250.0}
"""Seconds until phase 1, MB of each registry process. The disk's goal depends on the data."""

SPARE = 64 * 2**20
"""Bytes of disk allowed beside three times the data."""


def registry_of(node: Node) -> int | None:
    """Return the process id of a node's registry."""
    return next((pid for pid, name in node.processes().items() if name == "covey:registry"), None)


def began(pid: int) -> float:
    """Return when a process was started, by the clock of `time.monotonic`; to a hundredth of a second."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Return what a process uses of the machine's memory, pages it shares in proportion (PSS), in MB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def disk(node: Node) -> int:
    """Return the bytes of a node's copy as the file system counts them."""
    folders = list(node.state.glob("*/configuration/registry"))
    total = 0
    for path in (path for folder in folders for path in folder.iterdir()):
        with suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


async def opened(node: Node) -> float:
    """Wait until the registry says by this node that exact reads are open; return when it did."""
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                async with node.connect() as bus:
                    while True:
                        with suppress(CoveyError):
                            status = await bus.call("registry", "status", timeout=5.0)
                            if status["phase"] in ("reads", "writes"):
                                return time.monotonic()
                        await asyncio.sleep(LOOK)
            except CoveyError:
                await asyncio.sleep(LOOK)


def restart(nodes: Cluster) -> dict[str, float]:
    """Kill all nodes and start them again; return the seconds until phase 1."""
    for node in nodes:
        node.kill()
    launched = time.monotonic()
    for node in nodes:
        node.start()
    ready = asyncio.run(opened(nodes[1]))
    processes = [pid for node in nodes if (pid := registry_of(node))]
    found = {"start": ready - max(map(began, processes)), "daemon": ready - launched}
    nodes.wait_online(LIMIT)
    return found


async def counted(node: Node) -> int:
    """Return how many of the keys are there."""
    found, after = 0, ""
    async with node.connect() as bus:
        while items := (await bus.call("registry", "ls", prefix="/app/bench/", after=after, limit=1000))["items"]:
            found, after = found + len(items), items[-1]["key"]
    return found


def filled(nodes: Cluster, client: Any, keys: int, note: Any) -> dict[str, float]:
    """Write every key twice, a tenth at a time; return the most and the last size of the largest copy, in bytes."""
    sizes = []
    part = max(keys // 10, 1)
    for turn in (1, 2):
        for first in range(0, keys, part):
            client.ask(do="fill", first=first, keys=min(part, keys - first), modulo=keys)
            sizes.append(max(map(disk, nodes)))
        note(f"all keys written {turn} times: the copy has {sizes[-1] / 1e6:.0f} MB")
    # a snapshot may still be on its way
    given_up, last = time.monotonic() + 10, sizes[-1]
    while time.monotonic() < given_up:
        time.sleep(0.5)
        now = max(map(disk, nodes))
        if now == last:
            break
        last = now
    return {"most": max(sizes), "last": max(map(disk, nodes))}


def measure(said: argparse.Namespace, note: Any) -> dict[str, Any]:
    """Run it all."""
    machine = look_around()
    with ExitStack() as stack:
        nodes = cluster(stack, said.servers)
        with ExitStack() as only:
            client = started(only, "registry_covey.py", "client", {"state": str(nodes[1].state)})
            sizes = filled(nodes, client, said.keys, note)
        rounds = []
        for number in range(1, said.rounds + 1):
            rounds.append(restart(nodes))
            note(f"round {number}: phase 1 {rounds[-1]['start']:.2f} s after the start of the last server's process")
        used = [memory(pid) for node in nodes if (pid := registry_of(node))]
        there = asyncio.run(counted(nodes[1]))
    data = said.keys * (VALUE + len(key_of(0)))
    allowed = 3 * data + SPARE
    start = spread([one["start"] for one in rounds])
    return {
        "schema": "covey/bench.size/1",
        "machine": machine,
        "load": round(os.getloadavg()[0], 2),
        "servers": said.servers,
        "keys": said.keys,
        "there": there,
        "data": data,
        "start": start,
        "daemon": spread([one["daemon"] for one in rounds]),
        "memory": {"most": max(used), "each": used},
        "disk": {**sizes, "allowed": allowed},
        "met": {
            "start": start["median"] <= GOALS["start"],
            "memory": max(used) <= GOALS["memory"],
            "disk": sizes["last"] <= allowed,
        },
    }


def text(found: dict[str, Any]) -> str:
    """Return the table."""

    def verdict(goal: str) -> str:
        return "met" if found["met"][goal] else "MISSED"

    start, daemon, sizes = found["start"], found["daemon"], found["disk"]
    return "\n".join(
        [
            "",
            f"{found['keys']:,} keys of {VALUE} bytes, {found['servers']} server(s)",
            f"  phase 1 after the start of the last server's process: {start['median']:.2f} s "
            f"({start['min']:.2f}-{start['max']:.2f}), at most {GOALS['start']:g}: {verdict('start')}",
            f"  phase 1 after the start of the daemons:               {daemon['median']:.2f} s "
            f"({daemon['min']:.2f}-{daemon['max']:.2f})",
            f"  memory (PSS) of a registry process: {found['memory']['most']:.0f} MB, at most {GOALS['memory']:g}: "
            f"{verdict('memory')}",
            f"  disk of a copy: {sizes['last'] / 1e6:.0f} MB, {sizes['most'] / 1e6:.0f} MB at most meanwhile; "
            f"allowed {sizes['allowed'] / 1e6:.0f}: {verdict('disk')}",
            f"{found['there']:,} keys were there after the last restart; "
            f"load {found['load']} on {found['machine']['cpus']} CPUs",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure restart, memory and disk of a registry with many keys.")
    parser.add_argument("--servers", type=int, choices=(1, 3, 5), default=3, help="registry servers (default 3)")
    parser.add_argument("--keys", type=int, default=100_000, help="keys (default 100,000)")
    parser.add_argument("--rounds", type=int, default=5, help="restarts (default 5)")
    parser.add_argument("--json", action="store_true", help="one object; progress goes to standard error")
    said = parser.parse_args(arguments)
    if said.keys < 1 or said.rounds < 1:
        parser.error("it takes one key and one round at least")

    def note(line: str) -> None:
        print(line, file=sys.stderr if said.json else sys.stdout, flush=True)

    found = measure(said, note)
    print(json.dumps(found) if said.json else text(found))
    if found["there"] != said.keys:
        sys.exit(f"bench/size.py: {found['there']} keys are there, {said.keys} were written")


if __name__ == "__main__":
    main()
