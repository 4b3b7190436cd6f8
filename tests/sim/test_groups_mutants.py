"""Planted mistakes in the groups machine: each is caught, by a schedule made for it or by some of the storms."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import groups_world as kit
import msgspec
import pytest
from covey.bus.machine import Address, Received
from covey.bus.simulation import Link
from covey.components.groups import coordinator as coordinator_module
from covey.components.groups import drafting, voting
from covey.components.groups.coordinator import Coordinator
from covey.components.groups.fast import Stream, Streams
from covey.components.groups.machine import GroupsMachine
from covey.components.groups.messages import Announce, Decision, Fast, FastMessage
from covey.components.groups.proposer import Item, Proposer
from covey.components.groups.questions import JoinGroup
from covey.components.groups.replica import Replica
from covey.components.groups.sequencer import Sequencer
from covey.components.groups.voting import Ballot
from covey.components.registry.messages import Leading
from covey.errors import CoordinatorChanged, Rejected

votes_tests, fast_tests = (
    SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name(f"test_groups_{name}.py"))))
    for name in ("votes", "fast")
)


def announce_before_commit(patch: pytest.MonkeyPatch) -> None:
    """Tell everybody as soon as the decision is drafted."""
    right = Coordinator._take_off

    def wrong(self: Any, now: float, desk: Any, group: Any, drafted: Any) -> None:
        right(self, now, desk, group, drafted)
        for node in sorted(self._nodes):
            self._send(node, Announce(self.term, self.number + 1, drafted.decision))

    patch.setattr(Coordinator, "_take_off", wrong)


def forget_what_was_settled(patch: pytest.MonkeyPatch) -> None:
    """Take a repeated proposal for a new one."""
    right = Coordinator.proposed

    def wrong(self: Any, now: float, node: int, message: Any, cause: str) -> None:
        self._replica.get(message.group).frontiers.pop(node, None)
        self._desks.pop(message.group, None) if self._idle(message.group) else None
        right(self, now, node, message, cause)

    def idle(self: Any, name: str) -> bool:
        desk = self._desks.get(name)
        return desk is not None and desk.flight is None and not desk.ready

    patch.setattr(Coordinator, "_idle", idle, raising=False)
    patch.setattr(Coordinator, "proposed", wrong)


def believe_every_entry(patch: pytest.MonkeyPatch) -> None:
    """Count entries that a dead coordinator's append left behind."""
    right = coordinator_module.read_back

    def wrong(kept: Any) -> Any:
        everything = [(s, i, e, b) for s, i, e, b in kept if s != coordinator_module.TAKEOVER_SLOT]
        return right(kept)._replace(groups=right(everything).groups)

    patch.setattr(coordinator_module, "read_back", wrong)


def take_over_silently(patch: pytest.MonkeyPatch) -> None:
    """Use one name for all takeovers of an epoch, so that the second one is taken for the first."""
    right = Coordinator._take_over

    def wrong(self: Any, now: float) -> None:
        self._takeovers, self._session = 0, 1
        right(self, now)

    patch.setattr(Coordinator, "_take_over", wrong)


def apply_over_gaps(patch: pytest.MonkeyPatch) -> None:
    """Apply a decision though one before it is missing."""

    def wrong(self: Any, decision: Decision) -> str:
        group = self.get(decision.group)
        if decision.version <= group.version:
            return "known"
        for event in decision.events:
            for member in event.who:
                group.members.setdefault(member.key, member)
        group.apply(decision)
        self.groups[decision.group] = group
        return "applied"

    patch.setattr(Replica, "apply", wrong)


def never_fetch(patch: pytest.MonkeyPatch) -> None:
    """See a gap and do nothing."""
    patch.setattr(GroupsMachine, "_want", lambda self, now: None)


def trust_an_old_view(patch: pytest.MonkeyPatch) -> None:
    """Take a member for lost because a view from before its node came does not hold it."""
    right = Coordinator._recheck

    def wrong(self: Any, name: str) -> None:
        known, self._view = self._view, (10**9, 0)
        right(self, name)
        self._view = known

    patch.setattr(Coordinator, "_recheck", wrong)


