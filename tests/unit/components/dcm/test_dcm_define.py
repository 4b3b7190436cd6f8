"""Define a node: both sides against a registry that decides, with every message lost, doubled, late, and every crash.

The world is `define_world`; with join tokens it is `test_dcm_join.py`.
"""

from __future__ import annotations

import heapq
import itertools
import random
from typing import Any

import msgspec
import pytest
from covey.bus.machine import ImpossibleTransition
from covey.components.dcm import define as member
from covey.components.dcm import entries, newcomer
from covey.components.dcm.checks import Finding
from covey.components.dcm.decision import Looked, Request
from covey.components.dcm.definitions import ClusterDefinition, NodeTable, PendingDefine, Replica, ServerList
from covey.components.dcm.entries import NodeEntry
from covey.components.dcm.messages import Abort, Aborted, Commit, Committed, Declined, Prepare, Prepared
from covey.components.dcm.settings import REMEMBERED
from covey.errors import (
    AlreadyDefined,
    CoveyError,
    IdentityClone,
    IdentityConflict,
    Preflight,
    ReadOnly,
    Refused,
    Timeout,
    Unreachable,
    UsageError,
)
from define_world import ADDRESS, CLUSTER, Registry, World, node

# --- the plain way --------------------------------------------------------------------------------------------


def test_a_node_is_defined_in_the_steps_of_the_specification() -> None:
    world = World()
    world.request()
    world.run()
    assert world.steps == [f"d{step}" for step in range(1, 15)]
    assert world.ended[0].node == world.local == node(2, definition_id=f"{0:0>31}d")
    world.check()


def test_what_was_asked_for_is_given() -> None:
    world = World()
    world.request(number=7, name="db", id="machine-2")
    world.run()
    assert world.local is not None
    assert (world.local.number, world.local.name) == (7, "db")
    world.check()


def test_the_new_node_gets_all_it_needs_to_find_the_registry() -> None:
    machine, now = (
        member.DefineMember(Request(ADDRESS), transaction="t", definition_id="d" * 32, cluster=CLUSTER, ask=()),
        0.0,
    )
    machine.step(now, member.Begun())
    machine.step(now, member.Began(3))
    machine.step(now, member.Heard(Prepared("t", "machine-2", "n2", ("127.1.0.2/16",), 7400)))
    looked = Looked((NodeEntry(node(1), 1),), frozenset({1}), ServerList((1,), 1, 4))
    machine.step(now, looked)
    commit = machine.step(now, member.Wrote(True, 5))[-1]
    assert isinstance(commit, member.Tell)
    assert isinstance(commit.message, Commit)
    replica = commit.message.replica
    assert replica.cluster == CLUSTER
    assert replica.servers == ServerList((1,), 1, 4)
    assert replica.nodes == NodeTable({1: node(1), 2: node(2, definition_id="d" * 32)}, 5)


# --- refusals: each leaves nothing ----------------------------------------------------------------------------


def refused(world: World, **wanted: Any) -> CoveyError:
    before = dict(world.registry.data)
    local = world.local
    number = world.request(**wanted)
    world.run()
    error = world.ended[number].error
    assert error is not None
    decisions = entries.decision_key("")
    after = {key: value for key, value in world.registry.data.items() if not key.startswith(decisions)}
    assert after == {key: value for key, value in before.items() if not key.startswith(decisions)}
    assert world.local == local
    assert world.disk == {}
    return error


def test_another_id_than_expected() -> None:
    assert isinstance(refused(World(), id="machine-9"), IdentityConflict)


@pytest.mark.parametrize("wanted", [{"number": 1}, {"name": "n1"}])
def test_a_number_or_name_that_is_taken(wanted: dict[str, Any]) -> None:
    assert isinstance(refused(World(), **wanted), AlreadyDefined)


def test_an_address_that_is_taken() -> None:
    world = World()
    world.registry = Registry(node(1), node(3, addresses=("127.1.0.2/8",)))
    error = refused(world)
    assert isinstance(error, AlreadyDefined)
    assert "127.1.0.2 is that of n3" in error.message


def test_a_bad_name() -> None:
    assert isinstance(refused(World(), name="42"), UsageError)


def test_a_node_that_is_defined_already() -> None:
    world = World()
    world.registry = Registry(node(1), node(2))
    world.local = node(2)
    assert isinstance(refused(world), AlreadyDefined)


