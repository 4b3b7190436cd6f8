"""`covey bus`: the node's broker."""

from __future__ import annotations

from typing import Any

import click

from .connection import Session, answer
from .names import node_number
from .output import Block, Fields, Table
from .verbs import Noun

command = Noun(
    "bus",
    help="Each node has one broker. Every request, reply and event of its components and clients passes it; between "
    "nodes, broker speaks to broker.",
)


@command.verb("status", examples=["covey bus status", "covey bus status --node 2 -o json"])
@click.option("--node", metavar="NODE", help="Another node's broker, by number or name.")
def status(node: str | None) -> int:
    """Show a broker's parties, links, queues and counters of every kind of refusal and loss."""

    async def ask(session: Session) -> Any:
        target = await node_number(session, node) if node else None
        return await session.call("bus", "status", node=target)

    return answer(ask, _text)


_WORDS = {
    "waiting": "requests that wait for an answer",
    "callers": "nodes that have dialled this one",
    "last_events": "last events kept for newcomers",
    "last_events_bytes": "bytes of these",
    "links": "links to other nodes",
    "sessions": "links from other nodes",
    "losses": "lost or refused, by kind",
    "counters": "passed",
}

# what a terminal is wide enough for; the JSON has all
_LINK = ("up", "waiting", "messages_out", "messages_in", "resent", "refused", "lost", "downs", "rtt", "last_reason")
_COLUMNS = {
    "links": ("peer", "address", *_LINK),
    "sessions": ("peer", *_LINK),
    "parties": (
        "name",
        "services",
        "role",
        "uid",
        "pid",
        "waiting",
        "queue",
        "queue_bytes",
        "subscriptions",
        "events_dropped",
    ),
}


def _text(data: dict[str, Any]) -> list[Block]:
    losses = data.get("losses", {})
    if "counters" in data:
        data = {**data, "counters": {name: count for name, count in data["counters"].items() if name not in losses}}
    blocks: list[Block] = []
    single = [(_WORDS.get(name, name), value) for name, value in data.items() if not isinstance(value, (dict, list))]
    if single:
        blocks.append(Fields(single))
    for name, value in data.items():
        if name == "losses" and not value:
            blocks += ["", "nothing was lost or refused"]
        elif isinstance(value, dict):
            blocks += ["", f"{_WORDS.get(name, name)}:", Fields([(f"  {key}", found) for key, found in value.items()])]
        elif isinstance(value, list):
            blocks += ["", *_listed(name, value)]
    return blocks


def _listed(name: str, found: list[Any]) -> list[Block]:
    if found and all(isinstance(item, dict) for item in found):
        columns = list(dict.fromkeys(key for item in found for key in item))
        if name in _COLUMNS:
            columns = [column for column in _COLUMNS[name] if column in columns]
        rows = [tuple(item.get(column) for column in columns) for item in found]
        return [f"{_WORDS.get(name, name)}:", Table(columns, rows)]
    return [Fields([(_WORDS.get(name, name), found)])]
