"""How long a node takes from the start of its daemon until it is online: a restarted node of a cluster on this machine.

It starts the cluster with real daemons, ends one node, starts it again and waits, some rounds long. Three moments are
taken, each in seconds from the start of the process: its bus answers, it says itself that it is online, and another
node sees it online. The first round is shown and not counted: it finds colder files than the others.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from covey.errors import CoveyError
from covey.testing import Cluster, Node

LOOK = 0.002
"""Seconds between two looks: far below what is measured, and asking costs a node half a millisecond."""

LIMIT = 60.0
MOMENTS = {"answers": "its bus answers", "online": "it is online", "seen": "another node sees it online"}


async def boot(node: Node, other: Node) -> dict[str, float]:
    """Start a node; return the seconds until each moment."""
    taken: dict[str, float] = {}
    async with other.connect() as others_bus, asyncio.timeout(LIMIT):
        began = time.monotonic()
        node.start()

        async def own() -> None:
            while "online" not in taken:
                try:
                    async with node.connect() as bus:
                        while "online" not in taken:
                            status = await bus.call("dcm", "cluster_status")
                            taken.setdefault("answers", time.monotonic() - began)
                            if status["node_state"] == "online":
                                taken["online"] = time.monotonic() - began
                            await asyncio.sleep(LOOK)
                except CoveyError:
                    await asyncio.sleep(LOOK)

        async def seen() -> None:
            while True:
                status = await others_bus.call("dcm", "node_show", number=node.number)
                if status["state"] == "online":
                    taken["seen"] = time.monotonic() - began
                    return
                await asyncio.sleep(LOOK)

        await asyncio.gather(own(), seen())
    return taken


def one_round(cluster: Cluster, kill: bool) -> dict[str, float]:
    """End the last node, start it again; return the seconds until each moment."""
    first, *_, last = cluster
    if kill:
        last.kill()
    else:
        last.stop()
    first.wait("the node to be gone", lambda status: last.number not in status["view"]["members"])
    return asyncio.run(boot(last, first))


def summary(rounds: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return min, median and max of each moment."""
    found = {}
    for moment in MOMENTS:
        values = [one[moment] for one in rounds]
        found[moment] = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return found


def measure(nodes: int, rounds: int, isolation: str, kill: bool, note: Any) -> dict[str, Any]:
    """Run it all; `note` takes a line for each thing that happened."""
    began = time.monotonic()
    with closing(Cluster(nodes, isolation=isolation, fresh=True)) as cluster:
        cluster.up()
        note(f"{nodes} nodes are up after {time.monotonic() - began:.2f} s ({isolation})")
        found = []
        for number in range(rounds + 1):
            found.append(one_round(cluster, kill))
            times = ", ".join(f"{moment} {found[-1][moment]:.3f}" for moment in MOMENTS)
            note(f"round {number or 'cold'}: {times}")
    return {
        "schema": "covey/bench.boot/1",
        "nodes": nodes,
        "isolation": isolation,
        "ended_by": "SIGKILL" if kill else "SIGTERM",
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "rounds": [{moment: round(value, 4) for moment, value in one.items()} for one in found[1:]],
        "cold": {moment: round(value, 4) for moment, value in found[0].items()},
        "seconds": {
            moment: {name: round(value, 4) for name, value in values.items()}
            for moment, values in summary(found[1:]).items()
        },
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure how long a restarted node takes to be online.")
    parser.add_argument("--nodes", type=int, default=3, help="nodes of the cluster (default 3, at least 2)")
    parser.add_argument("--rounds", type=int, default=7, help="rounds that count (default 7)")
    parser.add_argument("--isolation", choices=["process", "inline"], default="process")
    parser.add_argument("--kill", action="store_true", help="end the node with SIGKILL instead of in order")
    parser.add_argument("-o", "--output", choices=["text", "json"], default="text")
    said = parser.parse_args(arguments)
    if said.nodes < 2 or said.rounds < 1:
        parser.error("it takes 2 nodes and 1 round at least")

    def note(line: str) -> None:
        print(line, file=sys.stderr if said.output == "json" else sys.stdout, flush=True)

    found = measure(said.nodes, said.rounds, said.isolation, said.kill, note)
    if said.output == "json":
        print(json.dumps(found))
        return
    print(f"\nseconds from the start of the daemon until …{'min':>17}{'median':>9}{'max':>9}")
    for moment, words in MOMENTS.items():
        values = found["seconds"][moment]
        print(f"  {words:<58}{values['min']:>9.3f}{values['median']:>9.3f}{values['max']:>9.3f}")
    print(f"load {found['load']} on {found['cpus']} CPUs: with a load near the number of CPUs the figures mean little")


if __name__ == "__main__":
    main()
