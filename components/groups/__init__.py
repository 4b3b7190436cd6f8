"""Group Services: named groups of parties that see the same joins, losses and messages in the same order.

Holds the declaration only, so that asking what the component needs costs nothing; `README.md` tells how it works.
"""

from __future__ import annotations

from ...plugins.hookspecs import Component, hookimpl


@hookimpl
def covey_component() -> Component:
    """Declare the component (SPEC 2.2)."""
    return Component(
        name="groups",
        summary="Groups: joins, losses and messages that every member sees in the same order.",
        main="covey.components.groups.service:main",
        offers={"groups": ("liveness", "registry.reads", "registry.log")},
        data=("dcm", "registry"),
    )
