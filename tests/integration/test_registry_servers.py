"""Several registry servers on real brokers in one process: they come, go, end, are damaged; callers do not notice."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from covey import errors
from covey.components.registry.layout import folder_of
from real_nodes import story
from registry_nodes import CLUSTER, Servers, three


def copy_of(servers: Servers, number: int) -> Path:
    return folder_of(servers[number].folder / CLUSTER)


async def put(servers: Servers, by: int, key: str, value: Any, **more: Any) -> Any:
    """Write through a node, again and again under one request id, as long as a retry may cure it."""
    while True:
        with suppress(errors.ReadOnly, errors.NoQuorum, errors.Timeout):
            return await servers[by].bus.call("registry", "put", key=key, value=value, request_id=key, **more)


@story
async def test_nodes_become_servers_in_place_and_any_node_takes_any_call(folder: Path) -> None:
    async with three(folder) as servers:
        await servers.up()
        status = await servers.voting(1, 2, 3, by=3)
        assert (status["primary"], status["tolerates"], status["phase"]) == (1, 1, "writes")
        assert [(one["number"], one["state"]) for one in status["servers"]] == [
            (1, "primary"),
            (2, "follower"),
            (3, "follower"),
        ]
        assert servers.groups.joined == ["sys.registry"] * 3
        for by in (1, 2, 3):
            assert (await put(servers, by, f"/app/{by}", by))["succeeded"]
            for at in (1, 2, 3):
                assert (await servers[at].bus.call("registry", "get", key=f"/app/{by}"))["value"] == by
        waiting = asyncio.create_task(
            servers[3].bus.call("registry", "watch", prefix="/app/w", from_revision=1, wait=9.0)
        )
        await put(servers, 2, "/app/w", "news")
        assert [event["value"] for event in (await waiting)["events"]] == ["news"]
        with pytest.raises(errors.NotPrimary):
            await servers[2].bus.call("registry", "append_system", epoch=status["epoch"], kind="v", body=b"1")
        with pytest.raises(errors.NotFound, match="no node has the number 7"):
            await servers[2].bus.call("registry", "define_server", server=7)


@story
async def test_the_primary_goes_and_what_was_acknowledged_stays(folder: Path) -> None:
    async with three(folder) as servers:
        await servers.up()
        done: list[int] = []
        progress = asyncio.Event()

        async def write() -> None:
            for number in range(90):
                assert (await put(servers, 2, f"/app/{number}", number, if_revision=0))["succeeded"]
                done.append(number)
                progress.set()

        writing = asyncio.create_task(write())
        for number in (1, 3):
            progress.clear()
            await progress.wait()
            await servers[number].stop()
            await servers.voting(2, by=2)
            servers[number].context = await servers[number].start(servers=(1, 2, 3))
            await servers[number].context.until("registry.writes")
        await writing
        await servers.voting(1, 2, 3, by=2)
        for at in (1, 2, 3):
            listed = await servers[at].bus.call("registry", "ls", prefix="/app/")
            assert sorted(item["value"] for item in listed["items"]) == done == list(range(90))
        steps = servers[1].context.steps  # type: ignore[union-attr]
        assert [(number, how) for number, _, how in steps] == [(5, "done"), (15, "done"), (16, "done")]
        assert "at primary" in steps[0][1]


@story
async def test_a_server_that_is_undefined_becomes_a_client_and_its_copy_is_put_aside(folder: Path) -> None:
    async with three(folder) as servers:
        await servers.up()
        found = await servers.change("undefine_server", 1, by=3)  # the primary: it hands over first
        assert sorted(found["servers"]) == [2, 3] and found["learners"] == []
        aside = copy_of(servers, 1).with_name("registry.undefined")
        while not aside.is_dir():
            await servers[1].bus.call("registry", "status")
        assert not copy_of(servers, 1).exists()
        assert (await put(servers, 1, "/app/a", 1))["succeeded"], "it is an agent now"
        await servers.change("undefine_server", 3)
        with pytest.raises(errors.Refused, match="the last registry server"):
            await servers.change("undefine_server", 2)
        await servers.change("define_server", 1)
        status = await servers.voting(1, 2)
        assert status["primary"] == 2 and servers.groups.joined.count("sys.registry") >= 2
        handed = await servers[3].bus.call("registry", "hand_over", timeout=9.0)
        assert handed["primary"] == 1 and handed["epoch"] > status["epoch"]


@story
async def test_a_server_that_is_stopped_keeps_its_copy(folder: Path) -> None:
    async with three(folder) as servers:
        await servers.up()
        assert (await servers.change("server_offline", 3))["stopped"] == [3]
        await put(servers, 3, "/app/a", 1)
        await servers.seen(1, lambda status: status["servers"][2]["state"] == "offline")
        assert copy_of(servers, 3).is_dir()
        with pytest.raises(errors.Refused, match="would answer"):
            await servers.change("server_offline", 2)
        await servers.change("server_online", 3)
        await servers.seen(1, lambda status: status["servers"][2]["lag"] == 0)


@story
async def test_a_damaged_copy_is_named_and_filled_anew_while_its_node_answers(folder: Path) -> None:
    async with three(folder) as servers:
        await servers.up()
        await put(servers, 2, "/app/a", "there")
        await servers[3].stop()
        home = copy_of(servers, 3)
        log = max(home.glob("log-*"))
        raw = bytearray(log.read_bytes())
        raw[len(raw) // 2] ^= 4
        log.write_bytes(raw)
        context = await servers[3].start(servers=(1, 2, 3))
        await context.until("registry.writes")
        number, event, how = context.steps[0]
        assert (number, how) == (5, "failed") and str(log) in event
        assert (await servers[3].bus.call("registry", "get", key="/app/a", consistency="stale"))["value"] == "there"
        await servers.seen(3, lambda status: status["incarnation"] is not None)
        assert (home.with_name("registry.damaged") / log.name).read_bytes() == raw, "kept for whoever looks into it"


@story
async def test_a_minority_says_why_and_still_reads_what_may_be_old(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("covey.components.registry.forward.PATIENCE", 0.5)
    async with three(folder) as servers:
        await servers.up()
        await put(servers, 3, "/app/a", "old")
        call = servers[3].bus.call
        while True:
            with suppress(errors.KeyNotFound):
                assert (await call("registry", "get", key="/app/a", consistency="stale"))["value"] == "old"
                break
        for number in (1, 2):
            await servers[number].stop()
        await servers.seen(3, lambda status: status["primary"] is None)
        for _ in range(2):
            with pytest.raises(errors.NoQuorum, match="a majority of the servers does not answer"):
                await call("registry", "get", key="/app/a")
        with pytest.raises(errors.NoQuorum, match="a majority of the servers does not answer"):
            await call("registry", "put", key="/app/a", value="new")
        assert (await call("registry", "get", key="/app/a", consistency="stale"))["value"] == "old"
        await servers[1].start(servers=(1, 2, 3))
        assert (await put(servers, 3, "/app/b", 1))["succeeded"]
