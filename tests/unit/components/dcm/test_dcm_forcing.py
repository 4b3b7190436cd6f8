"""Forcing: the best copy is chosen, what may be lost is said, and a crash leaves the old copy or the new."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from covey.components.dcm import forcing
from covey.components.dcm.audit import AuditLog
from covey.components.dcm.definitions import ClusterDefinition, NodeDefinition, NodeTable, Replica, ServerList, plain
from covey.components.dcm.layout import Layout
from covey.components.dcm.stopped import stopped
from covey.components.dcm.storage import Store as LocalStore
from covey.components.registry import create, entries, generation, records
from covey.components.registry.disk import Disk
from covey.components.registry.force import look
from covey.components.registry.keys import pack_value, unpack_value
from covey.components.registry.layout import folder_of
from covey.components.registry.recovery import recover
from covey.components.registry.settings import Settings
from covey.errors import Ambiguous, CoveyError, NotDefined, Refused
from killed import every_step

CLUSTER = "c" * 32


def node(number: int) -> NodeDefinition:
    return NodeDefinition(number, f"n{number}", f"machine-{number}", f"{number}" * 32, (f"127.1.0.{number}/16",), 7400)


def make(place: Path, number: int = 1, cluster: str = CLUSTER, name: str = "lab") -> Path:
    """Make the state folder of one of three registry servers, with a registry in which all are defined."""
    local = LocalStore(Layout(place))
    local.prepare()
    definition = ClusterDefinition(name, cluster)
    local.make_cluster(definition)
    first = json.loads(json.dumps(plain(node(1))))
    create(place / cluster, cluster_id=cluster, cluster_name=name, node=first, servers=[1])
    changes = {f"/nodes/{n}": json.loads(json.dumps(plain(node(n)))) for n in (2, 3)}
    write(place, [(2, changes | {"/cluster/servers": {"servers": [1, 2, 3], "primary": 1}})], cluster)
    table = NodeTable({n: node(n) for n in (1, 2, 3)})
    local.commit_replica(Replica(definition, node(number), ServerList((1, 2, 3), 1), table))
    local.commit_cluster(definition)
    return place


def write(place: Path, changes: list[tuple[int, dict[str, Any]]], cluster: str = CLUSTER) -> None:
    """Append transactions (epoch, values by key) to the copy in a state folder."""
    disk, loaded = Disk.open(folder_of(place / cluster), cluster)
    assert disk is not None, loaded.damaged
    copy = look(place / cluster, cluster)
    index, chain, found = copy.store.index, copy.chain, []
    for epoch, values in changes:
        index += 1
        then = tuple((key, pack_value(key, value)) for key, value in values.items())
        body = entries.Transacted(f"{epoch}-{index}", (), then, ())
        found.append(entries.encode(entries.Entry(epoch, index, 0, body), chain))
        chain = records.digest(found[-1])
    disk.append(found)
    disk.close()


def damage(place: Path) -> None:
    """Flip a byte in the middle of the copy's first log file."""
    [path] = folder_of(place / CLUSTER).glob("log-*")
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


@contextmanager
def surveyed(*places: Path, wanted: str | None = None) -> Iterator[forcing.Survey]:
    with ExitStack() as held:
        yield forcing.survey([held.enter_context(stopped(place)) for place in places], wanted)


def force(*places: Path) -> tuple[int, int, int]:
    with surveyed(*places) as found:
        return forcing.carry_out(found)


def value(place: Path, key: str) -> Any:
    item = look(place / CLUSTER, CLUSTER).store.get(key)
    return unpack_value(item.value) if item else None


def files(place: Path) -> dict[str, bytes]:
    """Return what the node's files hold, but for lock and logs."""
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and "logs" not in path.parts and path.name != "lock"
    }


def test_the_copy_goes_on_in_a_new_generation(tmp_path: Path) -> None:
    one = make(tmp_path / "n1")
    write(one, [(2, {"/app/a": 1}), (4, {"/app/b": 2})])
    before = look(one / CLUSTER, CLUSTER)
    with surveyed(one) as found:
        data = found.plain()
        assert (data["best"], data["servers"], data["missing"]) == (1, [1, 2, 3], [2, 3])
        assert data["copies"][0]["incarnation"] == [0, 4, 4]
        after = forcing.carry_out(found)
    copy = look(one / CLUSTER, CLUSTER)
    assert copy.sound and copy.incarnation == after == (1, 4 + generation.EPOCHS, 5 + generation.ENTRIES)
    assert copy.servers() == [1]
    assert (value(one, "/app/a"), value(one, "/app/b")) == (1, 2)
    assert copy.store.revision == before.store.revision + generation.ENTRIES + 1
    assert LocalStore(Layout(one)).servers(CLUSTER).servers == (1,)
    assert [each.name for each in folder_of(one / CLUSTER).parent.glob("registry*")].count("registry.damaged") == 1
    disk, loaded = Disk.open(folder_of(one / CLUSTER), CLUSTER)
    assert disk is not None and loaded.promised == 4 + generation.EPOCHS
    assert not recover(loaded, Settings()).damaged
    disk.close()
    log = AuditLog(Layout(one).audit_log)
    assert log.verify() == []
    begun, done = list(log.entries())
    assert (begun["what"], begun["outcome"], done["outcome"]) == ("registry_force", "begun", "done")
    assert (begun["with"]["before"], begun["with"]["missing"], begun["uid"]) == ([0, 4, 4], [2, 3], os.getuid())


