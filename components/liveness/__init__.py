"""Liveness: which nodes are alive, and one sequence of views of the members that is the same at every node.

Holds the declaration only, so that asking what the component needs costs nothing; `README.md` tells how it
works.
"""

from __future__ import annotations

from ...plugins.hookspecs import Component, hookimpl


@hookimpl
def covey_component() -> Component:
    """Declare the component (SPEC 2.2)."""
    return Component(
        name="liveness",
        summary="Membership: heartbeats, and views that every node sees in the same order.",
        main="covey.components.liveness.service:main",
        offers={"liveness": ("dcm.local", "registry.reads", "registry.log")},
        data=("dcm", "registry"),
    )
