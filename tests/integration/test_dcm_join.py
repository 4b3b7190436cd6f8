"""Whole nodes and their join tokens: one use, every refusal written down, an undefined node out at once, forgetting."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from covey import errors
from covey.bus.client import Client, connect
from covey.bus.security import load_keys
from covey.components.dcm import entries
from covey.components.dcm.audit import AuditLog
from covey.components.dcm.definitions import ClusterDefinition, PendingDefine
from covey.components.dcm.layout import Layout
from covey.components.dcm.messages import Resolve
from covey.components.dcm.storage import Store
from covey.components.dcm.token import Token, parse
from real_nodes import free_port, story
from whole_nodes import audited, define_cluster, running, until, until_phase, until_state


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


MODE = "curve"  # unless a test says it


def lines(folder: Path, number: int, what: str) -> list[dict[str, Any]]:
    log = AuditLog(folder / f"n{number}" / "dcm" / "logs" / "audit.log")
    return [entry for entry in log.entries() if entry["what"] == what]


async def states(bus: Client) -> list[str]:
    return [each["state"] for each in (await bus.call("dcm", "node_tokens"))["tokens"]]


@pytest.mark.parametrize("mode", ["curve", "open"])
@story
async def test_a_node_is_defined_with_its_token_and_only_once(folder: Path, port: int, mode: str) -> None:
    async with running(folder, 1, port, mode=mode) as one, running(folder, 2, port, mode=mode) as two:
        await define_cluster(one)
        made = await two.call("dcm", "node_prepare", ttl=600.0)
        token = parse(made["token"])
        assert (token.id, made["addresses"]) == (made["id"], [f"127.1.0.2:{port}"])

        def define(given: str, **more: Any) -> Any:
            return one.call("dcm", "node_define", address=made["addresses"][0], token=given, timeout=20, **more)

        forged = [
            Token(token.id, b"\0" * 16, token.key, token.expires),
            Token("f" * 16, token.secret, token.key, token.expires),
        ]
        for each in forged:
            with pytest.raises(errors.TokenRefused):
                await define(each.text())
        with pytest.raises(errors.TokenInvalid):
            await define(made["token"][:-1])
        assert await two.call("dcm", "cluster_ls") == []
        with pytest.raises(errors.IdentityConflict):
            await define(made["token"], id="machine-9")
        assert await states(two) == ["unused"], "what came to nothing used nothing"

        answers = await asyncio.gather(
            *(define(made["token"], name=f"n2-{k}") for k in range(3)), return_exceptions=True
        )
        assert sum(isinstance(each, dict) for each in answers) == 1, answers
        await until_state(two, "online")
        assert await states(two) == ["used"]
        with pytest.raises(errors.CoveyError) as refused:
            await define(made["token"])
        assert refused.value.code == "dcm.token_refused"
        counters = (await two.call("dcm", "node_tokens"))["refused"]
        assert counters == {"refused_token_secret": 1, "refused_token_unknown": 1, "refused_token_used": 1}

    refused = {entry["outcome"] for entry in lines(folder, 2, "join_refused")}
    assert refused == {"token_secret", "token_unknown", "token_used"}
    (prepared,) = lines(folder, 2, "node_prepare")
    (defined,) = lines(folder, 2, "defined")
    assert prepared["with"]["token"] == defined["with"]["token"] == token.id
    assert token.secret.hex() not in str(prepared)
    assert ("node_define", "dcm.token_refused") in audited(folder, 1)


@story
async def test_tokens_outlive_a_restart_and_can_be_made_void(folder: Path, port: int) -> None:
    async with running(folder, 2, port, mode=MODE) as two:
        kept = (await two.call("dcm", "node_prepare"))["token"]
        with pytest.raises(errors.UsageError):
            await two.call("dcm", "node_prepare", ttl=1.0)
    async with running(folder, 1, port, mode=MODE) as one, running(folder, 2, port, mode=MODE) as two:
        await define_cluster(one)
        void = (await two.call("dcm", "node_prepare"))["token"]
        ids = (await two.call("dcm", "node_tokens_cancel"))["cancelled"]
        assert sorted(ids) == sorted(parse(each).id for each in (kept, void))
        for each in (kept, void):
            with pytest.raises(errors.TokenRefused):
                await one.call("dcm", "node_define", address=f"127.1.0.2:{port}", token=each, timeout=20)
        last = (await two.call("dcm", "node_prepare"))["token"]
    async with running(folder, 1, port, mode=MODE) as one, running(folder, 2, port, mode=MODE) as two:
        await until_state(one, "online")
        await one.call("dcm", "node_define", address=f"127.1.0.2:{port}", token=last, timeout=20)
        await until_state(two, "online")


async def define(member: Client, new: Client, number: int, port: int) -> None:
    token = (await new.call("dcm", "node_prepare"))["token"]
    await member.call("dcm", "node_define", address=f"127.1.0.{number}:{port}", number=number, token=token, timeout=20)
    await until_state(new, "online")


@story
async def test_an_undefined_node_is_out_of_every_nodes_list_at_once(folder: Path, port: int) -> None:
    async with (
        running(folder, 1, port, mode=MODE) as one,
        running(folder, 2, port, mode=MODE) as two,
        running(folder, 3, port, mode=MODE) as three,
    ):
        cluster = await define_cluster(one)
        await define(one, two, 2, port)
        await define(one, three, 3, port)
        for bus in (one, two, three):
            await until(lambda bus=bus: bus.call("dcm", "local"), lambda local: sorted(local["nodes"]) == [1, 2, 3])
        definition = (await three.call("dcm", "local"))["definition_id"]
        assert (await one.call("dcm", "node_undefine", number=3, timeout=30))["erased"] is True
        for bus in (one, two):
            async with asyncio.timeout(2):
                await until(lambda bus=bus: bus.call("dcm", "local"), lambda local: sorted(local["nodes"]) == [1, 2])
        kept = await one.call("registry", "get", key=f"/index/definition/{definition}")
        assert kept["value"]["undefined"] is True
        await until_phase(three, "undefined")
        assert not (folder / "n3" / cluster).exists()
    (erased,) = lines(folder, 3, "local_erased")
    proof = erased["with"]["proof"]
    assert (proof["definition_id"], proof["revision"]) == (definition, kept["mod_revision"])


@story
async def test_a_registry_that_never_heard_of_a_node_is_no_ground_to_erase(folder: Path, port: int) -> None:
    """As when it was put back from an older copy: the node waits and says why."""
    async with running(folder, 1, port, mode=MODE) as one:
        cluster = await define_cluster(one)
        async with running(folder, 2, port, mode=MODE) as two:
            await define(one, two, 2, port)
            definition = (await two.call("dcm", "local"))["definition_id"]
        await until_state(one, "offline", 2)
        gone = [f"/index/definition/{definition}", "/nodes/2"]
        then = [{"op": "delete", "key": key} for key in gone]
        async with connect(folder / "n1", name="older-copy", component=True) as part:
            await part.call("registry", "txn", compare=[], then=then)
        async with running(folder, 2, port, mode=MODE) as two:
            status = await until(
                lambda: two.call("dcm", "cluster_status"), lambda status: "no proof" in status["reason"]
            )
            assert status["node_state"] == "checking"
            assert (folder / "n2" / cluster).exists()


@story
async def test_a_cluster_that_is_gone_is_forgotten_and_one_that_is_there_is_not(folder: Path, port: int) -> None:
    async with running(folder, 1, port, mode=MODE) as one:
        cluster = await define_cluster(one)
        async with running(folder, 2, port, mode=MODE) as two:
            await define(one, two, 2, port)
            with pytest.raises(errors.NodeOnline):
                await two.call("dcm", "node_forget", which="lab")
            await two.call("dcm", "node_offline", wait=True, timeout=20)
            with pytest.raises(errors.Refused, match="says so"):
                await two.call("dcm", "node_forget", which="lab", timeout=20)
    async with running(folder, 2, port, mode=MODE) as two:
        forgotten = await two.call("dcm", "node_forget", which=cluster, timeout=20)
        assert (forgotten["id"], forgotten["proved"]) == (cluster, False)
        await until_phase(two, "undefined")
        assert not (folder / "n2" / cluster).exists()
        assert await two.call("dcm", "cluster_ls") == []
        store = Store(Layout(folder / "n2"))
    pending = PendingDefine("a" * 32, ClusterDefinition("lost", "b" * 32), "c" * 32, (f"127.1.0.9:{port}",))
    store.change(lambda now: msgspec.structs.replace(now, pending={pending.transaction: pending}))
    async with running(folder, 2, port, mode=MODE) as two:  # agreed to a define whose cluster is gone before it ended
        await two.call("dcm", "node_forget", which="lost", timeout=20)
        assert store.clusters().pending == {}
    outcomes = [entry["outcome"] for entry in lines(folder, 2, "node_forget")]
    assert outcomes == ["dcm.node_online", "core.refused", "done", "done"]


@story
async def test_what_an_undefined_node_learns_when_it_comes_back(folder: Path, port: int) -> None:
    async with running(folder, 1, port, mode=MODE) as one:
        cluster = await define_cluster(one)
        async with running(folder, 2, port, mode=MODE) as two:
            with pytest.raises(errors.TokenNeeded):
                await one.call("dcm", "node_define", address=f"127.1.0.2:{port}")
            await define(one, two, 2, port)
            for bus in (one, two):
                keys = {number: node["key"] for number, node in (await bus.call("dcm", "local"))["nodes"].items()}
                assert keys == {number: load_keys(folder / f"n{number}.key").public for number in (1, 2)}
        await until_state(one, "offline", 2)
        assert (await one.call("dcm", "node_undefine", number=2, timeout=30))["erased"] is False
        async with running(folder, 2, port, mode=MODE) as two:
            await until_phase(two, "undefined")
            assert not (folder / "n2" / cluster).exists()
            assert (await two.call("dcm", "node_verdict"))["scenario"] == 2
    (erased,) = lines(folder, 2, "local_erased")
    assert erased["with"]["proof"]["said_by"] == f"127.1.0.1:{port + 1}"


@story
async def test_a_copied_disk_with_its_key_is_a_clone(folder: Path, port: int) -> None:
    async with running(folder, 1, port, mode=MODE) as one, running(folder, 2, port, mode=MODE) as two:
        await define_cluster(one)
        await define(one, two, 2, port)
        shutil.copytree(folder / "n2", folder / "n3", ignore=shutil.ignore_patterns("run"))
        async with running(folder, 3, port, "{value: machine-2}", mode=MODE) as copy:  # the disk alone: another key
            status = await until_phase(copy, "failed")
            assert "was defined" in status["reason"]
            with pytest.raises(errors.KeyChanged):
                await copy.call("dcm", "node_online")
        shutil.copy(folder / "n2.key", folder / "n3.key")
        async with running(folder, 3, port, "{value: machine-2}", mode=MODE) as copy:
            status = await until_phase(copy, "failed")
            assert "clone" in status["reason"]
        assert (await two.call("dcm", "cluster_status"))["node_state"] == "online"
        assert (await one.call("dcm", "cluster_status"))["view"]["members"] == [1, 2]


@story
async def test_a_stranger_at_the_door_is_refused_and_written_down(folder: Path, port: int) -> None:
    """A node of another cluster asks for what is not its own: by the join port, with its own proved key."""
    async with running(folder, 1, port, mode=MODE) as one, running(folder, 2, port, mode=MODE) as two:
        cluster = await define_cluster(one)
        await define_cluster(two)
        definition = "d" * 32
        async with connect(folder / "n1", name="tests", component=True) as part:
            await part.call("registry", "txn", **entries.begin(definition, "a" * 64))
        place = f"127.1.0.1:{port + 1}#{load_keys(folder / 'n1.key').public}"
        with pytest.raises(errors.Denied):
            await two.call("dcm", "verdict", node=place, cluster_id=cluster, definition_id=definition)
        with pytest.raises(errors.Denied):
            body = msgspec.msgpack.encode(Resolve("t", cluster, definition))
            await two.call("dcm", "join_message", node=place, body=body)
        with pytest.raises(errors.BadArguments):
            await two.call("dcm", "join_message", node=place, body=b"nonsense")
        with pytest.raises(errors.CoveyError):
            await two.call("dcm", "node_undefine", node=place, number=1, timeout=2)
        with pytest.raises(errors.Denied):
            await one.call("dcm", "join_message", body=b"by a local party")
        refused = (await one.call("dcm", "node_tokens"))["refused"]
        assert (refused["refused_not_yours"], refused["refused_malformed"]) == (2, 1)
    written = lines(folder, 1, "join_refused")
    assert {entry["with"]["key"] for entry in written} == {load_keys(folder / "n2.key").public}
