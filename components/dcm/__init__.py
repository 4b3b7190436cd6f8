"""The Distributed Configuration Manager: what a node is defined to, and the start and stop of its components.

Holds the declaration only, so that asking what the component needs costs nothing; `README.md` tells how it works.
"""

from __future__ import annotations

from ...plugins.hookspecs import Component, hookimpl


@hookimpl
def covey_component() -> Component:
    """Declare the component (SPEC 2.2)."""
    return Component(
        name="dcm",
        summary="Configuration: starts and stops the components, defines nodes, checks identity at each join.",
        main="covey.components.dcm.service:main",
        offers={"dcm.local": (), "dcm.join": ("registry.reads",)},
        data=("registry",),
    )
