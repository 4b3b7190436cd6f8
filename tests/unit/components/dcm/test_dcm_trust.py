"""Who may ask what: tokens of a node, verdicts from tombstones, keys that reach the broker, forgetting a cluster."""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from covey.bus.messages import Role
from covey.bus.security import make_keys
from covey.bus.service import Request
from covey.components.dcm import entries
from covey.components.dcm.balancing import BalanceVerbs
from covey.components.dcm.definitions import ClusterDefinition, NodeDefinition, NodeTable, Replica, ServerList
from covey.components.dcm.home import Home
from covey.components.dcm.judge import Judge
from covey.components.dcm.lookup import ask_verdict
from covey.components.dcm.messages import Resolve
from covey.components.dcm.places import join_places, peer_places, who_knows
from covey.components.dcm.settings import JOIN_TOPICS, MOST_TOKENS
from covey.components.dcm.token import parse
from covey.components.dcm.tokens import Tokens
from covey.components.dcm.trusting import TrustVerbs
from covey.errors import Ambiguous, Busy, Denied, KeyNotFound, NodeOnline, NotFound, Refused, UsageError
from define_world import Registry

CLUSTER = ClusterDefinition("lab", "c" * 32)
KEY_1, KEY_2 = "1" * 64, "2" * 64


def node(number: int, key: str = "") -> NodeDefinition:
    return NodeDefinition(number, f"n{number}", f"id-{number}", f"{number:032}", (f"127.1.0.{number}/16",), 7400, key)


class Bus:
    """Answers as a registry, as other DCMs (`others`: what each place says), and hears what the broker is told."""

    def __init__(self, registry: Registry | None = None, others: dict[str, Any] | None = None) -> None:
        self.registry = registry or Registry()
        self.others = others or {}
        self.told: list[dict[str, Any]] = []
        self.asked: list[tuple[str, Any]] = []

    async def publish(self, topic: str, body: Any) -> None:
        """Nobody listens."""

    async def call(self, service: str, verb: str, /, **given: Any) -> Any:
        self.asked.append((f"{service}.{verb}", given.get("node")))
        if service == "bus":
            self.told.append(given)
            return None
        if service == "dcm":
            answer = self.others[given["node"]]
            if isinstance(answer, Exception):
                raise answer
            return answer
        data = self.registry.data
        if verb == "get":
            if given["key"] not in data:
                raise KeyNotFound(given["key"])
            value, revision = data[given["key"]]
            return {"value": value, "mod_revision": revision, "revision": self.registry.revision}
        if verb == "ls":
            prefix = given["prefix"]
            found = [{"key": k, "value": v, "mod_revision": r} for k, (v, r) in data.items() if k.startswith(prefix)]
            return {"items": found, "revision": self.registry.revision}
        done, revision = self.registry.txn({"compare": given["compare"], "then": given["then"]})
        return {"succeeded": done, "revision": revision}


def home(folder: Path, bus: Bus | None = None, key: Path | None = None) -> Home:
    identity = SimpleNamespace(source="value", value="id-2")
    section = SimpleNamespace(name="n2", port=7400, adapters=("127.1.0.2/16",), identity=identity)
    security = SimpleNamespace(mode="curve" if key else "open", key=SimpleNamespace(file=key))
    config = SimpleNamespace(node=section, security=security, liveness={}, controllers={})
    made = Home(config, folder, bus or Bus(), {})  # type: ignore[arg-type]
    made.load()
    return made


def defined(here: Home, key: str = "", cluster: ClusterDefinition = CLUSTER) -> NodeDefinition:
    own = node(2, key)
    other_key = KEY_1 if key else ""
    replica = Replica(cluster, own, ServerList((1,), 1, 4), NodeTable({1: node(1, other_key), 2: own}, 4))
    here.store.make_cluster(cluster)
    here.store.commit_replica(replica)
    here.store.commit_cluster(cluster)
    here.load()
    return own


# --- places ---------------------------------------------------------------------------------------------------


