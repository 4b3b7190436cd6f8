"""Restoring a backup: what this machine becomes, whom it may not become, and that a crash leaves nothing or all."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from covey.components.dcm import restoring
from covey.components.dcm.audit import AuditLog
from covey.components.dcm.definitions import ClusterDefinition, NodeDefinition, plain
from covey.components.dcm.entries import decision_key, define, node_key, standing
from covey.components.dcm.layout import Layout
from covey.components.dcm.restoring import Machine
from covey.components.dcm.stopped import stopped
from covey.components.dcm.storage import Store as LocalStore
from covey.components.registry import backup, entries, records
from covey.components.registry.force import look
from covey.components.registry.keys import pack_value, unpack_value
from covey.components.registry.layout import folder_of
from covey.components.registry.recovery import encode_snapshot
from covey.components.registry.store import Store
from covey.errors import AlreadyDefined, AlreadyRunning, CoveyError, LocalDamaged
from killed import every_step

CLUSTER = "c" * 32
AT = "2026-01-01T00:00:00.000Z"


def node(number: int, **other: Any) -> NodeDefinition:
    given: dict[str, Any] = {"name": f"n{number}", "id": f"machine-{number}", "definition_id": f"{number}" * 32}
    given |= {"addresses": (f"127.1.0.{number}/16",), "port": 7400, "key": f"{number}" * 64}
    return NodeDefinition(number, **{**given, **other})


def machine(number: int = 9, **other: Any) -> Machine:
    one = node(number)
    return Machine(**{**{name: getattr(one, name) for name in ("name", "id", "addresses", "port", "key")}, **other})


def state(servers: tuple[int, ...] = (2, 3), nodes: tuple[int, ...] = (1, 2, 3)) -> tuple[Store, bytes]:
    """Return a registry's state with these nodes, and the digest of its last entry."""
    store, chain = Store(), records.START
    keys: dict[str, Any] = {"/cluster/definition": plain(ClusterDefinition("lab", CLUSTER)), "/app/a": {"kept": [1]}}
    keys["/cluster/servers"] = {"servers": list(servers), "primary": servers[0]}
    for number in nodes:
        keys |= {one["key"]: one["value"] for one in define(node(number))["then"]}
    then = tuple((key, pack_value(key, value)) for key, value in sorted(keys.items()))
    for index, body in enumerate((entries.Founded(CLUSTER, 0, then), entries.Reigned(servers[0])), 1):
        record = entries.encode(entries.Entry(1, index, index, body), chain)
        store.apply(entries.Entry(1, index, index, body))
        chain = records.digest(record)
    return store, chain


@pytest.fixture
def found(tmp_path: Path) -> backup.Backup:
    backup.write(tmp_path / "night.backup", encode_snapshot(*state()), AT)
    return backup.read(tmp_path / "night.backup")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "n9"


def restore(found: backup.Backup, place: Path, **given: Any) -> restoring.Plan:
    plan = restoring.plan(found, given.pop("machine", machine()), **given)
    with stopped(place) as at:
        restoring.carry_out(at, plan)
    return plan


def value(store: Store, key: str) -> Any:
    item = store.get(key)
    return unpack_value(item.value) if item else None


def check_whole(place: Path, number: int = 2) -> None:
    """The state folder is that of a node which is defined, with all data, and nothing is left half done."""
    local = LocalStore(Layout(place))
    known = local.clusters()
    assert (list(known.defined()), known.current, known.target) == ([CLUSTER], CLUSTER, CLUSTER)
    own = local.node(CLUSTER)
    assert own is not None and own.number == number
    assert local.servers(CLUSTER).servers == (number,)
    copy = look(place / CLUSTER, CLUSTER)
    assert copy.sound, copy.damaged
    assert copy.incarnation[0] == 1
    assert value(copy.store, "/app/a") == {"kept": [1]}
    assert value(copy.store, node_key(number)) == json.loads(json.dumps(plain(own)))
    assert copy.servers() == [number]
    assert local.nodes(CLUSTER).nodes[1] == node(1)
    assert local.sweep() == []


def test_this_machine_becomes_the_first_registry_server(found: backup.Backup, place: Path) -> None:
    plan = restore(found, place)
    check_whole(place)
    assert plan.replaces == node(2)
    store = plan.copy.store
    assert standing(value(store, decision_key(node(2).definition_id))) == "gone"  # the old machine may learn it
    assert standing(value(store, decision_key(plan.replica.node.definition_id))) == "defined"
    assert value(store, "/index/node-name/n2") is None
    assert value(store, "/index/node-name/n9") == {"number": 2}
    assert sorted(plan.replica.nodes.nodes) == [1, 2, 3]
    log = AuditLog(Layout(place).audit_log)
    assert log.verify() == []
    assert [(one["what"], one["outcome"]) for one in log.entries()] == [
        ("registry_restore", "begun"),
        ("registry_restore", "done"),
    ]


