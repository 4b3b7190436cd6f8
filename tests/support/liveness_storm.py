"""A minute of random faults on a cluster, then peace: used by tests, and by hand to look for new seeds.

python tests/support/liveness_storm.py FIRST LAST
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from typing import Any

from covey.bus.nemesis import Nemesis
from covey.bus.simulation import Link, SimulationFailure
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
    counts["left together"] = sum(len(body.left) > 1 for body in told)
    return counts


def main() -> int:
    total: Counter[str] = Counter()
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        try:
            total += what_happened(storm(seed))
        except SimulationFailure as failure:
            print(failure)
            return 1
    print(dict(sorted(total.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