def listen_to_the_removed(patch: pytest.MonkeyPatch) -> None:
    """Take proposals of a boot that is out of the view."""
    right = drafting.draft

    def wrong(group: Any, queue: Any, lost: Any, view: Any, nodes: Any, settings: Any) -> Any:
        return right(group, queue, lost, view, {item.node: item.boot_id for item in queue}, settings)

    def proposed(self: Any, now: float, node: int, message: Any, cause: str) -> None:
        nodes, self._nodes = self._nodes, {**self._nodes, node: message.boot_id}
        take(self, now, node, message, cause)
        self._nodes = nodes

    take = Coordinator.proposed
    patch.setattr(Coordinator, "proposed", proposed)
    patch.setattr(coordinator_module, "draft", wrong)


def promise_without_proof(patch: pytest.MonkeyPatch) -> None:
    """Say that nobody got it as soon as it takes too long."""
    right = Proposer.tick

    def wrong(self: Any, now: float) -> None:
        for line in self._busy.values():
            for item in line.items:
                if item.request is not None and now >= item.until:
                    self._reply(item.request, CoordinatorChanged("nobody got it"), "")
                    item.request = None
        right(self, now)

    patch.setattr(Proposer, "tick", wrong)


def forget_the_dead_who_are_joining(patch: pytest.MonkeyPatch) -> None:
    """Let only those leave that are members already."""
    patch.setattr(Proposer, "wants", lambda self, group, party: None)


def let_messages_overtake(patch: pytest.MonkeyPatch) -> None:
    """Settle a node's proposals in another order than it made them."""
    right = drafting._messages

    def wrong(group: Any, queue: Any, settling: Any, settings: Any) -> Any:
        return right(group, list(reversed(queue)), settling, settings)

    patch.setattr(drafting, "_messages", wrong)


def never_repeat_an_append(patch: pytest.MonkeyPatch) -> None:
    """Wait for ever for an answer of the log that was lost."""
    right = Coordinator.tick

    def wrong(self: Any, now: float) -> None:
        for flight in self._flights.values():
            flight.sent = now
        right(self, now)

    patch.setattr(Coordinator, "tick", wrong)


def restart_unheard(patch: pytest.MonkeyPatch) -> None:
    """Take an answer meant for the machine's former life for its own."""
    right = GroupsMachine._caught

    def wrong(self: Any, now: float, node: int, message: Any) -> None:
        right(self, now, node, msgspec.structs.replace(message, session=self._session))

    patch.setattr(GroupsMachine, "_caught", wrong)


def heed_what_was_meant_for_the_dead(patch: pytest.MonkeyPatch) -> None:
    """Number anew though the coordinator only told a former life that it is outdated."""
    right = Proposer.outdated

    def wrong(self: Any, now: float, group: str, session: int) -> None:
        line = self._lines.get(group)
        if line is not None and line.session == session:
            line.session -= 1
        right(self, now, group, session)

    patch.setattr(Proposer, "outdated", wrong)


def let_a_reject_pass(patch: pytest.MonkeyPatch) -> None:
    """Go on to the next round whatever was said."""
    patch.setitem(voting.STEPS, ("against", False), "next")


def take_continue_for_the_end(patch: pytest.MonkeyPatch) -> None:
    """Decide though somebody wanted another round."""
    patch.setitem(voting.STEPS, ("mixed", False), "decided")


def count_the_second_word(patch: pytest.MonkeyPatch) -> None:
    """Let a member's repeated vote replace its first, or a vote of another round count."""
    right = Ballot.cast

    def wrong(self: Any, key: Any, phase: int, vote: Any, why: str) -> None:
        right(self, key, self.phase, vote, why)

    patch.setattr(Ballot, "cast", wrong)


