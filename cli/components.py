"""`covey components`: what each component needs of the others, from the declarations that run."""

from __future__ import annotations

import click

from .connection import answer
from .verbs import alone


@alone("components", examples=["covey components", "covey components --dot | dot -Tsvg > components.svg"])
@click.option("--dot", is_flag=True, help="Print both graphs for Graphviz.")
def command(dot: bool) -> int:
    """Print who needs whom: the functions that components offer, and whose data they read.

    Both graphs come from the declarations of the components that run on this node, third-party ones included; the
    order of start is computed from them. A circle is refused at start.
    """
    form = "dot" if dot else "text"
    return answer(lambda session: session.call("dcm", "components"), lambda data: [data[form]])