def test_where_a_node_is_asked_with_and_without_keys() -> None:
    assert peer_places(node(1)) == join_places(node(1)) == ["127.1.0.1:7400"]
    assert peer_places(node(1, KEY_1)) == [f"127.1.0.1:7400#{KEY_1}"]
    assert join_places(node(1, KEY_1)) == [f"127.1.0.1:7401#{KEY_1}"]
    six = msgspec.structs.replace(node(1, KEY_1), addresses=("fd00::1/64",))
    assert join_places(six) == [f"[fd00::1]:7401#{KEY_1}"]
    table = NodeTable({1: node(1, KEY_1), 2: node(2, KEY_2), 3: node(3, "3" * 64)})
    assert [place.partition("#")[0] for place in who_knows(node(2), ServerList((3,)), table)] == [
        "127.1.0.3:7401",
        "127.1.0.1:7401",
    ]


# --- tokens ---------------------------------------------------------------------------------------------------


def test_a_token_is_kept_before_it_is_shown_and_nobody_else_can_read_it(tmp_path: Path) -> None:
    here = home(tmp_path)
    token = asyncio.run(Tokens(here).make(600))
    assert parse(token.text()) == token
    path = here.layout.clusters_file
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = home(tmp_path)
    assert again.clusters.tokens[token.id].secret == token.secret
    (listed,) = Tokens(again).ls()
    assert (listed["id"], listed["state"]) == (token.id, "unused")
    assert "secret" not in str(listed)


def test_only_a_few_at_a_time_and_all_can_be_made_void(tmp_path: Path) -> None:
    here = home(tmp_path)
    tokens = Tokens(here)

    async def story() -> None:
        made = [await tokens.make(600) for _ in range(MOST_TOKENS)]
        assert len({token.id for token in made} | {token.secret.hex() for token in made}) == 2 * MOST_TOKENS
        with pytest.raises(Busy):
            await tokens.make(600)
        assert sorted(await tokens.cancel()) == sorted(token.id for token in made)
        assert {each["state"] for each in tokens.ls()} == {"used"}
        assert all(kept.secret == b"" for kept in here.clusters.tokens.values())
        for _ in range(10):
            for _ in range(MOST_TOKENS):
                await tokens.make(600)
            await tokens.cancel()

    asyncio.run(story())
    assert len(here.clusters.tokens) <= 40


@pytest.mark.parametrize("life", [0.0, -1.0, 59.0, 8 * 86400.0, float("nan"), float("inf")])
def test_how_long_a_token_may_hold(tmp_path: Path, life: float) -> None:
    with pytest.raises(UsageError):
        asyncio.run(Tokens(home(tmp_path)).make(life))


def test_an_older_file_of_clusters_is_read_and_loses_its_mode(tmp_path: Path) -> None:
    here = home(tmp_path)
    defined(here)
    here.layout.clusters_file.chmod(0o644)
    asyncio.run(Tokens(here).make(600))
    assert stat.S_IMODE(here.layout.clusters_file.stat().st_mode) == 0o600
    assert here.clusters.current == CLUSTER.id


# --- keys -----------------------------------------------------------------------------------------------------


def test_keys_and_their_going_reach_the_broker_at_once(tmp_path: Path) -> None:
    bus, key = Bus(), tmp_path / "n2.key"
    own = make_keys(key).public
    here = home(tmp_path / "n2", bus, key)
    defined(here, own)

    async def story() -> None:
        await here.reload()
        assert {number: peer["key"] for number, peer in bus.told[-1]["peers"].items()} == {1: KEY_1}
        changed = NodeTable({1: node(1, "f" * 64), 2: here.here().node}, 5)
        await here.refresh(lambda old: msgspec.structs.replace(old, nodes=changed))
        assert bus.told[-1]["peers"][1]["key"] == "f" * 64
        alone = NodeTable({2: here.here().node}, 6)
        await here.refresh(lambda old: msgspec.structs.replace(old, nodes=alone))
        assert bus.told[-1]["peers"] == {}
        assert len(bus.told) == 3

    asyncio.run(story())


def test_a_node_whose_key_is_another_one_than_it_was_defined_with_says_so(tmp_path: Path) -> None:
    key = tmp_path / "n2.key"
    own = make_keys(key).public
    for mode, was in ((None, own), (key, ""), (key, KEY_2)):
        here = home(tmp_path / f"n2-{mode is None}-{was[:4]}", Bus(), mode)
        here.store.prepare()
        defined(here, was)
        assert here.replica is None
        assert here.problem_code == "identity.key_changed"
        assert "lab" in here.problem


