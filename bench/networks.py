"""What the network objects cost with 10,000 addresses and 100 networks: one ordered list, and a change of the tables.

Needs nothing but the pure part (components/dcm/networks.py): a change is everything that a node computes for its broker
when a table changed, the lists of all peers.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from typing import Any

from covey.components.dcm.definitions import NetworkDefinition, NetworkTable, NodeDefinition, SubnetDefinition
from covey.components.dcm.networks import CORE, Networks, Place
from covey.components.dcm.routes import routes_of

GOALS = {"list_ms": 1.0, "change_ms": 1000.0}


def tables(addresses: int, networks: int, chance: random.Random) -> tuple[NetworkTable, dict[int, NodeDefinition]]:
    """Return so many addresses, two a node, in so many networks of one subnetwork each, with priorities by chance."""
    table = NetworkTable(
        {
            f"net{n}": NetworkDefinition(f"net{n}", f"{n}", {each: chance.randint(1, 3) for each in CORE[:4]})
            for n in range(networks)
        },
        {f"s{n}": SubnetDefinition(f"s{n}", f"s{n}", f"10.{n}.0.0/16", f"net{n}") for n in range(networks)},
    )
    nodes = {}
    for number in range(1, addresses // 2 + 1):
        first, second = chance.sample(range(networks), 2)
        host = f"{number // 250}.{number % 250 + 1}"
        found = (f"10.{first}.{host}/16", f"10.{second}.{host}/16")
        nodes[number] = NodeDefinition(number, f"n{number}", f"id{number}", "", found, 7400)
    return table, nodes


def measure(addresses: int, networks: int) -> dict[str, Any]:
    """Return milliseconds of computing: one list of fifteen addresses (five servers, three each), and a change."""
    chance = random.Random(1)
    table, nodes = tables(addresses, networks, chance)
    found = Networks(table, nodes)
    every = found.places()
    lists = []
    for _ in range(1000):
        wanted = chance.sample(every, 15)
        began = time.thread_time()
        found.choose("registry", 5, [Place(*each) for each in wanted])
        lists.append((time.thread_time() - began) * 1e3)
    began = time.thread_time()
    routes_of(Networks(table, nodes), 5)
    change = (time.thread_time() - began) * 1e3
    return {
        "addresses": len(every),
        "networks": networks,
        "list_ms": {"median": statistics.median(lists), "p99": sorted(lists)[989]},
        "change_ms": change,
        "goals": GOALS,
        "met": sorted(lists)[989] <= GOALS["list_ms"] and change <= GOALS["change_ms"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--addresses", type=int, default=10_000)
    parser.add_argument("--networks", type=int, default=100)
    given = parser.parse_args()
    print(json.dumps(measure(given.addresses, given.networks), indent=2))
