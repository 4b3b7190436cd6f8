"""What needs what, from the components' own declarations, and the order of start that follows (SPEC 2.2).

Two graphs, both acyclic or refused with the circle printed: the *function* graph (its vertices are functions, because
the registry's reads and its writes stand at different places) and the *data* graph (its vertices are components). Pure:
declarations in, values and text out.

Odd: a component is started as a whole, and its functions open one by one. Its place in the order of start is that of
its first function; the rest it waits for by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from ...errors import CycleError, NotFound
from ...plugins.hookspecs import Component


class Graphs(msgspec.Struct, frozen=True):
    """Both graphs, checked. `functions` maps a function to what it needs, `data` a component to whose data it reads."""

    functions: dict[str, tuple[str, ...]]
    data: dict[str, tuple[str, ...]]
    offered_by: dict[str, str]
    order: tuple[str, ...]

    def functions_of(self, component: str) -> list[str]:
        return [function for function, owner in self.offered_by.items() if owner == component]


def build(components: Iterable[Component]) -> Graphs:
    """Return the graphs of these declarations; CycleError or NotFound when they cannot be served."""
    known = {component.name: component for component in sorted(components, key=lambda found: found.name)}
    offered_by: dict[str, str] = {}
    functions: dict[str, tuple[str, ...]] = {}
    for name, component in known.items():
        for function, needs in component.offers.items():
            if function in offered_by:
                raise CycleError(
                    f"the function {function!r} is offered by {offered_by[function]} and by {name}",
                    "uninstall the package of one of the two",
                )
            offered_by[function] = name
            functions[function] = tuple(needs)
    for function, needs in functions.items():
        for needed in needs:
            if needed not in functions:
                raise NotFound(
                    f"{offered_by[function]} offers {function!r}, which needs {needed!r}: no component offers that",
                    "there are: " + ", ".join(sorted(functions)),
                )
    data = {name: tuple(sorted(component.data)) for name, component in known.items()}
    for name, owners in data.items():
        for owner in owners:
            if owner not in known:
                raise NotFound(
                    f"{name} reads the data of {owner!r}, and there is no such component",
                    "there are: " + ", ".join(sorted(known)),
                )
    levels(data, "data")
    order: list[str] = []
    for function in levels(functions, "functions"):
        if offered_by[function] not in order:
            order.append(offered_by[function])
    order += [name for name in known if name not in order]
    return Graphs(functions, data, offered_by, tuple(order))


def levels(graph: Mapping[str, tuple[str, ...]], what: str) -> list[str]:
    """Return the vertices so that each comes after all it needs, by name where both could be first.

    CycleError prints one circle of `graph`.
    """
    left = {vertex: set(needs) for vertex, needs in graph.items()}
    done: list[str] = []
    while left:
        free = sorted(vertex for vertex, needs in left.items() if not needs)
        if not free:
            circle = " → ".join(_circle(left))
            raise CycleError(f"the declared needs of {what} form a circle: {circle}", "remove one of its arrows")
        for vertex in free:
            del left[vertex]
        for needs in left.values():
            needs.difference_update(free)
        done += free
    return done


def _circle(left: Mapping[str, set[str]]) -> list[str]:
    """Return one circle among vertices that all need another of them: first and last are the same."""
    path = [min(left)]
    while True:
        following = min(left[path[-1]] & left.keys())
        if following in path:
            return [*path[path.index(following) :], following]
        path.append(following)


def text(graphs: Graphs) -> str:
    """Return both graphs for a terminal."""
    lines = ["functions, and what each needs:"]
    wide = max((len(function) for function in graphs.functions), default=0)
    for function in levels(graphs.functions, "functions"):
        needs = ", ".join(graphs.functions[function]) or "nothing"
        lines.append(f"  {function:<{wide}}  ({graphs.offered_by[function]}) ← {needs}")
    lines.append("components, and whose data each reads:")
    wide = max((len(name) for name in graphs.data), default=0)
    for name in levels(graphs.data, "data"):
        lines.append(f"  {name:<{wide}}  ← {', '.join(graphs.data[name]) or 'nobody'}")
    lines.append("order of start: " + ", ".join(graphs.order))
    return "\n".join(lines)


def dot(graphs: Graphs) -> str:
    """Return both graphs in the language of Graphviz; an arrow points at what is needed."""
    lines = ["digraph covey {", "  rankdir=BT;", "  subgraph cluster_functions {", '    label="functions";']
    for function in levels(graphs.functions, "functions"):
        lines.append(f'    "{function}" [tooltip="{graphs.offered_by[function]}"];')
        lines += [f'    "{function}" -> "{needed}";' for needed in graphs.functions[function]]
    lines += ["  }", "  subgraph cluster_data {", '    label="data";']
    for name in levels(graphs.data, "data"):
        lines.append(f'    "data:{name}" [label="{name}", shape=box];')
        lines += [f'    "data:{name}" -> "data:{owner}";' for owner in graphs.data[name]]
    lines += ["  }", "}"]
    return "\n".join(lines)
