"""How fast the registry is beside etcd, on this disk with every commit synced, in one run on this machine.

Every party is a process of its own: servers as they run in real life, and one client that asks alone or 32 times at
once. Systems take turns, round after round, each started anew; a ratio is taken within a round and the median of the
rounds is shown with its spread. See README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from bus_common import latency
from bus_covey import cpu
from bus_systems import Failed, Party, found, started
from registry_covey import cluster
from registry_etcd import members
from rounds import Goal, busy, goals_text, judged, listed, look_around, machine_text, ratios, spread

ROWS = {
    "put": "put, one client, microseconds until it is on a majority of the disks (less is better)",
    "puts": "puts per second, {clients} under way",
    "linear": "linear reads per second, {clients} under way",
    "stale": "stale (etcd: serializable) reads per second, {clients} under way",
}
FIGURE = {"put": "p50", "puts": "rate", "linear": "rate", "stale": "rate"}
WORDS = {
    "covey": "covey, {servers}",
    "etcd": "etcd, JSON gateway, {servers}",
    "etcd-grpc": "etcd, gRPC, {servers}",
    "disk": "the disk: one append, synced",
}
GOALS: list[Goal] = [
    ("put", "covey", "etcd", "<=", 1.0),
    ("puts", "covey", "etcd", ">=", 3.0),
    ("linear", "covey", "etcd", ">=", 2.0),
    ("stale", "covey", "etcd", ">=", 2.0),
]

RECORD = 380
"""Bytes that the disk alone appends: what a put of 256 bytes comes to in the registry's log."""

Results = dict[str, dict[str, list[dict[str, float]]]]


class Running(NamedTuple):
    """A system at work: its client, and what else belongs to it."""

    client: Party
    processes: Callable[[], list[int]]


def covey(stack: ExitStack, folder: Path, servers: int) -> Running:
    """A cluster of real daemons; the client is on the primary's node."""
    nodes = cluster(stack, servers)
    primary = nodes[1].call("registry", "status")["primary"]
    client = started(stack, "registry_covey.py", "client", {"state": str(nodes[primary].state)})
    return Running(client, lambda: [pid for node in nodes for pid in node.processes()])


def etcd(stack: ExitStack, folder: Path, servers: int) -> Running:
    """Members of etcd; the client asks the leader, by its JSON gateway."""
    said, processes = members(stack, folder, servers)
    return Running(started(stack, "registry_etcd.py", "client", said), lambda: processes)


def etcd_grpc(stack: ExitStack, folder: Path, servers: int) -> Running:
    """The same, by gRPC."""
    said, processes = members(stack, folder, servers)
    return Running(started(stack, "registry_etcd.py", "client", {**said, "grpc": True}), lambda: processes)


SYSTEMS = {"covey": covey, "etcd": etcd, "etcd-grpc": etcd_grpc}


def missing(name: str) -> str:
    """Return why a system cannot be measured here; empty: it can."""
    if name.startswith("etcd") and not found("etcd"):
        return "etcd is not installed (apt-get install etcd-server)"
    if name == "etcd-grpc" and find_spec("grpc") is None:
        return "the Python package grpcio is not installed (extra `bench`)"
    return ""


@contextmanager
def running(name: str, servers: int) -> Iterator[Running]:
    """Run a system in a fresh folder, its keys filled."""
    with tempfile.TemporaryDirectory(prefix="covey-bench-") as folder, ExitStack() as stack:
        system = SYSTEMS[name](stack, Path(folder), servers)
        system.client.ask(do="fill")
        yield system


def appended(seconds: float) -> dict[str, float]:
    """Append to a file and sync it, again and again: what no store that keeps its promises is below."""
    taken = []
    with tempfile.TemporaryFile(prefix="covey-bench-") as file:
        record, ends = os.urandom(RECORD), time.monotonic() + seconds
        while time.monotonic() < ends:
            began = time.perf_counter()
            os.write(file.fileno(), record)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return latency(taken)


def one(system: Running, row: str, said: argparse.Namespace) -> dict[str, float]:
    """Measure a row once: its figure, the CPU of all its processes for one request, and that of all others."""
    own = [*system.processes(), system.client.pid]
    began, (machine, _), used = time.monotonic(), busy(), sum(map(cpu, own))
    result: dict[str, float] = system.client.ask(do=row, seconds=said.seconds, clients=said.clients)
    used = sum(map(cpu, own)) - used
    others = max(0.0, busy()[0] - machine - used) / (time.monotonic() - began) / (os.cpu_count() or 1)
    return {**result, "cpu": used / result["total"] * 1e6, "others": round(others, 3)}


