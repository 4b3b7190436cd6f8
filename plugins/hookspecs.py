"""Every hook of covey, grouped by moment. A plugin marks its functions with `covey.hookimpl`.

Each implementation is called apart from the others: one that raises is listed as failed with its reason and
changes nothing for the rest (pluggy alone stops at the first that raises). Knows nothing of the bus or of any
component.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pluggy

hookspec = pluggy.HookspecMarker("covey")
hookimpl = pluggy.HookimplMarker("covey")


@dataclass(frozen=True)
class Component:
    """What a component declares of itself. The order of start is computed from all declarations together.

    `offers` maps each function the component offers to the functions that one needs, of whatever component
    (SPEC 2.2); `data` names the components whose data it reads; `main` is `package.module:coroutine`,
    imported only in the process that runs the component and called with one `ComponentContext`. It returns
    when cancelled.
    """

    name: str
    summary: str
    main: str
    offers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    data: tuple[str, ...] = ()


@dataclass(frozen=True)
class IdentitySource:
    """A way to read the original id of this operating system instance (SPEC 5.1).

    `read` gets the value written after the source's name in the node's YAML (None when there is none) and the
    state folder; it returns the id as text, or raises `OSError` or `covey.IdentityUnreadable`. It may block
    for a short while.
    """

    name: str
    read: Callable[[Any, Any], str]


@hookspec
def covey_component() -> Component:  # type: ignore[empty-body]
    """Declare a component.

    Called when a node's daemon starts and by `covey components`; all results count; must not block. A
    declaration that raises, or that reuses a name, is listed as failed and the component is not started.
    """


@hookspec
def covey_identity_sources() -> list[IdentitySource]:  # type: ignore[empty-body]
    """Add sources of node ids, usable as `identity: NAME` or `identity: {NAME: VALUE}` in a node's YAML.

    Called when a node's YAML is checked and when its daemon starts, so it must answer the same both times; all
    results count; must not block (`read` may). An implementation that raises, or that reuses a name, is listed
    as failed with all its sources; a YAML that names one of them is refused with the list of sources there are.
    """
