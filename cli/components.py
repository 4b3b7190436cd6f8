"""`covey components`: what each component needs of the others, from the declarations that run."""

from __future__ import annotations

from typing import Any

import click

from .connection import answer
from .output import Block
from .verbs import alone


@alone("components", examples=["covey components", "covey components --dot | dot -Tsvg > components.svg"])
@click.option("--dot", is_flag=True, help="Print both graphs for Graphviz.")
def command(dot: bool) -> int:
    """Print who needs whom: the functions that components offer, and whose data they read.

    Both graphs come from the declarations of the components that run on this node, third-party ones included; the
    order of start is computed from them. A circle is refused at start.
    """
    return answer(lambda session: session.call("dcm", "components"), _dot if dot else _text)


def _graphs(data: dict[str, Any]) -> Any:
    import msgspec

    from ..components.dcm.dependencies import Graphs

    known = {name: data[name] for name in Graphs.__struct_fields__}
    return msgspec.convert(known, Graphs)


def _text(data: dict[str, Any]) -> list[Block]:
    from ..components.dcm import dependencies

    return [dependencies.text(_graphs(data))]


def _dot(data: dict[str, Any]) -> list[Block]:
    from ..components.dcm import dependencies

    return [dependencies.dot(_graphs(data))]
