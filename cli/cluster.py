"""`covey cluster`: define it, see its state, wait for a state."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click

from .balance import balance as balanced
from .balance import moment
from .connection import OUTSIDE, Session, answer
from .options import Converter
from .output import Block, Fields, Table
from .registry import registry_blocks
from .verbs import Noun
from .waiting import confirm, until, wait_option, waits, yes_option

command = Noun(
    "cluster",
    help="The cluster as a whole. A node is defined to clusters and online in at most one of them; what its members "
    "agree on is a sequence of numbered views, and without a quorum nothing is agreed.",
)

NODE_COLUMNS = ("number", "name", "state", "addresses", "id")


def node_rows(nodes: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return nodes as rows under `NODE_COLUMNS`."""
    return [tuple(node.get(column) for column in NODE_COLUMNS) for node in nodes]


@command.verb("status", examples=["covey cluster status", "covey --state covey-lab/n2 cluster status -o json"])
def status() -> int:
    """Show the cluster as this node sees it: nodes, view, registry.

    The exit code is 3 when this side has no quorum: what is shown may then be old.
    """

    async def ask(session: Session) -> Any:
        data = await session.call("dcm", "cluster_status")
        if session.bus.node.number == 0:
            session.warnings.append(f"this node is in no cluster: {OUTSIDE}")
        elif not data["quorate"]:
            session.warnings.append("this node has no quorum: what it says of other nodes may be old")
        return data

    return answer(ask, status_blocks, code=lambda data: 0 if data["quorate"] else 3)


def status_blocks(data: dict[str, Any]) -> list[Block]:
    """Return how a person sees the state of a cluster."""
    view = data.get("view") or {}
    online = sum(node["state"] == "online" for node in data["nodes"])
    summary = [
        ("quorate", data["quorate"]),
        ("nodes", f"{online} of {len(data['nodes'])} online"),
        ("view", "none: this node is offline" if data.get("node_state") == "offline" else view_text(view)),
    ]
    return [
        Fields(summary),
        "",
        Table(NODE_COLUMNS, node_rows(data["nodes"]), "no nodes are known"),
        "",
        "registry",
        *registry_blocks(data["registry"]),
    ]


def view_text(view: dict[str, Any]) -> str:
    """Return a view in a few words: its number and its members."""
    if not view.get("id"):
        return "none yet"
    members = [str(member["number"] if isinstance(member, dict) else member) for member in view.get("members", [])]
    return f"{'.'.join(str(part) for part in view['id'])}, members {', '.join(members) or 'none'}"


@command.verb("define", examples=["covey --state ./n1 cluster define lab"])
@click.argument("name")
def define(name: str) -> int:
    """Create a cluster with this node as its first node and registry server.

    A local administrator's call, on a node whose daemon runs and that is in no cluster. The cluster gets a new id; to
    define it again under the same name later gives another cluster. Add nodes with `covey node define`.
    """

    def ask(session: Session) -> Any:
        return session.call("dcm", "cluster_define", name=name)

    def text(data: dict[str, Any]) -> list[Block]:
        pairs = [("name", data["name"]), ("id", data["id"])]
        first = data.get("node")
        return [Fields([*pairs, ("node", f"{first['name']} ({first['number']})")] if first else pairs)]

    return answer(ask, text, timeout=30)


@command.verb("undefine", examples=["covey cluster undefine lab --yes"])
@click.argument("name", metavar="CLUSTER")
@click.option("--force", is_flag=True, help="Put the nodes that are online offline first.")
@yes_option
def undefine(name: str, force: bool, yes: bool) -> int:
    """Remove this cluster from all its nodes: the definitions, the registry with all that is in it, the local data.

    Ask on a registry server's node of it, which goes last. Refused while other nodes are online. A node that is away
    keeps its data until `covey node forget` there: nobody is left to tell it.
    """
    confirm(f"Remove the cluster {name} with its registry from all its nodes?", yes)

    def text(data: dict[str, Any]) -> list[Block]:
        rows = [(one["number"], one["name"], "removed" if one["erased"] else "away") for one in data["nodes"]]
        return [Table(("number", "name", "its local data"), rows)]

    return answer(lambda session: session.call("dcm", "cluster_undefine", which=name, force=force), text, timeout=120)


@command.verb("modify", examples=["covey cluster modify --name night"])
@click.option("--name", required=True, help="Its name from now on.")
def modify(name: str) -> int:
    """Rename this cluster; its id stays. Every node's local copy follows at once, or at its next join."""

    def text(data: dict[str, Any]) -> list[Block]:
        return [Fields(list(data.items()))]

    return answer(lambda session: session.call("dcm", "cluster_modify", name=name), text)


@command.verb("online", examples=["covey cluster online --wait"])
@wait_option
def online(wait: bool | None) -> int:
    """Ask all defined nodes to go online, and report what each said. With --wait, return when all are.

    The exit code is 1 when a node could not be asked.
    """

    async def ask(session: Session) -> Any:
        said = await session.call("dcm", "cluster_online")
        if waits(wait):
            asked = {one["number"] for one in said if one["error"] is None}
            await until(
                session,
                lambda: session.call("dcm", "node_ls"),
                lambda nodes: ", ".join(f"{node['name']} {node['state']}" for node in nodes),
                lambda nodes: asked <= {node["number"] for node in nodes if node["state"] == "online"},
                "the nodes to be online",
            )
            said = [one if one["error"] else {**one, "state": "online"} for one in said]
        return said

    return answer(ask, _said, timeout=60, code=_all_said)


