"""`covey node`: start this node's daemon, define other nodes, put them online and offline, see how they are."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import NotOnline, from_wire
from .cluster import NODE_COLUMNS, node_rows
from .connection import Session, answer
from .connection import offline as told
from .names import node_number
from .options import DURATION, settings
from .output import Block, Fields, Table, cell, note
from .quantities import span
from .verbs import Noun
from .waiting import confirm, until, wait_option, waits, yes_option

command = Noun(
    "node",
    help="Nodes of the cluster. A node is defined once (its number, name and id are then in the registry) and online "
    "while the other members see it working. NODE is a number or a name.",
)


@command.verb("init", examples=["covey node init /etc/covey", "covey node init n2.yaml --open --adapter 127.1.0.2/16"])
@click.argument("where", metavar="[DIR|FILE]", type=click.Path(path_type=Path), default=".")
@click.option("--name", help="The node's name (default: the machine's).")
@click.option(
    "--adapter", "adapters", multiple=True, metavar="ADDRESS/PREFIX", help="An address of its own; repeat it."
)
@click.option("--port", type=click.IntRange(1, 65534), default=7400, show_default=True, help="For the other nodes.")
@click.option("--open", "open_", is_flag=True, help="No encryption: on loopback addresses alone, for trying things.")
def init(where: Path, name: str | None, adapters: tuple[str, ...], port: int, open_: bool) -> int:
    """Write a node's YAML file, with a word on every setting, and the key of the node beside it (mode 0600).

    The YAML is DIR/node.yaml, or FILE when it ends in .yaml; the addresses are those that this machine has. Nothing
    that exists is overwritten. --state names the node's state folder (default: `state` beside the file).
    """
    from .init import write

    made = write(where, name=name, adapters=adapters, port=port, state=settings().state, curve=not open_)
    file = made["file"]
    typed = shlex.quote(str(file))
    note(f"next: look through {file}, then `covey config check {typed}` and `covey node start {typed}`")
    return told(made, _fields)


@command.verb(
    "prepare", examples=["covey --state ./n2 node prepare", "covey node prepare --ttl 10m", "covey node prepare --ls"]
)
@click.option("--ttl", type=DURATION, default="1h", show_default=True, help="How long it holds: 1m to 7d.")
@click.option("--ls", "list_", is_flag=True, help="List the tokens there are, and how often nobody was let in.")
@click.option("--cancel", is_flag=True, help="Make every unused token void.")
def prepare(ttl: float, list_: bool, cancel: bool) -> int:
    """Print a join token: one word with which this node can be defined to a cluster, once, until it expires.

    Run it on the new node, and give the word to `covey node define` on a node of the cluster. It holds a secret, and
    this node's public key, so that both sides know whom they speak with.
    """
    if list_ or cancel:
        verb = "node_tokens_cancel" if cancel else "node_tokens"
        return answer(lambda session: session.call("dcm", verb), _tokens)

    def text(data: dict[str, Any]) -> list[Block]:
        where = data["addresses"][0] if data["addresses"] else "ADDRESS"
        note(f"it holds for {span(ttl)} and works once; on a node of the cluster: covey node define {where} --token …")
        return [data["token"]]

    return answer(lambda session: session.call("dcm", "node_prepare", ttl=ttl), text)


def _tokens(data: dict[str, Any]) -> list[Block]:
    import datetime

    if "cancelled" in data:
        return [f"{len(data['cancelled'])} made void"]
    rows = [
        (
            each["id"],
            each["state"],
            datetime.datetime.fromtimestamp(each["expires"], datetime.UTC).isoformat(" ", "seconds"),
        )
        for each in data["tokens"]
    ]
    refused = [f"{count} {reason}" for reason, count in data["refused"].items()]
    return [Table(("token", "state", "expires"), rows, "no tokens"), "refused: " + (", ".join(refused) or "nobody")]


@command.verb("start", examples=["covey node start n1.yaml"])
@click.argument("file", type=click.Path(dir_okay=False))
def start(file: str) -> int:
    """Start the node's daemon from a YAML file and stay in the foreground until it ends.

    Every mistake in the file is reported at once, with line and column, and nothing is started (exit code 10). A node
    that is defined to a cluster joins it by itself, unless an operator put it offline. SIGTERM or Ctrl-C stops the
    node in order. To run it in the background use a service manager, or `covey lab` to try things.
    """
    from .config import load_or_fail

    config = load_or_fail(file)
    from ..components.dcm import supervisor

    return int(supervisor.run(config))


@command.verb("ls", examples=["covey node ls", "covey node ls -o json"])
def ls() -> int:
    """List the nodes of the cluster with their states and addresses.

    online: a member that is configured. pending online: a member whose configuration is not done. offline: defined,
    and not a member now.
    """

    def text(data: list[dict[str, Any]]) -> list[Block]:
        return [Table(NODE_COLUMNS, node_rows(data), "this node is in no cluster")]

    return answer(lambda session: session.call("dcm", "node_ls"), text)


def _fields(data: dict[str, Any]) -> list[Block]:
    return [Fields(list(data.items()))]


def _about(verb: str, typed: str | None) -> Any:
    async def ask(session: Session) -> Any:
        return await session.call("dcm", verb, number=await node_number(session, typed))

    return ask


@command.verb("show", examples=["covey node show n2", "covey node show -o json"])
@click.argument("node", required=False)
def show(node: str | None) -> int:
    """Show one node: number, name, id, boot id, state and addresses. Without NODE, this one."""
    return answer(_about("node_show", node), _fields)


@command.verb(
    "define", examples=["covey node define 10.0.0.2:7400 --token covey1abc", "covey node define 10.0.0.2 --token -"]
)
@click.argument("address", metavar="HOST:PORT")
@click.option("--name", help="The node's name (default: the one in its YAML).")
@click.option("--number", type=click.IntRange(min=1), help="The node's number (default: the lowest free one).")
@click.option("--id", "node_id", help="A check: refuse when the node reports another id.")
@click.option("--token", help="The join token that `covey node prepare` printed there; - reads it from standard input.")
@wait_option
def define(
    address: str, name: str | None, number: int | None, node_id: str | None, token: str | None, wait: bool | None
) -> int:
    """Add the node that listens on HOST:PORT to this cluster; its daemon must run.

    The token shows that its administrator wants it, and which node it is; only with `mode: open` it may be left out.
    Both sides agree or nothing is left behind: an old definition of the node is erased, a number, name or address
    that is taken is refused. The node then joins by itself; with --wait the command returns when it is online.
    """
    if token == "-":
        token = sys.stdin.readline()

    async def ask(session: Session) -> Any:
        made = await session.call(
            "dcm", "node_define", address=address, name=name, number=number, id=node_id, token=token
        )
        session.warnings += [f"[{one['code']}] {one['message']}: {one['hint']}" for one in made.pop("findings", ())]
        if waits(wait):
            await _until_state(session, int(made["number"]), "online")
        return made

    return answer(ask, _defined, timeout=30)


@command.verb("undefine", examples=["covey node undefine n3 --yes"])
@click.argument("node")
@yes_option
def undefine(node: str, yes: bool) -> int:
    """Remove a node from the cluster: its definition everywhere, and its local data of this cluster.

    A node that is online is first put offline in order. One that is away learns it when it comes back. The last
    registry server cannot be removed.
    """
    confirm(f"Remove node {node} from the cluster, with its local data?", yes)
    return answer(_about("node_undefine", node), _result, timeout=30)


@command.verb(
    "modify", examples=["covey node modify n3 --name web3", "covey node modify 3 --address 10.0.0.13/24 --port 7400"]
)
@click.argument("node")
@click.option("--name", help="Its name from now on.")
@click.option("--address", "addresses", multiple=True, metavar="ADDRESS/PREFIX", help="Where it listens; repeat it.")
@click.option("--port", type=click.IntRange(1, 65534), help="On which port.")
def modify(node: str, name: str | None, addresses: tuple[str, ...], port: int | None) -> int:
    """Change a node's name, or where the others find it. Every node's local copy follows at once, or at its next join.

    A node listens where its own YAML says; when that was changed, --address and --port tell the others. The addresses
    given are all it has from then on. A name or address that another node has is refused.
    """

    async def ask(session: Session) -> Any:
        number = await node_number(session, node)
        given: dict[str, Any] = {"name": name, "addresses": list(addresses) or None, "port": port}
        return await session.call("dcm", "node_modify", number=number, **given)

    return answer(ask, _defined)


def _defined(data: dict[str, Any]) -> list[Block]:
    return _fields({name: found for name, found in data.items() if name not in ("definition_id", "key")})


@command.verb("move", examples=["covey node move --to night", "covey node move n3 --to night"])
@click.argument("node", required=False)
@click.option("--to", required=True, metavar="CLUSTER", help="A cluster that the node is defined to: its name or id.")
@click.option("--force", is_flag=True, help="Though the cluster that the node leaves loses its quorum by it.")
@click.option("--wait/--no-wait", default=True, help="Return when it is over (the default), or when it has begun.")
def move(node: str | None, to: str, force: bool, wait: bool) -> int:
    """Move a node to another of its clusters, without restarting its processes. Without NODE, this one.

    It leaves the one in order and joins the other. If it is not online there within 30 s it goes back; whatever ends
    its daemon on the way, it comes back in one of the two. The command returns when the move is over, with the time of
    each step. Another node leaves this cluster by it, so nobody here sees the end: then it returns when that has begun.
    """

    async def ask(session: Session) -> Any:
        number = await node_number(session, node) if node is not None else None
        elsewhere = number not in (None, session.bus.node.number)
        begun = await session.call("dcm", "node_move", to=to, force=force, wait=False, number=number)
        if elsewhere:
            note(f"it has begun and goes on without this cluster; its end: `covey node ls` on a node of {to}")
        return begun if elsewhere or not wait else await _until_moved(session)

    return answer(ask, _moved, timeout=90)


async def _until_moved(session: Session) -> Any:
    def state(data: dict[str, Any]) -> str:
        done = data["steps"][-1]["what"] if data["steps"] else "asked"
        return f"from {data['from']} to {data['to']}: {done}"

    async def ask() -> Any:
        return await session.call("dcm", "node_moving")

    moved = await until(session, ask, state, lambda data: data["state"] == "idle", "the move to be over")
    if error := moved["error"]:
        raise from_wire(error["code"], error["message"], error["hint"])
    return {key: moved[key] for key in ("from", "to", "ms", "steps")}


def _moved(data: dict[str, Any]) -> list[Block]:
    steps = [(each["step"], f"{each['ms']:.0f}", each["what"]) for each in data["steps"]]
    return [
        Fields([("from", data["from"]), ("to", data["to"]), ("ms", f"{data['ms']:.0f}")]),
        Table(("step", "ms", "what is done"), steps, "on its way"),
    ]


@command.verb("forget", examples=["covey node forget lab --yes"])
@click.argument("name", metavar="CLUSTER")
@yes_option
def forget(name: str, yes: bool) -> int:
    """Erase this node's local data of a cluster that is gone; CLUSTER is a name or an id.

    A node that was undefined while it was away erases its data by itself, once a node of the cluster proves it. This is
    for a cluster that no node is left of to ask: it is your word alone. It is refused while this node is online in that
    cluster, and while a node of it answers and still lists this one.
    """
    confirm(f"Erase what this node has of the cluster {name}, its copy of the registry too?", yes)
    return answer(lambda session: session.call("dcm", "node_forget", which=name), _result, timeout=30)


@command.verb("online", examples=["covey node online n3 --wait"])
@click.argument("node", required=False)
@wait_option
def online(node: str | None, wait: bool | None) -> int:
    """Put a node online: it joins now, and again at every start of its daemon. Without NODE, this one."""
    return _switch("online", node, wait)


@command.verb("offline", examples=["covey node offline n3 --wait"])
@click.argument("node", required=False)
@wait_option
def offline(node: str | None, wait: bool | None) -> int:
    """Put a node offline: its components stop in reverse order, its daemon stays. Without NODE, this one.

    It stays offline over restarts, until `covey node online`.
    """
    return _switch("offline", node, wait)


def _switch(state: str, typed: str | None, wait: bool | None) -> int:
    async def ask(session: Session) -> Any:
        number = await node_number(session, typed)
        accepted = await session.call("dcm", f"node_{state}", number=number)
        return await _until_state(session, number, state) if waits(wait) else accepted

    return answer(ask, _result, timeout=30)


async def _until_state(session: Session, number: int, state: str) -> Any:
    async def ask() -> Any:
        data = await session.call("dcm", "node_show", number=number)
        if state == "online" and data.get("phase") == "failed":  # it will not get there by itself
            code = data.get("code") or NotOnline.code
            raise from_wire(code, f"node {number} does not go online: {data['reason']}", "see `covey node verdict`")
        return data

    return await until(
        session,
        ask,
        lambda data: f"node {number} is {data['state']}",
        lambda data: bool(data["state"] == state),
        f"node {number} to be {state}",
    )


def _result(data: Any) -> list[Block]:
    return _fields(data) if isinstance(data, dict) and data else ["done"]


@command.verb("verdict", examples=["covey node verdict", "covey --state ./n3 node verdict -o json"])
def verdict() -> int:
    """Show what the last check of this node's identity found, and what to do; it changes nothing.

    Three ids are compared: the original (read from the machine), the local one and the global one. Scenario 1: all
    agree, it joins. 2: undefined while away. 3: its identity hardware was replaced. 4: both. None: it could not be
    decided, and the reason says why.
    """
    return answer(lambda session: session.call("dcm", "node_verdict"), _fields)


@command.verb("boot-log", examples=["covey node boot-log", "covey node boot-log n2 -o json"])
@click.argument("node", required=False)
def boot_log(node: str | None) -> int:
    """Print the last boot of a node as a timeline: steps 0 to 24, who did what, when, and for whom it waited.

    `remote` steps were another node's to do; they are logged when this one learned of them. Without NODE, this one.
    """

    async def ask(session: Session) -> Any:
        number = await node_number(session, node) if node is not None else None
        return await session.call("dcm", "node_boot_log", number=number)

    return answer(ask, timeline)


def timeline(data: list[dict[str, Any]]) -> list[Block]:
    """Return a boot log as rows with the time since the one before; whom it waited for only if it waits."""
    rows = []
    before = 0.0
    waited = any(entry.get("waiting_for") for entry in data)
    for entry in data:
        ms = entry.get("ms")
        shown = took = None
        if ms is not None:
            shown, took, before = f"{ms:.0f}", f"+{ms - before:.0f}", ms
        row = [entry["step"], shown, took, entry["component"], entry["how"], cell(entry["event"])]
        rows.append([*row, entry.get("waiting_for")] if waited else row)
    columns = ["step", "ms", "took", "component", "how", "event", "waiting for"]
    return [Table(columns if waited else columns[:-1], rows, "no boot yet")]
