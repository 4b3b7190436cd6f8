"""Three registry servers in three network namespaces: a lost primary, a broken line between two, a mute primary.

Clients on every node write, read and watch all the while (`registry_load.py`); what they were told is judged.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from covey.errors import CoveyError
from covey.testing import Node
from netns_cluster import NetCluster, possible
from registry_load import Load, roles, settled, status, whole

pytestmark = pytest.mark.skipif(not possible(), reason="needs root, ip(8), namespaces, veth and bridge")

TOLD = 8.0
"""Seconds from a cut until a write on the minority's side is refused at once: 2 s for the primary to know that no
majority answers, or 5 s for the link to it to count as lost, then 2 s in which another one might come."""


@pytest.fixture
def three() -> Iterator[NetCluster]:
    cluster = NetCluster(3, 3)
    with closing(cluster):
        try:
            cluster.up()
            yield cluster
        finally:
            cluster.show()


@contextmanager
def load(three: NetCluster, name: str) -> Iterator[Load]:
    """Clients under way, all servers voting; afterwards the network is mended and what they were told is judged."""
    whole(three)
    clients = Load([node.state for node in three], f"/app/{name}/")
    clients.begin()
    try:
        yield clients
    finally:
        three.heal()
    settled(three, clients)


def refused_at_once(node: Node, cut: float) -> None:
    """Wait until a write there is refused at once, for want of a majority."""
    while True:
        began = time.monotonic()
        try:
            node.call("registry", "put", key="/app/minority", value=began)
            code = ""
        except CoveyError as problem:
            code = problem.code
        if code == "registry.no_quorum" and time.monotonic() - began < 0.5:
            return
        assert time.monotonic() - cut < TOLD, f"{code or 'it was written'} after {time.monotonic() - began:.1f} s"


def a_lost_primary_writes_nothing_and_the_others_go_on(three: NetCluster, load: Load) -> None:
    primary, one, _ = roles(three)
    before = status(primary)["epoch"]
    copy = {"key": "/cluster/definition", "consistency": "stale"}
    three.lose(primary)
    cut = time.monotonic()
    refused_at_once(primary, cut)
    answer = primary.covey("registry", "put", "/app/minority", "new", "-o", "json")
    assert answer.code == 6 and "a majority of the servers does not answer" in answer.error["message"]
    assert primary.call("registry", "get", **copy)["consistency"] == "stale"
    load.more()
    assert load.gap(cut) < 5.0, "the others elected a new primary"
    elected = status(one)["epoch"]
    assert elected > before
    three.heal()
    whole(three)
    assert status(primary)["epoch"] == elected, "its return disturbs nobody"


def a_line_between_two_is_broken_and_nobody_is_elected(three: NetCluster, load: Load) -> None:
    primary, one, two = roles(three)
    before = status(primary)["epoch"]
    three.part(primary, one)
    refused_at_once(one, time.monotonic())  # it hears no primary; asked for its vote, the third says that there is one
    load.more(60)
    assert status(primary)["epoch"] == status(one)["epoch"] == status(two)["epoch"] == before
    three.heal()
    whole(three)
    assert status(one)["primary"] == primary.number and status(one)["epoch"] == before


def a_mute_primary_steps_down(three: NetCluster, load: Load) -> None:
    primary, one, two = roles(three)
    before = status(primary)["epoch"]
    three.mute(primary, one, two)
    cut = time.monotonic()
    one.wait("another primary", lambda found: found["epoch"] > before and found["writable"], ask=("registry", "status"))
    load.more()
    assert load.gap(cut) < 5.0


def test_what_a_broken_network_does(three: NetCluster) -> None:
    """One after the other on one cluster, since its start takes longer than any of them."""
    for scenario in (
        a_lost_primary_writes_nothing_and_the_others_go_on,
        a_line_between_two_is_broken_and_nobody_is_elected,
        a_mute_primary_steps_down,
    ):
        with load(three, scenario.__name__) as clients:
            scenario(three, clients)
