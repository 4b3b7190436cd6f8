"""Whole nodes in one process, with every component: defined, joined, taken offline, undefined, with damaged files."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from boot_order import out_of_order
from covey import errors
from covey.components.dcm.audit import AuditLog
from covey.components.dcm.bootlog import STEPS
from real_nodes import free_port, story
from whole_nodes import audited, define_cluster, running, until, until_phase, until_state


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@story
async def test_a_first_node(folder: Path, port: int) -> None:
    async with running(folder, 1, port) as bus:
        assert (await bus.call("dcm", "local"))["cluster"] is None
        assert await bus.call("dcm", "node_ls") == []
        with pytest.raises(errors.NotDefined):
            await bus.call("dcm", "node_online")
        cluster = await define_cluster(bus)

        status = await bus.call("dcm", "cluster_status")
        assert status["quorate"] is True
        assert status["view"]["members"] == [1]
        assert (status["registry"]["writable"], status["registry"]["primary"]) == (True, 1)
        (node,) = status["nodes"]
        assert (node["number"], node["name"], node["id"], node["state"]) == (1, "n1", "machine-1", "online")
        assert await bus.call("dcm", "cluster_ls") == [{"name": "lab", "id": cluster, "current": True, "target": True}]

        timeline = await until(
            lambda: bus.call("dcm", "node_boot_log"), lambda lines: all(line["how"] != "waiting" for line in lines)
        )
        assert {line["step"] for line in timeline} == set(range(25))
        assert out_of_order(timeline) == []
        owners = {line["step"]: line["component"] for line in timeline}
        assert owners == {step.number: step.component for step in STEPS}

        verdict = await bus.call("dcm", "node_verdict")
        assert (verdict["original"], verdict["local"], verdict["global"]) == ("machine-1",) * 3
        assert (verdict["scenario"], verdict["action"]) == (1, "join")

        states = {line["name"]: line for line in await bus.call("dcm", "plugins")}
        assert states["host"]["state"] == "running"
        assert states["adapter"]["reason"] == "`enabled: false` in this node's YAML"
        components = await bus.call("dcm", "components")
        assert components["running"][:4] == ["registry", "liveness", "groups", "resources"]

        for verb, arguments, error in [
            ("cluster_define", {"name": "other"}, errors.NodeOnline),
            ("cluster_define", {"name": "42"}, errors.UsageError),
            ("node_define", {"address": "127.1.0.9", "token": "x"}, errors.TokenInvalid),
            ("node_undefine", {"number": 1}, errors.Refused),
            ("node_undefine", {"number": 9}, errors.NotFound),
            ("node_show", {"number": 9}, errors.NotFound),
            ("node_move", {"to": "other"}, errors.NotFound),
            ("node_move", {"to": "lab"}, errors.Refused),
        ]:
            with pytest.raises(error):
                await bus.call("dcm", verb, **arguments)
    lines = audited(folder, 1)
    assert ("cluster_define", "done") in lines
    assert ("cluster_define", "dcm.node_online") in lines
    entries = AuditLog(folder / "n1" / "dcm" / "logs" / "audit.log").entries()
    assert {entry["uid"] for entry in entries if entry["what"] == "cluster_define"} == {os.getuid()}


@story
async def test_a_node_joins_by_itself_unless_an_operator_said_otherwise(folder: Path, port: int) -> None:
    async with running(folder, 1, port) as bus:
        await define_cluster(bus)
        first = (await bus.call("dcm", "node_show"))["boot_id"]
    async with running(folder, 1, port) as bus:
        assert (await until_state(bus, "online"))["boot_id"] != first
        assert (await bus.call("dcm", "node_offline", wait=True))["state"] == "offline"
        with pytest.raises(errors.NoService):
            await bus.call("registry", "status")
    async with running(folder, 1, port) as bus:
        assert (await bus.call("dcm", "cluster_status"))["reason"] == "an operator put it offline"
        await bus.call("dcm", "node_online")
        await until_state(bus, "online")
    async with running(folder, 1, port) as bus:
        await until_state(bus, "online")


@story
async def test_a_second_node_is_defined_goes_offline_and_is_undefined(folder: Path, port: int) -> None:
    async with running(folder, 1, port) as one, running(folder, 2, port) as two:
        cluster = await define_cluster(one)
        with pytest.raises(errors.NotDefined):
            await two.call("dcm", "node_define", address="127.1.0.1", timeout=20)
        with pytest.raises(errors.IdentityConflict):
            await one.call("dcm", "node_define", address="127.1.0.2", id="machine-9", timeout=20)
        made = await one.call("dcm", "node_define", address="127.1.0.2", timeout=20)
        assert (made["number"], made["name"], made["id"]) == (2, "n2", "machine-2")
        await until_state(one, "online", 2)
        await until_state(two, "online")
        with pytest.raises(errors.AlreadyDefined):
            await one.call("dcm", "node_define", address="127.1.0.2", timeout=20)
        assert (await two.call("dcm", "cluster_status"))["view"]["members"] == [1, 2]
        assert out_of_order(await one.call("dcm", "node_boot_log", node=2)) == []
        remote = {line["step"] for line in await two.call("dcm", "node_boot_log") if line["how"] == "remote"}
        assert remote == {1, 5, 15, 16}

        said = await one.call("dcm", "node_offline", number=2, wait=True, timeout=20)
        assert said["state"] == "offline"
        await until_state(one, "offline", 2)
        await one.call("dcm", "node_online", number=2, timeout=20)
        await until_state(one, "online", 2)

        gone = await one.call("dcm", "node_undefine", number=2, timeout=30)
        assert gone == {"number": 2, "name": "n2", "erased": True}
        await until_phase(two, "undefined")
        assert not (folder / "n2" / cluster).exists()
        assert [node["number"] for node in await one.call("dcm", "node_ls")] == [1]
        await one.call("dcm", "node_define", address="127.1.0.2", number=5, name="again", timeout=20)
        assert (await until_state(two, "online"))["number"] == 5  # the operator's word was about the old definition
    assert ("node_define", "dcm.already_defined") in audited(folder, 1)
    assert ("local_erased", "done") in audited(folder, 2)


@story
async def test_undefined_while_it_was_away(folder: Path, port: int) -> None:
    async with running(folder, 1, port) as one:
        cluster = await define_cluster(one)
        async with running(folder, 2, port) as two:
            await one.call("dcm", "node_define", address="127.1.0.2", timeout=20)
            await until_state(two, "online")
        await until_state(one, "offline", 2)
        assert (await one.call("dcm", "node_undefine", number=2, timeout=30))["erased"] is False
        async with running(folder, 2, port) as two:
            await until_phase(two, "undefined")
            assert not (folder / "n2" / cluster).exists()
            verdict = await two.call("dcm", "node_verdict")
            assert (verdict["original"], verdict["local"], verdict["global"]) == ("machine-2", "machine-2", None)
            assert (verdict["scenario"], verdict["action"]) == (2, "erase")
            steps = {line["step"]: line for line in await two.call("dcm", "node_boot_log")}
            assert (steps[7]["how"], steps[8]["how"]) == ("failed", "waiting")
        assert [node["number"] for node in await one.call("dcm", "node_ls")] == [1]


@story
async def test_another_card_in_the_only_registry_server(folder: Path, port: int) -> None:
    card = folder / "card"
    card.write_text("card-1\n")
    identity = f"{{file: {card}}}"
    async with running(folder, 1, port, identity) as bus:
        await define_cluster(bus)
    card.write_text("card-2\n")
    async with running(folder, 1, port, identity) as bus:
        assert (await until_state(bus, "online"))["id"] == "card-2"
        verdict = await bus.call("dcm", "node_verdict")
        assert (verdict["original"], verdict["local"], verdict["scenario"]) == ("card-2", "card-1", 3)
        assert (await bus.call("registry", "get", key="/nodes/1"))["value"]["id"] == "card-2"
    async with running(folder, 1, port, identity) as bus:
        await until_state(bus, "online")
        assert (await bus.call("dcm", "node_verdict"))["scenario"] == 1
    card.unlink()
    async with running(folder, 1, port, identity) as bus:
        await until(lambda: bus.call("dcm", "node_show"), lambda node: "cannot be read" in node["reason"])
        assert (await bus.call("dcm", "node_verdict"))["scenario"] is None
        card.write_text("card-2\n")
        await until_state(bus, "online")
    assert ("identity_replaced", "done") in audited(folder, 1)


@story
async def test_a_damaged_file_is_named_and_nothing_is_done(folder: Path, port: int) -> None:
    async with running(folder, 1, port) as bus:
        cluster = await define_cluster(bus)
    path = folder / "n1" / cluster / "configuration" / "node.json"
    whole = path.read_text()
    assert json.loads(whole)["content"]["name"] == "n1"
    path.write_text(whole.replace("n1", "nX"))
    async with running(folder, 1, port) as bus:
        status = await until_phase(bus, "failed")
        assert str(path) in status["reason"]
        with pytest.raises(errors.LocalDamaged, match=r"node\.json"):
            await bus.call("dcm", "node_online")
        assert path.read_text() == whole.replace("n1", "nX")
        path.write_text(whole)
        await bus.call("dcm", "node_online")
        await until_state(bus, "online")