def test_it_can_be_done_again(tmp_path: Path) -> None:
    one = make(tmp_path / "n1")
    first, second = force(one), force(one)
    assert (first[0], second[0]) == (1, 2)


def test_the_best_copy_is_the_newest_sound_one(tmp_path: Path) -> None:
    one, two, three = (make(tmp_path / f"n{n}", n) for n in (1, 2, 3))
    write(one, [(2, {"/app/a": n}) for n in range(5)])  # longer, and older
    write(two, [(3, {"/app/a": "newest"})])
    write(three, [(4, {"/app/a": "damaged"})])
    damage(three)
    untouched = files(one), files(three)
    with surveyed(one, two, three) as found:
        assert found.best.node.number == 2
        assert found.missing() == [3]
        assert [each["sound"] for each in found.plain()["copies"]] == [True, True, False]
        assert str(three) in found.plain()["copies"][2]["damaged"][0]["path"]
        forcing.carry_out(found)
    assert value(two, "/app/a") == "newest"
    assert (files(one), files(three)) == untouched


def test_an_older_generation_is_never_chosen(tmp_path: Path) -> None:
    one, two = make(tmp_path / "n1", 1), make(tmp_path / "n2", 2)
    write(one, [(9, {"/app/a": n}) for n in range(20)])
    force(two)
    with surveyed(one, two) as found:
        assert found.best.node.number == 2
    damage_identity = folder_of(two / CLUSTER) / "hard-state"
    damage_identity.write_bytes(b"")
    with pytest.raises(Refused, match="generation 1 is damaged"), surveyed(one, two):
        pass
    with pytest.raises(Refused, match="none of these copies"), surveyed(two):
        pass


def test_nothing_is_changed_by_a_look(tmp_path: Path) -> None:
    one = make(tmp_path / "n1")
    before = files(one)
    with surveyed(one):
        pass
    assert files(one) == before
    assert not Layout(one).audit_log.exists()


def test_which_cluster(tmp_path: Path) -> None:
    one, other = make(tmp_path / "n1"), make(tmp_path / "m1", cluster="d" * 32, name="blue")
    with pytest.raises(Ambiguous, match="blue"), surveyed(one, other):
        pass
    with surveyed(one, other, wanted="blue") as found:
        assert found.cluster == ClusterDefinition("blue", "d" * 32)
        assert [each.at.layout.state_dir for each in found.found] == [other]
    with pytest.raises(NotDefined), surveyed(one, wanted="green"):
        pass


def test_a_node_that_its_copy_does_not_list_is_refused(tmp_path: Path) -> None:
    one = make(tmp_path / "n1")
    write(one, [(2, {"/nodes/1": {**json.loads(json.dumps(plain(node(1)))), "definition_id": "f" * 32}})])
    with pytest.raises(Refused, match="undefined"), surveyed(one):
        pass


def test_a_crash_at_every_step_leaves_the_old_copy_or_the_new(tmp_path: Path) -> None:
    made, one = make(tmp_path / "made"), tmp_path / "n1"
    write(made, [(2, {"/app/a": 1})])

    def fresh() -> None:
        shutil.rmtree(one, ignore_errors=True)
        shutil.copytree(made, one)

    old = new = aside = 0
    for _ in every_step(lambda: force(one), fresh):
        copy = look(one / CLUSTER, CLUSTER)
        assert copy.sound, copy.damaged
        assert copy.incarnation[0] in (0, 1)
        old, new = old + (copy.incarnation[0] == 0), new + (copy.incarnation[0] == 1)
        assert value(one, "/app/a") == 1
        aside += copy.aside
        force(one)  # and it can be done again
        copy = look(one / CLUSTER, CLUSTER)
        assert copy.sound and copy.servers() == [1]
        assert AuditLog(Layout(one).audit_log).verify() == []
        assert not copy.aside
    assert old > 10 and new > 0 and aside > 0


def test_a_disk_that_refuses_leaves_the_old_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = make(tmp_path / "n1")
    before = files(one)

    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with surveyed(one) as found:
        monkeypatch.setattr("covey.components.registry.layout.write_aside", refuse)
        with pytest.raises(CoveyError, match="No space left"):
            forcing.carry_out(found)
    monkeypatch.undo()
    assert {name: data for name, data in files(one).items() if "registry.new" not in name} == before
    force(one)
