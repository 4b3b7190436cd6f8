"""`covey network`: which network carries which service's traffic, why, and how much."""

from __future__ import annotations

from typing import Any

import click

from .connection import Session, answer, run
from .names import node_number
from .options import Converter, settings
from .output import Block, Fields, Stream, Table
from .verbs import Noun

command = Noun(
    "network",
    help="Networks: which services prefer, or never use, which one. A network has subnetworks (`covey subnet`), an "
    "address belongs to the subnetwork whose prefix holds it; those that nobody put elsewhere are in the network "
    "`default`. For each service the network with the highest priority is tried first, one without a priority last, "
    "and 0 means never; among equal ones the nearest address is. A change takes effect at once, on every node.",
)

LOOK_SECONDS = 1.0

MEASURE_SECONDS = 30.0
"""Where routers are silent each subnetwork takes a second, and there may be many."""

_TRAFFIC = ("network", "service", "messages_out", "messages_in", "bytes_out", "bytes_in")


class Priority(Converter):
    """SERVICE=N as a pair; `SERVICE=` alone is None: not set."""

    name = "service=n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        service, equals, number = str(value).partition("=")
        if not service or not equals or not (number.isdecimal() or not number):
            self.fail(f"{value!r} is not SERVICE=N: registry=3, say, or registry= to leave it to hops", param, ctx)
        return service, int(number) if number else None


PRIORITY = Priority()


@command.verb("ls", examples=["covey network ls", "covey network ls -o json"])
def ls() -> int:
    """List the networks with their subnetworks and priorities."""

    def text(data: list[dict[str, Any]]) -> list[Block]:
        rows = [(each["name"], ", ".join(each["subnets"]), _priorities(each)) for each in data]
        return [Table(("network", "subnetworks", "priorities"), rows)]

    return answer(lambda session: session.call("dcm", "network_ls"), text)


@command.verb("define", examples=["covey network define fast registry=3 bulk=0", "covey network define storage"])
@click.argument("name", metavar="NAME")
@click.argument("priorities", metavar="[SERVICE=N …]", nargs=-1, type=PRIORITY)
def define(name: str, priorities: tuple[tuple[str, int | None], ...]) -> int:
    """Define a network, with priorities if you like; `covey subnet modify` puts subnetworks into it."""
    given = dict(priorities) or None
    return answer(lambda session: session.call("dcm", "network_define", name=name, priorities=given), _network)


@command.verb("modify", examples=["covey network modify fast --name front"])
@click.argument("name", metavar="NAME")
@click.option("--name", "new_name", metavar="NEW", required=True, help="Its name from now on; subnetworks stay in it.")
def modify(name: str, new_name: str) -> int:
    """Give a network another name. Its priorities are `covey network priority`'s."""
    return answer(lambda session: session.call("dcm", "network_modify", name=name, new_name=new_name), _network)


@command.verb("undefine", examples=["covey network undefine fast"])
@click.argument("name", metavar="NAME")
def undefine(name: str) -> int:
    """Remove a network. It is refused while a subnetwork is in it."""
    return answer(
        lambda session: session.call("dcm", "network_undefine", name=name), lambda data: [f"{name} is removed"]
    )


@command.verb(
    "priority", examples=["covey network priority fast registry=3 bulk=0", "covey network priority fast bulk="]
)
@click.argument("name", metavar="NET")
@click.argument("priorities", metavar="SERVICE=N …", nargs=-1, required=True, type=PRIORITY)
def priority(name: str, priorities: tuple[tuple[str, int | None], ...]) -> int:
    """Set which services prefer, or never use, a network.

    Services: dcm, registry, liveness, groups, resources, bulk, and those that plugins add. The highest number is tried
    first, 0 is never; SERVICE= without a number takes the priority away: tried after all networks that have one. Links
    that stand are moved at once, and nothing is lost by it. 0 is refused where a node could not be reached any more.
    """
    given = dict(priorities)
    return answer(lambda session: session.call("dcm", "network_priority", name=name, priorities=given), _network)


