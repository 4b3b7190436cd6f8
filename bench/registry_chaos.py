"""Real registry servers under load while their processes, disks and files are broken, for as long as you like.

A cluster of real daemons, a registry server on each of the first nodes, each server's state folder a small file system
of its own where that may be mounted. Clients on every node write, read and watch (`tests/support/registry_load.py`)
while one fault after another, drawn by `--seed`, is done to the servers; after each one all servers must vote again.
At the end of each round every answer that a client was given is judged. See README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from covey.errors import CoveyError
from covey.testing import Cluster, Node

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

from registry_load import Load

MINUTE = 60.0
ROUND = 12
"""Faults after which the histories are judged and begun anew: the search through a long one takes long."""

DISK = 96
"""MiB of a server's own file system."""


class Chaos:
    """A cluster and what is done to it."""

    def __init__(self, nodes: int, servers: int, seed: int, isolation: str, note: Callable[[str], None]) -> None:
        self.random = random.Random(seed)
        self.seed = seed
        self.note = note
        self.cluster = Cluster(nodes, servers=servers, isolation=isolation)
        self.servers = servers
        self.counts: Counter[str] = Counter()
        self.gaps: dict[str, list[float]] = defaultdict(list)
        self.mounted: list[Path] = []

    def mount(self) -> None:
        """Give each server a file system of its own, if this process may."""
        for number in range(1, self.servers + 1):
            place = self.cluster[number].state
            place.mkdir(exist_ok=True)
            size = ["-o", f"size={DISK}m,mode=700", "none", str(place)]
            if subprocess.run(["mount", "-t", "tmpfs", *size], capture_output=True, check=False).returncode:
                return
            self.mounted.append(place)

    def close(self) -> None:
        """End all, leave nothing behind."""
        for node in self.cluster:
            if node._child is not None and node.ended is None:
                self.thaw(node)
        for node in self.cluster:
            if node._child is not None:
                node.kill()
        for place in self.mounted:
            subprocess.run(["umount", str(place)], check=True)
        self.cluster.close()

    # --- what is there ---

    @property
    def one(self) -> Node:
        """A node that is not a server if there is one: it can always be asked."""
        return self.cluster[len(list(self.cluster))]

    def status(self) -> Any:
        return self.one.call("registry", "status")

    def primary(self) -> Node:
        """Return the node that leads; waits for one."""
        found = self.one.wait("a primary", lambda found: bool(found["primary"]), ask=("registry", "status"))
        return self.cluster[found["primary"]]

    def others(self) -> list[Node]:
        """Return the servers that do not lead, in random order."""
        primary = self.primary()
        rest = [self.cluster[number] for number in range(1, self.servers + 1) if number != primary.number]
        self.random.shuffle(rest)
        return rest

    def whole(self, seconds: float = 90.0) -> None:
        """Wait until all is as it was: nodes online, servers voting, copies level."""
        self.cluster.wait_online(seconds)
        wanted = set(range(1, self.servers + 1))

        def level(status: Any) -> bool:
            votes = {one["number"] for one in status["servers"] if one["state"] in ("primary", "follower")}
            return bool(status["writable"]) and votes == wanted and len(status["servers"]) == len(wanted)

        self.one.wait("all servers to vote", level, seconds, ask=("registry", "status"))

    def copy(self, node: Node) -> Path:
        (found,) = node.state.glob("*/configuration/registry")
        return found

    # --- faults ---

    def kill_primary(self, load: Load) -> None:
        node = self.primary()
        node.kill()
        load.more()
        node.start()

    def kill_follower(self, load: Load) -> None:
        node = self.others()[0]
        node.kill()
        load.more()
        node.start()

    def kill_minority(self, load: Load) -> None:
        """As many as may be lost, the primary among them."""
        nodes = [self.primary(), *self.others()][: (self.servers - 1) // 2]
        for node in nodes:
            node.kill()
        load.more()
        for node in nodes:
            node.start()

    def kill_majority(self, load: Load) -> None:
        """More than may be lost: writes are closed until one is back."""
        nodes = [self.primary(), *self.others()][: self.servers // 2 + 1]
        for node in nodes:
            node.kill()
        time.sleep(self.random.uniform(0.5, 3))
        for node in nodes:
            node.start()
        load.more(seconds=90)

    def kill_all(self, load: Load) -> None:
        nodes = list(self.cluster)
        for node in nodes:
            os.kill(node.pid, signal.SIGKILL)  # as close to one moment as can be
        for node in nodes:
            node.kill()
        for node in nodes:
            node.start()
        load.more(seconds=90)

    def stop_all(self, load: Load) -> None:
        nodes = list(self.cluster)
        for node in nodes:
            os.kill(node.pid, signal.SIGTERM)
        for node in nodes:
            node.wait_end()
        for node in nodes:
            node.start()
        load.more(seconds=90)

    def end_primary(self, load: Load) -> None:
        """In order: it hands over."""
        node = self.primary()
        node.stop()
        load.more()
        node.start()

    def freeze(self, node: Node) -> None:
        for pid in (node.pid, *(pid for pid in node.processes() if pid != node.pid)):
            os.kill(pid, signal.SIGSTOP)

    def thaw(self, node: Node) -> None:
        for pid in (*(pid for pid in node.processes() if pid != node.pid), node.pid):
            os.kill(pid, signal.SIGCONT)

    def pause_primary(self, load: Load) -> None:
        """For longer than an election takes: what it says when it wakes must not be old."""
        node = self.primary()
        self.freeze(node)
        time.sleep(self.random.uniform(2, 6))
        self.thaw(node)
        load.more(seconds=60)

    def pause_shortly(self, load: Load) -> None:
        """For about as long as an election takes, again and again."""
        for _ in range(4):
            node = self.primary()
            self.freeze(node)
            time.sleep(self.random.uniform(0.3, 1.8))
            self.thaw(node)
        load.more(seconds=60)

    def pause_and_kill(self, load: Load) -> None:
        """The primary freezes, a follower dies and comes back."""
        frozen, dead = self.primary(), self.others()[0]
        self.freeze(frozen)
        dead.kill()
        time.sleep(self.random.uniform(0.5, 2))
        dead.start()
        time.sleep(self.random.uniform(1, 4))
        self.thaw(frozen)
        load.more(seconds=90)

    def hand_over(self, load: Load) -> None:
        for _ in range(3):
            try:
                self.one.call("registry", "hand_over", to=self.others()[0].number)
            except CoveyError as problem:
                self.note(f"    not handed over: {problem}")
            load.more()

    def change_servers(self, load: Load) -> None:
        """A server goes and comes back; now and then while another is dead."""
        gone, *rest = [self.primary(), *self.others()] if self.random.random() < 0.5 else self.others()
        dead = None
        if self.servers > 3 and rest and self.random.random() < 0.5:
            dead = self.random.choice(rest)
            dead.kill()
            load.more()
        self.persist("registry_undefine_server", number=gone.number)
        load.more()
        self.persist("registry_define_server", number=gone.number)
        load.more()
        if dead:
            dead.start()

    def stop_server(self, load: Load) -> None:
        gone = self.random.choice([self.primary(), *self.others()])
        self.persist("registry_offline", number=gone.number)
        load.more()
        self.persist("registry_online", number=gone.number)

    def persist(self, verb: str, **given: Any) -> Any:
        """Ask the DCM until it does it."""
        until = time.monotonic() + MINUTE
        while True:
            try:
                return self.one.call("dcm", verb, timeout=20.0, **given)
            except CoveyError as problem:
                if time.monotonic() > until:
                    raise
                self.note(f"    {verb} {given}: {problem.code} {problem}")
                time.sleep(0.5)

    def lose_files(self, load: Load) -> None:
        """As many servers as may be lost are killed and lose files: all, one flipped byte, or the end of one."""
        nodes = self.others()[: max(1, (self.servers - 1) // 2)]
        if self.random.random() < 0.3:
            nodes[0] = self.primary()
        for node in nodes:
            node.kill()
        load.more()
        for node in nodes:
            said = self.spoil(node)
            self.note(f"    node {node.number}: {said}")
            node.start()
        for node in nodes:
            node.wait_up()
        load.more()

    def spoil(self, node: Node) -> str:
        folder = self.copy(node)
        how = self.random.choice(("delete", "flip", "cut", "empty"))
        if how == "delete":
            shutil.rmtree(folder)
            return "its folder is gone"
        path = self.random.choice([path for path in sorted(folder.iterdir()) if path.is_file() and path.stat().st_size])
        size = path.stat().st_size
        at = self.random.randrange(size)
        if how == "flip":
            with path.open("r+b") as file:
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ 1 << self.random.randrange(8)]))
            return f"byte {at} of {path.name} was flipped"
        os.truncate(path, 0 if how == "empty" else at)
        return f"{path.name} of {size} bytes has {0 if how == 'empty' else at} now"

    def fill_disk(self, load: Load) -> None:
        """No room on the disk of one server, the primary's or another's, for some seconds."""
        node = self.random.choice((self.primary(), self.others()[0]))
        if node.state not in self.mounted:
            return
        ballast = node.state / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        self.note(f"    the disk of node {node.number} is full")
        time.sleep(self.random.uniform(1, 5))
        try:
            load.more(seconds=30)
        finally:
            ballast.unlink()

    FAULTS: tuple[str, ...] = (
        "kill_primary",
        "kill_follower",
        "kill_minority",
        "kill_majority",
        "kill_all",
        "stop_all",
        "end_primary",
        "pause_primary",
        "pause_shortly",
        "pause_and_kill",
        "hand_over",
        "change_servers",
        "stop_server",
        "lose_files",
        "fill_disk",
    )

    # --- rounds ---

    def round(self, faults: Sequence[str], turn: int) -> dict[str, int]:
        """Do these one after the other under load, then judge."""
        load = Load([node.state for node in self.cluster], f"/app/chaos{turn}/", self.seed)
        load.begin()
        for name in faults:
            began = time.monotonic()
            self.note(f"  {name}")
            getattr(self, name)(load)
            self.whole()
            load.more()
            self.counts[name] += 1
            self.gaps[name].append(load.gap(began))
            self.note(
                f"    over after {time.monotonic() - began:.1f} s; longest without a write {load.gap(began):.2f} s"
            )
        return load.judge()


def measure(said: argparse.Namespace, note: Callable[[str], None]) -> dict[str, Any]:
    """Run it all."""
    chaos = Chaos(said.nodes or said.servers, said.servers, said.seed, said.isolation, note)
    totals: Counter[str] = Counter()
    began, turn = time.monotonic(), 0
    names = said.only.split(",") if said.only else list(Chaos.FAULTS)
    try:
        chaos.mount()
        if not chaos.mounted:
            note("no file system may be mounted here: no disk will be full")
        chaos.cluster.up()
        while time.monotonic() - began < said.minutes * MINUTE and (not said.rounds or turn < said.rounds):
            turn += 1
            faults = names[:] if said.only else chaos.random.sample(names, min(ROUND, len(names)))
            note(f"round {turn}")
            found = chaos.round(faults, turn)
            note(f"  judged: {found}")
            totals.update(found)
            for node in chaos.cluster:
                assert "Traceback (most recent call last)" not in node.log.read_text(), node.log
    except BaseException:
        print(f"seed {said.seed}; what was done: {dict(chaos.counts)}", file=sys.stderr)
        if said.keep:
            shutil.copytree(
                chaos.cluster.folder, said.keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("run", "ballast")
            )
        chaos.cluster.show()
        raise
    finally:
        chaos.close()
    return {
        "schema": "covey/bench.registry_chaos/1",
        "seed": said.seed,
        "nodes": said.nodes or said.servers,
        "servers": said.servers,
        "load": round(os.getloadavg()[0], 2),
        "faults": dict(chaos.counts),
        "longest_without_a_write": {name: round(max(values), 2) for name, values in chaos.gaps.items()},
        "judged": dict(totals),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Break real registry servers under load; judge what clients were told."
    )
    parser.add_argument("--servers", type=int, choices=(3, 5), default=3, help="registry servers (default 3)")
    parser.add_argument("--nodes", type=int, default=0, help="nodes (default: as many as servers)")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long; the round under way is ended (default 5)")
    parser.add_argument("--rounds", type=int, default=0, help="at most so many rounds")
    parser.add_argument("--only", default="", help=f"these faults, in this order, of {', '.join(Chaos.FAULTS)}")
    parser.add_argument(
        "--seed", type=int, default=0, help="which faults follow one another (default: another each time)"
    )
    parser.add_argument("--isolation", choices=("process", "inline"), default="process")
    parser.add_argument("--keep", default="", help="a folder for the nodes' files, if it fails")
    parser.add_argument("--json", action="store_true", help="one object; progress goes to standard error")
    said = parser.parse_args(arguments)
    said.seed = said.seed or random.SystemRandom().randrange(1, 1_000_000)

    def note(line: str) -> None:
        print(line, file=sys.stderr if said.json else sys.stdout, flush=True)

    note(f"seed {said.seed}")
    found = measure(said, note)
    if said.json:
        print(json.dumps(found))
        return
    print(f"faults: {found['faults']}")
    print(f"longest without a write, in seconds, fault and repair together: {found['longest_without_a_write']}")
    print(f"answers judged, and errors that clients saw: {found['judged']}")


if __name__ == "__main__":
    assert threading.current_thread() is threading.main_thread()
    main()
