"""Groups on real brokers, over the real registry and the real liveness: two nodes, their boots, their members."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from covey import errors
from covey.bus.client import Client, connect
from covey.components.groups import service as groups_service
from covey.components.groups.client import Group, GroupEvent, GroupEvents, GroupProposal
from covey.components.liveness import service as liveness_service
from covey.components.registry import service as registry_service
from real_nodes import Mains, Node, free_port, node, story

MAINS: Mains = {
    "registry": registry_service.main,
    "liveness": liveness_service.main,
    "groups": groups_service.main,
}


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[Node, Node]]:
    port = free_port()
    async with node(folder, 1, port, (2,), MAINS) as one, node(folder, 2, port, (1,), MAINS) as two:
        await one.until("registry.writes")
        await two.until("groups")
        yield one, two


@asynccontextmanager
async def user(place: Node) -> AsyncIterator[Client]:
    async with connect(endpoint=place.broker.endpoint) as bus:
        yield bus


async def following(member: Group, count: int) -> list[GroupEvent]:
    found = []
    async for event in member:
        found.append(event)
        if len(found) == count:
            break
    return found


@story
async def test_the_boot_order_and_the_registrys_own_group(folder: Path) -> None:
    async with pair(folder) as (one, two):
        for place in (one, two):
            order = [step for step in place.steps if step in (9, 12, 13, 14)]
            assert order == [9, 12, 13, 14]
        assert one.steps.index(14) < one.steps.index(15) < one.steps.index(16)
        async with user(two) as bus:
            shown = await bus.call("groups", "show", name="sys.registry")
            assert [(each["node"], each["member"]) for each in shown["members"]] == [(1, "registry")]
            with pytest.raises(errors.Denied):
                await bus.call("groups", "join", group="sys.mine")
            with pytest.raises(errors.NotFound):
                await bus.call("groups", "show", name="nothing")
            with pytest.raises(errors.Refused, match="your own node"):
                await bus.call("groups", "join", group="db", node=1)


@story
async def test_members_on_two_nodes_see_the_same(folder: Path) -> None:
    async with pair(folder) as (one, two), user(one) as here, user(two) as there:
        async with Group(here, "db", state={"leader": 1}) as first, Group(there, "db") as second:
            assert second.state == {"leader": 1}
            await first.broadcast("hello")
            await second.broadcast({"answer": 42})
            await second.set_state([1, 2])
            mine, theirs = await following(first, 6), await following(second, 4)
            assert [(event.kind, event.body) for event in theirs] == [
                ("joined", None),
                ("message", "hello"),
                ("message", {"answer": 42}),
                ("state", [1, 2]),
            ]
            assert [event.kind for event in mine[:2]] == ["joined", "state"]
            assert [event.sequence for event in mine[2:]] == [event.sequence for event in theirs]
            assert [member.node for member in first.members] == [1, 2] == [m.node for m in second.members]
            assert first.view == second.view and first.state == [1, 2]
            with pytest.raises(errors.TooLarge):
                await first.broadcast("x" * 70_000)
            with pytest.raises(errors.NotMember):
                await here.call("groups", "broadcast", group="other", body="x")
        assert await here.call("groups", "ls") == [
            each for each in await here.call("groups", "ls") if each["name"].startswith("sys.")
        ]


@story
async def test_a_party_that_dies_fails_in_all_its_groups_at_once(folder: Path) -> None:
    async with pair(folder) as (one, two), user(one) as here, Group(here, "db") as watcher:
        await following(watcher, 1)
        async with user(two) as there:
            await there.call("groups", "join", group="db")
            await following(watcher, 1)
        (event,) = await following(watcher, 1)
        assert event.kind == "failed" and event.who[0].node == 2
        assert [member.node for member in event.members] == [1]


@story
async def test_groups_are_restarted_under_their_members(folder: Path) -> None:
    """The coordinator's process dies: members stay members, one that died meanwhile fails, nothing is lost."""
    async with (
        pair(folder) as (one, two),
        user(one) as here,
        user(two) as there,
        Group(here, "db") as first,
        Group(there, "db") as second,
    ):
        await first.broadcast("before")
        await following(first, 3)
        one.functions.discard("groups")
        async with user(one) as short:
            await short.call("groups", "join", group="db")
            await following(first, 1)
            await one.stop("groups")
        one.start("groups")
        await one.until("groups")
        await second.broadcast("after")
        kinds = [(event.kind, event.body) for event in await following(first, 2)]
        assert sorted(kinds, key=str) == [("failed", None), ("message", "after")]
        seen = [(event.kind, event.body) for event in await following(second, 5)]
        assert seen[:3] == [("joined", None), ("message", "before"), ("joined", None)] and seen[3:] == kinds


@story
async def test_votes_expulsion_and_watching(folder: Path) -> None:
    async with (
        pair(folder) as (one, two),
        user(one) as here,
        user(two) as there,
        user(two) as onlooker,
        Group(here, "db", voted=["expel"]) as first,
        Group(there, "db") as second,
    ):
        watch = GroupEvents(onlooker, "db")
        await watch.begin()
        seen: list[tuple[str, object, int]] = []

        @first.vote
        def plain(proposal: GroupProposal) -> object:
            seen.append((proposal.kind, proposal.body, proposal.phase))
            if proposal.kind == "expel":
                return "approve"
            return ("reject", "not on a Friday") if proposal.body == "no" else "continue"

        @second.vote
        async def waits(proposal: GroupProposal) -> str:
            await asyncio.sleep(0)
            if proposal.body == "raise":
                raise ValueError("no idea")
            return "approve"

        await second.propose("switch", phases=2)
        assert seen == [("message", "switch", 1), ("message", "switch", 2)]
        with pytest.raises(errors.Rejected, match="not on a Friday") as caught:
            await second.propose("no")
        assert [v["vote"] for v in caught.value.details["votes"] if v["node"] == 1] == ["reject"]
        await first.propose("raise", default="approve")
        with pytest.raises(errors.UsageError):
            await first.propose("x", phases=99)
        with pytest.raises(errors.NotFound):
            await first.expel("nobody")
        assert (await anext(watch)).kind == "decided" and len(watch.members) == 2
        tallies = await here.call("groups", "transcript", name="db")
        assert [(t["op"], t["body"], t["outcome"]) for t in tallies] == [
            ("message", "switch", "decided"),
            ("message", "no", "rejected"),
            ("message", "raise", "decided"),
        ]
        silent = next(v for v in tallies[2]["votes"] if v["node"] == 2)
        assert (silent["vote"], silent["how"], silent["why"]) == ("approve", "abstained", "ValueError: no idea")
        await first.expel(second.members[1], reason="tired")
        assert seen[-1] == ("expel", "tired", 1)
        found = [event async for event in second]
        assert (found[-1].kind, found[-1].body) == ("expelled", "tired")
        assert [(e.kind, e.body) for e in found[-4:-1]] == [
            ("decided", "switch"),
            ("rejected", "no"),
            ("decided", "raise"),
        ]
        with pytest.raises(errors.NotMember):
            await second.broadcast("still here?")