def wait_for_the_dead(patch: pytest.MonkeyPatch) -> None:
    """Let a vote wait for a member that cannot speak any more."""
    right = Ballot.judge
    patch.setattr(Ballot, "judge", lambda self, now, gone: right(self, now, ()))


def vote_for_the_silent(patch: pytest.MonkeyPatch) -> None:
    """Take silence for consent, whatever the terms are."""
    right = Ballot._note
    patch.setattr(Ballot, "_note", lambda self, key, vote, why, how: right(self, key, vote or "approve", why, how))


def hold_the_vote_again(patch: pytest.MonkeyPatch) -> None:
    """Put a proposal to the vote of the next coordinator, after members have spoken to the former."""
    patch.setattr(Item, "withdraw", lambda self, why: None)


def vote_while_deciding(patch: pytest.MonkeyPatch) -> None:
    """Let messages overtake a vote that is under way."""
    right = Coordinator._next

    def wrong(self: Any, now: float, desk: Any, group: Any) -> Any:
        ballot, desk.ballot = desk.ballot, None
        drafted = draft_alone(group, desk.queue, desk.lost, self._view, self._nodes, self._settings) if ballot else None
        desk.ballot = ballot
        return drafted or right(self, now, desk, group)

    draft_alone = drafting.draft
    patch.setattr(Coordinator, "_next", wrong)


def sequence_before_all_have_reported(patch: pytest.MonkeyPatch) -> None:
    """Take what this node has of fast messages for all there is."""
    right = Sequencer.lead

    def wrong(self: Any, now: float, term: int, nodes: Any, own: int) -> None:
        right(self, now, term, {own: nodes.get(own, "")}, own)

    patch.setattr(Sequencer, "lead", wrong)


def wait_for_the_hung(patch: pytest.MonkeyPatch) -> None:
    """Wait for reports as long as the node is in the view."""
    patch.setattr(Sequencer, "late", lambda self, now: set())


def keep_the_hung(patch: pytest.MonkeyPatch) -> None:
    """Do without the report of a node, and let its members go on."""
    patch.setattr(Coordinator, "_recheck", lambda self, name: None)


def number_before_the_hung_are_out(patch: pytest.MonkeyPatch) -> None:
    """Do without the report of a node, and number fast messages in the view in which it may have had others."""
    right = Sequencer.give_up
    patch.setattr(Sequencer, "give_up", lambda self, nodes, names: right(self, nodes, ()))


def go_on_with_half(patch: pytest.MonkeyPatch) -> None:
    """Tell members of the next view before all fast messages of this one are there."""
    patch.setattr(Stream, "complete", True)


def sequence_after_the_end(patch: pytest.MonkeyPatch) -> None:
    """Number fast messages in a view whose end is on its way to the log."""
    right = Sequencer.close

    def wrong(self: Any, name: str) -> int:
        found = right(self, name)
        self._closed.discard(name)
        return found

    patch.setattr(Sequencer, "close", wrong)


def number_twice(patch: pytest.MonkeyPatch) -> None:
    """Forget which fast messages were numbered by the former coordinator."""
    patch.setattr(Streams, "last", lambda self, name, node: (0, 0))


def believe_the_former_coordinator(patch: pytest.MonkeyPatch) -> None:
    """Take fast messages of a term that is over."""
    right = GroupsMachine._fast

    def wrong(self: Any, now: float, node: int, message: Any) -> None:
        right(self, now, node, msgspec.structs.replace(message, term=max(message.term, self._term)))

    patch.setattr(GroupsMachine, "_fast", wrong)


def expel_whom_it_liked(patch: pytest.MonkeyPatch) -> None:
    """Put the one out who asked for it."""
    right = drafting._Changes.take

    def wrong(self: Any, item: Any) -> Any:
        target = item.proposal.target and self._group.members.get(item.key)
        return right(self, item._replace(proposal=msgspec.structs.replace(item.proposal, target=target)))

    patch.setattr(drafting._Changes, "take", wrong)


