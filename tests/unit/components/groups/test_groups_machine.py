"""The whole machine, alone: scripts of what it hears and what it then does, with the registry played by the test."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import pytest
from covey.bus.machine import Address, Asked, Effect, Message, Notify, Publish, Received, Reply, Send
from covey.components.groups.machine import CONTACT_TOPIC, GroupsMachine
from covey.components.groups.messages import (
    Announce,
    Beat,
    Caught,
    Decision,
    Event,
    Fetch,
    Member,
    Outdated,
    PartyGone,
    Proposal,
    Propose,
    Settled,
)
from covey.components.groups.questions import Broadcast, JoinGroup, LeaveGroup, ListGroups, Poll, SetState, Show
from covey.components.groups.settings import Settings
from covey.components.liveness.messages import Member as Peer
from covey.components.liveness.messages import ViewChanged
from covey.components.registry.messages import (
    AppendSystem,
    Leading,
    ReadSystem,
    SystemAppended,
    SystemRead,
    SystemRefused,
)
from covey.errors import (
    CoordinatorChanged,
    CoveyError,
    Denied,
    Frozen,
    NotFound,
    NotMember,
    Overloaded,
    Timeout,
    TooLarge,
    UsageError,
)

REGISTRY = Address("registry", 1)
M = TypeVar("M", bound=Message)


class Run:
    """A machine on node 1 of two, with its effects kept until a test looks at them."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.now = 1000.0
        self.machine = GroupsMachine(1, "b1", 50, settings)
        self.effects: list[Effect] = []
        self.replies: dict[int, Any] = {}
        self.number = 0
        self.index = 10
        self.entries: list[tuple[str, int, int, bytes]] = []
        self.step()

    def step(self, input: Any = None, after: float = 0.0) -> list[Effect]:
        self.now += after
        effects = self.machine.step(self.now, input)
        self.machine.check_invariants()
        self.effects += effects
        self.replies |= {effect.request: effect.result for effect in effects if isinstance(effect, Reply)}
        return effects

    def hear(self, message: Message, service: str = "groups", node: int = 2) -> list[Effect]:
        return self.step(Received(Address(service, node), message, "heard"))

    def view(self, *numbers: int, quorate: bool = True) -> None:
        peers = tuple(Peer(number, f"b{number}", "online") for number in numbers)
        self.hear(ViewChanged((1, self.number), peers, quorate=quorate), "liveness", 1)

    def lead(self, epoch: int, primary: int) -> None:
        self.hear(Leading(epoch, primary, "writes", True), "registry", 1)

    def ask(self, question: Any) -> int:
        self.number += 1
        self.step(Asked(self.number, question, f"ask {self.number}"))
        return self.number

    def wait(self, seconds: float) -> None:
        """Let time pass, deadline by deadline."""
        end = self.now + seconds
        while (deadline := self.machine.deadline) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.step()
        self.now = end
        self.step()

    def sent(self, kind: type[M]) -> list[M]:
        """Return and forget the messages of a kind sent so far."""
        found = [e.message for e in self.effects if isinstance(e, Send) and isinstance(e.message, kind)]
        self.effects = [e for e in self.effects if not (isinstance(e, Send) and isinstance(e.message, kind))]
        return found

    def serve_log(self) -> None:
        """Answer what the machine wants of the registry, and carry its messages to itself, until nothing is left."""
        while True:
            for append in self.sent(AppendSystem):
                self.index += 1
                self.entries.append((append.slot, self.index, append.epoch, append.body))
                self.hear(SystemAppended(append.id, self.index, append.epoch), "registry", 1)
            for read in self.sent(ReadSystem):
                self.hear(SystemRead(read.id, tuple(self.entries)), "registry", 1)
            own = [e for e in self.effects if isinstance(e, Send) and e.to == Address("groups", 1)]
            self.effects = [e for e in self.effects if e not in own]
            for effect in own:
                self.hear(effect.message, node=1)
            if not own and not any(
                isinstance(e, Send) and isinstance(e.message, AppendSystem | ReadSystem) for e in self.effects
            ):
                return


def leading(settings: Settings | None = None) -> Run:
    """Return a run whose machine coordinates a view of nodes 1 and 2."""
    run = Run(settings)
    run.view(1, 2)
    run.lead(3, 1)
    run.serve_log()
    return run


def following() -> Run:
    """Return a run whose machine has heard of the coordinator on node 2 and is level."""
    run = Run()
    run.view(1, 2)
    run.lead(3, 2)
    assert run.sent(Fetch) == [Fetch(50, {})], "it asks at once, and does not wait for a beat"
    run.hear(Beat(7, 0))
    run.hear(Caught(50, 7, 7, 0, True))
    run.effects.clear()
    return run


