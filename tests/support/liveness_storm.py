"""A minute or an hour of random faults on a cluster, then peace: used by tests, and by hand to look for new seeds.

At every step of it: what any node holds is a piece of one chain of views, in order, and no boot id returns that left
(`liveness_cluster.py`). In the end: who left had a reason, and all agree.

python tests/support/liveness_storm.py FIRST LAST            minutes, clusters of three to seven nodes
python tests/support/liveness_storm.py FIRST LAST 10 [3600]  that many nodes, that many seconds
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from typing import Any

from covey.bus.nemesis import Nemesis
from covey.bus.simulation import Link, World
from covey.components.liveness.machine import LivenessMachine
from liveness_cluster import Cluster

FAULTS_LAST = 60.0
MEMORY = 25.0  # seconds for which a fault may explain why somebody leaves
PEACE = 30.0  # seconds after the last fault within which everything must have converged (INV-31)


def storm(seed: int, machine: type[LivenessMachine] = LivenessMachine, **nemesis: Any) -> Cluster:
    """Draw a cluster and its faults from the seed; return it settled, or raise what went wrong."""
    n = (3, 5, 7, 4)[seed % 4]
    moving = () if seed % 2 else (1, 2, 3)
    link = Link(loss=0.02 * (seed % 3 == 0), duplicate=0.02, reorder=0.05)
    cluster = Cluster(seed, n, moving=moving, link=link, machine=machine, networks=2 * (seed % 4 == 1))
    cluster.settle(10)
    Nemesis(cluster.world, FAULTS_LAST, **nemesis)
    cluster.world.run(FAULTS_LAST + 0.001)
    cluster.settle(PEACE)
    no_innocent_left(cluster)
    return cluster


def long(seed: int, n: int, seconds: float = 3600.0) -> Cluster:
    """The same with more nodes and longer, on two networks; adapters fail and liveness processes die alone, too."""
    moving = () if seed % 2 else (1, 2, 3, 4, 5)[: 3 + seed % 4]
    link = Link(loss=0.01 * (seed % 3 == 0), duplicate=0.02, reorder=0.05)
    cluster = Cluster(seed, n, moving=moving, link=link, networks=2)
    world, end = cluster.world, cluster.world.now + 10 + seconds
    cluster.settle(10)
    Nemesis(world, seconds)
    trouble(world, end)
    world.run(end - world.now + 0.001)
    world.eventually(lambda: cluster.settled(cluster.waiting()), PEACE, "all are settled who need not wait")
    cluster.settle(PEACE + cluster.settings.longest_wait)
    no_innocent_left(cluster)
    return cluster


def trouble(world: World, end: float) -> None:
    """Every twenty seconds or so an adapter is dead for a while, or one liveness process dies alone."""

    def strike() -> None:
        length = world.random.uniform(0.2, 8.0)
        if world.now + length >= end:
            return
        running = [
            n for n in sorted(world.nodes) if "liveness" in world.nodes[n].machines and not world.nodes[n].paused
        ]
        victim = world.random.choice(running)
        if world.random.random() < 0.5:
            network = world.random.choice(("10.1.0.0/16", "10.2.0.0/16"))
            dead = {(a, b, network) for other in world.nodes for a, b in ((victim, other), (other, victim))}
            world.cut(victim, 0, network=network)
            world.cut_networks |= dead
            world.after(length, lambda: world.cut_networks.difference_update(dead))
        else:
            world.crash_service(victim, "liveness")
            life = world.nodes[victim].life
            world.after(length / 8, lambda: back(victim, life))
        world.after(world.random.expovariate(1 / 20), strike)

    def back(number: int, life: int) -> None:
        node = world.nodes[number]
        if node.life == life and node.running and "liveness" not in node.machines:
            world.start_service(number, "liveness")

    world.after(world.random.expovariate(1 / 20), strike)


def no_innocent_left(cluster: Cluster) -> None:
    """Whoever left had crashed, been stopped or cut off by a partition, or had trouble with most others at once."""
    for at, boot_id in cluster.left():
        number = int(boot_id[1:].partition(".")[0])
        recent = [text for when, text in cluster.world.faults if at - MEMORY < when <= at]
        named = [text for text in recent if number in map(int, re.findall(r"\d+", text.partition("Link")[0]))]
        own = [text for text in named if text.split()[0] in ("crash", "pause", "partition", "start", "resume")]
        links = [text for text in named if text.split()[0] in ("cut", "link")]
        most = (len(cluster.world.nodes) - 1) // 2
        assert own or len(links) > most, f"{boot_id} left at {at:.3f} s, and nothing had happened to it: {recent}"


def what_happened(cluster: Cluster) -> Counter[str]:
    """Count faults by kind, and what they led to: rare states must be reached, or the storm proves nothing."""
    world = cluster.world
    counts = Counter(text.split()[0] for _, text in world.faults)
    counts.update(f"node {o.what}" for o in world.notified if o.service == "liveness")
    counts["views"] = len(cluster.views)
    counts["epochs"] = len({view.id[0] for view in cluster.views.values()})
    told = [o.body for o in world.published if o.what == "liveness.view"]
    counts["frozen"] = sum(not body.quorate for body in told)
    counts["removed"] = len(cluster.left())
    counts["left together"] = sum(len(body.left) > 1 for body in told)
    return counts


def main() -> int:
    first, last, *size = map(int, sys.argv[1:])
    total: Counter[str] = Counter()
    failed = 0
    for seed in range(first, last):
        began = time.process_time()
        try:
            cluster = long(seed, *size) if size else storm(seed)
        except AssertionError as failure:
            print(f"seed {seed}: {failure}", flush=True)
            failed += 1
            continue
        counts = what_happened(cluster) + Counter(runs=1, seconds=round(cluster.world.now), steps=cluster.world.steps)
        total += counts
        if size:
            print(
                f"seed {seed}: {dict(sorted(counts.items()))}; {time.process_time() - began:.0f} s of work", flush=True
            )
    print(f"failures: {failed}; {dict(sorted(total.items()))}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
