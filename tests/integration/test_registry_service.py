"""The registry on real brokers: a server's node and a client's node, real files, verbs, roles, fail-over, restart."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from covey import errors
from covey.bus.client import connect
from covey.components.registry import segments
from covey.components.registry.layout import folder_of
from real_nodes import story
from registry_nodes import CLUSTER, cluster


@story
async def test_boot_steps_and_the_same_answers_on_both_nodes(folder: Path) -> None:
    async with cluster(folder) as (one, two, groups):
        server = await one.start()
        agent = await two.start()
        await server.until("registry.writes")
        await agent.until("registry.writes")
        assert [(number, how) for number, _, how in server.steps] == [(5, "done"), (15, "done"), (16, "done")]
        assert [(number, how) for number, _, how in agent.steps] == [(5, "remote"), (15, "remote"), (16, "remote")]
        assert server.functions == agent.functions == ["registry.log", "registry.reads", "registry.writes"]
        assert groups.joined == ["sys.registry"]
        put = await two.bus.call("registry", "put", key="/app/a", value={"n": [1, None]}, if_revision=0)
        assert put == {"revision": 2, "succeeded": True}
        for party in (one.bus, two.bus):
            found = await party.call("registry", "get", key="/app/a")
            assert found == {
                "key": "/app/a",
                "value": {"n": [1, None]},
                "revision": 2,
                "mod_revision": 2,
                "consistency": "linear",
            }
            assert (await party.call("registry", "get", key="/app/a", consistency="stale"))["consistency"] == "stale"
            listed = await party.call("registry", "ls", prefix="/cluster/")
            assert [item["key"] for item in listed["items"]] == ["/cluster/definition", "/cluster/servers"]
            status = await party.call("registry", "status")
            assert (status["phase"], status["primary"], status["writable"]) == ("writes", 1, True)
            with pytest.raises(errors.KeyNotFound):
                await party.call("registry", "get", key="/app/none")
            assert (await party.call("registry", "put", key="/app/a", value=1, if_revision=0))["succeeded"] is False


@story
async def test_a_retry_with_the_same_request_id_and_deletes(folder: Path) -> None:
    async with cluster(folder) as (one, two, _):
        await (await one.start()).until("registry.writes")
        await two.start()
        await two.context.until("registry.writes")  # type: ignore[union-attr]
        for party in (two.bus, one.bus, two.bus):
            answer = await party.call("registry", "put", key="/app/n", value=1, request_id="same")
            assert answer == {"revision": 2, "succeeded": True}
        assert (await two.bus.call("registry", "delete", key="/app/n"))["revision"] == 3
        moved = await two.bus.call(
            "registry",
            "txn",
            compare=[{"key": "/app/n", "mod_revision": 0}],
            then=[{"op": "put", "key": "/app/x", "value": None}],
            otherwise=[{"op": "delete", "key": "/app/y"}],
        )
        assert moved == {"revision": 4, "succeeded": True}


@story
async def test_watches_are_long_polls_on_both_nodes(folder: Path) -> None:
    async with cluster(folder) as (one, two, _):
        await (await one.start()).until("registry.writes")
        await (await two.start()).until("registry.writes")
        for party in (one.bus, two.bus):
            start = await party.call("registry", "watch", prefix="/app/", wait=5.0)
            assert start["events"] == []
            waiting = asyncio.create_task(
                party.call("registry", "watch", prefix="/app/", from_revision=start["to"] + 1, wait=5.0)
            )
            await party.call("registry", "status")  # behind the watch on the same way
            assert not waiting.done()
            written = await one.bus.call("registry", "put", key="/app/w", value=party.name)
            batch = await waiting
            assert (batch["from"], batch["to"]) == (written["revision"], written["revision"])
            assert [event["key"] for event in batch["events"]] == ["/app/w"]
            empty = await party.call("registry", "watch", prefix="/none", from_revision=1, wait=9.0, timeout=0.4)
            assert empty == {"from": 1, "to": written["revision"], "events": []}


@story
async def test_users_write_below_app_only_and_components_everywhere(folder: Path) -> None:
    async with cluster(folder) as (one, two, _):
        await (await one.start()).until("registry.writes")
        await (await two.start()).until("registry.writes")
        for found in (one, two):
            async with connect(endpoint=found.broker.endpoint) as user:
                for verb, arguments in (
                    ("put", {"key": "/nodes/7", "value": 1}),
                    ("delete", {"key": "/nodes/1"}),
                    ("put", {"key": "/app", "value": 1}),
                    ("txn", {"then": [{"op": "put", "key": "/cluster/x", "value": 1}]}),
                    ("txn", {"system": True}),
                ):
                    with pytest.raises(errors.ReservedKey):
                        await user.call("registry", verb, **arguments)
                with pytest.raises(errors.BadKey, match="did you mean '/app/greeting'"):
                    await user.call("registry", "put", key="greeting", value=1)
                with pytest.raises(errors.Denied):
                    await user.call("registry", "append_system", epoch=2, kind="k", body=b"")
                assert (await user.call("registry", "put", key="/app/u", value=1))["succeeded"]
            assert (await found.bus.call("registry", "put", key="/nodes/7", value=1))["succeeded"]
            with pytest.raises(errors.Refused, match="changes of the registry servers only"):
                await found.bus.call("registry", "put", key="/cluster/servers", value={"servers": [1, 2]})
            with pytest.raises(errors.WrongCluster):
                await found.bus.call("registry", "get", key="/app/u", cluster="c-2")
            with pytest.raises(errors.BadArguments):
                await found.bus.call("registry", "txn", then=[{"op": "put", "key": "/app/a", "vlaue": 1}])


@story
async def test_system_entries_through_the_service(folder: Path) -> None:
    async with cluster(folder) as (one, two, _):
        await (await one.start()).until("registry.reads")
        await (await two.start()).until("registry.reads")
        epoch = (await one.bus.call("registry", "status"))["epoch"]
        call = one.bus.call
        first = await call("registry", "append_system", request_id="i", epoch=epoch, kind="v", body=b"1", keep=5)
        again = await call("registry", "append_system", request_id="i", epoch=epoch, kind="v", body=b"1", keep=5)
        assert first == again and first["epoch"] == epoch
        with pytest.raises(errors.StaleEpoch) as stale:
            await call("registry", "append_system", epoch=epoch - 1, kind="v", body=b"1")
        assert stale.value.details["epoch"] == epoch
        for party in (one.bus, two.bus):
            found = await party.call("registry", "system", kind="v")
            entry = {"index": first["index"], "epoch": epoch, "slot": "", "body": b"1"}
            assert found == {"entries": [entry], "epoch": epoch, "more": False}
        with pytest.raises(errors.NotPrimary):
            await two.bus.call("registry", "append_system", epoch=epoch, kind="v", body=b"1")


@story
async def test_a_restart_of_the_server_under_load_loses_nothing_acknowledged(folder: Path) -> None:
    async with cluster(folder) as (one, two, _):
        await (await one.start()).until("registry.writes")
        await (await two.start()).until("registry.writes")
        acknowledged: list[int] = []
        progress = asyncio.Event()

        async def write() -> None:
            for number in range(60):
                while number not in acknowledged:
                    with suppress(errors.ReadOnly):  # phase 1 and 2 of the restarted server
                        answer = await two.bus.call(
                            "registry", "put", key=f"/app/{number}", value=number, request_id=f"w-{number}"
                        )
                        assert answer["succeeded"]
                        acknowledged.append(number)
                        progress.set()

        writing = asyncio.create_task(write())
        for _ in range(3):
            progress.clear()
            await progress.wait()
            await one.stop()
            await (await one.start()).until("registry.writes")
        await writing
        listed = await two.bus.call("registry", "ls", prefix="/app/")
        there = {item["value"] for item in listed["items"]}
        assert there == set(acknowledged) == set(range(60))
        assert listed["revision"] == 61, "nothing was applied twice"
        status = await two.bus.call("registry", "status")
        assert status["epoch"] == 5 and status["incarnation"][1] == 5


@story
async def test_without_a_server_the_agent_says_so_and_whom_it_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("covey.components.registry.forward.PATIENCE", 0.2)
    caplog.set_level("INFO", "covey.components.registry.forward")
    async with cluster(folder) as (one, two, _):
        await two.start()
        await (await one.start()).until("registry.writes")
        await two.context.until("registry.writes")  # type: ignore[union-attr]
        caplog.clear()
        await one.stop()
        with pytest.raises(errors.NoQuorum):  # it is tried until the primary counts as lost, and told of once
            await two.bus.call("registry", "get", key="/cluster/servers", timeout=8.0)
        with pytest.raises(errors.NoQuorum, match="asked: node 1"):
            await two.bus.call("registry", "get", key="/cluster/servers")
        with pytest.raises(errors.NoQuorum, match="no copy of its own"):
            await two.bus.call("registry", "get", key="/cluster/servers", consistency="stale")
        status = await two.bus.call("registry", "status")
        assert (status["phase"], status["primary"]) == ("offline", None) and "node 1" in status["closed_because"]
        assert (status["incarnation"], status["revision"]) == (None, None)
        with pytest.raises(errors.NoQuorum):
            await two.bus.call("registry", "watch", prefix="/", from_revision=0)
        assert len([record for record in caplog.records if "did not answer" in record.message]) == 1


@story
async def test_a_damaged_copy_is_named_and_serves_nothing(folder: Path) -> None:
    async with cluster(folder) as (one, _, _):
        await (await one.start()).until("registry.writes")
        await one.bus.call("registry", "put", key="/app/a", value=1)
        await one.stop()
        log = segments.path_of(folder_of(one.folder / CLUSTER), 1)
        raw = bytearray(log.read_bytes())
        raw[len(raw) // 2] ^= 4
        log.write_bytes(raw)
        context = await one.start()
        await one.bus.wait_for_service("registry")
        with pytest.raises(errors.Damaged, match=r"log-0+1 is damaged at byte \d+"):
            await one.bus.call("registry", "get", key="/app/a", consistency="stale")
        status = await one.bus.call("registry", "status")
        assert status["phase"] == "offline" and status["damaged"][0]["path"] == str(log)
        assert status["servers"][0]["state"] == "damaged"
        assert [(number, how) for number, _, how in context.steps] == [(5, "failed")]
        assert context.functions == []


@story
async def test_an_error_of_the_disk_ends_the_component(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with cluster(folder) as (one, _, _):
        await (await one.start()).until("registry.writes")

        def fail(*_: Any) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr("covey.components.registry.disk.os.fdatasync", fail)
            with pytest.raises(errors.ServiceDied):
                await one.bus.call("registry", "put", key="/app/a", value=1, timeout=5.0)
            ended = await one.ended()
        assert isinstance(ended, BaseExceptionGroup) and "Input/output error" in repr(ended)
        context = await one.start()
        await context.until("registry.writes")  # the lock was given up, the copy is sound


@story
async def test_a_write_that_does_not_fit_is_refused_and_harms_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster(folder) as (one, two, _):
        for each in (one, two):
            await (await each.start()).until("registry.writes")
        write = os.pwrite

        def fits(descriptor: int, data: Any, offset: int) -> int:
            if len(data) > 5000:
                raise OSError(28, "No space left on device")
            return write(descriptor, data, offset)

        with monkeypatch.context() as patch:
            patch.setattr("covey.components.registry.files.os.pwrite", fits)
            for each in (one, two):
                with pytest.raises(errors.DiskFull, match=r"node 1 is full, nothing was written: .*log-0+1: No space"):
                    await each.bus.call("registry", "put", key="/app/large", value="x" * 9000, timeout=5.0)
                while not (await one.bus.call("registry", "status"))["writable"]:
                    pass
        assert (await two.bus.call("registry", "put", key="/app/large", value="x" * 9000))["succeeded"]


@story
async def test_many_writers_share_syncs_and_a_snapshot_is_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from covey.components.registry import disk

    syncs = []
    real = disk.os.fdatasync
    monkeypatch.setattr(disk.os, "fdatasync", lambda descriptor: (syncs.append(1), real(descriptor))[1])
    async with cluster(folder) as (one, _, _):
        await (await one.start()).until("registry.writes")
        syncs.clear()
        value = "x" * 50_000
        for _ in range(4):
            await asyncio.gather(*(one.bus.call("registry", "put", key=f"/app/{n}", value=value) for n in range(100)))
        assert len(syncs) < 300, "400 puts"
        home = folder_of(one.folder / CLUSTER)
        while not list(home.glob("snapshot-*")):
            await one.bus.call("registry", "status")
        await one.stop()
        await (await one.start()).until("registry.writes")
        listed = await one.bus.call("registry", "ls", prefix="/app/", limit=1000)
        assert len(listed["items"]) == 100 and listed["revision"] == 401
