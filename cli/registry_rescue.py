"""The verbs of `covey registry` that save it and rescue it: backup, restore, force.

The first asks the registry, the others work on the files of a node whose daemon does not run. What is done is in
`components/registry/backup.py`, and in `restoring.py` and `forcing.py` of the DCM; here is what a person is told of it.
"""

from __future__ import annotations

import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from ..errors import InvalidFile, Refused, UsageError
from .connection import Session, answer, command_schema, offline
from .options import settings
from .output import Block, Envelope, Fields, Table, note, print_result, timestamp
from .registry_data import LONG
from .verbs import alone
from .waiting import PASSING, confirm, yes_option

ELECTION = 5.0
"""Seconds to wait for a primary: an election takes two."""

# --- backup ----------------------------------------------------------------------------------------------------------


@alone("backup", examples=["covey registry backup night.backup", "covey registry backup --check night.backup"])
@click.argument("file")
@click.option("--check", is_flag=True, help="Check an existing FILE, every byte of it; needs no daemon.")
def backup(file: str, check: bool) -> int:
    """Write all of the registry into FILE, while it runs.

    Every write that was acknowledged before is in it. It can be taken through any node of the cluster; `restore` makes
    a cluster of it again on an empty machine. The file is whole or not there, and never replaces another.
    """
    from ..components.registry import backup as files

    path = Path(file)
    if check:
        return offline(_label(path, files.read(path).label), _label_text)
    files.check_absent(path)

    async def ask(session: Session) -> Any:
        record = await _fetch(session)
        return _label(path, files.write(path, record, timestamp()))

    return answer(ask, _label_text, timeout=LONG)


async def _fetch(session: Session) -> bytes:
    """Return the record of a snapshot, fetched part by part from where the primary is."""
    begun = await _at_primary(session)
    found = bytearray()
    for number in range(begun["parts"]):
        found += await session.call("registry", "backup", node=begun["node"], token=begun["token"], part=number)
        if sys.stderr.isatty() and number % 16 == 15:
            note(f"… {len(found) * 100 // begun['size']} %")
    return bytes(found)


async def _at_primary(session: Session) -> Any:
    """Ask for a backup where the primary is; while there is none, one is waited for as long as an election takes."""
    import asyncio

    node: int | None = None
    patience = asyncio.get_running_loop().time() + ELECTION
    while True:
        try:
            return await session.call("registry", "backup", node=node)
        except PASSING as problem:  # NotPrimary is among them
            node = problem.details.get("primary") or None
            if asyncio.get_running_loop().time() > patience:
                raise
            if node is None:
                await asyncio.sleep(0.1)


def _label(path: Path, label: Any) -> dict[str, Any]:
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "cluster": {"name": label.cluster_name, "id": label.cluster_id},
        "taken_at": label.taken_at,
        "revision": label.revision,
        "incarnation": list(label.incarnation),
        "keys": label.keys,
    }


def _label_text(data: dict[str, Any]) -> list[Block]:
    shown = {**data, "cluster": _cluster(data["cluster"]), "incarnation": _dotted(data["incarnation"])}
    return [Fields(list(shown.items()))]


def _cluster(cluster: dict[str, Any]) -> str:
    return f"{cluster['name']} ({cluster['id']})"


def _dotted(incarnation: list[int] | None) -> str:
    return ".".join(map(str, incarnation)) if incarnation else "-"


# --- restore ---------------------------------------------------------------------------------------------------------


@alone(
    "restore",
    examples=[
        "covey registry restore night.backup --node /etc/covey/node.yaml",
        "covey registry restore night.backup --node n1.yaml --check",
    ],
)
@click.argument("file")
@click.option(
    "--node", "node_file", metavar="YAML", default="node.yaml", show_default=True, help="The YAML of this node."
)
@click.option(
    "--number",
    type=click.IntRange(min=1),
    help="The number it gets (default: the one it has in the backup, else that of the first registry server).",
)
@click.option("--check", is_flag=True, help="Check the backup and this machine, say what would be, change nothing.")
@yes_option
def restore(file: str, node_file: str, number: int | None, check: bool, yes: bool) -> int:
    """Make this machine the first node of the cluster in a backup, with all its data.

    For when all registry servers are lost. It needs an empty state folder, a node's YAML and key as `covey node init`
    writes them, and no daemon: start it afterwards with `covey node start`. This node replaces the one with its
    number, and is the only registry server; the others stay defined. While machines of the old registry still run,
    there would be two clusters of one name: make sure that they are gone.
    """
    from ..components.dcm import restoring
    from ..components.dcm.stopped import stopped
    from ..components.registry import backup as files

    found = files.read(Path(file))
    config, machine = _this_machine(node_file, look=check)
    plan = restoring.plan(found, machine, number)
    data = _plan(plan, str(config.node.state_dir), file, node_file)
    if check:
        return offline(data, _plan_text)
    confirm(f"{_will_be(data)} Restore it here?", yes)
    with stopped(config.node.state_dir) as at:
        restoring.carry_out(at, plan)
    done = offline(data, _plan_text)
    if settings().output in (None, "table"):
        note(f"next: covey node start {shlex.quote(str(node_file))}")
    return done


def _this_machine(node_file: str, look: bool) -> tuple[Any, Any]:
    from ..components.dcm import restoring
    from ..components.dcm.sources import installed_sources
    from ..plugins.manager import PluginManager
    from .config import load_or_fail

    config = load_or_fail(node_file)
    said = settings().state
    if said is not None and Path(said).absolute() != Path(config.node.state_dir).absolute():
        raise UsageError(
            f"--state {said} is not the state folder in {node_file}: {config.node.state_dir}", "leave it out"
        )
    return config, restoring.this_machine(config, config.node.state_dir, installed_sources(PluginManager()), look=look)