def test_a_clone_must_not_erase_its_original() -> None:
    world = World()
    world.registry = Registry(node(1), node(3, id="machine-2"))
    world.online = frozenset({1, 3})
    error = refused(world)
    assert isinstance(error, IdentityClone)
    assert "127.1.0.3:7400" in error.message


def test_a_registry_server_is_not_erased() -> None:
    world = World()
    world.registry = Registry(node(1), node(3, id="machine-2"))
    world.servers = ServerList((1, 3), 1)
    assert isinstance(refused(world), Refused)


def test_a_new_node_that_cannot_be_reached() -> None:
    world = World()
    world.newcomer = None
    number = world.request()
    until(world, "asking")
    world.to_member(number, member.PeerFailed(Unreachable("no answer")))
    world.run()
    assert isinstance(world.ended[number].error, Unreachable)


def test_a_registry_without_quorum() -> None:
    world = World()
    world.registry_up = False
    number = world.request()
    world.run(60)
    assert isinstance(world.ended[number].error, Timeout)
    world.registry_up = True
    world.run()
    world.check()


# --- older definitions ----------------------------------------------------------------------------------------


def test_an_older_definition_in_the_registry_is_replaced() -> None:
    world = World()
    world.registry = Registry(node(1), node(3, id="machine-2", name="old", addresses=("127.1.0.9/16",)))
    world.request()
    world.run()
    assert [entry.definition.name for entry in world.registry.nodes()] == ["n1", "n2"]
    world.check()


def test_one_with_the_same_number_name_and_address_is_replaced() -> None:
    world = World()
    world.registry = Registry(node(1), node(2))
    world.request(number=2)
    world.run()
    assert world.local == node(2, definition_id=f"{0:0>31}d")
    world.check()


def test_a_stale_local_definition_is_replaced() -> None:
    world = World()
    world.local = node(9, definition_id="9" * 32, id="machine-2")
    world.request()
    world.run()
    assert world.local is not None
    assert world.local.number == 2
    world.check()


# --- two at once ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [{}, {"number": 5}, {"name": "db"}])
def test_two_requests_for_the_same_node_at_once(wanted: dict[str, Any]) -> None:
    world = World()
    world.request(**wanted)
    world.request(**wanted)
    world.run()
    assert sorted(end.node is not None for end in world.ended.values()) == [False, True]
    world.check()


@pytest.mark.parametrize("first", ["number", "name", "id", "addresses"])
def test_two_nodes_that_want_the_same_thing_exactly_one_wins(first: str) -> None:
    registry = Registry(node(1))
    one, other = node(2), node(3)
    other = msgspec.structs.replace(other, **{first: getattr(one, first)})
    assert [registry.txn(entries.define(each))[0] for each in (one, other)] == [True, False]
    registry.check()


def test_a_number_chosen_here_that_was_taken_meanwhile_is_chosen_again() -> None:
    world = World()
    number = world.request()
    machine = world.members[number]
    assert machine is not None
    while machine.state != "writing":
        world.now, _, do = heapq.heappop(world.agenda)
        do()
    world.registry.txn(entries.define(node(2, id="other", name="quick", addresses=("127.1.0.8/16",))))
    world.run()
    assert world.local is not None
    assert world.local.number == 3
    world.check()


# --- faults ---------------------------------------------------------------------------------------------------


def work_of_a_plain_define() -> int:
    world = World()
    world.request()
    world.run()
    return world.count


PLAIN = work_of_a_plain_define()


@pytest.mark.parametrize("who", ["member", "newcomer"])
@pytest.mark.parametrize("at", range(1, PLAIN + 1))
def test_a_crash_of_either_side_at_any_step_leaves_all_or_none(who: str, at: int) -> None:
    world = World()
    world.crash_at = {at: who}
    world.request()
    world.run()
    world.check()
    if who == "newcomer":
        assert (world.ended[0].node is not None) == (world.local is not None)


@pytest.mark.parametrize("at", list(itertools.combinations(range(1, PLAIN + 4), 2)))
def test_two_crashes(at: tuple[int, int]) -> None:
    for who in itertools.product(["member", "newcomer"], repeat=2):
        world = World()
        world.crash_at = dict(zip(at, who, strict=True))
        world.request()
        world.run()
        world.check()


def messages_of_a_plain_define() -> int:
    world = World()
    world.request()
    world.run()
    return world.messages


