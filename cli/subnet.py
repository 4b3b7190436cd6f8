"""`covey subnet`: subnetworks, and the network that each belongs to."""

from __future__ import annotations

from typing import Any

import click

from .connection import answer
from .options import Converter
from .output import Block, Table
from .verbs import Noun

command = Noun(
    "subnet",
    help="Subnetworks and the network each belongs to. Which one an address is in follows from its prefix; for an "
    "address that fits none there is one implicitly, in the network `default`. SUBNET is a name, an id or a prefix.",
)


class Hops(Converter):
    """SUBNET=N as a pair."""

    name = "subnet=n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        subnet, equals, number = str(value).rpartition("=")
        if not subnet or not equals or not number.isdecimal():
            self.fail(f"{value!r} is not SUBNET=N: back=2, say", param, ctx)
        return subnet, int(number)


@command.verb("ls", examples=["covey subnet ls", "covey subnet ls -o json"])
def ls() -> int:
    """List the subnetworks, with how many addresses of nodes are in each."""
    return answer(lambda session: session.call("dcm", "subnet_ls"), _text)


@command.verb("define", examples=["covey subnet define front 10.1.0.0/16 --network fast"])
@click.argument("name", metavar="NAME")
@click.argument("prefix", metavar="PREFIX/BITS")
@click.option("--network", default="default", show_default=True, help="The network it belongs to.")
def define(name: str, prefix: str, network: str) -> int:
    """Define a subnetwork. Its prefix may not overlap that of another one."""
    return answer(lambda session: session.call("dcm", "subnet_define", name=name, prefix=prefix, network=network), _one)


@command.verb(
    "modify", examples=["covey subnet modify front --network slow", "covey subnet modify front --hops back=3"]
)
@click.argument("subnet", metavar="SUBNET")
@click.option("--name", help="Another name.")
@click.option("--prefix", metavar="PREFIX/BITS", help="Another prefix; the addresses in it must stay in it.")
@click.option("--network", help="Another network: all its addresses follow at once.")
@click.option(
    "--hops", type=Hops(), multiple=True, metavar="SUBNET=N", help="Hops to another one (default: 2; 0: unsay)."
)
def modify(
    subnet: str, name: str | None, prefix: str | None, network: str | None, hops: tuple[tuple[str, int], ...]
) -> int:
    """Change a subnetwork, or move it to another network. One that nobody defined is defined by this."""
    given: dict[str, Any] = {"name": name, "prefix": prefix, "network": network, "hops": dict(hops) or None}
    if not any(given.values()):
        raise click.UsageError("say what to change: --name, --prefix, --network or --hops", click.get_current_context())
    return answer(lambda session: session.call("dcm", "subnet_modify", subnet=subnet, **given), _one)


@command.verb("undefine", examples=["covey subnet undefine front"])
@click.argument("subnet", metavar="SUBNET")
def undefine(subnet: str) -> int:
    """Remove a subnetwork. With addresses in it, it must be in the network `default`, where they stay."""
    return answer(
        lambda session: session.call("dcm", "subnet_undefine", subnet=subnet), lambda data: [f"{subnet} is removed"]
    )


def _one(data: dict[str, Any]) -> list[Block]:
    return _text([data])


def _text(data: list[dict[str, Any]]) -> list[Block]:
    columns = ["subnetwork", "prefix", "network", "hops"]
    rows = [[each["name"], each["prefix"], each["network"], _hops(each)] for each in data]
    if data and "addresses" in data[0]:
        columns += ["addresses", "defined"]
        rows = [[*row, each["addresses"], each["defined"]] for row, each in zip(rows, data, strict=True)]
    return [Table(columns, rows)]


def _hops(subnet: dict[str, Any]) -> str:
    return ", ".join(f"{prefix}={count}" for prefix, count in sorted(subnet["hops"].items()))