def test_the_join_port_is_for_four_questions_alone() -> None:
    verbs = {topic.partition(".")[2]: getattr(BalanceVerbs, topic.partition(".")[2]) for topic in JOIN_TOPICS}
    assert sorted(verbs) == ["called", "join_message", "verdict", "whereabouts"]
    assert {verb.__covey_role__ for verb in verbs.values()} == {Role.LOOK}
    for verb in ("node_prepare", "node_tokens", "node_tokens_cancel", "node_forget"):
        assert getattr(TrustVerbs, verb).__covey_role__ is Role.ADMIN


# --- the judge ------------------------------------------------------------------------------------------------


def judge(folder: Path, registry: Registry) -> Judge:
    return Judge(home(folder, Bus(registry)))


def undefined(number: int, key: str) -> Registry:
    registry = Registry(node(1, KEY_1), node(number, key))
    (entry,) = [each for each in registry.nodes() if each.definition.number == number]
    assert registry.txn(entries.undefine(entry))[0]
    return registry


def test_the_tombstone_is_told_to_its_own_key_alone(tmp_path: Path) -> None:
    registry = undefined(2, KEY_2)
    asked = judge(tmp_path, registry)
    gone = node(2).definition_id

    async def story() -> None:
        said = await asked.verdict(CLUSTER.id, gone, KEY_2)
        assert (said.standing, said.definition_id, said.key, said.revision) == ("gone", gone, KEY_2, registry.revision)
        for by in (KEY_1, "", "f" * 64):
            with pytest.raises(Denied):
                await asked.verdict(CLUSTER.id, gone, by)
        assert (await asked.verdict(CLUSTER.id, node(1).definition_id, KEY_1)).standing == "defined"
        with pytest.raises(Denied):
            await asked.verdict(CLUSTER.id, node(1).definition_id, KEY_2)
        assert (await asked.verdict(CLUSTER.id, "e" * 32, KEY_2)).standing == "unknown"

    before = dict(registry.data)
    asyncio.run(story())
    assert registry.data == before


def test_a_define_in_doubt_is_decided_by_its_own_node_alone(tmp_path: Path) -> None:
    registry = Registry(node(1, KEY_1))
    registry.txn(entries.begin("d" * 32, KEY_2))
    asked = judge(tmp_path, registry)
    question = Resolve("t", CLUSTER.id, "d" * 32)

    async def story() -> None:
        before = dict(registry.data)
        for by in (KEY_1, ""):
            with pytest.raises(Denied):
                await asked.resolve(question, by)
        stranger = await asked.resolve(Resolve("t", CLUSTER.id, "e" * 32), KEY_1)
        assert stranger.replica is None
        assert registry.data == before, "what nobody began leaves nothing behind"
        assert (await asked.resolve(question, KEY_2)).replica is None
        assert registry.standing("d" * 32) == "unknown"
        assert not registry.txn(entries.define(node(2, KEY_2), begun=before[entries.decision_key("d" * 32)][1]))[0]

    asyncio.run(story())


def test_a_define_that_was_written_is_handed_to_its_own_node_alone(tmp_path: Path) -> None:
    registry = Registry(node(1, KEY_1), node(2, KEY_2))
    registry.data["/cluster/definition"] = (msgspec.to_builtins(CLUSTER), 1)
    registry.data["/cluster/servers"] = ({"servers": [1], "primary": 1}, 1)
    asked = judge(tmp_path, registry)
    question = Resolve("t", CLUSTER.id, node(2).definition_id)

    async def story() -> None:
        with pytest.raises(Denied):
            await asked.resolve(question, KEY_1)
        found = (await asked.resolve(question, KEY_2)).replica
        assert found is not None
        assert found.node == node(2, KEY_2)
        assert {number: each.key for number, each in found.nodes.nodes.items()} == {1: KEY_1, 2: KEY_2}

    asyncio.run(story())


