"""How soon everybody knows that a node is dead, and what knowing costs: covey with real daemons, simulated, and Serf.

A node's processes are ended with SIGKILL; what counts is the time from there until every other node holds a view
without it (covey, the event `liveness.view`) or calls it failed (Serf, the log of each agent). Then it is started anew.
While nothing happens the probes of each node are counted, and the processor time of its liveness process, where that is
a process of its own. The simulation is that of the tests, in virtual time. See README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from covey.testing import Cluster, Node
from rounds import look_around, spread

LIMIT = 60.0
GOAL = 3.0
"""Seconds until all know, the worst of all rounds."""

MESSAGES = 45.0
"""A second, for each node and network, sent and received."""

SHARE = 0.01
"""Of a processor, for the liveness of a node."""


# --- covey ------------------------------------------------------------------------------------------------------------


async def told(node: Node, victim: int, ready: asyncio.Event) -> float:
    """Return when a node holds a view in which the victim has left."""
    async with node.connect() as bus, bus.subscribe("liveness.view") as events:
        ready.set()
        async for event in events:
            if not event.welcome and any(member["number"] == victim for member in event.body["left"]):
                return time.monotonic()
    raise AssertionError("the events ended")


async def kill(nodes: Cluster, victim: int) -> list[float]:
    """Kill a node; return how long each other one took to know."""
    others = [node for node in nodes if node.number != victim]
    ready = [asyncio.Event() for _ in others]
    tasks = [asyncio.create_task(told(node, victim, event)) for node, event in zip(others, ready, strict=True)]
    for event in ready:
        await event.wait()
    began = time.monotonic()
    await asyncio.to_thread(nodes[victim].kill)
    async with asyncio.timeout(LIMIT):
        return [at - began for at in await asyncio.gather(*tasks)]


def quiet(nodes: Cluster, seconds: float) -> dict[str, Any]:
    """Let nothing happen; return messages a second of each node and network, and the liveness processes' share."""

    def look() -> list[tuple[float, int, int, float | None]]:
        found = []
        for node in nodes:
            status = node.call("liveness", "status")
            probes = status["probes"]
            count = probes.get("sent", 0) + probes.get("received", 0)
            found.append((time.monotonic(), count, len(status["networks"]), worked(node)))
        return found

    first = look()
    time.sleep(seconds)
    rates, shares = [], []
    for (then, count, networks, cpu), (now, later, _, more) in zip(first, look(), strict=True):
        rates.append((later - count) / (now - then) / max(1, networks))
        if cpu is not None and more is not None:
            shares.append((more - cpu) / (now - then))
    return {"messages": spread(rates), "share": spread(shares) if shares else None}


def worked(node: Node) -> float | None:
    """Return the processor seconds of a node's liveness process; None when it has none of its own."""
    for pid in node.processes():
        fields = Path(f"/proc/{pid}/stat").read_text()
        if "(covey:liveness)" in fields:
            ticks = fields.rpartition(")")[2].split()
            return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    return None


def covey(count: int, said: argparse.Namespace, note: Any) -> dict[str, Any]:
    """Measure a cluster of that many nodes."""
    with ExitStack() as stack:
        nodes = Cluster(count, isolation=said.isolation, mode="curve")
        stack.callback(nodes.close)
        nodes.up()
        nodes.wait_online(LIMIT)
        time.sleep(said.seconds)  # the first probes find keys unknown
        found: dict[str, Any] = {"nodes": count, **quiet(nodes, said.seconds)}
        times = []
        for number in range(said.kills):
            victim = count - number % (count - 1)  # not the primary's, which an election follows
            times.append(asyncio.run(kill(nodes, victim)))
            note(f"covey, {count} nodes: all knew after {max(times[-1]):.2f} s, the first after {min(times[-1]):.2f} s")
            nodes[victim].start()
            nodes.wait_online(LIMIT)
    return {**found, "first": spread([min(each) for each in times]), "all": spread([max(each) for each in times])}


# --- Serf -------------------------------------------------------------------------------------------------------------


class Agent:
    """One agent of Serf, and what it logs."""

    def __init__(self, number: int, port: int) -> None:
        self.address = f"127.3.0.{number}"
        words = [
            "serf",
            "agent",
            f"-node=n{number}",
            f"-bind={self.address}:{port}",
            f"-rpc-addr={self.address}:{port + 1}",
        ]
        words += ["-profile=lan", *([f"-join=127.3.0.1:{port}"] if number > 1 else [])]
        self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, bufsize=1)
        self.said: queue.Queue[tuple[float, str]] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.said.put((time.monotonic(), line))

    def until(self, words: str) -> float:
        """Read on to a line with these words; return when it was said."""
        end = time.monotonic() + LIMIT
        while True:
            at, line = self.said.get(timeout=max(0.01, end - time.monotonic()))
            if words in line:
                return at

    def end(self) -> None:
        """End it at once."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        if self.process.stdout:
            self.process.stdout.close()


@contextmanager
def agents(count: int, port: int) -> Iterator[dict[int, Agent]]:
    """Run that many agents that know one another."""
    found: dict[int, Agent] = {}
    try:
        for number in range(1, count + 1):
            found[number] = Agent(number, port)
            if number == 1:
                found[1].until("Serf agent starting")
        for _ in range(2, count + 1):
            found[1].until("EventMemberJoin")
        time.sleep(5)  # gossip
        yield found
    finally:
        for agent in found.values():
            agent.end()


def serf(count: int, said: argparse.Namespace, note: Any) -> dict[str, Any]:
    """The same with Serf's agents, whose profile for a LAN probes once a second, too."""
    times = []
    with agents(count, said.serf_port) as found:
        for number in range(said.kills):
            victim = count - number % (count - 1)
            began = time.monotonic()
            found.pop(victim).end()
            times.append([agent.until(f"EventMemberFailed: n{victim} ") - began for agent in found.values()])
            note(f"Serf, {count} nodes: all knew after {max(times[-1]):.2f} s, the first after {min(times[-1]):.2f} s")
            found[victim] = Agent(victim, said.serf_port)
            for agent in found.values():
                if agent is not found[victim]:
                    agent.until(f"EventMemberJoin: n{victim} ")
    return {"nodes": count, "first": spread([min(t) for t in times]), "all": spread([max(t) for t in times])}


