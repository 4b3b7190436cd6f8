"""This node's own facts: what components and the broker are told, and when it is renewed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from covey.bus.context import Local
from covey.bus.messages import NodeInfo, Peer
from covey.components.dcm.definitions import ClusterDefinition, NodeDefinition, NodeTable, Replica, ServerList
from covey.components.dcm.entries import NodeEntry
from covey.components.dcm.home import Home, servers_from
from covey.components.dcm.lookup import Global
from covey.components.dcm.places import who_knows
from covey.components.dcm.storage import Store
from covey.errors import NotDefined

CLUSTER = ClusterDefinition("lab", "c" * 32)
ONE, TWO, THREE = (
    NodeDefinition(n, f"n{n}", f"machine-{n}", f"{n:032}", (f"127.1.0.{n}/16", f"127.2.0.{n}/16"), 7400)
    for n in (1, 2, 3)
)
REPLICA = Replica(CLUSTER, TWO, ServerList((1,), 1, 4), NodeTable({1: ONE, 2: TWO}, 4))


class Bus:
    """Hears what the broker is told."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.published: list[tuple[str, Any]] = []

    async def call(self, _service: str, _verb: str, /, **arguments: Any) -> None:
        self.told.append(arguments)

    async def publish(self, topic: str, body: Any) -> None:
        self.published.append((topic, body))


def home(folder: Path, bus: Bus | None = None) -> Home:
    identity = SimpleNamespace(source="value", value="machine-2")
    node = SimpleNamespace(name="n2", port=7400, adapters=("127.1.0.2/16",), identity=identity)
    security = SimpleNamespace(mode="open")
    config = SimpleNamespace(node=node, security=security, liveness={"interval": 1.0}, controllers={})
    return Home(config, folder, bus or Bus(), {})  # type: ignore[arg-type]


def defined(store: Store) -> None:
    store.make_cluster(CLUSTER)
    store.commit_replica(REPLICA)
    store.commit_cluster(CLUSTER)


def test_components_get_what_they_expect(tmp_path: Path) -> None:
    here = home(tmp_path)
    defined(here.store)
    here.load()
    here.boot_id = "boot"
    local = msgspec.convert(msgspec.msgpack.decode(msgspec.msgpack.encode(here.local())), Local)
    assert (local.node, local.node_name, local.cluster_id, local.boot_id) == (2, "n2", CLUSTER.id, "boot")
    assert local.folder == str(tmp_path / CLUSTER.id)
    assert local.servers == (1,)
    assert local.nodes[1]["addresses"] == ["127.1.0.1/16", "127.2.0.1/16"]
    assert local.settings == {
        "liveness": {"interval": 1.0},
        "controllers": {},
        "lab": False,
        "security": {"mode": "open", "key": ""},
        "folder": "",
    }


def test_an_undefined_node_has_a_local_configuration_too(tmp_path: Path) -> None:
    here = home(tmp_path)
    here.load()
    assert msgspec.convert(here.local(), Local).cluster_id == ""
    with pytest.raises(NotDefined):
        here.here()


def test_the_broker_is_told_once_and_at_every_change(tmp_path: Path) -> None:
    bus = Bus()
    here = home(tmp_path, bus)
    defined(here.store)

    async def story() -> None:
        await here.reload()
        await here.tell_broker()
        assert len(bus.told) == 1
        table = NodeTable({**REPLICA.nodes.nodes, 3: THREE}, 5)
        assert await here.refresh(lambda old: msgspec.structs.replace(old, nodes=table)) == ["nodes"]
        assert await here.refresh(lambda old: old) == []

    asyncio.run(story())
    assert len(bus.told) == 2
    info = msgspec.convert(bus.told[-1]["info"], NodeInfo)
    assert (info.number, info.cluster_name) == (2, "lab")
    peers = msgspec.convert(bus.told[-1]["peers"], dict[int, Peer])
    assert sorted(peers) == [1, 3]
    assert peers[3].addresses == ("127.1.0.3:7400", "127.2.0.3:7400")
    assert here.store.nodes(CLUSTER.id).revision == 5


