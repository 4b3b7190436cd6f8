"""A minute of faults on a registry under load, then peace, then judgement: used by tests, and by hand for new seeds.

python tests/support/registry_storm.py FIRST LAST [FILE]    counts what happened, and adds it to FILE as text
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from covey.bus.linearizability import NotLinearizable
from covey.bus.simulation import Link
from registry_cluster import AGENTS, SETTINGS, RegistryCluster
from registry_nemesis import PROFILES, RegistryNemesis

SECONDS = 60.0
NAMES = sorted(PROFILES)


def storm(seed: int, seconds: float = SECONDS, pace: float = 16.0, **machines: Any) -> RegistryCluster:
    """Draw a cluster and its faults from the seed; return it settled and judged, or raise what went wrong.

    `machines` are those of `RegistryCluster`: subclasses with a planted mistake.
    """
    random = Random(f"storm {seed}")
    profile = NAMES[seed % len(NAMES)]
    moving = random.random() < 0.25
    size = 1 if moving else random.choice([1, 2, 3, 3, 3, 3, 4, 5, 5])
    spares = 4 if moving else random.choice([0, 0, 1]) if size < 5 else 0
    link = random.choice(
        [Link(), Link(loss=0.02, duplicate=0.02, reorder=0.05), Link(low=0.001, high=0.02, reorder=0.2)]
    )
    settings = SETTINGS if random.random() < 0.7 else _rare(random)
    gen, old = (1, [3]) if size == 3 and random.random() < 0.15 else (0, [])
    cluster = RegistryCluster(seed, size, spares, link=link, settings=settings, gen=gen, old=old, **machines)
    clients = random.sample([*cluster.all, *AGENTS, AGENTS[0], AGENTS[1]], min(4, len(cluster.all) + 2))
    for node in clients:
        cluster.clients.start(node, pace / len(clients) * 1.5)
    for prefix in ("/app/", "/app/b", "/"):
        cluster.clients.watch(prefix, [*cluster.all, *AGENTS])
    cluster.ready(20.0)
    nemesis = RegistryNemesis(
        cluster, PROFILES[profile], seconds, random.choice([0.7, 1.5, 3.0]), random.choice([1.0, 3.0, 8.0])
    )
    if moving:
        nemesis.walk([3, 5, 3, 1, 2, 4, 3], random.choice([1.0, 3.0]))
    cluster.world.run(seconds)
    cluster.finish()
    seen = cluster.guard.seen
    seen.update({f"fault: {kind}": count for kind, count in nemesis.struck.items()})
    seen["faults"] += nemesis.struck.total()
    seen["operations"] += len(cluster.clients.calls)
    seen["operations of unknown outcome"] += sum(call.unknown for call in cluster.clients.calls)
    seen["operations that needed a second try"] += sum(call.tries > 1 for call in cluster.clients.calls)
    seen["entries committed"] += cluster.truth.last
    seen["messages lost"] += cluster.world.counts["lost"]
    seen["steps checked"] += cluster.world.steps
    seen["simulated seconds"] += round(cluster.world.now)
    seen[f"profile: {profile}"] += 1
    seen[f"storms of {size} servers" if not moving else "storms with a walk from 1 to 5 servers"] += 1
    return cluster


def _rare(random: Random) -> Any:
    """Settings that make rare things common: answers that are forgotten, tiny messages, snapshots all the time."""
    from msgspec.structs import replace

    return replace(
        SETTINGS,
        requests_kept=random.choice([20, 400]),
        snapshot_bytes=random.choice([1500, 6000]),
        append_bytes=random.choice([150, 700]),
        part_bytes=random.choice([300, 4000]),
        history_changes=random.choice([15, 150]),
    )


SOMETIMES = (
    "changes of primary",
    "reigns ended",
    "snapshots installed",
    "copies refilled",
    "damage noted",
    "logs cut",
    "votes refused",
    "pre-votes refused",
    "reads turned away",
    "writes in doubt",
    "entries that did not fit",
    "full disks",
    "changes of servers",
    "learners made voters",
    "hand-overs taken",
    "committed without the primary's disk",
    "answered registry.request_expired",
    "watches compacted",
    "operations of unknown outcome",
)
"""What must happen now and then, or the storms prove nothing."""


def _one(seed: int) -> tuple[int, dict[str, int], str]:
    try:
        return seed, dict(storm(seed).guard.seen), ""
    except AssertionError as failure:
        return seed, {}, f"seed {seed}: {failure}"
    except NotLinearizable as failure:
        return seed, {}, f"seed {seed}: {failure}"


def report(total: Counter[str], seeds: int, seconds: float, workers: int) -> str:
    """Return the counts as text."""
    speed = total["simulated seconds"] / max(seconds * workers, 0.001)
    lines = [f"{seeds} storms, {total['simulated seconds'] / 3600:.1f} simulated hours, {total['faults']} faults"]
    lines += [f"{speed:.1f} simulated seconds a second and processor"]
    lines += [f"{count:>12}  {what}" for what, count in sorted(total.items())]
    missing = [what for what in SOMETIMES if not total[what]]
    lines += [f"never: {', '.join(missing)}" if missing else "everything that should happen now and then did"]
    return "\n".join(lines)


def main() -> int:
    first, last = int(sys.argv[1]), int(sys.argv[2])
    workers = int(os.environ.get("COVEY_SIM_WORKERS", os.cpu_count() or 1))
    total: Counter[str] = Counter()
    failures = 0
    start = time.monotonic()
    with multiprocessing.Pool(workers) as pool:
        for _, seen, failure in pool.imap_unordered(_one, range(first, last)):
            total.update(seen)
            if failure:
                failures += 1
                print(failure, flush=True)
    text = report(total, last - first - failures, time.monotonic() - start, workers)
    print(text)
    print(f"{failures} failures")
    if len(sys.argv) > 3:
        with Path(sys.argv[3]).open("a") as file:
            file.write(f"seeds {first} to {last - 1}, {failures} failures\n{text}\n\n")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
