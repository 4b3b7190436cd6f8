"""Local storage: whole or refused, whatever the disk or a person did to it."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from covey.components.dcm import storage
from covey.components.dcm.definitions import (
    ClusterDefinition,
    Clusters,
    KnownCluster,
    NodeDefinition,
    NodeTable,
    PendingDefine,
    Replacement,
    Replica,
    ServerList,
    check_name,
    split_endpoint,
)
from covey.components.dcm.layout import Layout
from covey.components.dcm.storage import Store, read_document, render, write_document
from covey.errors import LocalDamaged, UsageError
from hypothesis import given, settings
from hypothesis import strategies as st

A, B = "a" * 32, "b" * 32
CLUSTER = ClusterDefinition("lab", A)
NODE = NodeDefinition(1, "n1", "machine-1", "d" * 32, ("127.1.0.1/16", "127.2.0.1/16"), 7400)
REPLICA = Replica(CLUSTER, NODE, ServerList((1,), 1, 3), NodeTable({1: NODE}, 3))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(Layout(tmp_path / "n1"))
    made.prepare()
    return made


def define(store: Store, cluster: ClusterDefinition = CLUSTER) -> None:
    store.make_cluster(cluster)
    store.commit_replica(msgspec.structs.replace(REPLICA, cluster=cluster))
    store.commit_cluster(cluster)


def test_a_document_can_be_read_by_a_person_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "node.json"
    write_document(path, "node definition", NODE)
    assert json.loads(path.read_text())["content"]["name"] == "n1"
    assert read_document(path, "node definition", NodeDefinition) == NODE
    assert list(tmp_path.iterdir()) == [path]


def test_no_file_is_not_a_damaged_file(tmp_path: Path) -> None:
    assert read_document(tmp_path / "none.json", "node definition", NodeDefinition) is None


DATA = render("node definition", msgspec.to_builtins(NODE))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(DATA) - 1), st.integers(1, 255))
def test_any_flipped_byte_is_seen(tmp_path_factory: pytest.TempPathFactory, position: int, bits: int) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.json"
    flipped = bytearray(DATA)
    flipped[position] ^= bits
    path.write_bytes(flipped)
    with pytest.raises(LocalDamaged, match=r"flipped\.json"):
        read_document(path, "node definition", NodeDefinition)
    assert path.read_bytes() == flipped


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(DATA) - 1))
def test_any_cut_is_seen(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.json"
    path.write_bytes(DATA[:length])
    with pytest.raises(LocalDamaged, match=r"cut\.json"):
        read_document(path, "node definition", NodeDefinition)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_other_content_is_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "other.json"
    path.write_bytes(data)
    with pytest.raises(LocalDamaged):
        read_document(path, "node definition", NodeDefinition)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace("n1", "n9"), "edited"),
        (lambda text: text + " ", "edited"),
        (lambda text: text.replace('"format": 1', '"format": 2'), "format is 2"),
        (lambda _: render("cluster definition", {"name": "lab", "id": A}).decode(), "it is a cluster definition"),
        (lambda _: render("node definition", {"number": "one"}).decode(), "Expected `int`"),
    ],
)
def test_the_reason_is_told(tmp_path: Path, change: object, reason: str) -> None:
    path = tmp_path / "node.json"
    path.write_text(change(DATA.decode()))  # type: ignore[operator]
    with pytest.raises(LocalDamaged, match=reason):
        read_document(path, "node definition", NodeDefinition)


def test_a_defined_cluster_is_there_after_a_restart(store: Store) -> None:
    define(store)
    again = Store(store.layout)
    assert again.clusters() == Clusters({A: KnownCluster("lab")}, current=A, target=A)
    assert (again.cluster(A), again.node(A)) == (CLUSTER, NODE)
    assert (again.servers(A), again.nodes(A)) == (REPLICA.servers, REPLICA.nodes)
    assert sorted(path.name for path in (store.layout.state_dir / A).iterdir()) == [
        "configuration",
        "core",
        "locks",
        "logs",
    ]


def test_a_second_cluster_does_not_move_the_pointers_unless_asked(store: Store) -> None:
    define(store)
    store.make_cluster(ClusterDefinition("other", B))
    store.commit_cluster(ClusterDefinition("other", B), point=False)
    assert (store.clusters().current, store.clusters().target) == (A, A)
    assert sorted(store.clusters().defined()) == [A, B]


def test_erasing_one_cluster_leaves_the_other_untouched(store: Store) -> None:
    define(store)
    define(store, ClusterDefinition("other", B))
    before = sorted((store.layout.state_dir / A).rglob("*"))
    store.erase_cluster(B)
    store.erase_cluster(B)
    assert not (store.layout.state_dir / B).exists()
    assert sorted((store.layout.state_dir / A).rglob("*")) == before
    assert store.clusters() == Clusters({A: KnownCluster("lab")})


def test_the_operators_offline_ends_with_the_definition_it_was_about(store: Store) -> None:
    define(store)
    store.change(lambda now: msgspec.structs.replace(now, offline=True))
    define(store, ClusterDefinition("other", B))
    store.erase_cluster(A)
    assert store.clusters().offline
    store.erase_cluster(B)
    assert not store.clusters().offline


class PowerCut(BaseException):
    """The machine stops here."""


def run_cut_at(monkeypatch: pytest.MonkeyPatch, step: int, work: object) -> bool:
    """Run `work` with the power cut at the given write to the disk; say whether it was cut."""
    left = [step]

    def cut(*_: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise PowerCut

    original = storage.write_file

    def write(path: Path, data: bytes, mode: int = 0o644, *, spare: bool = False) -> None:
        cut()
        original(path, data, mode, spare=spare)
        cut()

    with monkeypatch.context() as patch:
        patch.setattr(storage, "write_file", write)
        try:
            work()  # type: ignore[operator]
        except PowerCut:
            return True
    return False


@pytest.mark.parametrize("step", range(24))
def test_a_crash_while_defining_leaves_all_or_nothing(store: Store, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    cut = run_cut_at(monkeypatch, step, lambda: define(store))
    again = Store(store.layout)
    again.sweep()
    known = again.clusters()
    if known.clusters:
        assert known == Clusters({A: KnownCluster("lab")}, current=A, target=A)
        assert again.node(A) == NODE
    else:
        assert cut
        assert not (store.layout.state_dir / A).exists()
        assert known == Clusters()


def test_the_crash_test_reaches_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = set()
    for step in range(24):
        store = Store(Layout(tmp_path / str(step)))
        store.prepare()
        outcomes.add(run_cut_at(monkeypatch, step, lambda made=store: define(made)))
    assert outcomes == {True, False}


@pytest.mark.parametrize("step", range(6))
def test_a_crash_while_erasing_is_finished_at_the_next_start(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    define(store)
    cut = run_cut_at(monkeypatch, step, lambda: store.erase_cluster(A))
    again = Store(store.layout)
    again.sweep()
    if cut and step == 0:
        assert again.clusters().current == A
        assert again.node(A) == NODE
    else:
        assert again.clusters() == Clusters()
        assert not (store.layout.state_dir / A).exists()


def test_a_folder_in_doubt_is_not_swept(store: Store) -> None:
    pending = PendingDefine("t1", CLUSTER, "d" * 32, ("127.0.0.1:7400",))
    store.change(lambda now: msgspec.structs.replace(now, pending={"t1": pending}))
    store.make_cluster(CLUSTER)
    assert store.sweep() == []
    assert (store.layout.state_dir / A).is_dir()
    store.commit_replica(REPLICA)
    assert store.commit_cluster(CLUSTER, finished="t1").pending == {}


def test_a_damaged_list_of_clusters_deletes_nothing(store: Store) -> None:
    define(store)
    store.layout.clusters_file.write_bytes(b"{}")
    with pytest.raises(LocalDamaged):
        store.sweep()
    with pytest.raises(LocalDamaged):
        store.erase_cluster(A)
    assert store.node(A) == NODE


def test_a_replacement_is_kept_and_dropped(store: Store) -> None:
    define(store)
    store.save(A, Replacement("old", "new"))
    assert store.replacement(A) == Replacement("old", "new")
    store.drop_replacement(A)
    store.drop_replacement(A)
    assert store.replacement(A) is None


@pytest.mark.parametrize("text", ["", "..", "../../etc", "A" * 32, "a" * 31, "a" * 32 + "\n"])
def test_a_cluster_id_cannot_name_another_folder(store: Store, text: str) -> None:
    with pytest.raises(UsageError):
        store.layout.cluster(text)


@pytest.mark.parametrize("text", ["n1", "_x", "db-1.rack2", "1a", "a" * 63])
def test_names(text: str) -> None:
    assert check_name(text) == text


@pytest.mark.parametrize("text", ["", "1", "42", "-x", ".x", "a b", "a/b", "a" * 64, "ä", "n1\n"])
def test_bad_names(text: str) -> None:
    with pytest.raises(UsageError):
        check_name(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("127.1.0.2", "127.1.0.2:7400"),
        ("127.1.0.2:9", "127.1.0.2:9"),
        ("host", "host:7400"),
        ("host:1", "host:1"),
        ("::1", "[::1]:7400"),
        ("[::1]", "[::1]:7400"),
        ("[::1]:80", "[::1]:80"),
    ],
)
def test_endpoints(text: str, found: str) -> None:
    assert split_endpoint(text, 7400) == found


@pytest.mark.parametrize("text", ["", ":80", "host:", "host:0", "host:65536", "host:x"])
def test_bad_endpoints(text: str) -> None:
    with pytest.raises(UsageError):
        split_endpoint(text, 7400)


@pytest.mark.parametrize("name", ["cluster", "servers", "nodes"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_copy_of_what_others_hold_is_replaced_by_its_version_before(
    store: Store, name: str, damage: str
) -> None:
    define(store)
    newer = msgspec.structs.replace(REPLICA, nodes=NodeTable({1: NODE}, 4), servers=ServerList((1,), 1, 4))
    store.save(A, newer.servers, newer.nodes)
    path = store.layout.cluster(A).configuration / f"{name}.json"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        path.unlink()
    found = {"cluster": store.cluster, "servers": store.servers, "nodes": store.nodes}[name](A)
    assert found == getattr(REPLICA, name)
    assert store.repaired == [str(path)]
    assert path.with_name(f"{path.name}.damaged").exists() == (damage == "cut")
    again = Store(store.layout)
    assert getattr(again, name)(A) == found
    assert again.repaired == []


def test_two_damaged_versions_and_a_damaged_definition_of_its_own_are_not_repaired(store: Store) -> None:
    define(store)
    folder = store.layout.cluster(A).configuration
    for file in (folder / "nodes.json", folder / "nodes.json.spare", folder / "node.json"):
        file.write_text("{}")
    before = sorted(folder.iterdir())
    for read in (store.nodes, store.node):
        with pytest.raises(LocalDamaged):
            read(A)
    assert sorted(folder.iterdir()) == before
