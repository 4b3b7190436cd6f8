"""Group Services on the bus: boot steps 9 and 12 to 14, and the verbs.

A member is always the calling party on this node: nobody can join, leave or speak for another. Bodies and state values
are any plain data outside and bytes inside. What drives the machine is in `engine.py`.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from ...bus.context import ComponentContext
from ...bus.messages import Role
from ...bus.service import Request, Seconds, verb
from ...errors import Denied, Refused
from ..registry.client import read_nodes
from .engine import GroupsEngine
from .messages import SERVICE, Default, Event, Member, Op, Terms, Vote
from .questions import (
    AwaitVote,
    Broadcast,
    CastVote,
    Expel,
    JoinGroup,
    LeaveGroup,
    ListGroups,
    Poll,
    ProposeVote,
    SetState,
    Show,
    Transcript,
)
from .settings import Settings

log = logging.getLogger(__name__)


class GroupsService:
    """The verbs of `groups`."""

    def __init__(self, engine: GroupsEngine) -> None:
        self._engine = engine

    # --- verbs: members ---------------------------------------------------------------------------------------------

    @verb(Role.OPERATOR)
    async def join(
        self, request: Request, *, group: str, state: Any = None, voted: tuple[Op, ...] = ()
    ) -> dict[str, Any]:
        """Make the calling party a member. If the group has none, `state` becomes its value, and it votes on `voted`.

        Returns `{group, view, sequence, joined, member, members, state, fast}`; poll from `joined - 1` and `fast` to
        see the own join first. `voted`: any of `join`, `expel`, `state`.
        """
        question = JoinGroup(group, self._party(request), _packed(state), request.role >= Role.COMPONENT, voted)
        return self._plain(await self._engine.ask(question, request.cause))

    @verb(Role.OPERATOR)
    async def leave(self, request: Request, *, group: str) -> dict[str, Any]:
        """End the membership of the calling party."""
        return self._plain(await self._engine.ask(LeaveGroup(group, self._party(request)), request.cause))

    @verb(Role.OPERATOR)
    async def broadcast(
        self, request: Request, *, group: str, body: Any, fast: bool = False, outside: bool = False
    ) -> dict[str, Any]:
        """Send a message to all members, through the log; returns `{group, view, sequence}` when it is decided.

        `fast`: past the log, ordered within the view; `sequence` is then its number there, and it is not durable.
        `outside`, here and below: the caller need not be a member; the group must have some.
        """
        question = Broadcast(group, self._party(request), msgspec.msgpack.encode(body), outside, fast)
        return self._plain(await self._engine.ask(question, request.cause))

    @verb(Role.OPERATOR)
    async def set_state(self, request: Request, *, group: str, value: Any, outside: bool = False) -> dict[str, Any]:
        """Change the group's state value; returns `{group, view, sequence}` when it is decided."""
        question = SetState(group, self._party(request), _packed(value), outside)
        return self._plain(await self._engine.ask(question, request.cause))

    @verb(Role.OPERATOR)
    async def propose(
        self,
        request: Request,
        *,
        group: str,
        body: Any,
        phases: int = 1,
        default: Default = "reject",
        deadline: Seconds = 5.0,
        outside: bool = False,
    ) -> dict[str, Any]:
        """Put something to the vote of all members; returns `{group, view, sequence}` when it is decided.

        In at most `phases` rounds of at most `deadline` seconds; `default` is the vote of a member that gives none.
        """
        terms = Terms(phases, default, deadline)
        question = ProposeVote(group, self._party(request), msgspec.msgpack.encode(body), terms, outside)
        return self._plain(await self._engine.ask(question, request.cause))

    @verb(Role.OPERATOR)
    async def expel(
        self, request: Request, *, group: str, member: str, reason: str = "", outside: bool = False
    ) -> dict[str, Any]:
        """Put a member (`PARTY` or `PARTY@NODE`) out of the group; returns `{group, view, sequence}`."""
        question = Expel(group, self._party(request), member, _packed(reason or None), outside)
        return self._plain(await self._engine.ask(question, request.cause))

    @verb(Role.OPERATOR)
    async def await_vote(self, request: Request, *, group: str, wait: Seconds = 10.0) -> dict[str, Any]:
        """Wait for something that the calling party has to vote on, at most `wait` seconds; who asks once shall vote.

        Returns `{vote}`: None, or `{protocol, phase, phases, op, proposer, target, body, default, deadline}`.
        """
        found = await self._engine.ask(AwaitVote(group, self._party(request), wait), request.cause)
        return {"vote": found["vote"] and self._plain(found["vote"])}

    @verb(Role.OPERATOR)
    async def vote(
        self, request: Request, *, group: str, protocol: int, phase: int, vote: Vote | None, why: str = ""
    ) -> dict[str, Any]:
        """Vote in this phase of this vote; None: the default. The first word counts; returns `{group, vote}`."""
        question = CastVote(group, self._party(request), protocol, phase, vote, why)
        found: dict[str, Any] = await self._engine.ask(question, request.cause)
        return found

    # --- verbs: watching --------------------------------------------------------------------------------------------

    @verb()
    async def poll(
        self,
        request: Request,
        *,
        group: str,
        since: int | None = None,
        wait: Seconds = 10.0,
        frozen: bool | None = None,
        fast: tuple[int, int, int] | None = None,
    ) -> dict[str, Any]:
        """Wait for events after sequence `since` (default: from now on), at most `wait` seconds; membership not needed.

        Returns `{group, from, to, fast, missed, events, frozen}`; go on with `since=to`, `fast=fast`. `missed` counts
        events no longer held; then `members`, `view` and `state` are there, too. `frozen` is what the caller believes:
        if it is otherwise, the answer comes at once with an event `frozen` or `thawed`.
        """
        return self._plain(await self._engine.ask(Poll(group, since, wait, frozen, fast), request.cause))

    @verb()
    async def ls(self, request: Request) -> list[dict[str, Any]]:
        """List the groups that have members: `{name, view, members, sequence, phase}`, `members` a count."""
        found: list[dict[str, Any]] = await self._engine.ask(ListGroups(), request.cause)
        return found

    @verb()
    async def show(self, request: Request, *, name: str) -> dict[str, Any]:
        """Return one group: `{name, view, sequence, members, state, voted, fast, phase}`."""
        return self._plain(await self._engine.ask(Show(name), request.cause))

    @verb()
    async def members(self, request: Request, *, group: str) -> list[dict[str, Any]]:
        """List the members of a group in the order in which they joined: `{node, boot_id, member, joined}`."""
        found: list[dict[str, Any]] = (await self.show(request, name=group))["members"]
        return found

    @verb()
    async def transcript(self, request: Request, *, name: str) -> list[dict[str, Any]]:
        """Tell who voted what and why in the group's latest votes, oldest first.

        Each is `{protocol, op, proposer, target, body, phases, default, outcome, votes}`, a vote `{phase, node, member,
        vote, why, how}`.
        """
        found = await self._engine.ask(Transcript(name), request.cause)
        return [self._plain(tally) for tally in found]

    # --- verbs: between nodes -----------------------------------------------------------------------------------------

    @verb(Role.COMPONENT)
    def message(self, request: Request, *, body: bytes) -> None:
        """A message of another node's groups."""
        if request.service != SERVICE:
            raise Denied(f"'{request.source}' is not the groups of a node, and only that may speak here")
        self._engine.hear(body, request.node, request.cause)

    def _party(self, request: Request) -> str:
        if request.node != self._engine.node:
            raise Refused(
                f"{request.source} asked the groups of node {self._engine.node}, which speaks for its own parties only",
                "ask the groups of your own node",
            )
        return request.service

    @staticmethod
    def _plain(result: dict[str, Any]) -> dict[str, Any]:
        """Return an answer of the machine as plain data: members as dicts, bodies unpacked."""
        plain = dict(result)
        for field in ("member", "proposer", "target"):
            if plain.get(field) is not None:
                plain[field] = member_dict(plain[field])
        if "members" in plain:
            plain["members"] = [member_dict(member) for member in plain["members"]]
        for field in ("state", "body"):
            if field in plain:
                plain[field] = _unpacked(plain[field])
        if "events" in plain:
            plain["events"] = [event_dict(event) for event in plain["events"]]
        return plain