ME = Member(1, "b1", "me", 1)


def joined(version: int = 1, number: int = 1, who: Member = ME, session: int = 50) -> Decision:
    events = (Event("joined", version, version, (who,)),)
    return Decision("db", version, version, events, (Settled(who.node, session, number),))


# --- coordinating ----------------------------------------------------------------------------------------------------


def test_taking_over_is_entry_then_read_then_beat() -> None:
    run = Run()
    run.view(1, 2)
    run.lead(3, 1)
    (takeover,) = run.sent(AppendSystem)
    assert (takeover.epoch, takeover.kind, takeover.slot) == (3, "group", "/coordinator")
    assert not run.sent(ReadSystem) and not run.machine.synced
    run.hear(SystemAppended(takeover.id, 20, 3), "registry", 1)
    (read,) = run.sent(ReadSystem)
    run.hear(SystemRead(read.id, (("/coordinator", 20, 3, takeover.body),)), "registry", 1)
    assert run.sent(Beat) == [Beat(20, 0)]
    assert [e.what for e in run.effects if isinstance(e, Notify)] == ["synced"]


def test_a_takeover_is_repeated_until_answered_and_given_up_when_another_reigns() -> None:
    run = Run()
    run.view(1, 2)
    run.lead(3, 1)
    run.wait(1.1)
    assert len({append.id for append in run.sent(AppendSystem)}) == 1
    run.hear(SystemRefused("groups/3/1/50/takeover-1", 0, "not yet"), "registry", 1)
    run.wait(0.6)
    assert run.sent(AppendSystem)
    run.hear(SystemRefused("groups/3/1/50/takeover-1", 4, "another reign"), "registry", 1)
    run.wait(2.0)
    assert not run.sent(AppendSystem)


def test_nothing_is_announced_before_the_log_has_it() -> None:
    """INV-24."""
    run = leading()
    request = run.ask(JoinGroup("db", "me"))
    (propose,) = run.sent(Propose)
    run.hear(propose, node=1)
    (append,) = run.sent(AppendSystem)
    assert append.slot == "db" and append.keep == 64
    assert not run.sent(Announce) and request not in run.replies
    run.hear(SystemAppended(append.id, 99, 3), "registry", 1)
    (announce,) = run.sent(Announce)
    assert announce.number == 1 and announce.decision.events[0].kind == "joined"
    assert run.replies[request]["members"][0].key == (1, "b1", "me")


def test_a_clock_that_went_back_makes_a_takeover_void_and_the_next_one_higher() -> None:
    former = leading()
    run = Run()
    run.entries, run.index = former.entries, former.index
    run.machine.coordinator._session = 1
    run.view(1, 2)
    run.lead(3, 1)
    run.serve_log()
    assert run.machine.coordinator.state == "leading"
    assert run.machine.coordinator._session > 50


def test_a_stranger_an_older_session_and_a_flood_are_not_taken_in() -> None:
    run = leading(Settings(queue=5))
    join = (Proposal(1, "join", "p"),)
    run.hear(Propose("db", "other boot", 9, join))
    run.hear(Propose("db", "b9", 9, join), node=9)
    assert not run.sent(AppendSystem)
    run.hear(Propose("db", "b2", 9, join))
    run.serve_log()
    run.hear(Propose("db", "b2", 8, join))
    assert run.sent(Outdated) == [Outdated("db", 9)]
    run.sent(AppendSystem)
    flood = tuple(Proposal(n, "message", "p", b"x") for n in range(2, 40))
    run.hear(Propose("db", "b2", 9, flood))
    assert len(run.machine.coordinator._desks["db"].queue) <= 5


def test_at_most_so_many_groups_are_on_their_way_to_the_log() -> None:
    """INV-32."""
    run = leading(Settings(appends=3))
    for number in range(10):
        run.hear(Propose(f"g{number}", "b2", 9, (Proposal(1, "join", "p"),)))
    appends = run.sent(AppendSystem)
    assert len(appends) == 3
    run.effects += [Send(REGISTRY, append) for append in appends]
    run.serve_log()
    assert len(run.machine.replica.groups) == 10


# --- following -------------------------------------------------------------------------------------------------------


def test_a_gap_is_fetched_and_a_duplicate_dropped() -> None:
    run = following()
    run.hear(Announce(7, 1, joined()))
    run.hear(Announce(7, 1, joined()))
    assert run.machine.replica.get("db").version == 1 and not run.sent(Fetch)
    run.hear(Announce(7, 3, joined(3, 3, who=Member(2, "b2", "x", 3))))
    assert run.sent(Fetch) == [Fetch(50, {"db": 1}, 7)]
    run.wait(0.6)
    assert run.sent(Fetch), "repeated until answered"
    second = joined(2, 2, who=Member(2, "b2", "y", 2))
    run.hear(Caught(50, 7, 7, 3, True, (second, joined(3, 3, who=Member(2, "b2", "x", 3)))))
    assert run.machine.replica.get("db").version == 3
    run.wait(2.0)
    assert not run.sent(Fetch)