def test_the_registry_hears_when_the_list_of_its_servers_changes(tmp_path: Path) -> None:
    bus = Bus()
    here = home(tmp_path, bus)
    defined(here.store)

    async def story() -> None:
        await here.reload()
        listed = {"servers": [1, 3], "learners": [2], "stopped": [3], "primary": 1}
        new = servers_from(listed, 9)
        assert (new.all, new.running) == ((1, 3, 2), (1, 2))
        await here.refresh(lambda old: msgspec.structs.replace(old, servers=new))
        await here.refresh(lambda old: msgspec.structs.replace(old, servers=servers_from({**listed, "primary": 3}, 10)))
        assert [topic for topic, _ in bus.published] == ["dcm.local"], "who is primary does not concern it"
        nodes = msgspec.structs.replace(here.here().nodes, revision=11)
        await here.refresh(lambda old: msgspec.structs.replace(old, nodes=nodes))
        assert len(bus.published) == 1, "nothing of a node changed"
        fewer = {number: each for number, each in nodes.nodes.items() if number != 1}
        await here.refresh(lambda old: msgspec.structs.replace(old, nodes=msgspec.structs.replace(nodes, nodes=fewer)))
        assert len(bus.published) == 2, "whom the registry lets in changed"

    asyncio.run(story())
    local = msgspec.convert(here.local(), Local)
    assert (local.servers, local.learners, local.stopped) == ((1, 3), (2,), (3,))
    assert local.registry_servers == (1, 2) and here.server
    again = home(tmp_path)
    again.load()
    assert again.here().servers == here.here().servers


def test_a_new_name_of_the_cluster_follows_everywhere(tmp_path: Path) -> None:
    here = home(tmp_path)
    defined(here.store)

    async def story() -> None:
        await here.reload()
        await here.refresh(lambda old: msgspec.structs.replace(old, cluster=ClusterDefinition("prod", CLUSTER.id)))

    asyncio.run(story())
    assert here.store.clusters().clusters[CLUSTER.id].name == "prod"
    assert here.store.clusters().current == CLUSTER.id


def test_a_damaged_file_is_a_problem_and_nothing_is_used(tmp_path: Path) -> None:
    here = home(tmp_path)
    defined(here.store)
    path = here.layout.cluster(CLUSTER.id).node_file
    path.write_bytes(path.read_bytes()[:-9])
    here.load()
    assert here.replica is None
    assert str(path) in here.problem


def test_a_damaged_file_of_what_others_hold_is_no_problem_and_told(tmp_path: Path) -> None:
    here = home(tmp_path)
    defined(here.store)
    path = here.layout.cluster(CLUSTER.id).nodes_file
    path.write_bytes(path.read_bytes()[:-9])
    here.load()
    assert here.replica is not None
    asyncio.run(here.tell_repairs())
    assert ("local_repaired", str(path)) in [(one["what"], one["with"]["path"]) for one in here.audit_log.entries()]


def test_a_folder_without_its_definition_is_a_problem(tmp_path: Path) -> None:
    here = home(tmp_path)
    defined(here.store)
    here.layout.cluster(CLUSTER.id).node_file.unlink()
    here.load()
    assert "lacks the definition" in here.problem


def of(*nodes: NodeDefinition, revision: int = 9) -> Global:
    entries = tuple(NodeEntry(node, 3) for node in nodes)
    return Global(CLUSTER, ServerList((1,), 1, revision), entries, revision)


def test_missed_updates_follow_the_global_copy() -> None:
    renamed = msgspec.structs.replace(TWO, name="db")
    new = of(ONE, renamed, THREE).renewed(REPLICA)
    assert new.node.name == "db"
    assert sorted(new.nodes.nodes) == [1, 2, 3]


def test_the_id_is_never_a_missed_update() -> None:
    assert of(ONE, msgspec.structs.replace(TWO, id="card-9")).renewed(REPLICA).node.id == "machine-2"


@pytest.mark.parametrize(
    "found",
    [of(ONE), of(ONE, msgspec.structs.replace(TWO, definition_id="9" * 32)), of(ONE, TWO, THREE, revision=3)],
    ids=["gone", "redefined", "older"],
)
def test_what_is_not_ours_or_older_renews_nothing(found: Global) -> None:
    assert found.renewed(REPLICA) is REPLICA


def test_the_servers_are_asked_first() -> None:
    nodes = NodeTable({1: ONE, 2: TWO, 3: THREE})
    asked = who_knows(TWO, ServerList((3, 2), 3), nodes)
    assert asked == ["127.1.0.3:7400", "127.2.0.3:7400", "127.1.0.1:7400", "127.2.0.1:7400"]