@command.verb("explain", examples=["covey network explain registry", "covey network explain registry --from 2 -o json"])
@click.argument("service", metavar="SERVICE")
@click.option("--from", "from_", metavar="NODE", help="As that node does, by number or name (default: this one).")
def explain(service: str, from_: str | None) -> int:
    """Show in which order a service's addresses are tried, which never are, and why.

    First by the priority of the address's network for the service, then this node's own addresses, then the fewest
    hops; equally far ones in an order that spreads nodes evenly by their numbers.
    """

    async def ask(session: Session) -> Any:
        number = await node_number(session, from_) if from_ is not None else None
        return await session.call("dcm", "network_explain", service=service, number=number)

    def text(data: dict[str, Any]) -> list[Block]:
        rows = [
            (
                position,
                each["address"],
                each["node"],
                each["subnet"],
                each["network"],
                "not set" if each["priority"] is None else each["priority"],
                "own" if each["local"] else each["hops"],
            )
            for position, each in enumerate(data["addresses"], 1)
        ]
        columns = ("tried", "address", "node", "subnetwork", "network", "priority", "hops")
        blocks: list[Block] = [f"{data['service']} from node {data['from']}", Table(columns, rows, "nothing is tried")]
        if data["rejected"]:
            blocks += ["", Table(("never", "why"), [(each["address"], each["reason"]) for each in data["rejected"]])]
        return blocks

    return answer(ask, text)


@command.verb("measure", examples=["covey network measure", "covey network measure --apply"])
@click.option("--apply", "apply_", is_flag=True, help="Make what was found the hops that count (`covey subnet ls`).")
def measure(apply_: bool) -> int:
    """Measure how many hops other subnetworks are away from this node's.

    Datagrams are sent that live for one hop, two, and so on; each router on the way is one. It needs no privilege, but
    routers that report where a datagram ended. Where none does, the hops stay as `covey subnet modify --hops` said,
    or 2.
    """

    async def ask(session: Session) -> Any:
        found = await session.call("dcm", "network_measure")
        for each in found if apply_ else ():
            if each["hops"] is not None:
                await session.call("dcm", "subnet_modify", subnet=each["from"], hops={each["to"]: each["hops"]})
        return found

    columns = ("from", "to", "address", "hops", "known")
    return answer(
        ask,
        lambda data: [Table(columns, [[each[name] for name in columns] for each in data], "there is one subnetwork")],
        timeout=MEASURE_SECONDS,
    )


@command.verb(
    "traffic",
    examples=["covey network traffic", "covey network traffic --node 2 -o json", "covey network traffic --watch"],
)
@click.option("--node", metavar="NODE", help="Of that node, by number or name (default: this one).")
@click.option("--watch", is_flag=True, help="Show each second what was added, until Ctrl-C; NDJSON in a pipe.")
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="With --watch: stop after N seconds.")
def traffic(node: str | None, watch: bool, count: int | None) -> int:
    """Count the messages and bytes that a node exchanges with others, by network and service.

    They are counted where they pass a socket, under the name that the network has then, so a network that a service may
    not use shows none of it. `bus` is what brokers say to one another: greetings, confirmations, heartbeats of links.
    What passed while no network was known, before a node had joined, has none (`-`).
    """

    async def ask(session: Session) -> Any:
        number = await node_number(session, node) if node is not None else None
        return await session.ask("dcm", "network_traffic", session.timeout, number=number)

    if count and not watch:
        raise click.UsageError("--count belongs to --watch", click.get_current_context())
    if not watch:
        return answer(ask, lambda data: [Table(_TRAFFIC, [[each[name] for name in _TRAFFIC] for each in data])])
    stream = Stream(settings())

    async def follow(session: Session) -> int:
        import asyncio

        before = _by_key(await ask(session))
        stream.remark("what is added each second; Ctrl-C ends it")
        left = count
        while left != 0:
            await asyncio.sleep(LOOK_SECONDS)
            left = left - 1 if left else None
            now = _by_key(await ask(session))
            for key, counts in now.items():
                known = before.get(key, {})
                added = {name: counts[name] - known.get(name, 0) for name in _TRAFFIC[2:]}
                if any(added.values()):
                    line = {"network": key[0], "service": key[1], **added}
                    stream.line(line, "  ".join(f"{name} {value}" for name, value in line.items()))
            before = now
        return 0

    return run(follow, endless=True)


def _by_key(data: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(each["network"], each["service"]): each for each in data}


def _network(data: dict[str, Any]) -> list[Block]:
    return [Fields([("network", data["name"]), ("priorities", _priorities(data))])]


def _priorities(network: dict[str, Any]) -> str:
    return ", ".join(f"{service}={number}" for service, number in sorted(network["priorities"].items())) or "none"
