"""`covey group`: the groups there are, what happens in them, and how a person takes part.

Expelling, speaking and proposing is done from outside, without joining: an operator need not be a member.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import Refused
from .connection import Session, answer, run
from .options import DURATION, settings
from .output import Block, Fields, Stream, Table, cell
from .verbs import Noun
from .waiting import confirm, yes_option

if TYPE_CHECKING:
    from ..components.groups.client import GroupEvent, GroupEvents

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


# --- what happens ---------------------------------------------------------------------------------------------

count_option = click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after N events.")


@command.verb("watch", examples=["covey group watch db", "covey group watch db --count 1 -o json"])
@click.argument("name")
@count_option
def watch(name: str, count: int | None) -> int:
    """Print what happens in a group from now on, one line an event, without joining it.

    The group need not exist yet. Ends at Ctrl-C or after --count events.
    """

    async def follow(session: Session) -> int:
        from ..components.groups.client import GroupEvents

        stream = Stream(settings())
        stream.remark(f"watching {name}; Ctrl-C ends it")
        return await _print(stream, GroupEvents(session.bus, name), count)

    return run(follow, endless=True)


@command.verb(
    "join",
    examples=[
        "covey group join db",
        "covey group join db --vote approve --count 5",
        "covey group join db --voted expel",
    ],
)
@click.argument("name")
@click.option("--value", metavar="TEXT", help="The group's state value, if this makes the group.")
@click.option(
    "--voted",
    multiple=True,
    type=click.Choice(("join", "expel", "state")),
    help="What the group puts to the vote, if this makes the group.",
)
@click.option("--vote", type=click.Choice(("approve", "reject")), help="Vote so on everything (default: no vote).")
@count_option
def join(name: str, value: str | None, voted: tuple[str, ...], vote: str | None, count: int | None) -> int:
    """Be a member of a group and print what happens there, one line an event; the first is the own join.

    Ends, and leaves the group, at Ctrl-C or after --count events. When another member or an operator expels this one,
    that is the last line and the exit code is 5.
    """

    async def follow(session: Session) -> int:
        from ..components.groups.client import Group

        stream = Stream(settings())
        async with Group(session.bus, name, value, voted) as group:
            if vote is not None:
                group.vote(lambda proposal: vote)
            stream.remark(f"a member of {name}; Ctrl-C leaves it")
            return await _print(stream, group, count)

    return run(follow, endless=True)


async def _print(stream: Stream, events: GroupEvents, count: int | None) -> int:
    shown = 0
    async for event in events:
        stream.line(_event(event), _line(event))
        shown += 1
        if shown == count:
            return 0
    if event.kind == "expelled":
        raise Refused(f"this member was expelled from the group {events.name}: {event.body or 'no reason given'}")
    return 0


def _event(event: GroupEvent) -> dict[str, Any]:
    who = [{"node": member.node, "member": member.member} for member in event.who]
    found = {"kind": event.kind, "sequence": event.sequence, "view": event.view, "who": who, "body": event.body}
    return {**found, "members": len(event.members), "missed": event.missed}


def _line(event: GroupEvent) -> str:
    who = ", ".join(f"{member.member}@{member.node}" for member in event.who)
    missed = f"({event.missed} events before this are lost)  " if event.missed else ""
    body = "" if event.body is None else f"  {cell(event.body)}"
    return f"{event.sequence:>8}  {missed}{event.kind:<8}  {who}{body}"


# --- taking part ----------------------------------------------------------------------------------------------


def _done(data: dict[str, Any]) -> list[Block]:
    return [f"done, event {data['sequence']} of {data['group']}"]


@command.verb(
    "expel", examples=["covey group expel db client-7 --reason 'does not answer'", "covey group expel db app@2 --yes"]
)
@click.argument("name")
@click.argument("member")
@click.option("--reason", default="", metavar="TEXT", help="Told to all members, and to the one who goes.")
@yes_option
def expel(name: str, member: str, reason: str, yes: bool) -> int:
    """Put a member out of a group. MEMBER is its name as `covey group show` has it; NAME@NODE where several have it.

    It is told, and may join again. Where the group votes on it, the others decide: exit code 5 if they reject it.
    """
    confirm(f"Expel {member} from the group {name}?", yes)

    def ask(session: Session) -> Any:
        return session.call("groups", "expel", group=name, member=member, reason=reason, outside=True)

    return answer(ask, _done)


@command.verb("state", examples=["covey group state db", "covey group state db ready"])
@click.argument("name")
@click.argument("value", required=False)
def state(name: str, value: str | None) -> int:
    """Show a group's state value, or change it to the text VALUE; all members get it in order with its messages."""

    async def ask(session: Session) -> dict[str, Any]:
        if value is not None:
            await session.call("groups", "set_state", group=name, value=value, outside=True)
            return {"name": name, "state": value}
        found = await session.call("groups", "show", name=name)
        return {"name": name, "state": found["state"]}

    return answer(ask, lambda data: [cell(data["state"])])


@command.verb(
    "propose",
    examples=[
        "covey group propose db switch --phases 2",
        "covey group propose db stop --default approve --deadline 2s",
    ],
)
@click.argument("name")
@click.argument("text")
@click.option(
    "--phases", type=click.IntRange(min=1), default=1, show_default=True, help="Rounds of votes at most, 1 to 5."
)
@click.option(
    "--default",
    type=click.Choice(("approve", "reject")),
    default="reject",
    show_default=True,
    help="The vote of a member that gives none.",
)
@click.option("--deadline", type=DURATION, default="5s", show_default=True, metavar="TIME", help="Of one round.")
def propose(name: str, text: str, phases: int, default: str, deadline: float) -> int:
    """Put TEXT to the vote of a group's members, and wait for the outcome: exit code 5 if they reject it.

    Any reject ends it. When all approve, or when the last round ends without a reject, all members get it; else none.
    """

    def ask(session: Session) -> Any:
        terms: dict[str, Any] = {"phases": phases, "default": default, "deadline": deadline}
        return session.call("groups", "propose", group=name, body=text, **terms, outside=True)

    return answer(ask, _done, timeout=phases * deadline + 10.0)


@command.verb("broadcast", examples=["covey group broadcast db 'maintenance at noon'"])
@click.argument("name")
@click.argument("text")
def broadcast(name: str, text: str) -> int:
    """Send TEXT to all members of a group: all get it, at the same place among all messages and changes, or none."""

    def ask(session: Session) -> Any:
        return session.call("groups", "broadcast", group=name, body=text, outside=True)

    return answer(ask, _done)


@command.verb("transcript", examples=["covey group transcript db", "covey group transcript db -o json"])
@click.argument("name")
def transcript(name: str) -> int:
    """Print the latest votes of a group, oldest first: what was proposed, who voted what and why, and the outcome."""

    def text(data: list[dict[str, Any]]) -> list[Block]:
        blocks: list[Block] = []
        for vote in data:
            who, kind = f"{vote['proposer']['member']}@{vote['proposer']['node']}", vote["op"]
            target = f" {vote['target']['member']}@{vote['target']['node']}" if vote["target"] else ""
            blocks.append(f"{vote['protocol']}: {kind}{target} {cell(vote['body'])} by {who}: {vote['outcome']}")
            rows = [(v["phase"], v["node"], v["member"], v["vote"], v["why"] or v["how"]) for v in vote["votes"]]
            blocks += [Table(("phase", "node", "member", "vote", "why"), rows, "no votes"), ""]
        return blocks[:-1] or ["no votes yet"]

    return answer(lambda session: session.call("groups", "transcript", name=name), text)
