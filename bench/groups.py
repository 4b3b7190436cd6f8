"""Groups on a real cluster: joins, strong and fast messages, votes, and how soon a death is a failure leave.

Three nodes as `covey lab` runs them (a process a component, CURVE between nodes), members in this process and, to be
killed, in processes of their own. Times are of one machine that does all the work, members and watchers too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

from covey.components.connection import Connection, connect
from covey.components.groups.client import Group, GroupEvents
from covey.testing import Cluster
from rounds import look_around

NODES = 3
BODY = "x" * 100
CROWD_LIMIT = 300.0
"""Seconds for whatever many members do."""

WINDOW = 64
"""Messages of the sender under way at once."""

VICTIM = """
import asyncio, sys
from covey.components.connection import connect

async def main():
    async with connect(sys.argv[1]) as bus:
        await bus.call("groups", "join", group=sys.argv[2])
        print("in", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


CROWD = """
import asyncio, json, sys, time
from contextlib import AsyncExitStack
from covey.components.connection import connect
from covey.components.groups.client import Group
from covey.errors import Timeout

state, names, count = sys.argv[1], sys.argv[2].split(","), int(sys.argv[3])

def say(**what):
    print(json.dumps({"at": time.perf_counter(), **what}), flush=True)

async def member(bus, name, heard):
    group = Group(bus, name)
    while group.me is None:
        try:
            await group.__aenter__()
        except Timeout:  # nobody knows whether it is in: joining twice is joining once
            pass
    heard["joined"] = heard.get("joined", 0) + 1
    if heard["joined"] == count * len(names):
        say(joined=True, worked=time.process_time())
    async for event in group:
        if event.kind == "message":
            heard[event.body] = heard.get(event.body, 0) + 1
            if heard[event.body] == count * len(names):
                say(heard=event.body)

async def main():
    heard = {}
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        for _ in range(count):
            bus = await stack.enter_async_context(connect(state))
            for name in names:
                tasks.create_task(member(bus, name, heard))

asyncio.run(main())
"""
"""Members in a process of its own: each on a connection of its own, in all these groups."""


class Crowd:
    """One such process, and what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.worked = 0.0

    @classmethod
    async def begin(cls, state: str, names: Sequence[str], count: int) -> Crowd:
        """Start it; its members are not in yet."""
        words = [sys.executable, "-c", CROWD, state, ",".join(names), str(count)]
        return cls(await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE))

    async def until(self, key: str, value: Any = True) -> float:
        """Read on until it says so; return when it did. It says how much it has worked when all are in."""
        assert self.process.stdout is not None
        async with asyncio.timeout(CROWD_LIMIT):
            while line := await self.process.stdout.readline():
                said = json.loads(line)
                self.worked = said.get("worked", self.worked)
                if said.get(key) == value:
                    return float(said["at"])
        raise AssertionError("the process of the members ended")

    async def kill(self) -> None:
        """End it at once."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


def spread(values: list[float]) -> dict[str, float]:
    """Return median, p99 and the worst, in milliseconds."""
    ordered = sorted(value * 1000 for value in values)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))]
    return {"n": len(ordered), "p50": statistics.median(ordered), "p99": p99, "max": ordered[-1]}


async def timed(work: Callable[[], Awaitable[Any]]) -> float:
    """Return the seconds that something takes."""
    begun = time.perf_counter()
    await work()
    return time.perf_counter() - begun