def late_proposal_script() -> None:
    """A proposal of a node's former life arrives behind those of its present one."""
    cluster = kit.formed(26, 3)
    cluster.world.set_link(2, 1, Link(low=0.3, high=0.3, reorder=1.0))
    cluster.parties[1].say("old")
    cluster.world.run(0.01)
    cluster.world.set_link(2, 1, None)
    cluster.restart_groups(2)
    cluster.world.eventually(lambda: cluster.world.machine(2, "groups").synced, 1.0)
    cluster.core.latest = 3.0
    texts = [f"new {n}" for n in range(8)]
    for text in texts:
        cluster.parties[1].say(text)
    cluster.world.run(0.8)
    cluster.core.latest = 0.003
    cluster.settle()
    cluster.check_promises()


def late_append_script() -> None:
    """The successor reads the log before the dead coordinator's append lands, and decides otherwise at that place."""
    cluster = kit.formed(9, 3)
    cluster.core.latest = 3.0
    cluster.world.run(0.01)
    cluster.parties[1].say("old")
    cluster.world.eventually(lambda: bool(cluster.world.machine(1, "registry").work), 1.0)
    late = cluster.world.machine(1, "registry").work[:]
    cluster.world.machine(1, "registry").work.clear()
    cluster.core.latest = 0.003
    cluster.restart_groups(1)
    cluster.world.run(0.5)
    cluster.settle()
    for _, _, message in late:
        cluster.core.append(message)
    cluster.restart_groups(1)
    cluster.settle()
    cluster.check_promises()


def old_view_script() -> None:
    """A node comes, its party joins; the next coordinator hears of that view only after it leads."""
    cluster = kit.formed(20, 4)
    cluster.crash_node(4)
    cluster.connected.discard(4)
    cluster.remove_node(4)
    cluster.world.run(0.5)
    old = cluster.view
    cluster.return_node(4)
    cluster.party(4, "new")
    cluster.settle()
    for machine in (cluster.world.machine(2, "groups"),):
        machine.coordinator._view, machine.coordinator._nodes = (
            old.id,
            {peer.number: peer.boot_id for peer in old.members},
        )
    cluster.crash_node(1)
    cluster.connected.discard(1)
    cluster.core.epoch, cluster.core.primary = cluster.core.epoch + 1, 2
    for number in (2, 3, 4):
        leading = Leading(cluster.core.epoch, 2, "writes", True)
        cluster.world.feed(number, "registry", kit.Fact(leading))
    cluster.world.feed(2, "liveness", kit.Fact(old))
    cluster.world.run(1.0)
    assert (4, "n4.2", "new") in cluster.world.machine(2, "groups").replica.get(kit.GROUP).members


def dead_while_joining() -> None:
    """A party asks to join and dies before that is decided."""
    cluster = kit.formed(21, 3)
    cluster.core.latest = 0.5
    cluster.parties[0].say("busy")
    ghost = cluster.party(2, "ghost")
    cluster.world.run(0.05)
    cluster.kill(ghost)
    cluster.core.latest = 0.003
    cluster.world.run(3.0)
    members = cluster.world.machine(2, "groups").replica.get(kit.GROUP).members
    assert "ghost" not in {member.party for member in members.values()}


def order_of_one_node() -> None:
    cluster = kit.formed(22, 3)
    for n in range(20):
        cluster.parties[1].say(f"mine {n}")
    cluster.settle()
    texts = [text for text in cluster.parties[0].texts if text.startswith("mine")]
    assert texts == [f"mine {n}" for n in range(20)]


def promise_script() -> None:
    """The log commits, and its answer comes after the proposer has lost patience."""
    cluster = kit.formed(23, 3)
    cluster.core.deaf = 1.0
    cluster.parties[1].say("in doubt")
    for _ in range(20):  # the contact lasts, only the decision hangs
        cluster.world.run(0.5)
    cluster.core.deaf = 0.0
    cluster.settle()
    cluster.check_promises()


