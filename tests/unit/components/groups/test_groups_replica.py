"""The replica: decisions apply once and in order, and a lagging node gets exactly what it lacks."""

from __future__ import annotations

import msgspec
import pytest
from covey.components.groups.entries import read_back
from covey.components.groups.messages import (
    TAKEOVER_SLOT,
    Decision,
    Entry,
    Event,
    GroupsMessage,
    GroupState,
    Kind,
    Member,
    Proposal,
    Propose,
    Settled,
    Snapshot,
    Takeover,
)
from covey.components.groups.replica import Replica
from covey.components.groups.settings import NAME, Settings

A = Member(1, "b1", "a", 1)
B = Member(2, "b2", "b", 2)


def decision(version: int, kind: Kind, *who: Member, body: bytes = b"", group: str = "db") -> Decision:
    """Return decision number `version`, which holds one event and settles one proposal of node 1."""
    return Decision(group, version, version, (Event(kind, version, version, who, body),), (Settled(1, 7, version),))


def filled(count: int, settings: Settings | None = None) -> Replica:
    replica = Replica(settings or Settings())
    assert replica.apply(decision(1, "joined", A)) == "applied"
    for version in range(2, count + 1):
        assert replica.apply(decision(version, "message", A, body=b"%d" % version)) == "applied"
    return replica


def test_a_decision_is_applied_only_as_the_next_of_its_group() -> None:
    replica = filled(2)
    assert replica.apply(decision(2, "message", A)) == "known"
    assert replica.apply(decision(4, "message", A)) == "gap"
    assert replica.apply(decision(3, "joined", B)) == "applied"
    assert replica.apply(decision(4, "left", A)) == "applied"
    group = replica.get("db")
    assert list(group.members.values()) == [B]
    assert (group.version, group.sequence, group.view) == (4, 4, 4)
    assert group.frontiers[1].number == 4


def test_asking_for_a_group_that_is_not_there_leaves_no_trace() -> None:
    replica = Replica(Settings())
    assert replica.get("x").version == 0
    assert replica.have() == {}


def test_the_state_value_goes_with_the_last_member() -> None:
    replica = filled(1)
    replica.apply(decision(2, "state", A, body=b"v"))
    assert replica.get("db").state == b"v"
    replica.apply(decision(3, "failed", A))
    assert replica.get("db").state == b""


def test_a_snapshot_of_the_state_goes_on_like_the_original() -> None:
    replica, other = filled(5), Replica(Settings())
    state = msgspec.msgpack.decode(msgspec.msgpack.encode(replica.get("db").snapshot()), type=GroupState)
    other.restore(Snapshot(state))
    for each in (replica, other):
        each.apply(decision(6, "joined", B))
    assert other.get("db").snapshot() == replica.get("db").snapshot()


def test_events_since_any_sequence_and_what_was_missed() -> None:
    group = filled(10, Settings(recent=4)).get("db")
    missed, events = group.events_since(8)
    assert (missed, [event.sequence for event in events]) == (0, [9, 10])
    missed, events = group.events_since(3)
    assert (missed, [event.sequence for event in events]) == (3, [7, 8, 9, 10])
    assert group.events_since(10) == (0, [])
    assert group.events_since(99) == (0, [])


def test_recent_decisions_are_bounded_by_count_and_by_bytes() -> None:
    assert len(filled(50, Settings(recent=10)).get("db").recent) == 10
    replica = filled(1, Settings(recent_bytes=5000))
    for version in range(2, 30):
        replica.apply(decision(version, "message", A, body=b"x" * 1000))
    assert len(replica.get("db").recent) == 3


def test_a_lagging_node_gets_decisions_and_one_that_lags_too_far_a_snapshot() -> None:
    replica = filled(10, Settings(recent=4))
    decisions, snapshots, complete = replica.missing({"db": 8})
    assert ([each.version for each in decisions], snapshots, complete) == ([9, 10], [], True)
    assert replica.missing({"db": 10}) == ([], [], True)
    decisions, snapshots, complete = replica.missing({})
    assert (decisions, snapshots[0].state.version, complete) == ([], 10, True)
    assert [each.version for each in snapshots[0].recent] == [7, 8, 9, 10]
    _, snapshots, _ = replica.missing({"db": 12})
    assert snapshots[0].instead_of == 12, "the log was rolled back by force"


def test_what_a_node_lacks_comes_in_batches_until_it_is_level() -> None:
    settings = Settings(batch_bytes=3000)
    replica, other = Replica(settings), Replica(settings)
    for name in ("g1", "g2", "g3"):
        replica.apply(decision(1, "joined", A, group=name))
        for version in range(2, 12):
            replica.apply(decision(version, "message", A, body=b"x" * 300, group=name))
    rounds, complete = 0, False
    while not complete:
        decisions, snapshots, complete = replica.missing(other.have())
        for each in decisions:
            assert other.apply(each) == "applied"
        for snapshot in snapshots:
            other.restore(snapshot)
        rounds += 1
    assert rounds > 3
    assert other.have() == replica.have() == {"g1": 11, "g2": 11, "g3": 11}


def entry(term: int, version: int) -> bytes:
    return msgspec.msgpack.encode(Entry(term, GroupState("db", version), Decision("db", version, 1)))


def takeover(epoch: int, session: int, count: int = 1) -> bytes:
    return msgspec.msgpack.encode(Takeover(1, epoch, session, count))


def test_entries_of_a_dead_coordinator_are_void_after_the_next_takeover() -> None:
    found = read_back(
        [
            (TAKEOVER_SLOT, 1, 1, takeover(1, 10)),
            ("db", 2, 1, entry(1, 1)),
            (TAKEOVER_SLOT, 3, 1, takeover(1, 11)),
            ("db", 4, 1, entry(1, 2)),  # the append of term 1 came late
            ("db", 5, 1, entry(3, 2)),
            (TAKEOVER_SLOT, 6, 1, takeover(1, 10, 2)),  # and so did a takeover of that dead machine
            ("db", 7, 1, entry(3, 3)),
            (TAKEOVER_SLOT, 8, 2, takeover(2, 1)),
        ]
    )
    assert found.takeovers == [1, 3, 8]
    assert [(each.term, each.decision.version) for each in found.groups["db"]] == [(1, 1), (3, 2), (3, 3)]


@pytest.mark.parametrize(
    ("name", "right"),
    [("db", True), ("sys.a-b_1", True), ("Db", False), ("", False), ("a/b", False), ("x" * 65, False)],
)
def test_names(name: str, right: bool) -> None:
    assert bool(NAME.fullmatch(name)) is right


def test_messages_survive_the_wire() -> None:
    message = Propose("db", "b1", 3, (Proposal(1, "join", "a", b"s"), Proposal(2, "void")))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=GroupsMessage) == message