# --- simulated --------------------------------------------------------------------------------------------------------


def simulated(count: int, note: Any) -> dict[str, Any]:
    """One node, and then a tenth of all, without a word, in virtual time."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))
    from liveness_scale import SCENARIOS

    found: dict[str, Any] = {"nodes": count}
    for name in ("one killed", "10 % killed", "10 % without power"):
        began = time.process_time()
        facts = SCENARIOS[name](count)
        found[name] = {"after": facts["after"], "removed": facts["removed"], "work": time.process_time() - began}
        note(
            f"simulated, {count} nodes, {name}: one view after {facts['after']:.2f} s without these {facts['removed']}"
        )
    return found


# --- all of it --------------------------------------------------------------------------------------------------------


def measure(said: argparse.Namespace, note: Any) -> dict[str, Any]:
    """Run it all."""
    found: dict[str, Any] = {"schema": "covey/bench.liveness/1", "machine": look_around(), "isolation": said.isolation}
    found["covey"] = [covey(count, said, note) for count in said.nodes]
    there = said.serf_port > 0 and shutil.which("serf") is not None
    found["not_measured"] = {} if there else {"serf": "serf is not installed (apt-get install serf), or not wanted"}
    found["serf"] = [serf(count, said, note) for count in said.nodes] if there else []
    found["simulated"] = [simulated(count, note) for count in said.simulated]
    goals = []
    for number, one in enumerate(found["covey"]):
        goals.append((f"{one['nodes']} nodes, all know (s)", one["all"]["max"], GOAL))
        goals.append((f"{one['nodes']} nodes, messages a second", one["messages"]["max"], MESSAGES))
        if one["share"]:
            goals.append((f"{one['nodes']} nodes, share of a processor", one["share"]["median"], SHARE))
        if there:
            goals.append(
                (
                    f"{one['nodes']} nodes, half of Serf (s)",
                    one["all"]["max"],
                    found["serf"][number]["all"]["median"] / 2,
                )
            )
    found["goals"] = [
        {"what": what, "found": value, "at_most": most, "met": value <= most} for what, value, most in goals
    ]
    found["load"] = round(os.getloadavg()[0], 2)
    return found


def text(found: dict[str, Any]) -> str:
    """Return the table."""
    lines = ["", "seconds from SIGKILL until the others know", f"  {'':<22}{'first':>10}{'all':>10}{'worst':>10}"]
    for system in ("covey", "serf"):
        for one in found[system]:
            values = (one["first"]["median"], one["all"]["median"], one["all"]["max"])
            lines.append(
                f"  {system + ', ' + str(one['nodes']) + ' nodes':<22}" + "".join(f"{v:>10.2f}" for v in values)
            )
    for one in found["goals"]:
        lines.append(
            f"  {one['what']}: {one['found']:.3g}, at most {one['at_most']:.3g}: {'met' if one['met'] else 'MISSED'}"
        )
    lines += [f"  {why}" for why in found["not_measured"].values()]
    lines.append(f"load {found['load']} on {found['machine']['cpus']} CPUs, isolation {found['isolation']}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Kill nodes; measure when the others know, and what probes cost.")

    def sizes(text: str) -> list[int]:
        return [int(each) for each in text.split(",") if each]

    parser.add_argument(
        "--nodes", type=sizes, metavar="N,N", default="3,10", help="sizes of real clusters (default 3,10)"
    )
    parser.add_argument(
        "--simulated", type=sizes, metavar="N,N", default="100,1000", help="sizes simulated (default 100,1000)"
    )
    parser.add_argument("--kills", type=int, default=10, help="how often (default 10)")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long probes are counted (default 5)")
    parser.add_argument("--isolation", choices=("process", "inline"), default="inline")
    parser.add_argument(
        "--serf-port", type=int, default=17946, help="a free port and the next one (default 17946); 0: no Serf"
    )
    parser.add_argument("--json", action="store_true", help="one object; progress goes to standard error")
    said = parser.parse_args(arguments)

    def note(line: str) -> None:
        print(line, file=sys.stderr if said.json else sys.stdout, flush=True)

    found = measure(said, note)
    print(json.dumps(found) if said.json else text(found))


if __name__ == "__main__":
    main()