@pytest.mark.parametrize("fault", ["lose", "twice"])
def test_every_message_may_be_lost_or_come_twice(fault: str) -> None:
    for number in range(1, messages_of_a_plain_define() + 1):
        world = World()
        getattr(world, fault).add(number)
        world.request()
        world.run()
        world.check()
        assert world.ended[0].node == world.local is not None, number


@pytest.mark.parametrize("step", [f"d{step}" for step in range(1, 15)])
def test_a_cut_at_every_step(step: str) -> None:
    for seconds in (2.0, 20.0, 45.0):
        world = World()
        world.on_step[step] = lambda world=world, seconds=seconds: setattr(world, "cut_until", world.now + seconds)
        world.request()
        world.run()
        world.check()
        if seconds == 2.0:
            assert world.ended[0].node is not None


def test_a_finding_of_the_preflight_refuses_and_a_warning_is_told() -> None:
    world = World()
    world.findings = (Finding("doctor.unreachable", "error", None, "no way", "open it"),)
    before = dict(world.registry.data)
    world.request()
    world.run()
    error = world.ended[0].error
    assert isinstance(error, Preflight)
    assert "[doctor.unreachable] no way" in error.message
    assert (world.local, world.disk, world.registry.data) == (None, {}, before)
    world.findings = (Finding("doctor.version", "warning", None, "older"),)
    world.request()
    world.run()
    assert world.ended[1].findings == world.findings
    world.check()


def test_the_crash_tests_see_both_ends() -> None:
    outcomes = set()
    for at in range(1, PLAIN + 1):
        world = World()
        world.crash_at = {at: "member"}
        world.request()
        world.run()
        outcomes.add(world.local is not None)
    assert outcomes == {True, False}


@pytest.mark.parametrize("seed", range(300))
def test_lost_doubled_and_late_messages_with_crashes(seed: int) -> None:
    world = World(seed, loss=0.25, double=0.3, late=3.0)
    chance = random.Random(seed)
    world.crash_at = {chance.randrange(1, 40): chance.choice(["member", "newcomer"]) for _ in range(seed % 4)}
    world.request()
    if seed % 3 == 0:
        world.after(chance.random() * 5, lambda: world.request() and None)
    world.run(600)
    world.loss = 0.0
    world.run(2000)
    world.check()
    for number, end in world.ended.items():
        if end.node is not None and len(world.members) == 1:
            assert world.local == end.node, f"request {number}"


def until(world: World, state: str) -> None:
    """Run until the first request's machine is in a state."""
    machine = world.members[0]
    assert machine is not None
    while machine.state != state:
        world.now, _, do = heapq.heappop(world.agenda)
        do()


def test_a_new_node_that_falls_silent_after_the_registry_has_it_is_rolled_back() -> None:
    world = World()
    number = world.request()
    until(world, "committing")
    assert len(world.registry.nodes()) == 2
    world.newcomer = None
    world.run(world.now + 15)
    assert isinstance(world.ended[number].error, Timeout)
    assert len(world.registry.nodes()) == 1
    world.restart()
    world.run()
    world.check()


def test_a_write_that_may_have_happened_is_rolled_back() -> None:
    world = World()
    number = world.request()
    until(world, "writing")
    machine = world.members[number]
    assert machine is not None
    written = entries.define(node(2, definition_id=machine.definition_id), begun=machine._begun)
    world.registry.txn(written, "t0-1")
    world.agenda.clear()
    world.to_member(number, member.RegistryFailed(Timeout("the answer was lost")))
    world.to_member(number, member.RegistryFailed(ReadOnly("writes are closed"), sure=True))
    world.run()
    assert isinstance(world.ended[number].error, ReadOnly)
    world.check()
    assert len(world.registry.nodes()) == 1


def test_a_write_that_was_refused_needs_no_rolling_back() -> None:
    world = World()
    number = world.request()
    until(world, "writing")
    world.agenda.clear()
    world.to_member(number, member.RegistryFailed(ReadOnly("writes are closed"), sure=True))
    assert isinstance(world.ended[number].error, ReadOnly)


def test_most_defines_succeed_on_a_bad_network() -> None:
    good = 0
    for seed in range(50):
        world = World(seed, loss=0.2, double=0.2, late=0.2)
        world.request()
        world.run()
        good += world.ended[0].node is not None
    assert good >= 45


# --- one side alone -------------------------------------------------------------------------------------------


def heard(machine: newcomer.DefineNewcomer, message: Any, **changes: Any) -> list[Any]:
    me = newcomer.Self("machine-2", "n2", ("127.1.0.2/16",), 7400)
    return machine.step(0.0, newcomer.Heard(1, message, msgspec.structs.replace(me, **changes)))