async def rate(count: int, work: Callable[[int], Awaitable[Any]]) -> float:
    """Return how many a second are done when a window of them is always under way."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    return count / await timed(lambda: asyncio.gather(*(worker() for _ in range(min(WINDOW, count)))))


class Bench:
    """One run on one cluster."""

    def __init__(self, cluster: Cluster, stack: AsyncExitStack, count: int) -> None:
        self._cluster = cluster
        self._states = [str(node.state) for node in cluster]
        self._stack = stack
        self._count = count

    async def bus(self, node: int) -> Connection:
        """Connect to a node."""
        return await self._stack.enter_async_context(connect(self._states[node]))

    async def member(self, node: int, name: str) -> Group:
        """Return a new member of a group, on a connection of its own."""
        return await self._stack.enter_async_context((await self.bus(node)).group(name))

    async def joins(self) -> dict[str, float]:
        """Many parties into one group at once; one party into many groups, one after the other."""
        many = [await self.bus(n % NODES) for n in range(self._count // 5)]
        took = await timed(lambda: asyncio.gather(*(bus.call("groups", "join", group="bench.many") for bus in many)))
        await asyncio.gather(*(bus.call("groups", "leave", group="bench.many") for bus in many))
        bus, alone = many[0], self._count // 5
        single = [await timed(lambda n=n: bus.call("groups", "join", group=f"bench.{n}")) for n in range(alone)]  # type: ignore[misc]  # bound now
        return {"one_group_per_s": len(many) / took, **{f"single_ms_{k}": v for k, v in spread(single).items()}}

    async def messages(self, fast: bool) -> dict[str, float]:
        """One member sends, alone and with a window; all members have each one when the last is counted."""
        name = f"bench.{'fast' if fast else 'strong'}"
        members = [await self.member(node, name) for node in range(NODES)]
        sender = members[1]
        await sender.broadcast(BODY, fast=fast)
        single = [await timed(lambda: sender.broadcast(BODY, fast=fast)) for _ in range(self._count // 5)]
        heard = [asyncio.ensure_future(self._hear(member, self._count)) for member in members]
        begun = time.perf_counter()
        sent = await rate(self._count, lambda n: sender.broadcast(f"{n} {BODY}", fast=fast))
        await asyncio.gather(*heard)
        seen = self._count / (time.perf_counter() - begun)
        return {
            "sent_per_s": sent,
            "seen_by_all_per_s": seen,
            **{f"single_ms_{k}": v for k, v in spread(single).items()},
        }

    @staticmethod
    async def _hear(member: Group, count: int) -> None:
        left = count
        async for event in member:
            left -= event.kind == "message" and event.body != BODY
            if left == 0:
                return

    async def votes(self, phases: int) -> dict[str, float]:
        """A proposal that all members, one a node, vote on in so many rounds."""
        members = [await self.member(node, f"bench.votes{phases}") for node in range(NODES)]
        for member in members:
            member.vote(lambda proposal: "continue" if proposal.phase < proposal.phases else "approve")
        await members[0].propose("warm up", phases=phases)
        return spread([await timed(lambda: members[1].propose("x", phases=phases)) for _ in range(self._count // 10)])

    async def failures(self, times: int) -> dict[str, dict[str, float]]:
        """From SIGKILL of a member's process to the event at a watcher on its node, and on the others."""
        found: dict[str, list[float]] = {"same_node": [], "other_nodes": []}
        for _ in range(times):
            watchers = [GroupEvents(await self.bus(node), "bench.dead") for node in range(NODES)]
            for watcher in watchers:
                await watcher.begin()
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", VICTIM, self._states[2], "bench.dead", stdout=asyncio.subprocess.PIPE
            )
            begun = [asyncio.ensure_future(self._failed(watcher)) for watcher in watchers]
            assert process.stdout is not None
            await process.stdout.readline()
            killed = time.perf_counter()
            process.send_signal(signal.SIGKILL)
            seen = await asyncio.gather(*begun)
            await process.wait()
            found["same_node"].append(seen[2] - killed)
            found["other_nodes"] += [at - killed for at in seen[:2]]
        return {where: spread(values) for where, values in found.items()}

    def _worked(self) -> float:
        """Return the processor seconds of all nodes so far."""
        fields = [
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2] for n in self._cluster for pid in n.processes()
        ]
        return sum(int(each.split()[11]) + int(each.split()[12]) for each in fields) / os.sysconf("SC_CLK_TCK")

    async def crowd(self, names: Sequence[str], each: int) -> dict[str, float]:
        """So many members on each node in each of these groups: all join, all hear a message in each group, ten more
        in the first one, and those of one node die. A watcher on another node sees the last of their failures."""
        begun, before = time.perf_counter(), self._worked()
        crowds = [await Crowd.begin(state, names, each) for state in self._states]
        for crowd in crowds:
            self._stack.push_async_callback(crowd.kill)
        joined = max([await crowd.until("joined") for crowd in crowds]) - begun
        worked = {
            "joined_nodes_work_s": self._worked() - before,
            "joined_members_work_s": sum(c.worked for c in crowds),
        }
        bus = await self.bus(0)

        async def speak(name: str, text: str) -> None:
            await bus.call("groups", "broadcast", group=name, body=text, outside=True, timeout=60.0)

        begun = time.perf_counter()
        await asyncio.gather(*(speak(name, "all") for name in names))
        said = time.perf_counter() - begun
        heard = max([await crowd.until("heard", "all") for crowd in crowds]) - begun
        found = {"joined_s": joined, **worked, "one_each_said_s": said, "one_each_heard_s": heard}
        if len(names) == 1:
            times = []
            for number in range(10):
                begun = time.perf_counter()
                await speak(names[0], str(number))
                times.append(max([await crowd.until("heard", str(number)) for crowd in crowds]) - begun)
            found |= {f"heard_by_all_ms_{k}": v for k, v in spread(times).items()}
        watchers = [GroupEvents(bus, name) for name in names]
        for watcher in watchers:
            await watcher.begin()
        begun = time.perf_counter()
        await crowds[2].kill()
        await asyncio.gather(*(self._lost(watcher, each) for watcher in watchers))
        found["failed_s"] = time.perf_counter() - begun
        for crowd in crowds:
            await crowd.kill()
        return found

    async def deaths(self, times: int) -> dict[str, float]:
        """From SIGKILL of a node's daemon to the failure of its member at watchers on the others."""
        found: list[float] = []
        for _ in range(times):
            watchers = [GroupEvents(await self.bus(node), "bench.node") for node in (0, 1)]
            for watcher in watchers:
                await watcher.begin()
            async with connect(self._states[2]) as bus:
                await bus.call("groups", "join", group="bench.node")
                begun = [asyncio.ensure_future(self._failed(watcher)) for watcher in watchers]
                killed = time.perf_counter()
                await asyncio.to_thread(self._cluster[3].kill)
                found += [at - killed for at in await asyncio.gather(*begun)]
            self._cluster[3].start()
            await asyncio.to_thread(self._cluster.wait_online)
        return spread(found)

    @staticmethod
    async def _lost(watcher: GroupEvents, count: int) -> None:
        async with asyncio.timeout(CROWD_LIMIT):
            async for event in watcher:
                count -= len(event.who) if event.kind == "failed" else 0
                if count <= 0:
                    return

    @staticmethod
    async def _failed(watcher: GroupEvents) -> float:
        async for event in watcher:
            if event.kind == "failed":
                break
        return time.perf_counter()


