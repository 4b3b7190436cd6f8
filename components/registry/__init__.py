"""System Registry: the replicated store of the global configuration. This file only declares it, so importing is cheap.

`create` founds the registry of a new cluster (founding.py); it is loaded when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...plugins.hookspecs import Component, hookimpl

if TYPE_CHECKING:
    from .founding import create as create

__all__ = ["covey_component", "create"]


@hookimpl
def covey_component() -> Component:
    """Declare the registry: its reads are the leaf of everything, its writes open last (SPEC 2.2)."""
    return Component(
        name="registry",
        summary="Stores the global configuration, durable and with one order of changes.",
        main="covey.components.registry.service:main",
        offers={
            "registry.log": (),
            "registry.reads": (),
            "registry.writes": ("registry.log", "groups"),
        },
    )


def __getattr__(name: str) -> Any:
    if name == "create":
        from .founding import create

        return create
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
