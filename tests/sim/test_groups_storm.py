"""Groups under faults by chance, and proof that the tests would notice if the machine were wrong.

The kit of fakes, members and checks is the one of `test_groups_sim.py`.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from covey.bus.simulation import Link
from covey.components.groups import coordinator as coordinator_module
from covey.components.groups import drafting
from covey.components.groups.coordinator import Coordinator
from covey.components.groups.machine import GroupsMachine
from covey.components.groups.messages import Announce, Decision, PartyGone, Proposal
from covey.components.groups.proposer import Proposer
from covey.components.groups.replica import Replica

_spec = importlib.util.spec_from_file_location("groups_sim", Path(__file__).with_name("test_groups_sim.py"))
assert _spec and _spec.loader
kit: Any = importlib.util.module_from_spec(_spec)
sys.modules["groups_sim"] = kit
_spec.loader.exec_module(kit)

GROUP = kit.GROUP
SEEDS = int(os.environ.get("COVEY_SIM_SEEDS", "25"))


def storm(seed: int, make: Any = GroupsMachine, seconds: float = 40.0) -> Any:
    """Members come, speak, go and die while messages are lost and coordinators change; then all is healed."""
    random = Random(f"storm {seed}")
    size = random.choice([3, 4, 5])
    cluster = kit.Cluster(seed, size, Link(), make)
    world = cluster.world
    for number in range(1, size + 1):
        cluster.party(number, f"p{number}", random.choice([GROUP, GROUP, "other"]))
    world.run(1.0)
    world.default_link = kit.ROUGH if random.random() < 0.7 else Link(loss=0.3, duplicate=0.3, reorder=0.3, late=1.0)
    made = size

    def some_party() -> Any:
        living = [p for p in cluster.parties if p.alive and p.joined is not None]
        return random.choice(living) if living else None

    def speak() -> None:
        party = some_party()
        if party and world.nodes[party.node].running:
            party.say(f"{party.name} says {len(party.said)}")

    def come() -> None:
        nonlocal made
        made += 1
        if made < 20:
            cluster.party(random.choice(sorted(cluster.connected)), f"p{made}", random.choice([GROUP, "other"]))

    def die() -> None:
        party = some_party()
        if party:
            cluster.kill(party)

    def restart() -> None:
        cluster.restart_groups(random.choice([cluster.core.primary, random.randint(1, size)]))

    def elect() -> None:
        cluster.elect(random.choice(sorted(cluster.connected)))

    away = 0

    def hurt_node() -> None:
        """Cut a node off, or kill it; a killed one, and some that are cut off, are removed from the view."""
        nonlocal away
        if away:
            come_back()
            return
        away = random.randint(1, size)
        fate = random.choice(["cut off", "cut off and removed", "killed"])
        if fate == "killed":
            cluster.crash_node(away)
            cluster.connected.discard(away)
        else:
            cluster.isolate(away)
        if cluster.core.primary == away:
            cluster.elect(random.choice(sorted(cluster.connected)))
        if fate != "cut off":
            world.run(random.expovariate(1.0))
            cluster.remove_node(away)

    def come_back() -> None:
        nonlocal away
        if away in {peer.number for peer in cluster.view.members}:
            cluster.rejoin()
        else:
            cluster.return_node(away)
        away = 0

    def slow_log() -> None:
        cluster.core.latest = random.choice([0.003, 0.003, 0.3, 2.0])
        cluster.core.deaf = random.choice([0.0, 0.0, 0.3])

    acts: list[Callable[[], None]] = [speak] * 60 + [come] * 6 + [die] * 3 + [restart] * 4
    acts += [elect] * 3 + [hurt_node] * 3 + [slow_log] * 4
    end = world.now + seconds
    while world.now < end:
        random.choice(acts)()
        world.run(random.expovariate(4.0))
    cluster.core.latest, cluster.core.deaf = 0.003, 0.0
    world.default_link = Link()
    if away:
        come_back()
    cluster.party(cluster.core.primary, "last", GROUP)
    cluster.settle()
    cluster.check_promises()
    return cluster


@pytest.mark.parametrize("seed", range(SEEDS))
def test_storm(seed: int) -> None:
    """INV-23, 24, 25, 27, 31 over random faults."""
    storm(seed)


def test_same_seed_same_trace() -> None:
    """INV-34, under another hash seed too."""
    code = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('sim', sys.argv[1]);"
        "m = importlib.util.module_from_spec(spec); sys.modules['sim'] = m; spec.loader.exec_module(m);"
        "print(m.storm(3, seconds=5.0).world.digest())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77"}
    told = subprocess.run(
        [sys.executable, "-c", code, __file__], capture_output=True, text=True, check=True, env=environment
    )
    assert told.stdout.strip() == storm(3, seconds=5.0).world.digest()
