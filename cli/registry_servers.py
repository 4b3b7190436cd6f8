"""The verbs of `covey registry` that change its servers: which nodes are servers, and which of these run.

Each change is the DCM's verb; how far it has come is read from the registry's status.
"""

from __future__ import annotations

from typing import Any

import click

from .connection import Session, answer
from .names import node_number
from .output import Block, Table
from .verbs import alone
from .waiting import until, wait_option, waits

SECONDS = 60.0
"""For a new server to be filled, unless --timeout says otherwise."""

VOTES = ("primary", "follower")


def servers_table(servers: list[dict[str, Any]]) -> Table:
    """Return how a person sees the servers: state, incarnation, and how many entries each lacks."""
    rows = [
        (server["number"], server["state"], ".".join(map(str, server.get("incarnation") or ())), server.get("lag"))
        for server in servers
    ]
    return Table(("server", "state", "incarnation", "lag"), rows, "no servers known")


@alone("define-server", examples=["covey registry define-server 2 3", "covey registry define-server n2"])
@click.argument("nodes", metavar="N…", nargs=-1, required=True)
@wait_option
def define_server(nodes: tuple[str, ...], wait: bool | None) -> int:
    """Make nodes registry servers, one after the other; N is a number or a name.

    A new server is a learner first: it is filled by the primary, and votes as soon as its copy is level, by itself.
    With --wait the command returns when all of them vote. Use an odd number of servers, 3 or 5: a majority of them must
    run for anything to be written, so 3 bear the loss of one, and 2 bear none.
    """
    return _each("registry_define_server", nodes, waits(wait), lambda state: state in VOTES, "vote")


@alone("undefine-server", examples=["covey registry undefine-server 3"])
@click.argument("node", metavar="N")
def undefine_server(node: str) -> int:
    """Make a registry server a client again; its copy is put aside.

    A primary hands over first. The last server cannot go, and none may go while that would cost the majority.
    """
    return _each("registry_undefine_server", (node,), False, lambda state: state is None, "be gone")


@alone("online", examples=["covey registry online 3 --wait"])
@click.argument("node", metavar="N")
@wait_option
def online(node: str, wait: bool | None) -> int:
    """Start the registry server of a node, which `covey registry offline` stopped.

    It catches up with the others and votes again; with --wait the command returns then.
    """
    return _each("registry_online", (node,), waits(wait), lambda state: state in VOTES, "vote")


@alone("offline", examples=["covey registry offline 3"])
@click.argument("node", metavar="N")
@click.option("--force", is_flag=True, help="Even if nothing can be written afterwards, for want of a majority.")
@wait_option
def offline(node: str, force: bool, wait: bool | None) -> int:
    """Stop the registry server of a node, until `covey registry online`; the node itself stays online.

    The server stays on the list and counts for majorities. It is refused when the others would be no majority, since
    nothing could be written then, not even the word that starts it again; --force does it all the same.
    """
    given = {"forced": True} if force else {}
    return _each("registry_offline", (node,), waits(wait), lambda state: state == "offline", "be offline", **given)


def _each(verb: str, nodes: tuple[str, ...], wait: bool, wanted: Any, what: str, **given: Any) -> int:
    async def ask(session: Session) -> Any:
        for number in [await node_number(session, node) for node in nodes]:
            await session.call("dcm", verb, number=number, **given)
            if wait:
                await _until(session, number, wanted, what)
        return {"servers": (await session.call("registry", "status"))["servers"]}

    def text(data: dict[str, Any]) -> list[Block]:
        return [servers_table(data["servers"])]

    return answer(ask, text, timeout=SECONDS)


async def _until(session: Session, number: int, wanted: Any, what: str) -> None:
    def state(data: dict[str, Any]) -> str | None:
        return next((str(one["state"]) for one in data["servers"] if one["number"] == number), None)

    def told(data: dict[str, Any]) -> str:
        lag = next((one.get("lag") for one in data["servers"] if one["number"] == number), None)
        lacks = f", lacks {lag} entries" if lag else ""
        return f"registry server {number}: {state(data) or 'not listed'}{lacks}"

    await until(
        session,
        lambda: session.call("registry", "status"),
        told,
        lambda data: bool(wanted(state(data))),
        f"registry server {number} to {what}",
    )


VERBS = (define_server, undefine_server, online, offline)