@command.verb("offline", examples=["covey cluster offline --wait"])
@wait_option
def offline(wait: bool | None) -> int:
    """Ask all defined nodes to go offline, this one last, and report what each said. Their daemons stay.

    The exit code is 1 when a node could not be asked.
    """

    async def ask(session: Session) -> Any:
        said = await session.call("dcm", "cluster_offline")
        if waits(wait):
            await until(
                session,
                lambda: session.call("dcm", "cluster_status"),
                lambda status: f"this node is {status['node_state']}",
                lambda status: status["node_state"] == "offline",
                "this node to be offline",
            )
            said[-1]["state"] = "offline"
        return said

    return answer(ask, _said, timeout=60, code=_all_said)


def _said(data: list[dict[str, Any]]) -> list[Block]:
    rows = [(one["number"], one["name"], one["state"], (one["error"] or {}).get("message")) for one in data]
    return [Table(("number", "name", "state", "error"), rows)]


def _all_said(data: list[dict[str, Any]]) -> int:
    return 1 if any(one["error"] for one in data) else 0


@command.verb(
    "balance", examples=["covey cluster balance pools.yaml --plan", "covey cluster balance pools.yaml --apply"]
)
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--plan/--apply", "plan", default=True, help="Show the moves (the default), or make them.")
@click.option("--at", callback=moment, metavar="TIME", help="As of a time of the schedule, as '2026-11-23 20:00'.")
def balance(file: str, plan: bool, at: Any) -> int:
    """Move nodes between their clusters, by the rules and the schedule of a file.

    A pool is a list of nodes that are defined to several clusters; the file says how many of them each cluster wants
    at least, and when. A node moves only where one is missing, from where one is over; one that is offline, or is a
    registry server, is left alone. Ask on a node of a cluster that all nodes of the pools are defined to; they may be
    in another one just now. --plan shows the moves with their reasons and changes nothing. --apply makes them one after
    the other; the first that fails is the last (exit code 1), and what was done stays. Made twice, it does nothing.
    """
    return balanced(file, not plan, at)


@command.verb("ls", examples=["covey cluster ls", "covey cluster ls -o json"])
def ls() -> int:
    """List the clusters this node is defined to.

    `current` marks the one it is online in or goes online in; `target` differs from it only while a node moves.
    """

    def text(data: list[dict[str, Any]]) -> list[Block]:
        rows = [(found["name"], found["id"], found["current"], found["target"]) for found in data]
        return [Table(("name", "id", "current", "target"), rows, "this node is defined to no cluster")]

    return answer(lambda session: session.call("dcm", "cluster_ls"), text)


@command.verb("views", examples=["covey cluster views --last 5", "covey cluster views -o json"])
@click.option("--last", type=click.IntRange(min=1), default=20, show_default=True, metavar="N", help="How many.")
def views(last: int) -> int:
    """Show the last views: who was a member, who joined and who left.

    Every member has the same sequence; ten nodes lost at once are one view change.
    """

    def text(data: list[dict[str, Any]]) -> list[Block]:
        rows = [(".".join(map(str, v["id"])), v["members"], v["joined"], v["left"], v["at"]) for v in data]
        return [Table(("view", "members", "joined", "left", "at"), rows, "no views yet")]

    return answer(lambda session: session.call("liveness", "views", last=last), text)


def _all_online(data: dict[str, Any]) -> bool:
    return bool(data["nodes"]) and all(node["state"] == "online" for node in data["nodes"])


class Predicate(Converter):
    """`online`, `quorate`, `writable` or `members=N`, as a function of the cluster's status."""

    name = "predicate"
    plain: dict[str, Callable[[dict[str, Any]], bool]] = {
        "online": _all_online,
        "quorate": lambda data: bool(data["quorate"]),
        "writable": lambda data: bool(data["registry"]["writable"]),
    }

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if callable(value):
            return value
        if value in self.plain:
            return _named(value, self.plain[value])
        members = re.fullmatch(r"members=(\d+)", value)
        if members is None:
            self.fail(f"{value!r} is none of {', '.join(self.plain)}, members=N", param, ctx)
        number = int(members[1])
        return _named(value, lambda data: len((data.get("view") or {}).get("members", [])) == number)


def _named(name: str, holds: Callable[[dict[str, Any]], bool]) -> Any:
    def predicate(data: dict[str, Any]) -> bool:
        return holds(data)

    predicate.__name__ = name
    return predicate


@command.verb("wait-for", examples=["covey cluster wait-for online --timeout 30s", "covey cluster wait-for members=3"])
@click.argument("predicate", type=Predicate(), metavar="online|quorate|writable|members=N")
def wait_for(predicate: Callable[[dict[str, Any]], bool]) -> int:
    """Wait until the cluster is as you want it, and print its status.

    online: every defined node is online. quorate: this side has the quorum. writable: the registry takes writes.
    members=N: the view has exactly N members. Waits for 60s unless --timeout says otherwise; then the exit code is 7.
    """

    def state(data: dict[str, Any]) -> str:
        nodes = ", ".join(f"{node['name']} {node['state']}" for node in data["nodes"]) or "this node is in no cluster"
        return f"{nodes}; registry {data['registry']['phase']}; {'' if data['quorate'] else 'not '}quorate"

    def ask(session: Session) -> Any:
        return until(session, lambda: session.call("dcm", "cluster_status"), state, predicate, predicate.__name__)

    return answer(ask, status_blocks, timeout=60)