PREPARE = Prepare("t", CLUSTER, "d" * 32, ("127.1.0.1:7400",))
REPLICA = Replica(CLUSTER, node(2, definition_id="d" * 32), ServerList((1,), 1), NodeTable({}))


def answers(effects: list[Any]) -> list[Any]:
    return [effect.message for effect in effects if isinstance(effect, newcomer.Answer)]


def test_nothing_is_answered_before_the_disk_has_it() -> None:
    machine = newcomer.DefineNewcomer()
    assert answers(heard(machine, PREPARE)) == []
    assert answers(heard(machine, PREPARE)) == []
    (first, second) = answers(machine.step(0.0, newcomer.Kept("t")))
    assert first == second == Prepared("t", "machine-2", "n2", ("127.1.0.2/16",), 7400)
    assert answers(heard(machine, Commit("t", REPLICA))) == []
    effects = machine.step(0.0, newcomer.CommittedLocal("t"))
    assert answers(effects) == [Committed("t")]
    assert effects[-1] == newcomer.JoinNow(CLUSTER.id)
    assert answers(heard(machine, Commit("t", REPLICA))) == [Committed("t")]
    assert answers(heard(machine, Abort("t"))) == [Committed("t")]


def test_a_commit_that_was_not_prepared_is_refused() -> None:
    machine = newcomer.DefineNewcomer()
    assert answers(heard(machine, Commit("t", REPLICA)))[0].code == "dcm.not_defined"
    heard(machine, PREPARE)
    machine.step(0.0, newcomer.Kept("t"))
    other = Commit("t", msgspec.structs.replace(REPLICA, node=node(2, definition_id="e" * 32)))
    assert answers(heard(machine, other))[0].code == "dcm.not_defined"


def test_a_second_cluster_or_request_while_one_is_in_doubt() -> None:
    machine = newcomer.DefineNewcomer()
    heard(machine, PREPARE)
    machine.step(0.0, newcomer.Kept("t"))
    assert answers(heard(machine, msgspec.structs.replace(PREPARE, transaction="u")))[0].code == "dcm.busy"
    other = msgspec.structs.replace(PREPARE, transaction="v", cluster=ClusterDefinition("other", "e" * 32))
    heard(machine, other)
    assert len(answers(machine.step(0.0, newcomer.Kept("v")))) == 1
    assert sorted(machine.open) == ["t", "v"]


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"id": None, "why": "no card"}, "identity.unreadable")],
)
def test_a_new_node_that_cannot_be_defined_says_why(changes: dict[str, Any], code: str) -> None:
    (answer,) = answers(heard(newcomer.DefineNewcomer(), PREPARE, **changes))
    assert isinstance(answer, Declined)
    assert answer.code == code
    assert "no card" in answer.message


def test_a_node_online_in_that_cluster_does_not_change_under_way() -> None:
    machine = newcomer.DefineNewcomer()
    heard(machine, PREPARE)
    machine.step(0.0, newcomer.Kept("t"))
    assert answers(heard(machine, Commit("t", REPLICA), online=True))[0].code == "dcm.node_online"


def test_a_disk_that_refuses_is_told_and_leaves_nothing() -> None:
    machine = newcomer.DefineNewcomer()
    heard(machine, PREPARE)
    (answer,) = answers(machine.step(0.0, newcomer.LocalFailed("t", "no space left")))
    assert "no space left" in answer.message
    assert not machine.open


def test_in_doubt_the_cluster_is_asked_until_it_answers() -> None:
    machine = newcomer.DefineNewcomer()
    pending = PendingDefine("t", CLUSTER, "d" * 32, ("127.1.0.1:7400",))
    assert machine.step(0.0, newcomer.Restarted((pending,))) == [newcomer.Ask(pending)]
    pauses, now = [], 0.0
    for _ in range(8):
        machine.step(now, newcomer.Unanswered("t"))
        assert machine.deadline is not None
        pauses.append(machine.deadline - now)
        now = machine.deadline
        assert machine.step(now) == [newcomer.Ask(pending)]
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert machine.step(now, newcomer.Answered("t", None)) == [newcomer.Drop("t", CLUSTER.id)]
    machine.step(now, newcomer.Dropped("t"))
    assert not machine.open
    assert answers(heard(machine, PREPARE)) == [Aborted("t")]