def _plan(plan: Any, state: str, file: str, node_file: str) -> dict[str, Any]:
    replica = plan.replica
    new = plan.copy.store
    return {
        "file": file,
        "node_file": node_file,
        "state": state,
        "cluster": {"name": replica.cluster.name, "id": replica.cluster.id},
        "taken_at": plan.label.taken_at,
        "keys": plan.label.keys,
        "before": list(plan.label.incarnation),
        "incarnation": [new.gen, new.epoch, new.index],
        "node": {"number": replica.node.number, "name": replica.node.name},
        "replaces": plan.replaces.name if plan.replaces else None,
        "others": [number for number in replica.nodes.nodes if number != replica.node.number],
    }


def _will_be(data: dict[str, Any]) -> str:
    place = f" in place of {data['replaces']}" if data["replaces"] else ""
    return (
        f"{data['node']['name']} becomes node {data['node']['number']}{place} and the only registry server of "
        f"{_cluster(data['cluster'])}, as it was at {data['taken_at']}."
    )


def _plan_text(data: dict[str, Any]) -> list[Block]:
    others = ", ".join(map(str, data["others"])) or "none"
    return [_will_be(data), f"{data['keys']} keys in {data['state']}; other nodes that stay defined: {others}"]


# --- force -----------------------------------------------------------------------------------------------------------


@alone("force", examples=["covey --state /var/lib/covey registry force", "covey registry force ./n1 ./n2 --check"])
@click.argument("state_dirs", metavar="[STATE_DIR]…", nargs=-1, type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Look at the copies and say what would be done; change nothing.")
@yes_option
def force(state_dirs: tuple[Path, ...], check: bool, yes: bool) -> int:
    """Go on from the best copy of the registry that is left, when a majority of its servers is lost for good.

    Offline: the daemons on these state folders must be stopped (the folder of --state, if none is named; folders
    saved from other servers may be named too). The newest sound copy becomes the whole registry, with its node as the
    only server, in a new generation: copies of the old one are refused for ever. What only the lost servers held is
    lost, also if it was acknowledged. Never do this while a majority of the servers can still be brought back.
    """
    from ..components.dcm import forcing
    from ..components.dcm.stopped import stopped

    folders = list(state_dirs) or [settings().folder]
    for folder in folders:
        if not (folder / "dcm" / "configuration" / "clusters.json").exists():
            raise InvalidFile(f"{folder} is no state folder of a node", "name folders like /var/lib/covey")
    with ExitStack() as held:
        found = forcing.survey([held.enter_context(stopped(folder)) for folder in folders], settings().cluster)
        data = found.plain()
        if check:
            return offline(data, _survey_text)
        if not yes:
            print_result(Envelope(command_schema()), data, _survey_text(data), _for_people())
            _consent(found.cluster.name)
        after = forcing.carry_out(found)
    data |= {"incarnation": list(after)}
    return offline(data, _forced_text if not yes else lambda data: [*_survey_text(data), *_forced_text(data)])


def _for_people() -> Any:
    from .options import Settings

    return Settings()


def _consent(name: str) -> None:
    if not sys.stdin.isatty():
        confirm("This gives up what only the lost servers hold.", yes=False)
    typed = click.prompt("Type the cluster's name to do it", default="", show_default=False, err=True)
    if typed != name:
        raise Refused(f"you typed {typed!r}, the cluster is {name!r}", "nothing was changed")


def _survey_text(data: dict[str, Any]) -> list[Block]:
    rows = [
        (
            each["number"],
            "sound" if each["sound"] else "damaged",
            _dotted(each["incarnation"]),
            each["committed"],
            each["revision"],
            each["state"],
        )
        for each in data["copies"]
    ]
    blocks: list[Block] = [Table(("node", "copy", "incarnation", "committed", "revision", "state folder"), rows)]
    for each in data["copies"]:
        blocks += [f"damaged: {one['path']} at byte {one['position']}: {one['reason']}" for one in each["damaged"]]
        if each["aside"]:
            blocks.append(f"node {each['number']}: {each['path']} was put aside for a newer copy, which is not there")
    chosen = next(each for each in data["copies"] if each["state"] == data["state"])
    _, _, last = chosen["incarnation"]
    blocks += [
        "",
        f"the best copy is that of node {data['best']}; it ends with entry {last}, revision {chosen['revision']}",
    ]
    if data["doubtful"]:
        first, last = data["doubtful"]
        blocks.append(
            f"kept, though this copy does not know them as committed: entries {first} to {last}, with {data['unsure']} "
            "transactions of users; some may never have been acknowledged"
        )
    if data["missing"]:
        numbers = ", ".join(map(str, data["missing"]))
        blocks.append(f"lost: whatever is behind entry {last} and only on the registry servers {numbers}, if anything")
    here = len(data["servers"]) - len(data["missing"])
    if here > len(data["servers"]) // 2:
        blocks.append(
            f"{here} of {len(data['servers'])} servers' copies are sound: a majority, which needs no force; start "
            "those nodes instead"
        )
    return blocks


def _forced_text(data: dict[str, Any]) -> list[Block]:
    return [
        f"node {data['best']} is the only registry server now, incarnation {_dotted(data['incarnation'])}",
        f"next: start it on {data['state']}; the other servers must not be started before it runs",
    ]


VERBS = [backup, restore, force]