def test_an_answer_to_a_former_life_does_not_count() -> None:
    run = following()
    run.hear(Beat(7, 5))
    run.hear(Caught(49, 7, 7, 5, True))
    run.wait(0.6)
    assert len(run.sent(Fetch)) == 2


def test_a_lost_last_announcement_is_seen_by_the_beat() -> None:
    run = following()
    run.hear(Beat(7, 1))
    assert run.sent(Fetch)


def test_a_decision_is_true_whoever_tells_it() -> None:
    run = following()
    run.hear(Beat(9, 0))
    run.hear(Announce(7, 1, joined()))
    assert run.machine.replica.get("db").version == 1


def test_proposals_go_on_to_the_next_coordinator_under_the_same_number() -> None:
    run = following()
    request = run.ask(JoinGroup("db", "me"))
    first = run.sent(Propose)
    run.lead(4, 3)
    assert run.sent(Propose) == first
    run.hear(Announce(9, 1, joined()), node=3)
    assert run.replies[request]["joined"] == 1


def test_an_outdated_session_is_numbered_anew() -> None:
    run = following()
    run.ask(JoinGroup("db", "me"))
    run.ask(Broadcast("db", "me", b"x"))
    run.sent(Propose)
    run.hear(Outdated("db", 50))
    assert not run.sent(Propose), "that was an answer to the former life, which the coordinator now takes for older"
    run.hear(Outdated("db", 80))
    (again,) = run.sent(Propose)
    assert (again.session, [proposal.number for proposal in again.proposals]) == (81, [1, 2])
    run.hear(Outdated("db", 80))
    assert not run.sent(Propose)


def test_patience_ends_with_a_withdrawal_whose_outcome_is_told() -> None:
    run = following()
    run.hear(Announce(7, 1, joined(session=40)))  # before this machine was started anew
    void, late, lost = (run.ask(Broadcast("db", "me", body)) for body in (b"x", b"y", b"z"))
    for _ in range(13):
        run.hear(Beat(7, 1))
        run.wait(0.5)
    assert not run.replies
    assert [proposal.op for proposal in run.sent(Propose)[-1].proposals] == ["void"] * 3
    message = Event("message", 2, 1, (ME,), b"y", 2)
    run.hear(Announce(7, 2, Decision("db", 2, 1, (message,), (Settled(1, 50, 2, (1,)),))))
    assert isinstance(run.replies[void], CoordinatorChanged)
    assert run.replies[late]["sequence"] == 2, "it was decided before it could be withdrawn"
    run.hear(Beat(7, 2))
    run.wait(3.0)
    assert isinstance(run.replies[lost], Timeout)


def test_a_dead_party_leaves_in_order_behind_what_it_asked_for() -> None:
    run = following()
    run.ask(JoinGroup("db", "me"))
    run.step(PartyGone("me"))
    run.step(PartyGone("nobody"))
    proposals = [proposal for message in run.sent(Propose) for proposal in message.proposals]
    assert [(proposal.number, proposal.op) for proposal in proposals] == [(1, "join"), (2, "failed")]


# --- frozen ----------------------------------------------------------------------------------------------------------


def test_silence_freezes_once_and_a_word_thaws() -> None:
    run = following()
    run.hear(Announce(7, 1, joined(session=40)))
    waiting = run.ask(Broadcast("db", "me", b"x"))
    poll = run.ask(Poll("db", 1, 60.0, False))
    run.wait(5.1)
    assert isinstance(run.replies[waiting], Frozen)
    told = run.replies[poll]
    assert told["frozen"] and [event.kind for event in told["events"]] == ["frozen"] and told["to"] == 1
    assert [e.body for e in run.effects if isinstance(e, Publish)] == [{"frozen": True}]
    assert all(e.topic == CONTACT_TOPIC for e in run.effects if isinstance(e, Publish))
    assert isinstance(run.replies[run.ask(Broadcast("db", "me", b"y"))], Frozen)
    again = run.ask(Poll("db", 1, 60.0, True))
    plain = run.ask(Poll("db", 1, 60.0))
    assert again not in run.replies and plain not in run.replies
    run.hear(Beat(7, 1))
    assert [event.kind for event in run.replies[again]["events"]] == ["thawed"]
    assert [event.kind for event in run.replies[plain]["events"]] == ["thawed"]
    run.wait(0.6)
    assert [proposal.op for proposal in run.sent(Propose)[-1].proposals] == ["void"], (
        "it is not decided behind one's back"
    )


