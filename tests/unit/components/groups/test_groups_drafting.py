"""One decision from what waits: changes first and together, each node in its own order, nothing twice."""

from __future__ import annotations

from covey.components.groups.drafting import Draft, Queued, draft
from covey.components.groups.messages import Decision, Event, Member, Op, Proposal, Settled
from covey.components.groups.replica import Group, Replica
from covey.components.groups.settings import Settings

NODES = {1: "b1", 2: "b2", 3: "b3"}
VIEW = (4, 9)
A, B = Member(1, "b1", "a", 1, (4, 1)), Member(2, "b2", "b", 1, (4, 1))


def group(*members: Member) -> Group:
    replica = Replica(Settings())
    if members:
        replica.apply(Decision("db", 1, 1, (Event("joined", 1, 1, members),), (Settled(1, 5, 3),)))
    return replica.get("db")


def item(node: int, number: int, op: Op, party: str = "", body: bytes = b"", boot: str = "") -> Queued:
    return Queued(node, boot or NODES[node], 5, Proposal(number, op, party, body), f"cause {node}.{number}")


def drafted(
    of: Group, queue: list[Queued], lost: set[tuple[int, str, str]] | None = None, settings: Settings | None = None
) -> Draft:
    found = draft(of, queue, lost or set(), VIEW, NODES, settings or Settings())
    assert found is not None
    return found


def test_nothing_waits() -> None:
    assert draft(group(A), [], set(), VIEW, NODES, Settings()) is None


def test_the_first_join_makes_the_group_and_sets_its_value() -> None:
    found = drafted(group(), [item(1, 1, "join", "a", b"v"), item(2, 1, "join", "b", b"w")])
    joined, state = found.decision.events
    assert [member.party for member in joined.who] == ["a", "b"]
    assert all(member.joined == 1 and member.view == VIEW for member in joined.who)
    assert (state.kind, state.body, state.sequence) == ("state", b"v", 2)
    assert found.decision.settled == (Settled(1, 5, 1), Settled(2, 5, 1))
    assert found.cause == "cause 1.1"


def test_changes_are_one_batch_before_messages_of_others() -> None:
    queue = [
        item(1, 4, "message", "a", b"first"),
        item(2, 1, "leave", "b"),
        item(3, 1, "join", "c"),
        item(1, 5, "join", "late"),  # behind a message of its own node
    ]
    found = drafted(group(A, B), queue)
    assert [(event.kind, [m.party for m in event.who]) for event in found.decision.events] == [
        ("left", ["b"]),
        ("joined", ["c"]),
    ]
    assert {event.view for event in found.decision.events} == {2} == {found.decision.view}
    assert [waiting.proposal.number for waiting in found.rest] == [4, 5]


def test_lost_members_fail_together_and_before_joins() -> None:
    found = drafted(group(A, B), [item(3, 1, "join", "c")], lost={A.key, B.key})
    assert [event.kind for event in found.decision.events] == ["failed", "joined"]
    assert found.decision.events[0].who == (A, B)


def test_messages_are_numbered_in_a_row_and_bounded() -> None:
    queue = [item(1, n, "message", "a", b"x" * 100) for n in range(4, 14)]
    found = drafted(group(A), queue, settings=Settings(window=3))
    assert [event.sequence for event in found.decision.events] == [2, 3, 4]
    assert [event.number for event in found.decision.events] == [4, 5, 6]
    assert found.decision.view == 1 and len(found.rest) == 7
    found = drafted(group(A), queue, settings=Settings(batch_bytes=250))
    assert len(found.decision.events) == 2
    found = drafted(group(A), [item(1, 4, "message", "a", b"x" * 999)], settings=Settings(batch_bytes=250))
    assert len(found.decision.events) == 1, "one message is always taken"


def test_what_comes_to_nothing_is_settled_as_undone() -> None:
    queue = [item(3, 1, "message", "stranger"), item(3, 2, "void"), item(3, 3, "leave", "stranger")]
    found = drafted(group(A), queue)
    assert found.decision.events == ()
    assert found.decision.settled == (Settled(3, 5, 1, (1,)),), "what stands behind a message waits its turn"
    found = drafted(group(A), found.rest)
    assert found.decision.settled == (Settled(3, 5, 3, (2, 3)),)


def test_joining_twice_is_joining_once() -> None:
    found = drafted(group(A), [item(1, 4, "join", "a")])
    assert found.decision.events == () and found.decision.settled == (Settled(1, 5, 4),)


def test_a_member_changes_once_in_a_decision() -> None:
    found = drafted(group(A), [item(1, 4, "leave", "a"), item(1, 5, "join", "a")])
    assert [event.kind for event in found.decision.events] == ["left"]
    assert [waiting.proposal.number for waiting in found.rest] == [5]


def test_a_full_group_takes_nobody() -> None:
    settings = Settings(members=2)
    found = drafted(group(A, B), [item(3, 1, "join", "c")], settings=settings)
    assert found.decision.settled == (Settled(3, 5, 1, (1,)),)


def test_proposals_of_a_boot_outside_the_view_are_dropped() -> None:
    assert draft(group(A), [item(3, 1, "join", "c", boot="old")], set(), VIEW, NODES, Settings()) is None
