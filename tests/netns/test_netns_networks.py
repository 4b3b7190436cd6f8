"""Three networks of which the registry prefers one: real bytes on real interfaces, its cable cut and mended (SPEC 8).

One story on one cluster, since a node's boot is what costs: what each step needs is what the one before left.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from covey.bus.dialler import HOLD_DOWN
from covey.bus.session import SILENT
from covey.errors import CoveyError
from covey.testing import Node
from netns_cluster import NetCluster, possible

pytestmark = pytest.mark.skipif(not possible(), reason="needs root, ip(8), namespaces, veth and bridge")

SIZE = 50_000
"""Bytes of a value that no compression makes smaller."""

REFUSED = ("registry.read_only", "registry.no_quorum")
"""What a writer may be told while servers elect: surely nothing was written, so it asks again."""

GONE = SILENT + 3.0
"""Seconds until writes go on: the heartbeat limit, an election, and a busy machine."""


@pytest.fixture
def two() -> Iterator[NetCluster]:
    cluster = NetCluster(2, 2, networks=3)
    with closing(cluster):
        try:
            cluster.up()
            yield cluster
        finally:
            cluster.show()


class Writer(threading.Thread):
    """Writes one value after the other by a node, and remembers what was acknowledged, and when."""

    def __init__(self, node: Node) -> None:
        super().__init__(daemon=True)
        self.node = node
        self.acknowledged: dict[str, tuple[float, str]] = {}
        self.problems: list[CoveyError] = []
        self._ended = threading.Event()
        self._news = threading.Condition()

    def run(self) -> None:
        for number in range(10_000):
            key, value = f"/app/{number}", secrets.token_hex(SIZE // 2)
            asked = time.monotonic()
            try:
                self.node.call("registry", "put", key=key, value=value, timeout=20.0)
                with self._news:
                    self.acknowledged[key] = (asked, value)
                    self._news.notify_all()
            except CoveyError as problem:
                if problem.code not in REFUSED:
                    self.problems.append(problem)
            if self._ended.wait(0.15):
                return

    def more(self, count: int, limit: float) -> float:
        """Wait until so many that were asked for from now on are acknowledged; return when the first one was."""
        now = time.monotonic()
        first: list[float] = []

        def enough() -> bool:
            fresh = sum(asked >= now for asked, _ in self.acknowledged.values())
            if fresh and not first:
                first.append(time.monotonic())
            return fresh >= count

        with self._news:
            assert self._news.wait_for(enough, limit), f"not {count} within {limit} s; {self.problems}"
        return first[0]

    def end(self) -> None:
        self._ended.set()
        self.join(30)


def carried(cluster: NetCluster) -> list[int]:
    """The bytes that node 1's adapters have sent and received, as its kernel counts them."""
    found = []
    for network in cluster.networks:
        names = [f"/sys/class/net/eth{network - 1}/statistics/{way}_bytes" for way in ("tx", "rx")]
        found.append(sum(int(each) for each in cluster.read(cluster[1], *names).split()))
    return found


def registry_bytes(node: Node) -> dict[str, int]:
    rows: list[dict[str, Any]] = node.call("dcm", "network_traffic")
    return {each["network"]: each["bytes_out"] + each["bytes_in"] for each in rows if each["service"] == "registry"}


def until(what: str, holds: Callable[[], bool], limit: float) -> float:
    """Ask again and again; return how long it took."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < limit, f"not within {limit} s: {what}"
        time.sleep(0.1)
    return time.monotonic() - began


def test_registry_traffic_goes_where_it_is_wanted_and_fails_over_and_back(two: NetCluster) -> None:
    one = two[1]
    networks = {"A": "10.78.1.0/24", "B": "10.78.2.0/24", "C": "10.78.3.0/24"}
    for priority, (name, prefix) in zip((3, 2, 1), networks.items(), strict=True):
        one.call("dcm", "network_define", name=name, priorities={"registry": priority})
        one.call("dcm", "subnet_modify", subnet=prefix, network=name)
    writer = Writer(two[2])

    def goes_by(*expected: str) -> Callable[[], bool]:
        """Whether these networks, and no others, carry what is written now."""

        def holds() -> bool:
            before = [registry_bytes(node) for node in two]
            writer.more(2, 30.0)
            after = [registry_bytes(node) for node in two]
            used = {
                name
                for name in networks
                for was, now in zip(before, after, strict=True)
                if now.get(name, 0) - was.get(name, 0) > 0
            }
            return used == set(expected)

        return holds

    def only(network: str, values: int = 15) -> None:
        """One network carries so many values, and the others none: by the kernel's count, and by covey's.

        The kernel counts heartbeats and the other services, too; they are less than half of it.
        """
        interfaces, counted = carried(two), [registry_bytes(node) for node in two]
        writer.more(values, 30.0)
        for name, before, after in zip(networks, interfaces, carried(two), strict=True):
            much = values * SIZE
            assert after - before > much if name == network else after - before < much / 2, (name, before, after)
        for was, node in zip(counted, two, strict=True):
            now = registry_bytes(node)
            assert {name for name in networks if now.get(name, 0) != was.get(name, 0)} == {network}

    writer.start()
    try:
        until("registry bytes on A alone", goes_by("A"), 10.0)
        only("A")

        two.cut_network(1)
        cut = time.monotonic()
        assert writer.more(3, GONE + 10.0) - cut < GONE, "writes go on by B within the heartbeat limit"
        until("registry bytes on B alone", goes_by("B"), 10.0)
        only("B")

        two.heal()
        until("registry bytes on A again", goes_by("A"), HOLD_DOWN + 10.0)
        only("A")

        # one subnetwork moved to a network that the registry never uses: all that was on it goes elsewhere at once
        one.call("dcm", "network_define", name="spare", priorities={"registry": 0})
        one.call("dcm", "subnet_modify", subnet=networks["A"], network="spare")
        until("registry bytes on B", goes_by("B"), 5.0)

        # heartbeats run on every network, whatever its priorities, but for one with 0 for liveness
        assert set(one.call("liveness", "status")["networks"]) == set(networks.values())
        one.call("dcm", "network_priority", name="C", priorities={"liveness": 0})
        until("no probes on C", lambda: networks["C"] not in one.call("liveness", "status")["networks"], 10.0)
    finally:
        writer.end()
    assert not writer.problems, "nothing was lost, or in doubt"
    assert len(writer.acknowledged) > 40
    for key, (_, value) in writer.acknowledged.items():
        assert two[1].call("registry", "get", key=key)["value"] == value
