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
from ...errors import Denied, NotImplementedYet, Refused
from ..registry.client import read_nodes
from .engine import GroupsEngine
from .messages import (
    SERVICE,
    Broadcast,
    Event,
    JoinGroup,
    LeaveGroup,
    ListGroups,
    Member,
    Poll,
    SetState,
    Show,
)

log = logging.getLogger(__name__)


class GroupsService:
    """The verbs of `groups`."""

    def __init__(self, engine: GroupsEngine) -> None:
        self._engine = engine

    # --- verbs: members ---------------------------------------------------------------------------------------------

    @verb(Role.OPERATOR)
    async def join(self, request: Request, *, group: str, state: Any = None) -> dict[str, Any]:
        """Make the calling party a member; `state` becomes the group's value if it has no members.

        Returns `{group, view, sequence, joined, member, members, state}`; poll from `joined - 1` to see the own join
        first.
        """
        party, component = self._party(request), request.role >= Role.COMPONENT
        return self._plain(await self._engine.ask(JoinGroup(group, party, _packed(state), component), request.cause))

    @verb(Role.OPERATOR)
    async def leave(self, request: Request, *, group: str) -> dict[str, Any]:
        """End the membership of the calling party."""
        return self._plain(await self._engine.ask(LeaveGroup(group, self._party(request)), request.cause))

    @verb(Role.OPERATOR)
    async def broadcast(self, request: Request, *, group: str, body: Any, fast: bool = False) -> dict[str, Any]:
        """Send a message to all members, through the log; returns `{group, view, sequence}` when it is decided."""
        if fast:
            raise NotImplementedYet("messages outside the log (fast) are not built yet (SPEC 11.1)")
        question = Broadcast(group, self._party(request), msgspec.msgpack.encode(body))
        return self._plain(await self._engine.ask(question, request.cause))

    @verb(Role.OPERATOR)
    async def set_state(self, request: Request, *, group: str, value: Any) -> dict[str, Any]:
        """Change the group's state value; returns `{group, view, sequence}` when it is decided."""
        return self._plain(await self._engine.ask(SetState(group, self._party(request), _packed(value)), request.cause))

    @verb(Role.OPERATOR)
    async def propose(self, *, group: str, body: Any, phases: int = 1) -> None:
        """Put something to the vote of all members."""
        raise NotImplementedYet("proposals with votes are not built yet (SPEC 11.2)")

    @verb(Role.OPERATOR)
    async def expel(self, *, group: str, member: str, reason: str = "") -> None:
        """Make another party leave."""
        raise NotImplementedYet("expelling a member is not built yet (SPEC 11.2)")

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
    ) -> dict[str, Any]:
        """Wait for events after sequence `since` (default: from now on), at most `wait` seconds; membership not needed.

        Returns `{group, from, to, missed, events, frozen}`; go on with `since=to`. `missed` counts events no longer
        held; then `members`, `view` and `state` are there, too. `frozen` is what the caller believes: if it is
        otherwise, the answer comes at once with an event `frozen` or `thawed`.
        """
        return self._plain(await self._engine.ask(Poll(group, since, wait, frozen), request.cause))

    @verb()
    async def ls(self, request: Request) -> list[dict[str, Any]]:
        """List the groups that have members: `{name, view, members, sequence, phase}`, `members` a count."""
        found: list[dict[str, Any]] = await self._engine.ask(ListGroups(), request.cause)
        return found

    @verb()
    async def show(self, request: Request, *, name: str) -> dict[str, Any]:
        """Return one group: `{name, view, sequence, members, state, phase}`."""
        return self._plain(await self._engine.ask(Show(name), request.cause))

    @verb()
    async def members(self, request: Request, *, group: str) -> list[dict[str, Any]]:
        """List the members of a group in the order in which they joined: `{node, boot_id, member, joined}`."""
        found: list[dict[str, Any]] = (await self.show(request, name=group))["members"]
        return found

    @verb()
    async def transcript(self, *, name: str) -> None:
        """Tell who voted what and why."""
        raise NotImplementedYet("transcripts of votes are not built yet (SPEC 11.2)")

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
        if "member" in plain:
            plain["member"] = member_dict(plain["member"])
        if "members" in plain:
            plain["members"] = [member_dict(member) for member in plain["members"]]
        if "state" in plain:
            plain["state"] = _unpacked(plain["state"])
        if "events" in plain:
            plain["events"] = [event_dict(event) for event in plain["events"]]
        return plain


def member_dict(member: Member) -> dict[str, Any]:
    """Return a member as plain data."""
    return {"node": member.node, "boot_id": member.boot_id, "member": member.party, "joined": member.joined}


def event_dict(event: Event) -> dict[str, Any]:
    """Return an event as plain data: `{kind, sequence, view, who, body}`."""
    return {
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
        tasks.create_task(announce())
        await engine.run()
