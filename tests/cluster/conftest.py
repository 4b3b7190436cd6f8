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


def check_logs(cluster: Cluster) -> None:
    """Nothing that a test does from outside may make covey's own code fail."""
    for one in cluster:
        said = one.log.read_text() if one.log.exists() else ""
        assert "Traceback (most recent call last)" not in said, said


@pytest.fixture(scope="session")
def shared() -> Iterator[Cluster]:
    """Three nodes, a process for each component, all online: for tests that change nothing but keys of their own."""
    with running_cluster(3, isolation="process") as found:
        yield found
        check_logs(found)


@pytest.fixture(scope="session")
def held() -> Iterator[dict[tuple[int, str], Cluster]]:
    """The clusters that `kept` gives, from test to test."""
    clusters: dict[tuple[int, str], Cluster] = {}
    yield clusters
    for found in clusters.values():
        with closing(found):
            check_logs(found)


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
            if "PYTHONPATH" not in options.get("environment", {}):  # other people's code may raise what it likes
                stack.callback(check_logs, made)
            return made

        yield make