async def measure(cluster: Cluster, said: argparse.Namespace) -> dict[str, Any]:
    """Return all figures."""
    async with AsyncExitStack() as stack:
        bench = Bench(cluster, stack, said.count)
        found: dict[str, Any] = {"machine": look_around()}
        if said.members:
            found[f"{said.members} members"] = await bench.crowd(["bench.crowd"], -(-said.members // NODES))
        if said.groups:
            found[f"{said.groups} groups"] = await bench.crowd([f"bench.g{n}" for n in range(said.groups)], 1)
        if said.members or said.groups:
            return found
        return found | {
            "joins": await bench.joins(),
            "strong": await bench.messages(fast=False),
            "fast": await bench.messages(fast=True),
            "vote_one_phase_ms": await bench.votes(1),
            "vote_two_phases_ms": await bench.votes(2),
            "failure_leave_ms": await bench.failures(said.kills),
            **({"node_death_ms": await bench.deaths(said.deaths)} if said.deaths else {}),
        }


def text(found: dict[str, Any]) -> str:
    """Return the figures for people."""
    lines = []
    for row, figures in found.items():
        for name, value in figures.items():
            shown = " ".join(f"{k} {v:.3g}" for k, v in value.items()) if isinstance(value, dict) else value
            lines.append(f"{row:20} {name:18} {shown if isinstance(shown, str) else f'{shown:.4g}'}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure the groups of a cluster of three nodes on this machine.")
    parser.add_argument("--count", type=int, default=2000, help="messages of each kind (default 2000)")
    parser.add_argument("--kills", type=int, default=20, help="members killed (default 20)")
    parser.add_argument("--deaths", type=int, default=5, help="how often a whole node is killed (default 5)")
    parser.add_argument("--members", type=int, default=0, help="so many in one group, and nothing else")
    parser.add_argument("--groups", type=int, default=0, help="so many with three members each, and nothing else")
    parser.add_argument("--json", action="store_true", help="one object")
    said = parser.parse_args(arguments)
    cluster = Cluster(NODES, isolation="process", mode="curve")
    with closing(cluster):
        cluster.up()
        found = asyncio.run(measure(cluster, said))
    print(json.dumps(found) if said.json else text(found))


if __name__ == "__main__":
    main()
