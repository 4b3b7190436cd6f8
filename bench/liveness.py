"""How soon everybody knows that a node is dead, and what knowing costs: covey with real daemons, simulated, and Serf.

A node's processes are ended with SIGKILL; what counts is the time from there until every other node holds a view
without it (covey, the event `liveness.view`) or calls it failed (Serf, the log of each agent). Then it is started anew.
While nothing happens the probes of each node are counted, and the processor time of liveness on the first and the last,
where it is a process of its own. The simulation is that of the tests, in virtual time. See README.md.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from covey.testing import Cluster, Node
from rounds import look_around, spread

LIMIT = 60.0
GOAL = 3.0
"""Seconds until all know, in 99 of 100 rounds."""

MESSAGES = 45.0
"""A second, for each node and network, sent and received."""

SHARE = 0.01
"""Of a processor, for the liveness of a node."""


# --- covey ------------------------------------------------------------------------------------------------------------


class Watchers:
    """Listen to all nodes: which members each holds, and when it learned that one left."""

    def __init__(self, nodes: Cluster) -> None:
        self._nodes = nodes
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._news = asyncio.Condition()
        self.held: dict[int, set[int]] = {}
        self.gone: dict[tuple[int, int], float] = {}

    async def __aenter__(self) -> Watchers:
        for node in self._nodes:
            self.listen(node)
        await self._until(lambda: len(self.held) == len(self._tasks))
        return self

    async def __aexit__(self, *_: object) -> None:
        for number in list(self._tasks):
            await self.forget(number)

    def listen(self, node: Node) -> None:
        """Listen to a node from now on."""
        self._tasks[node.number] = asyncio.create_task(self._listen(node))

    async def forget(self, number: int) -> None:
        """Listen to a node no more."""
        task = self._tasks.pop(number)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self.held.pop(number, None)

    async def _listen(self, node: Node) -> None:
        async with node.connect() as bus, bus.subscribe("liveness.view") as events:
            async for event in events:
                at = time.monotonic()
                if not event.welcome:
                    self.gone.update({(node.number, member["number"]): at for member in event.body["left"]})
                self.held[node.number] = {member["number"] for member in event.body["members"]}
                async with self._news:
                    self._news.notify_all()

    async def until_gone(self, victim: int, numbers: Sequence[int]) -> None:
        """Wait until these nodes know that the victim left; raises TimeoutError."""
        await self._until(lambda: all((number, victim) in self.gone for number in numbers))

    async def until_held(self, number: int, numbers: Sequence[int]) -> None:
        """Wait until these nodes have that one in their view; raises TimeoutError."""
        await self._until(lambda: all(number in self.held.get(each, ()) for each in numbers))

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT), self._news:
            await self._news.wait_for(holds)


async def kill(nodes: Cluster, times: int, note: Any) -> list[list[float]]:
    """Kill a node so many times, and start it again; return how long each other one took to know, each time."""
    found: list[list[float]] = []
    count = len(list(nodes))
    async with Watchers(nodes) as watchers:
        for number in range(times):
            victim = count - number % (count - 1)  # not the primary's, which an election follows
            others = [node.number for node in nodes if node.number != victim]
            await watchers.forget(victim)
            watchers.gone.clear()
            began = time.monotonic()
            await asyncio.to_thread(nodes[victim].kill)
            await watchers.until_gone(victim, others)
            found.append([watchers.gone[n, victim] - began for n in others])
            note(f"covey, {count} nodes: all knew after {max(found[-1]):.2f} s, the first after {min(found[-1]):.2f} s")
            nodes[victim].start()
            await asyncio.to_thread(nodes[victim].wait_online, LIMIT)
            watchers.listen(nodes[victim])
            await watchers.until_held(victim, [*others, victim])
    return found


def tail(values: list[float]) -> dict[str, float]:
    """Return median, p99 (with less than 100 values the worst), min and max."""
    ordered = sorted(values)
    return {**spread(values), "p99": ordered[-(-99 * len(ordered) // 100) - 1]}


def quiet(nodes: Cluster, seconds: float) -> dict[str, Any]:
    """Let nothing happen; return messages a second of each node and network, and the share of a processor that
    liveness takes where it is a process of its own: on the leader's node and others."""

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
    rates, shares = [], {}
    for node, (then, count, networks, cpu), (now, later, _, more) in zip(nodes, first, look(), strict=True):
        rates.append((later - count) / (now - then) / max(1, networks))
        if cpu is not None and more is not None:
            shares[node.number] = (more - cpu) / (now - then)
    return {"messages": spread(rates), "share": max(shares.values()), "share_leader": shares[1]}