def test_only_a_verdict_over_this_definition_and_key_counts() -> None:
    own = node(2, KEY_2)
    right = {"standing": "gone", "definition_id": own.definition_id, "key": KEY_2, "revision": 9}
    lies: list[Any] = [
        {},
        [],
        "gone",
        {**right, "key": KEY_1},
        {**right, "definition_id": "d" * 32},
        {**right, "standing": "erase it"},
        Denied("no"),
    ]
    others = {f"h{number}": lie for number, lie in enumerate(lies)}
    assert asyncio.run(ask_verdict(Bus(others=others), others, CLUSTER.id, own)) is None  # type: ignore[arg-type]
    others["unsure"] = {**right, "standing": "unknown"}
    unsure = asyncio.run(ask_verdict(Bus(others=others), others, CLUSTER.id, own))  # type: ignore[arg-type]
    assert unsure is not None
    assert unsure.standing == "unknown"
    others["last#key"] = right
    found = asyncio.run(ask_verdict(Bus(others=others), others, CLUSTER.id, own))  # type: ignore[arg-type]
    assert found is not None
    assert (found.standing, found.place) == ("gone", "last")


# --- forgetting -----------------------------------------------------------------------------------------------


class Life:
    """The node's life, as far as forgetting asks for it."""

    def __init__(self, state: str = "offline") -> None:
        self.machine = SimpleNamespace(state=state)
        self.fed: list[Any] = []

    def feed(self, input: Any) -> None:
        self.fed.append(input)


def forget(here: Home, cluster: str, life: Life) -> Any:
    async def given_up(_cluster_id: str) -> None:
        return None

    verbs = TrustVerbs(here, life, SimpleNamespace(forget=given_up))  # type: ignore[arg-type]
    return asyncio.run(verbs.node_forget(Request("client-1", 2, Role.ADMIN), which=cluster))


DEFINED = {"standing": "defined", "definition_id": node(2).definition_id, "key": "", "revision": 3}


def test_a_cluster_that_is_gone_is_forgotten_on_a_persons_word(tmp_path: Path) -> None:
    bus = Bus(others={"127.1.0.1:7400": Refused("nobody there")})
    here, life = home(tmp_path, bus), Life()
    defined(here)
    assert forget(here, "lab", life) == {"name": "lab", "id": CLUSTER.id, "proved": False}
    assert here.clusters.clusters == {}
    assert not (tmp_path / CLUSTER.id).exists()
    assert len(life.fed) == 1
    lines = [(each["what"], each["outcome"]) for each in here.audit_log.entries()]
    assert lines == [("local_erased", "done"), ("node_forget", "done")]
    assert here.audit_log.verify() == []


def test_a_cluster_that_still_lists_this_node_is_not_forgotten(tmp_path: Path) -> None:
    here, life = home(tmp_path, Bus(others={"127.1.0.1:7400": DEFINED})), Life()
    defined(here)
    with pytest.raises(Refused, match="says so"):
        forget(here, CLUSTER.id, life)
    assert here.store.node(CLUSTER.id) is not None
    assert [each["outcome"] for each in here.audit_log.entries()] == ["core.refused"]


@pytest.mark.parametrize("state", ["checking", "starting", "configuring", "online", "leaving"])
def test_a_node_that_is_online_forgets_nothing(tmp_path: Path, state: str) -> None:
    here, life = home(tmp_path), Life(state)
    defined(here)
    with pytest.raises(NodeOnline):
        forget(here, "lab", life)
    assert here.store.node(CLUSTER.id) is not None


def test_which_cluster_is_meant(tmp_path: Path) -> None:
    here, life = home(tmp_path, Bus(others={"127.1.0.1:7400": Refused("nobody there")})), Life()
    defined(here, cluster=ClusterDefinition("lab", "a" * 32))
    defined(here, cluster=ClusterDefinition("lab", "b" * 32))
    with pytest.raises(Ambiguous, match="a" * 32):
        forget(here, "lab", life)
    with pytest.raises(NotFound):
        forget(here, "other", life)
    forget(here, "a" * 32, life)
    assert sorted(here.clusters.clusters) == ["b" * 32]


def test_a_cluster_with_a_damaged_file_can_be_forgotten(tmp_path: Path) -> None:
    here, life = home(tmp_path), Life("failed")
    defined(here)
    path = here.layout.cluster(CLUSTER.id).node_file
    path.write_bytes(path.read_bytes()[:-3])
    here.load()
    assert here.problem
    forget(here, "lab", life)
    assert here.clusters.clusters == {}