def removed_script() -> None:
    """A boot that was removed speaks on, for it does not know."""
    cluster = kit.formed(24, 3)
    cluster.world.cut(1, 3, one_way=True)
    cluster.remove_node(3)
    cluster.world.run(0.5)
    zombie = cluster.parties[2]
    cluster.world.ask(3, "groups", JoinGroup(kit.GROUP, "zombie"))
    zombie.say("I am dead")
    cluster.world.run(2.0)
    joined = [m.party for d in cluster.announced.values() for e in d.events if e.kind == "joined" for m in e.who]
    assert "p3" in joined and "zombie" not in joined


def second_life_script() -> None:
    """An answer to the former life of a machine comes late and says that all is told."""
    cluster = kit.formed(25, 3)
    cluster.world.set_link(1, 3, Link(low=0.4, high=0.5))
    cluster.world.cut(1, 3, one_way=True)
    cluster.parties[0].say("missed by 3")
    cluster.world.run(0.1)
    cluster.world.mend([(1, 3)])
    cluster.world.eventually(lambda: cluster.world.machine(3, "groups")._fetch_at is not None, 5.0)
    cluster.world.run(0.01)
    cluster.restart_groups(3)
    cluster.world.eventually(lambda: cluster.world.machine(3, "groups").synced, 5.0)
    held = cluster.world.machine(3, "groups").replica.get(kit.GROUP).version
    assert held == cluster.world.machine(1, "groups").replica.get(kit.GROUP).version


def vote_scripts() -> None:
    """The rounds, the defaults and the harm of the tests on votes."""
    for votes, phases, rounds, end in votes_tests.ROUNDS:
        votes_tests.test_rounds(votes, phases, rounds, end)
    for default, end in (("approve", "decided"), ("reject", "rejected")):
        votes_tests.test_the_silent_the_dead_and_those_without_a_vote_have_the_default(default, end)
    votes_tests.test_a_vote_ends_when_the_last_vote_is_there_or_at_its_deadline()
    votes_tests.test_what_waits_behind_a_vote_comes_after_it_changes_first()


def doubled_votes_script() -> None:
    """A vote of one round comes a second time in the next."""
    for seed in range(55, 60):
        cluster = votes_tests.voting(seed, "continue", "continue reject", "continue")
        cluster.world.set_link(2, 1, Link(low=0.05, high=0.3, duplicate=1.0))
        asked = cluster.parties[0].propose("x", phases=2, default="approve", deadline=3.0)
        cluster.world.eventually(lambda asked=asked: asked.done, 7.0)
        assert isinstance(asked.error, Rejected)


def dead_voter_script() -> None:
    """A voter's node leaves the view in the middle of a long vote."""
    cluster = votes_tests.voting(54, "approve", "approve", None)
    asked = cluster.parties[0].propose("x", deadline=8.0, default="approve")
    cluster.crash_node(3)
    cluster.connected.discard(3)
    cluster.world.run(0.5)
    cluster.remove_node(3)
    cluster.world.eventually(lambda: asked.done, 1.0)


def repeated_vote_script() -> None:
    """The coordinator is restarted at every step of a vote; the proposer must be told if it was not decided before."""
    votes_tests.test_harm_at_every_step_of_a_vote("coordinator restarts")


def fast_scripts() -> None:
    """The gap and the new coordinator of the tests on fast messages."""
    fast_tests.test_all_who_go_on_have_had_the_same()
    fast_tests.test_a_new_coordinator_waits_for_all_reports_and_borrows_what_it_lacks()


def lost_answer_script() -> None:
    """A fast message is numbered, its sender does not hear so, and sends it to the next coordinator, too."""
    cluster = fast_tests.shouting(51)
    cluster.world.cut(1, 2, one_way=True)
    cluster.parties[1].shout("once")
    cluster.world.run(0.05)
    cluster.elect(3)
    cluster.world.heal()
    cluster.settle()
    view = fast_tests.the_view(cluster)
    assert [party.streams[view].count("once") for party in cluster.parties] == [1, 1, 1]