def compare(names: list[str], said: argparse.Namespace, failed: dict[str, str], note: Any) -> Results:
    """Run the rows; return for each row and system one result a round.

    What fails once is left out in all rounds and explained in `failed`.
    """
    results: Results = {row: {name: [] for name in names} for row in said.only}
    if "put" in said.only:
        results["put"]["disk"] = []
    for number in range(1, said.rounds + 1):
        for name in names if number % 2 else names[::-1]:
            if name in failed:
                continue
            try:
                with running(name, said.servers) as system:
                    done = {row: one(system, row, said) for row in said.only}
            except Failed as problem:
                failed[name] = str(problem)
                for row in results.values():
                    row.pop(name, None)
                continue
            for row, result in done.items():
                results[row][name].append(result)
            shown = ", ".join(f"{row} {done[row][FIGURE[row]]:,.0f}" for row in done)
            taken = statistics.median(result["others"] for result in done.values())
            note(f"round {number} {name}: {shown} (others {taken:.0%} of CPU)")
        if "put" in said.only:
            results["put"]["disk"].append(appended(said.seconds / 2))
            note(f"round {number} disk: {results['put']['disk'][-1]['p50']:,.0f}")
    return results


def summed(results: Results) -> dict[str, Any]:
    """Return medians and ratios of all rows."""
    rows: dict[str, Any] = {}
    for row, systems in results.items():
        rows[row] = {
            "systems": {
                name: {key: spread([each[key] for each in rounds]) for key in rounds[0]} | {"rounds": rounds}
                for name, rounds in systems.items()
            },
            "ratios": {
                against: ratios(systems, FIGURE[row], against)
                for against in ("etcd", "etcd-grpc", "disk")
                if systems.get(against)
            },
        }
    return {"rows": rows, "goals": judged(GOALS, rows)}


def text(found: dict[str, Any], said: argparse.Namespace) -> str:
    """Return the tables."""
    servers = f"{said.servers} server{'s' if said.servers > 1 else ''}"
    lines = []
    for row, result in found["rows"].items():
        figures = ("p50", "p99") if row == "put" else ("rate",)
        against = list(result["ratios"])
        lines += ["", ROWS[row].format(clients=said.clients)]
        lines.append(
            f"  {'':<32}{''.join(f'{figure:>10}' for figure in figures)}{'spread':>18}{'CPU µs each':>13}"
            + "".join(f"{'/ ' + name:>12}" for name in against)
        )
        for name, values in result["systems"].items():
            first = values[figures[0]]
            line = f"  {WORDS[name].format(servers=servers):<32}"
            line += "".join(f"{values[figure]['median']:>10,.0f}" for figure in figures)
            line += f"{first['min']:>10,.0f}-{first['max']:<7,.0f}"
            line += f"{values['cpu']['median']:>13,.0f}" if "cpu" in values else f"{'':>13}"
            for other in against:
                ratio = result["ratios"][other].get(name)
                line += f"{ratio['median']:>12.2f}" if ratio else f"{'':>12}"
            lines.append(line)
    if found["not_measured"]:
        lines += ["", "not measured", *(f"  {what}: {why}" for what, why in found["not_measured"].items())]
    lines += goals_text(found["goals"])
    lines += machine_text(found, f"data on {found['disk']['type']}")
    if found["disk"]["type"] in ("tmpfs", "ramfs"):
        lines.append("the data was NOT on a disk: a sync costs nothing there. Set TMPDIR to a folder on the disk")
    return "\n".join(lines)


def disk_of(folder: Path) -> dict[str, str]:
    """Return on which kind of file system a folder lies."""
    device = folder.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return {"folder": str(folder), "type": fields[fields.index("-") + 1]}
    return {"folder": str(folder), "type": "unknown"}


def measure(said: argparse.Namespace, note: Any) -> dict[str, Any]:
    """Run it all."""
    machine = look_around()
    failed = {name: why for name in said.systems if (why := missing(name))}
    results = compare([name for name in said.systems if name not in failed], said, failed, note)
    taken = [each["others"] for row in results.values() for all in row.values() for each in all if "others" in each]
    in_the_way = statistics.median(taken) if taken else machine["busy"]
    return {
        "schema": "covey/bench.registry/1",
        "machine": machine,
        "disk": disk_of(Path(tempfile.gettempdir())),
        "servers": said.servers,
        "value": 256,
        "clients": said.clients,
        "seconds": said.seconds,
        "rounds": said.rounds,
        "others": round(in_the_way, 3),
        "quiet": machine["busy"] < 0.1 and in_the_way < 0.1,
        "not_measured": failed,
        **summed(results),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure the registry beside etcd.")
    parser.add_argument("--servers", type=int, choices=(1, 3, 5), default=3, help="of each system (default 3)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each system has its turn (default 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement (default 2)")
    parser.add_argument("--clients", type=int, default=32, help="requests on their way at once (default 32)")
    parser.add_argument("--only", type=listed(list(ROWS)), default=list(ROWS), help=f"rows: {','.join(ROWS)}")
    parser.add_argument("--systems", type=listed(list(SYSTEMS)), default=list(SYSTEMS), help=f"of {','.join(SYSTEMS)}")
    parser.add_argument("--json", action="store_true", help="one object; progress goes to standard error")
    said = parser.parse_args(arguments)
    if said.rounds < 1 or said.seconds <= 0 or said.clients < 1:
        parser.error("it takes one round, some time and one client at least")

    def note(line: str) -> None:
        print(line, file=sys.stderr if said.json else sys.stdout, flush=True)

    found = measure(said, note)
    print(json.dumps(found) if said.json else text(found, said))


if __name__ == "__main__":
    main()
