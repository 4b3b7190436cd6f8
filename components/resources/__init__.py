"""The Resource Manager: through it controllers are reached, and what they found is listed over the whole cluster.

This module carries only the declaration; `machine` decides, `service` puts it on the bus.
"""

from __future__ import annotations

from ...plugins.hookspecs import Component, hookimpl


@hookimpl
def covey_component() -> Component:
    """Declare the Resource Manager (SPEC 2.2)."""
    return Component(
        name="resources",
        summary="reaches resource controllers and keeps what they found in the registry",
        main="covey.components.resources.service:main",
        offers={"resources": ("dcm.local", "registry.reads", "registry.writes", "groups")},
        data=("dcm", "registry"),
    )
