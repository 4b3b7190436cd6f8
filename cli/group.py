"""`covey group`: the groups there are and who is in them."""

from __future__ import annotations

from typing import Any

import click

from .connection import Session, answer
from .output import Block, Fields, Table
from .verbs import Noun

command = Noun(
    "group",
    help="Named groups of processes. Joins, leaves, failures and messages reach all members in the same order, and "
    "what members vote on is decided for all or for none. Groups named sys.… are covey's own.",
)


@command.verb("ls", examples=["covey group ls", "covey group ls -o json"])
def ls() -> int:
    """List the groups of the cluster: how many members, which view, and how many messages and changes there were."""

    def text(data: list[dict[str, Any]]) -> list[Block]:
        rows = [(g.get("name"), _count(g.get("members")), g.get("view"), g.get("sequence")) for g in data]
        return [Table(("name", "members", "view", "messages"), rows, "no groups")]

    return answer(lambda session: session.call("groups", "ls"), text)


def _count(members: Any) -> Any:
    return len(members) if isinstance(members, list) else members


@command.verb("show", examples=["covey group show sys.registry", "covey group show sys.registry -o json"])
@click.argument("name")
def show(name: str) -> int:
    """Show one group: its view, its members in the order in which they joined, its state value and its phase."""

    def ask(session: Session) -> Any:
        return session.call("groups", "show", name=name)

    def text(data: dict[str, Any]) -> list[Block]:
        fields = Fields([(field, data.get(field)) for field in ("name", "view", "phase", "state")])
        rows = [(member["node"], member["member"]) for member in data["members"]]
        return [fields, "", Table(("node", "member"), rows, "no members")]

    return answer(ask, text)