def member_dict(member: Member) -> dict[str, Any]:
    """Return a member as plain data."""
    return {"node": member.node, "boot_id": member.boot_id, "member": member.party, "joined": member.joined}


def event_dict(event: Event) -> dict[str, Any]:
    """Return an event as plain data: `{kind, sequence, view, who, body, fast}`."""
    return {
        "fast": event.fast,
        "kind": event.kind,
        "sequence": event.sequence,
        "view": event.view,
        "who": [member_dict(member) for member in event.who],
        "body": _unpacked(event.body),
    }


def _packed(value: Any) -> bytes:
    """Nothing, and bytes that hold nothing, are no value."""
    return b"" if value is None or value == b"" else msgspec.msgpack.encode(value)


def _unpacked(body: bytes) -> Any:
    return msgspec.msgpack.decode(body) if body else None


async def main(context: ComponentContext) -> None:
    """Boot steps 9 and 12 to 14, then run until cancelled."""
    await context.need("dcm.local")
    await context.refresh()
    await context.step(9, "has the local configuration")
    await context.need("registry.reads")
    await context.step(12, f"has read the global configuration: {len(await read_nodes(context.bus))} nodes")
    await context.need("liveness")
    await context.step(13, "uses liveness")
    engine = GroupsEngine(context)

    async def announce() -> None:
        await engine.synced.wait()
        await context.step(14, "ready: holds all groups as decided")
        await context.ready("groups")

    async with context.bus.serve(SERVICE, GroupsService(engine)) as served, asyncio.TaskGroup() as tasks:
        served.cluster_id = context.local.cluster_id
        served.most += Settings().waiters  # polls are bounded by themselves, and must not keep others from joining
        tasks.create_task(announce())
        await engine.run()