def worked(node: Node) -> float | None:
    """Return the processor seconds of a node's liveness process; None when it has none of its own."""
    for pid in node.processes():
        fields = Path(f"/proc/{pid}/stat").read_text()
        if "(covey:liveness)" in fields:
            ticks = fields.rpartition(")")[2].split()
            return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    return None


def up(nodes: Cluster) -> None:
    """Start one node after the other: fifty that boot at once would keep two processors from all else for minutes."""
    first = nodes[1]
    for node in nodes:
        node.start()
        node.wait_up()
        if node is first:
            first.call("dcm", "cluster_define", name="lab")
        else:
            first.define(node, name=node.name, number=node.number)
        node.wait_online(LIMIT)
    nodes.wait_online(LIMIT)


def covey(count: int, said: argparse.Namespace, note: Any) -> dict[str, Any]:
    """Measure a cluster of that many nodes."""
    with ExitStack() as stack:
        nodes = Cluster(count, isolation="inline", mode="curve")
        stack.callback(nodes.close)
        for number in (1, count):  # inline nobody can say what liveness takes of it
            nodes[number].file.write_text(
                nodes[number].file.read_text().replace("isolation: inline", "isolation: process")
            )
        up(nodes)
        time.sleep(said.seconds)  # the first probes find keys unknown
        found: dict[str, Any] = {"nodes": count, **quiet(nodes, said.seconds)}
        note(f"covey, {count} nodes: {found['messages']['max']:.1f} messages a second, share {found['share']:.2%}")
        times = asyncio.run(kill(nodes, said.kills, note))
    return {**found, "first": tail([min(each) for each in times]), "all": tail([max(each) for each in times])}


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
    return {"nodes": count, "first": tail([min(t) for t in times]), "all": tail([max(t) for t in times])}


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
    found: dict[str, Any] = {"schema": "covey/bench.liveness/1", "machine": look_around()}
    found["covey"] = [covey(count, said, note) for count in said.nodes]
    there = said.serf_port > 0 and shutil.which("serf") is not None
    found["not_measured"] = {} if there else {"serf": "serf is not installed (apt-get install serf), or not wanted"}
    found["serf"] = [serf(count, said, note) for count in said.nodes] if there else []
    found["simulated"] = [simulated(count, note) for count in said.simulated]
    goals = []
    for number, one in enumerate(found["covey"]):
        goals.append((f"{one['nodes']} nodes, all know, p99 (s)", one["all"]["p99"], GOAL))
        goals.append((f"{one['nodes']} nodes, messages a second", one["messages"]["max"], MESSAGES))
        goals.append((f"{one['nodes']} nodes, share of a processor", one["share"], SHARE))
        if there:
            goals.append(
                (
                    f"{one['nodes']} nodes, half of Serf (s)",
                    one["all"]["p99"],
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
    lines = [
        "",
        "seconds from SIGKILL until the others know",
        f"  {'':<22}{'first':>10}{'all':>10}{'p99':>10}{'worst':>10}",
    ]
    for system in ("covey", "serf"):
        for one in found[system]:
            values = (one["first"]["median"], one["all"]["median"], one["all"]["p99"], one["all"]["max"])
            lines.append(
                f"  {system + ', ' + str(one['nodes']) + ' nodes':<22}" + "".join(f"{v:>10.2f}" for v in values)
            )
    for one in found["goals"]:
        lines.append(
            f"  {one['what']}: {one['found']:.3g}, at most {one['at_most']:.3g}: {'met' if one['met'] else 'MISSED'}"
        )
    lines += [f"  {why}" for why in found["not_measured"].values()]
    lines.append(f"load {found['load']} on {found['machine']['cpus']} CPUs")
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
