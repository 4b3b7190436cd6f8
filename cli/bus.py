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


_WORDS = {"waiting": "requests that wait for an answer", "callers": "nodes that have dialled this one"}


# what a terminal is wide enough for; the JSON has all
_LINK = ("up", "waiting", "messages_out", "messages_in", "resent", "refused", "lost", "downs", "rtt", "last_reason")
_COLUMNS = {"links": ("peer", "address", *_LINK), "sessions": ("peer", *_LINK)}


def _text(data: dict[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    single = [(_WORDS.get(name, name), value) for name, value in data.items() if not isinstance(value, (dict, list))]
    if single:
        blocks.append(Fields(single))
    for name, value in data.items():
        if isinstance(value, dict):
            blocks += ["", f"{name}:", Fields([(f"  {key}", found) for key, found in value.items()])]
        elif isinstance(value, list):
            blocks += ["", *_listed(name, value)]
    return blocks


def _listed(name: str, found: list[Any]) -> list[Block]:
    if found and all(isinstance(item, dict) for item in found):
        columns = list(_COLUMNS.get(name, dict.fromkeys(key for item in found for key in item)))
        return [f"{name}:", Table(columns, [tuple(item.get(column) for column in columns) for item in found])]
    return [Fields([(_WORDS.get(name, name), found)])]