def test_the_number_is_its_own_or_the_one_asked_for(found: backup.Backup) -> None:
    by_key = restoring.plan(found, machine(key=node(3).key))
    assert (by_key.replica.node.number, by_key.replaces) == (3, node(3))
    by_id = restoring.plan(found, machine(id="machine-1"))
    assert by_id.replica.node.number == 1
    asked = restoring.plan(found, machine(), number=7)
    assert (asked.replica.node.number, asked.replaces) == (7, None)
    assert sorted(asked.replica.nodes.nodes) == [1, 2, 3, 7]
    assert restoring.plan(found, machine(1), number=1).replaces == node(1)


@pytest.mark.parametrize(
    ("what", "other"),
    [
        ("name", {"name": "n3"}),
        ("id", {"id": "machine-3"}),
        ("key", {"key": node(3).key}),
        ("address", {"addresses": ("10.0.0.1/8", "127.1.0.3/16")}),
    ],
)
def test_another_node_of_the_cluster_is_not_robbed(what: str, other: Any, found: backup.Backup) -> None:
    with pytest.raises(AlreadyDefined, match=f"node 3 of the cluster has this machine's {what}") as caught:
        restoring.plan(found, machine(**other), number=2)
    assert "--number 3" in caught.value.hint


def test_only_an_empty_state_folder_is_taken(found: backup.Backup, place: Path) -> None:
    restore(found, place)
    before = sorted((path, path.stat().st_mtime_ns) for path in place.rglob("*") if path.name != "lock")
    with pytest.raises(AlreadyDefined, match="knows a cluster already: lab"):
        restore(found, place)
    assert sorted((path, path.stat().st_mtime_ns) for path in place.rglob("*") if path.name != "lock") == before
    shutil.rmtree(place)
    (place / CLUSTER / "configuration").mkdir(parents=True)
    (place / CLUSTER / "configuration" / "precious").write_text("x")
    with pytest.raises(AlreadyDefined, match="exists"):
        restore(found, place)
    assert (place / CLUSTER / "configuration" / "precious").exists()
    (place / CLUSTER / "configuration" / "node.json").write_text("{}")
    with pytest.raises(LocalDamaged):
        restore(found, place)


def test_a_daemon_that_runs_is_named(found: backup.Backup, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covey.components.dcm.lock.PATIENCE", 0.0)
    holder, ready = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with stopped(place):
            os.write(ready[1], b"x")
            os.read(holder[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        with pytest.raises(AlreadyRunning, match=f"process {child} "):
            restore(found, place)
    finally:
        os.write(holder[1], b"x")
        os.waitpid(child, 0)
    assert not (place / "dcm").exists()
    restore(found, place)
    check_whole(place)


def test_a_crash_at_every_step_leaves_nothing_or_all(found: backup.Backup, place: Path) -> None:
    plan = restoring.plan(found, machine())

    def work() -> None:
        with stopped(place) as at:
            restoring.carry_out(at, plan)

    whole = nothing = 0
    for _ in every_step(work, lambda: shutil.rmtree(place, ignore_errors=True)):
        local = LocalStore(Layout(place))
        local.prepare()
        local.sweep()  # as every start of a daemon does
        if local.clusters().clusters:
            check_whole(place)
            whole += 1
        else:
            assert not (place / CLUSTER).exists()
            nothing += 1
            work()  # and it can be done again
            check_whole(place)
    assert nothing > 20 and whole > 0


@pytest.mark.parametrize("step", [0, 5, 20])
def test_a_full_disk_leaves_nothing(
    step: int, found: backup.Backup, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stopped(place) as at:
        at.store.prepare()
        real, left = os.fsync, step

        def fsync(handle: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(handle)

        monkeypatch.setattr(os, "fsync", fsync)
        with pytest.raises((CoveyError, OSError)):
            restoring.carry_out(at, restoring.plan(found, machine()))
        monkeypatch.setattr(os, "fsync", real)
    restore(found, place)
    check_whole(place)


def test_a_registry_without_a_cluster_is_no_backup_to_restore(tmp_path: Path) -> None:
    store, chain = Store(), records.START
    body = entries.Founded(CLUSTER, 0, (("/app/a", pack_value("/app/a", 1)),))
    store.apply(entries.Entry(1, 1, 0, body))
    backup.write(tmp_path / "b", encode_snapshot(store, chain), AT)
    with pytest.raises(CoveyError, match="holds no cluster"):
        restoring.plan(backup.read(tmp_path / "b"), machine())


def test_the_copy_has_its_place(found: backup.Backup, place: Path) -> None:
    restore(found, place)
    assert folder_of(place / CLUSTER).is_dir()
    assert not folder_of(place / CLUSTER).with_name("registry.new").exists()
