"""`covey log`: who asked a node for what, when, and how it ended.

Every node writes its own audit log and answers for it; `--node all` asks those that are online and merges by time.
"""

from __future__ import annotations

from typing import Any

import click

from .connection import Session, answer
from .names import node_number
from .output import Block, Table
from .registry import value_text
from .verbs import Noun

command = Noun(
    "log",
    help="The audit log: every operation that somebody asked for, with the user that the kernel named, and how it "
    "ended. Each node keeps its own; its lines are chained, so that one that was changed or removed is noticed.",
)


@command.verb(
    "audit",
    examples=[
        "covey log audit",
        "covey log audit -s 'outcome != \"done\"' --last 20",
        "covey log audit --node all -s 'what =~ \"node_*\" && uid != 0' -o json",
    ],
)
@click.option("-s", "--select", default="", metavar="EXPR", help="Only entries for which this holds.")
@click.option("--node", metavar="N|all", help="Another node, or all that are online (default: this one).")
@click.option(
    "--last", type=click.IntRange(1, 1000), default=100, show_default=True, metavar="N", help="How many at most."
)
def audit(select: str, node: str | None, last: int) -> int:
    """Show who asked for what, when, and how it ended: the last entries of the audit log, oldest first.

    EXPR looks at the fields at, who, uid, what and outcome ("done", or the code of an error), in the language of
    `covey tap` and `covey resource ls -s`. A line that was changed or cut short is warned of. Needs the role operator.
    """

    async def ask(session: Session) -> list[dict[str, Any]]:
        entries = []
        for number in await _asked(session, node):
            told = await session.call("dcm", "log_audit", node=number, select=select, last=last)
            here = session.bus.node.number if number is None else number
            entries += [{"node": here or None, **entry} for entry in told["entries"]]
            session.warnings += [f"node {here}: {_break(found)}" for found in told["breaks"]]
        return sorted(entries, key=lambda entry: str(entry["at"]))[-last:]

    return answer(ask, _table)


async def _asked(session: Session, node: str | None) -> list[int | None]:
    """Return the numbers of the nodes to ask; None is this one, which may be in no cluster."""
    if node is None:
        return [None]
    if node != "all":
        return [await node_number(session, node)]
    nodes = await session.call("dcm", "node_ls")
    away = [f"node {one['number']}" for one in nodes if one["state"] != "online"]
    if away:
        session.warnings.append(f"not online, so not asked: {', '.join(away)}")
    return [int(one["number"]) for one in nodes if one["state"] == "online"]


def _break(found: dict[str, Any]) -> str:
    return f"{found['file']}, line {found['line']}: {found['reason']}"


def _table(data: list[dict[str, Any]]) -> list[Block]:
    rows = [
        (
            one["at"],
            one["node"],
            one["who"],
            one["uid"],
            one["what"],
            one["outcome"],
            " ".join(f"{name}={value_text(value)}" for name, value in one.get("with", {}).items() if value is not None),
        )
        for one in data
    ]
    return [Table(("at", "node", "who", "uid", "what", "outcome", "with"), rows, "no entries", cut=True)]