def test_a_view_without_quorum_freezes_at_once() -> None:
    run = following()
    run.view(1, 2, quorate=False)
    assert run.machine.frozen
    run.hear(Beat(7, 0))
    assert run.machine.frozen, "the beat may be from a coordinator that is cut off itself"
    run.view(1, 2)
    assert not run.machine.frozen


# --- polls, and what is refused --------------------------------------------------------------------------------------


def test_polls_wait_answer_and_are_bounded() -> None:
    run = leading(Settings(waiters=2))
    run.ask(JoinGroup("db", "me"))
    run.serve_log()
    first = run.ask(Poll("db", 0, 5.0))
    assert [event.kind for event in run.replies[first]["events"]] == ["joined"]
    now = run.ask(Poll("db", None, 0.0))
    assert (run.replies[now]["events"], run.replies[now]["to"]) == ([], 1)
    waiting = run.ask(Poll("db", 1, 5.0))
    other = run.ask(Poll("elsewhere", 0, 1.0))
    refused = run.ask(Poll("db", 1, 5.0))
    assert isinstance(run.replies[refused], Overloaded)
    run.wait(1.1)
    assert run.replies[other]["events"] == [] and waiting not in run.replies
    run.ask(Broadcast("db", "me", b"x"))
    run.serve_log()
    assert run.replies[waiting]["events"][0].body == b"x"
    assert run.machine.pollers.deadline is None


def test_a_poller_that_lags_too_far_is_told_how_much_it_missed() -> None:
    run = leading(Settings(recent=2))
    run.ask(JoinGroup("db", "me"))
    for number in range(5):
        run.ask(Broadcast("db", "me", b"%d" % number))
        run.serve_log()
    told = run.replies[run.ask(Poll("db", 0, 5.0))]
    assert told["missed"] == 6 - len(told["events"]) > 0
    assert told["to"] == 6 and [member.party for member in told["members"]] == ["me"]


@pytest.mark.parametrize(
    ("question", "error"),
    [
        (JoinGroup("No Name", "p"), UsageError),
        (JoinGroup("sys.mine", "p"), Denied),
        (JoinGroup("db", "p", b"x" * 70_000), TooLarge),
        (LeaveGroup("db", "p"), NotMember),
        (Broadcast("db", "p", b""), NotMember),
        (Broadcast("db", "me", b"x" * 70_000), TooLarge),
        (SetState("db", "p", b""), NotMember),
        (Show("nothing"), NotFound),
        (Show("No Name"), UsageError),
    ],
)
def test_what_is_refused_here(question: Any, error: type[CoveyError]) -> None:
    run = leading()
    run.ask(JoinGroup("db", "me"))
    run.serve_log()
    assert isinstance(run.replies[run.ask(question)], error)


def test_components_join_system_groups_and_all_is_listed() -> None:
    run = leading()
    run.ask(JoinGroup("sys.registry", "registry", component=True))
    run.ask(JoinGroup("db", "me"))
    run.serve_log()
    assert [(each["name"], each["members"]) for each in run.replies[run.ask(ListGroups())]] == [
        ("db", 1),
        ("sys.registry", 1),
    ]
    shown = run.replies[run.ask(Show("sys.registry"))]
    assert (shown["members"][0].party, shown["phase"]) == ("registry", "idle")
    again = run.ask(JoinGroup("db", "me"))
    assert run.replies[again]["joined"] == 1 and not run.sent(AppendSystem), "a second join is answered at once"


def test_a_node_holds_so_many_proposals_and_no_more() -> None:
    run = leading(Settings(queue=3))
    run.ask(JoinGroup("db", "me"))
    run.serve_log()
    requests = [run.ask(Broadcast("db", "me", b"x")) for _ in range(5)]
    assert [isinstance(run.replies.get(request), Overloaded) for request in requests] == [False] * 3 + [True] * 2


def test_many_groups_and_many_members() -> None:
    run = leading()
    for number in range(300):
        run.hear(Propose(f"g{number}", "b2", 9, (Proposal(1, "join", "p"),)))
        run.serve_log()
    crowd = [Proposal(n, "join", f"p{n}") for n in range(1, 1001)]
    for start in range(0, 1000, 64):
        run.hear(Propose("big", "b2", 9, tuple(crowd[start : start + 64])))
    run.serve_log()
    group = run.machine.replica.get("big")
    assert len(group.members) == 1000 and group.version == 2, "one by one they came, in two decisions they are in"
    run.view(1)
    run.serve_log()
    assert not any(group.members for group in run.machine.replica.groups.values())
    assert msgspec.msgpack.encode(group.snapshot())
