"""Real daemons: `shared` is a cluster of three that a whole worker looks at, `cluster` and `nodes` are a test's own."""

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


@pytest.fixture
def nodes() -> Iterator[Callable[..., Cluster]]:
    """`nodes(2)` gives two nodes that are not started, so that their YAML can be changed first."""
    with ExitStack() as stack:

        def make(count: int, isolation: str = "inline", **options: Any) -> Cluster:
            made = stack.enter_context(closing(Cluster(count, isolation=isolation, **options)))
            stack.callback(made.show)
            return made

        yield make
