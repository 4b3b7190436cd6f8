"""Real daemons. A boot costs a second of computing, so a test takes the cheapest of these that will do:

`shared` is a cluster that tests only look at; `kept(nodes, isolation)` gives one that a test may stop, kill and change
as long as all its nodes are online again at the end; `cluster(nodes)` and `nodes(number)` are the test's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from covey.testing import Cluster, cluster, node

__all__ = ["cluster", "node"]


def check_logs(cluster: Cluster) -> None:
    """Nothing that a test does from outside may make covey's own code fail."""
    for one in cluster:
        said = one.log.read_text() if one.log.exists() else ""
        assert "Traceback (most recent call last)" not in said, said


HELD: dict[tuple[int, str], Cluster] = {}
"""The clusters that go from test to test, by number of nodes and isolation."""

SHARED = (3, "process")


@pytest.hookimpl(tryfirst=True)  # xdist looks at the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share clusters run in one worker: each cluster there is costs processors until its end."""
    for item in items:
        names = getattr(item, "fixturenames", ())
        if "shared" in names or "kept" in names:
            item.add_marker(pytest.mark.xdist_group("kept" if "kept" in names else "shared"))


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the clusters that no test will take any more."""
    if nextitem is None or not {"shared", "kept"} & set(getattr(nextitem, "fixturenames", ())):
        while HELD:
            with closing(HELD.popitem()[1]) as found:
                check_logs(found)


def held(nodes: int, isolation: str) -> Cluster:
    """Return a cluster with all nodes online, made when there is none yet."""
    if (nodes, isolation) not in HELD:
        found = Cluster(nodes, isolation=isolation)
        try:
            found.up()
        except BaseException:
            found.show()
            found.close()
            raise
        HELD[nodes, isolation] = found
    return HELD[nodes, isolation]


@pytest.fixture
def shared() -> Cluster:
    """Three nodes, a process for each component, all online: for tests that change nothing but keys of their own."""
    return held(*SHARED)


@pytest.fixture
def kept() -> Iterator[Callable[[int, str], Cluster]]:
    """`kept(2, "inline")` gives a cluster with all nodes online, which must be so again when the test ends."""
    used = set()

    def take(nodes: int, isolation: str) -> Cluster:
        used.add((nodes, isolation))
        return held(nodes, isolation)

    yield take
    for key in used & HELD.keys():
        HELD[key].show()
        try:
            HELD[key].wait_online(10)
        except AssertionError:
            HELD.pop(key).close()


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
