"""`covey address`: the addresses of nodes, as the cluster knows them."""

from __future__ import annotations

from typing import Any

import click

from .connection import Session, answer
from .names import node_number
from .output import Block, Table
from .verbs import Noun

command = Noun(
    "address",
    help="Addresses of nodes. A node's own YAML says at which it listens (`node: adapters:`), and a define takes them "
    "from there; these verbs tell the others when that was changed. An address is unique in the cluster.",
)


@command.verb("ls", examples=["covey address ls", "covey address ls -o json"])
def ls() -> int:
    """List the addresses of all nodes, each with its subnetwork and network."""
    return answer(lambda session: session.call("dcm", "address_ls"), _text)


@command.verb("define", examples=["covey address define 10.1.0.7/16 --node 7"])
@click.argument("address", metavar="ADDRESS/BITS")
@click.option("--node", metavar="NODE", required=True, help="Whose it is, by number or name.")
@click.option("--subnet", metavar="SUBNET", help="Refuse it unless it is in this subnetwork.")
def define(address: str, node: str, subnet: str | None) -> int:
    """Define one more address of a node."""

    async def ask(session: Session) -> Any:
        number = await node_number(session, node)
        return await session.call("dcm", "address_define", address=address, number=number, subnet=subnet)

    return answer(ask, _one)


@command.verb("modify", examples=["covey address modify 10.1.0.7 --to 10.1.0.8/16"])
@click.argument("address", metavar="ADDRESS")
@click.option("--to", metavar="ADDRESS/BITS", required=True, help="What it is from now on.")
def modify(address: str, to: str) -> int:
    """Change an address of a node, or its prefix length."""
    return answer(lambda session: session.call("dcm", "address_modify", address=address, to=to), _one)


@command.verb("undefine", examples=["covey address undefine 10.1.0.7"])
@click.argument("address", metavar="ADDRESS")
def undefine(address: str) -> int:
    """Remove an address of a node. Its last one cannot go."""
    return answer(
        lambda session: session.call("dcm", "address_undefine", address=address), lambda data: [f"{address} is removed"]
    )


def _one(data: dict[str, Any]) -> list[Block]:
    return _text([data])


def _text(data: list[dict[str, Any]]) -> list[Block]:
    rows = [
        (f"{each['address']}/{each['mask']}", each["node"], each["name"], each["subnet"], each["network"])
        for each in data
    ]
    return [Table(("address", "node", "name", "subnetwork", "network"), rows, "no addresses")]