def former_coordinator_script() -> None:
    """A fast message of the former coordinator comes when its receiver has reported to the next one already."""
    cluster = fast_tests.shouting(52)
    view, term = fast_tests.the_view(cluster), cluster.world.machine(1, "groups").coordinator.term
    sender = next(iter(cluster.world.machine(1, "groups").replica.get(kit.GROUP).members.values()))
    cluster.crash_node(1)
    cluster.connected.discard(1)
    cluster.elect(3)
    cluster.world.eventually(lambda: 2 in cluster.world.machine(3, "groups").coordinator._sequencer._reports, 1.0)
    late = Fast(term, 1, kit.GROUP, view, 4, (FastMessage(sender, 1, 9, b"late"),))
    cluster.world.feed(2, "groups", Received(Address("groups", 1), late))
    asked = cluster.parties[2].shout("next")
    cluster.remove_node(1)
    cluster.world.eventually(lambda: asked.done, 2.0)
    cluster.party(2, "fresh")
    cluster.settle()
    assert cluster.parties[1].streams.get(view, [])[3:] in ([], ["next"])


def closing_script() -> None:
    """Fast messages come while the decision that ends their view is on its way to the log."""
    cluster = fast_tests.shouting(53)
    cluster.core.latest = 0.3
    cluster.party(2, "fresh")
    for n in range(20):
        cluster.parties[0].shout(f"m{n}")
        cluster.world.run(0.01)
        if n == 3:
            cluster.world.cut(1, 3, one_way=True)
    cluster.world.run(0.5)
    cluster.world.heal()
    cluster.settle()


def storms() -> None:
    for seed in range(1, 13):
        kit.storm(seed)


SCRIPTS: list[tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = [
    (announce_before_commit, order_of_one_node),
    (forget_what_was_settled, storms),
    (believe_every_entry, late_append_script),
    (take_over_silently, storms),
    (apply_over_gaps, storms),
    (never_fetch, storms),
    (trust_an_old_view, old_view_script),
    (listen_to_the_removed, removed_script),
    (promise_without_proof, promise_script),
    (forget_the_dead_who_are_joining, dead_while_joining),
    (let_messages_overtake, order_of_one_node),
    (never_repeat_an_append, storms),
    (restart_unheard, second_life_script),
    (heed_what_was_meant_for_the_dead, late_proposal_script),
    (let_a_reject_pass, vote_scripts),
    (take_continue_for_the_end, vote_scripts),
    (count_the_second_word, doubled_votes_script),
    (wait_for_the_dead, dead_voter_script),
    (vote_for_the_silent, vote_scripts),
    (hold_the_vote_again, repeated_vote_script),
    (vote_while_deciding, vote_scripts),
    (sequence_before_all_have_reported, fast_scripts),
    (wait_for_the_hung, fast_tests.test_members_of_a_node_whose_groups_process_hangs_have_failed),
    (keep_the_hung, fast_tests.test_members_of_a_node_whose_groups_process_hangs_have_failed),
    (number_before_the_hung_are_out, fast_tests.test_members_of_a_node_whose_groups_process_hangs_have_failed),
    (go_on_with_half, fast_scripts),
    (sequence_after_the_end, closing_script),
    (number_twice, lost_answer_script),
    (believe_the_former_coordinator, former_coordinator_script),
    (expel_whom_it_liked, votes_tests.test_expulsion_needs_no_vote_where_the_group_does_not_say_so),
]


@pytest.mark.parametrize("script", sorted({s for _, s in SCRIPTS if s is not storms}, key=lambda s: s.__name__))
def test_script(script: Callable[[], None]) -> None:
    """The schedules that catch a mistake hold without it."""
    script()


@pytest.mark.parametrize(("mistake", "script"), SCRIPTS, ids=lambda each: each.__name__)
def test_a_planted_mistake_is_caught(
    mistake: Callable[[pytest.MonkeyPatch], None], script: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake(monkeypatch)
    with pytest.raises(AssertionError):
        script()
