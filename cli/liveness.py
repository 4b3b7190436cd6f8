"""`covey liveness`: who is alive, as all members agree."""

from __future__ import annotations

from typing import Any

import click

from .cluster import view_text
from .connection import answer
from .output import Block, Fields, Table
from .verbs import Noun

command = Noun(
    "liveness",
    help="The membership list: a sequence of numbered views, the same at every member. Nodes probe one another; what "
    "a majority of the registry servers then agrees on is true.",
)


@command.verb("status", examples=["covey liveness status", "covey liveness status -o json"])
def status() -> int:
    """Show the present view: its id and its members.

    The view id is (epoch, number). A member is `pending online` until its configuration is done. `frozen` says that
    this node is cut off from the quorum, so that its list stands still. A node that was removed while it ran waits
    before it is let in again: 5 s, twice as long each time, 5 minutes at most.
    """
    return answer(lambda session: session.call("liveness", "status"), _text)


def _text(data: dict[str, Any]) -> list[Block]:
    view = data.get("view") or {}
    pairs = [("view", view_text(view)), ("quorate", data.get("quorate")), ("frozen", data.get("frozen"))]
    networks = ", ".join(f"{name} ({count})" for name, count in (data.get("networks") or {}).items())
    pairs += [("networks (members)", networks or None), ("waits to be let in, s", data.get("waits_s") or None)]
    strange = ", ".join(f"node {node}: {count}" for node, count in (data.get("not_understood") or {}).items())
    pairs += [("messages of another version", strange or None)]
    members = [found for found in view.get("members", []) if isinstance(found, dict)]
    rows = [(m.get("number"), m.get("name"), m.get("state"), m.get("boot_id")) for m in members]
    table = Table(("number", "name", "state", "boot id"), rows, "no members")
    return [Fields([pair for pair in pairs if pair[1] is not None]), "", table]


@command.verb("paths", examples=["covey liveness paths", "covey liveness paths --network 127.2.0.0/16 -o json"])
@click.option("--network", default="", metavar="NAME", help="Only this network, by prefix or name; default: all.")
def paths(network: str) -> int:
    """Show the state of the path between any two adapters, as both ends see it.

    A path is `ok` when what either end sends arrives, `one-way` when that is so for one of them, `down` when nothing
    arrives, `unknown` when neither end says. Up to eleven members all pairs are probed, with more those that are
    neighbours on one of ten rings; other pairs are not shown. A network is named by its prefix where all members have
    an adapter of it.
    """
    return answer(lambda session: session.call("liveness", "paths", network=network), _paths_text)


def _paths_text(data: list[dict[str, Any]]) -> list[Block]:
    rows = [
        (
            row["network"],
            f"{row['from_node']} ({row['from']})",
            f"{row['to_node']} ({row['to']})",
            row["state"] if row["state"] != "one-way" else f"one-way, {'arrives' if row['arrives'] else 'lost'}",
            "" if row["rtt_ms"] is None else f"{row['rtt_ms']:.2f}",
        )
        for row in data
    ]
    return [Table(("network", "from", "to", "state", "rtt ms"), rows, "no paths are known yet")]
