"""Real daemons. A boot costs a second of computing, so a test takes the cheapest of these that will do:

`shared` is a cluster that tests only look at; `kept(nodes, isolation)` gives one that a test may stop, kill and change
as long as all its nodes are online again at the end; `cluster(nodes)` and `nodes(number)` are the test's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from covey.testing import Cluster, cluster, node, running_cluster

__all__ = ["cluster", "node"]


@pytest.fixture(scope="session")
def shared() -> Iterator[Cluster]:
    """Three nodes, a process for each component, all online: for tests that change nothing but keys of their own."""
    with running_cluster(3, isolation="process") as found:
        yield found


@pytest.fixture(scope="session")
def held() -> Iterator[dict[tuple[int, str], Cluster]]:
    """The clusters that `kept` gives, from test to test."""
    clusters: dict[tuple[int, str], Cluster] = {}
    yield clusters
    for found in clusters.values():
        found.close()


@pytest.fixture
def kept(held: dict[tuple[int, str], Cluster]) -> Iterator[Callable[[int, str], Cluster]]:
    """`kept(2, "inline")` gives a cluster with all nodes online, which must be so again when the test ends."""
    used = []

    def take(nodes: int, isolation: str) -> Cluster:
        key = (nodes, isolation)
        if key not in held:
            held[key] = Cluster(nodes, isolation=isolation)
            used.append(key)
            held[key].up()
        used.append(key)
        return held[key]

    yield take
    for key in set(used):
        held[key].show()
        try:
            held[key].wait_online(10)
        except AssertionError:
            held.pop(key).close()


@pytest.fixture
def nodes() -> Iterator[Callable[..., Cluster]]:
    """`nodes(2)` gives two nodes that are not started, so that their YAML can be changed first."""
    with ExitStack() as stack:

        def make(count: int, isolation: str = "inline", **options: Any) -> Cluster:
            made = stack.enter_context(closing(Cluster(count, isolation=isolation, **options)))
            stack.callback(made.show)
            return made

        yield make