def test_a_define_in_doubt_is_given_up_when_its_cluster_is_forgotten() -> None:
    machine = newcomer.DefineNewcomer()
    other = PendingDefine("u", ClusterDefinition("other", "e" * 32), "e" * 32)
    machine.step(0.0, newcomer.Restarted((PendingDefine("t", CLUSTER, "d" * 32), other)))
    assert machine.step(1.0, newcomer.Forgotten(CLUSTER.id)) == [newcomer.Drop("t", CLUSTER.id)]
    assert machine.step(1.0, newcomer.Answered("t", REPLICA)) == [], "what comes too late finds nothing to commit"
    machine.step(1.0, newcomer.Dropped("t"))
    assert sorted(machine.open) == ["u"]


def test_a_message_of_an_old_define_changes_nothing_after_a_restart() -> None:
    machine = newcomer.DefineNewcomer()
    mine = node(2, definition_id="d" * 32, id="machine-2")
    assert answers(heard(machine, Commit("t", REPLICA), definition=mine, online=True)) == [Committed("t")]
    (answer,) = answers(heard(machine, PREPARE, definition=mine, online=True))
    assert answer.local == mine
    assert not machine.open


def test_what_is_remembered_is_bounded() -> None:
    machine = newcomer.DefineNewcomer()
    for number in range(3 * REMEMBERED):
        heard(machine, msgspec.structs.replace(PREPARE, transaction=str(number)))
        machine.step(0.0, newcomer.Kept(str(number)))
        heard(machine, Abort(str(number)))
        machine.step(0.0, newcomer.Dropped(str(number)))
    assert len(machine._ended) == REMEMBERED


def test_an_input_that_cannot_be_shows_the_story() -> None:
    machine = member.DefineMember(Request(ADDRESS), transaction="t", definition_id="d" * 32, cluster=CLUSTER, ask=())
    with pytest.raises(ImpossibleTransition, match=r"new \+ Wrote"):
        machine.step(0.0, member.Wrote(True))


# --- the transactions -----------------------------------------------------------------------------------------


def test_a_define_that_was_dropped_cannot_be_written_later() -> None:
    registry = Registry(node(1))
    done, begun = registry.txn(entries.begin(node(2).definition_id, ""))
    assert done
    assert registry.txn(entries.drop(node(2).definition_id, begun))[0]
    assert not registry.txn(entries.define(node(2), begun=begun))[0]


def test_a_define_that_was_written_cannot_be_dropped() -> None:
    registry = Registry(node(1))
    _, begun = registry.txn(entries.begin(node(2).definition_id, ""))
    assert registry.txn(entries.define(node(2), begun=begun))[0]
    assert not registry.txn(entries.drop(node(2).definition_id, begun))[0]
    assert registry.standing(node(2).definition_id) == "defined"


def test_undefining_frees_everything_but_the_decision() -> None:
    registry = Registry(node(1), node(2))
    (entry,) = [each for each in registry.nodes() if each.definition.number == 2]
    assert registry.txn(entries.undefine(entry))[0]
    registry.check()
    assert not registry.txn(entries.define(node(2)))[0]
    assert registry.txn(entries.define(node(2, definition_id="f" * 32)))[0]
    assert not registry.txn(entries.undefine(entry))[0]


def test_a_new_id_is_compared_and_set() -> None:
    registry = Registry(node(1), node(2))
    (entry,) = [each for each in registry.nodes() if each.definition.number == 2]
    assert not registry.txn(entries.modify(entry, id="machine-1"))[0]
    assert registry.txn(entries.modify(entry, id="card-8"))[0]
    registry.check()
    assert not registry.txn(entries.modify(entry, id="card-9"))[0]
    assert registry.txn(entries.define(node(3, id="machine-2")))[0]


@pytest.mark.parametrize("text", ["a/b", "ä" * 128, "a b", "..", "x" * 128, "%2F"])
def test_any_id_makes_a_sound_key(text: str) -> None:
    from covey.components.registry.keys import check_key

    for key in entries.index_keys(node(2, id=text)):
        assert check_key(key) == key
        assert key.count("/") == (2 if key.startswith("/addresses/") else 3)


def test_ids_that_differ_have_keys_that_differ() -> None:
    texts = ["a/b", "a%2Fb", "ä" * 128, "ä" * 127 + "ö", "x" * 128, "x" * 127 + "y"]
    assert len({entries.index_keys(node(2, id=text))[1] for text in texts}) == len(texts)
