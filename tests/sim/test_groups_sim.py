"""Groups in virtual time: every member sees one story, whatever is lost, doubled, killed, cut off or elected.

The core log and the membership are played by two small fakes, so that a test can do to the groups machines what a
real log would do only once in a thousand runs: commit an append long after its coordinator died, or never answer.
"""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest
from covey.bus.machine import Address, Effect, Message, Publish, Received, Send
from covey.bus.simulation import Birth, Link, Occurrence, Operation, World
from covey.components.groups.machine import SYNCED, GroupsMachine
from covey.components.groups.messages import (
    Announce,
    Broadcast,
    Caught,
    Decision,
    Entry,
    Event,
    JoinGroup,
    LeaveGroup,
    PartyGone,
    Poll,
    Show,
)
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
from covey.errors import CoordinatorChanged, Frozen, NotFound

GROUP = "db"
ROUGH = Link(loss=0.1, duplicate=0.1, reorder=0.1, late=0.3)


class Fact(msgspec.Struct, frozen=True):
    """A fake is told what to publish."""

    message: Message


class CoreLog:
    """What a majority of registry servers holds together: one log and one reign at a time."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.epoch = 0
        self.primary = 0
        self.latest = 0.003  # seconds an append may take; tests raise it
        self.deaf = 0.0  # chance that an answer never comes
        self.index = 0
        self.entries: list[tuple[str, int, int, bytes]] = []
        self.known: dict[str, int] = {}
        self.decisions: set[tuple[str, int, bytes]] = set()

    def append(self, message: AppendSystem) -> int:
        """Apply an entry once; return its index."""
        if message.id not in self.known:
            self.index += 1
            self.known[message.id] = self.index
            self.entries.append((message.slot, self.index, message.epoch, message.body))
            kept = [entry for entry in self.entries if entry[0] == message.slot][-message.keep :]
            self.entries = [entry for entry in self.entries if entry[0] != message.slot] + kept
            self.entries.sort(key=lambda entry: entry[1])
            if not message.slot.startswith("/"):
                decision = msgspec.msgpack.decode(message.body, type=Entry).decision
                self.decisions.add(key_of(decision))
        return self.known[message.id]


def key_of(decision: Decision) -> tuple[str, int, bytes]:
    return decision.group, decision.version, msgspec.msgpack.encode(decision)


class FakeRegistry:
    """Commits appends after a while, in any order, if the reign is still the same; tells its node who leads."""

    def __init__(self, node: int, core: CoreLog) -> None:
        self.node, self.core = node, core
        self.work: list[tuple[float, Address, Message]] = []

    @property
    def deadline(self) -> float | None:
        return min((at for at, _, _ in self.work), default=None)

    def step(self, now: float, input: Any = None) -> list[Effect]:
        if isinstance(input, Fact):
            return [Publish("registry.leading", input.message)]
        if isinstance(input, Received) and isinstance(input.message, AppendSystem | ReadSystem):
            self.work.append((now + self.core.random.uniform(0, self.core.latest), input.source, input.message))
        effects: list[Effect] = []
        for item in [item for item in self.work if item[0] <= now]:
            self.work.remove(item)
            answer = self.answer(item[2])
            if self.core.random.random() >= self.core.deaf:
                effects.append(Send(item[1], answer))
        return effects

    def answer(self, message: Message) -> Message:
        assert isinstance(message, AppendSystem | ReadSystem)
        epoch = self.core.epoch
        if self.core.primary != self.node or (isinstance(message, AppendSystem) and message.epoch != epoch):
            return SystemRefused(message.id, epoch, "another reign")
        if isinstance(message, ReadSystem):
            return SystemRead(message.id, tuple(self.core.entries), epoch)
        return SystemAppended(message.id, self.core.append(message), message.epoch)

    def check_invariants(self) -> None:
        pass


class FakeLiveness:
    """Publishes the views it is given."""

    deadline = None

    def step(self, now: float, input: Any = None) -> list[Effect]:
        return [Publish("liveness.view", input.message)] if isinstance(input, Fact) else []

    def check_invariants(self) -> None:
        pass


class Party:
    """A member: joins, listens, speaks, and remembers what it saw."""

    def __init__(self, cluster: Cluster, node: int, name: str, group: str = GROUP) -> None:
        self.cluster, self.node, self.name, self.group = cluster, node, name, group
        self.events: list[Event] = []
        self.joined: int | None = None
        self.cursor = 0
        self.frozen = False
        self.alive = True
        self.said: list[tuple[str, Operation]] = []
        self.join_asked = self.ask(JoinGroup(group, name))
        self.polled: Operation | None = None
        self.follow()

    def ask(self, question: Any) -> Operation:
        return self.cluster.world.ask(self.node, "groups", question)

    def say(self, text: str) -> Operation:
        self.said.append((text, self.ask(Broadcast(self.group, self.name, text.encode()))))
        return self.said[-1][1]

    def follow(self) -> None:
        """Look 100 times a second whether an answer came; ask again after a loss."""
        if not self.alive:
            return
        if self.joined is None:
            if self.join_asked.done and not self.join_asked.error:
                self.joined = self.join_asked.result["joined"]
                self.cursor = self.joined - 1
            elif self.join_asked.done or self.join_asked.unknown:
                self.join_asked = self.ask(JoinGroup(self.group, self.name))
        elif self.polled is None or self.polled.unknown:
            self.polled = self.ask(Poll(self.group, self.cursor, 2.0, self.frozen))
        elif self.polled.done:
            self.take(self.polled.result)
            self.polled = self.ask(Poll(self.group, self.cursor, 2.0, self.frozen))
        self.cluster.world.after(0.01, self.follow)

    def take(self, result: dict[str, Any]) -> None:
        assert result["missed"] == 0, f"{self.name} missed {result['missed']} events"
        self.frozen = result["frozen"]
        for event in result["events"]:
            if event.kind in ("frozen", "thawed"):
                self.events.append(event)
                continue
            assert event.sequence == self.cursor + 1, f"{self.name}: {event.sequence} after {self.cursor}"
            self.cursor = event.sequence
            self.events.append(event)
            self.cluster.seen(self.group, event)

    @property
    def texts(self) -> list[str]:
        return [event.body.decode() for event in self.events if event.kind == "message"]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


class Cluster:
    """Nodes with a groups machine each, over one core log and one chain of views."""

    def __init__(self, seed: int, size: int = 3, link: Link | None = None, make: Any = GroupsMachine) -> None:
        self.world = World(seed, link=link)
        self.core = CoreLog(Random(f"core {seed}"))
        self.canon: dict[tuple[str, int], Event] = {}
        self.announced: dict[tuple[str, int], Decision] = {}
        self.parties: list[Party] = []
        self.sessions = 0
        self.view = ViewChanged((0, 0), ())
        self.connected: set[int] = set()
        self.make = make
        for number in range(1, size + 1):
            self.world.add(
                number,
                {
                    "registry": lambda birth: FakeRegistry(birth.node, self.core),
                    "liveness": lambda birth: FakeLiveness(),
                    "groups": self.machine,
                },
            )
            self.connected.add(number)
        self.world.on_step.append(self.watch)
        self.world.on_notify.append(self.notified)
        self.elect(1)
        self.show_view(*range(1, size + 1))

    def machine(self, birth: Birth) -> Any:
        self.sessions += 1
        return self.make(birth.node, birth.boot_id, self.sessions)

    # --- what must always hold

    def watch(self, node: int, service: str, input: Any, effects: list[Effect]) -> None:
        """INV-24: nothing is announced that is not in the core log."""
        for effect in effects:
            told: list[Decision] = []
            if isinstance(effect, Send) and isinstance(effect.message, Announce):
                told = [effect.message.decision]
            elif isinstance(effect, Send) and isinstance(effect.message, Caught):
                told = [*effect.message.decisions, *(d for s in effect.message.snapshots for d in s.recent)]
            for decision in told:
                assert key_of(decision) in self.core.decisions, f"announced, not decided: {decision}"
                first = self.announced.setdefault((decision.group, decision.version), decision)
                assert first == decision, f"two decisions: {first} and {decision}"

    def seen(self, group: str, event: Event) -> None:
        """INV-23: what one member saw, every member sees at that place."""
        told = self.canon.setdefault((group, event.sequence), event)
        assert told == event, f"two stories at {event.sequence}: {told} and {event}"

    # --- what happens to it

    def party(self, node: int, name: str, group: str = GROUP) -> Party:
        self.parties.append(Party(self, node, name, group))
        return self.parties[-1]

    def tell(self, node: int) -> None:
        """What a node's service does for its machine at the start, and its registry and liveness at every change."""
        primary = self.core.primary if node in self.connected else 0
        if self.world.nodes[node].running:
            self.world.feed(node, "registry", Fact(Leading(self.core.epoch, primary, "writes", True)))
            view = msgspec.structs.replace(self.view, quorate=node in self.connected)
            if node in self.connected:
                self.world.feed(node, "liveness", Fact(view))

    def elect(self, node: int) -> None:
        self.core.epoch += 1
        self.core.primary = node
        for number in sorted(self.world.nodes):
            self.tell(number)

    def show_view(self, *numbers: int) -> None:
        peers = tuple(Peer(n, self.world.nodes[n].boot_id, "online") for n in numbers)
        self.view = ViewChanged((self.core.epoch, self.view.id[1] + 1), peers)
        for number in sorted(self.world.nodes):
            self.tell(number)

    def restart_groups(self, node: int) -> None:
        """The groups process dies and comes back; its parties live on."""
        if "groups" not in self.world.nodes[node].machines:
            return
        self.world.crash_service(node, "groups")
        self.world.start_service(node, "groups")
        self.tell(node)

    def notified(self, occurrence: Occurrence) -> None:
        """A service tells its new machine which members died unheard."""
        node = occurrence.node
        if occurrence.what == SYNCED and "groups" in self.world.nodes[node].machines:
            alive = {p.name for p in self.parties if p.node == node and p.alive}
            for party in sorted(self.world.machine(node, "groups").local_members() - alive):
                self.world.feed(node, "groups", PartyGone(party))

    def kill(self, party: Party) -> None:
        party.alive = False
        self.world.feed(party.node, "groups", PartyGone(party.name))

    def crash_node(self, node: int) -> None:
        self.world.crash(node)
        for party in self.parties:
            if party.node == node:
                party.alive = False

    def return_node(self, node: int) -> None:
        """A node that was removed is in the view again, as a new boot."""
        if self.world.nodes[node].running:
            self.world.crash(node)  # the DCM starts all components anew
        self.world.start(node)
        self.world.heal()
        self.connected.add(node)
        self.show_view(*sorted({peer.number for peer in self.view.members} | {node}))

    def remove_node(self, node: int) -> None:
        """A node is out of the view; its parties are lost, whether it knows or not."""
        for party in self.parties:
            if party.node == node:
                party.alive = False
        self.show_view(*sorted({peer.number for peer in self.view.members} - {node}))

    def isolate(self, node: int) -> None:
        self.connected.discard(node)
        self.world.partition([node], [n for n in self.world.nodes if n != node])
        self.tell(node)

    def rejoin(self) -> None:
        self.world.heal()
        for node in sorted(set(self.world.nodes) - self.connected):
            self.connected.add(node)
            self.tell(node)

    def settle(self, within: float = 30.0) -> None:
        """INV-31: after the last fault all members are level soon."""
        living = [p for p in self.parties if p.alive]
        self.world.eventually(lambda: all(p.joined is not None for p in living), within, "all have joined")
        for party in living:
            party.say(f"last words of {party.name} at {self.world.now}")

        def level() -> bool:
            if not all(p.said[-1][1].done for p in living):
                return False
            up = [n for n in sorted(self.connected) if "groups" in self.world.nodes[n].machines]
            held = [self.world.machine(n, "groups").replica for n in up]
            return all(p.cursor == max(r.get(p.group).sequence for r in held) for p in living)

        self.world.eventually(level, within, "all members level")

    def check_promises(self) -> None:
        """What was acknowledged happened once; what was said to have come to nothing did; nothing happened twice."""
        decided = {(d.group, e.sequence): e for d in self.announced.values() for e in d.events} | self.canon
        told = [e.body.decode() for _, e in sorted(decided.items()) if e.kind == "message"]
        assert len(told) == len(set(told)), "a message was decided twice"
        for party in self.parties:
            for text, operation in party.said:
                if operation.done and operation.error is None:
                    assert text in told, f"{text!r} was acknowledged and lost"
                if isinstance(operation.error, CoordinatorChanged):
                    assert text not in told, f"{text!r} was told to have come to nothing"


def formed(seed: int, size: int = 3, link: Link | None = None, make: Any = GroupsMachine) -> Cluster:
    """Return a cluster with one member `p1`, `p2`, … on each node."""
    cluster = Cluster(seed, size, link, make)
    for number in range(1, size + 1):
        cluster.party(number, f"p{number}")
    cluster.settle()
    return cluster


def test_members_see_one_sequence_of_joins_and_messages() -> None:
    cluster = formed(1, 3)
    first, *others = cluster.parties
    start = first.cursor
    for n in range(10):
        for party in cluster.parties:
            party.say(f"{party.name} {n}")
    cluster.settle()
    assert all(party.texts[-30:] == first.texts[-30:] for party in others)
    assert first.cursor > start + 30
    for name in ("p1", "p2", "p3"):  # each member's own messages keep their order
        mine = [text for text in first.texts if text.startswith(f"{name} ")]
        assert mine == [f"{name} {n}" for n in range(10)]
    cluster.check_promises()


def test_join_result_and_first_event() -> None:
    cluster = formed(2, 3)
    late = cluster.party(2, "late")
    cluster.settle()
    assert [member.party for member in late.join_asked.result["members"]][-1] == "late"
    assert late.events[0].kind == "joined" and late.events[0].who[0].party == "late"
    shown = late.ask(Show(GROUP))
    missing = late.ask(Show("none"))
    cluster.world.run(0.1)
    assert [(m.node, m.party) for m in shown.result["members"]][-1] == (2, "late")
    assert isinstance(missing.error, NotFound)


def test_a_leave_is_seen_by_the_others_and_ends_what_the_leaver_may_do() -> None:
    cluster = formed(3, 3)
    leaver, other = cluster.parties[0], cluster.parties[1]
    left = leaver.ask(LeaveGroup(GROUP, "p1"))
    refused = leaver.ask(Broadcast(GROUP, "p1", b"after"))
    cluster.world.run(1.0)
    assert left.error is None
    assert refused.error is not None and refused.error.code == "groups.not_member"
    assert other.events[-1].kind == "left" and [m.party for m in other.events[-1].who] == ["p1"]


def test_changes_that_come_together_are_one_batch_and_go_before_messages() -> None:
    cluster = formed(4, 3)
    cluster.core.latest = 0.5  # the first message holds up what comes meanwhile
    speaker = cluster.parties[0]
    view = cluster.world.machine(1, "groups").replica.get(GROUP).view
    for n in range(3):
        speaker.say(f"m{n}")
    cluster.world.run(0.02)
    for name in ("x", "y", "z"):
        cluster.party(2, name)
    cluster.kill(cluster.parties[2])
    cluster.world.run(8)
    seen = cluster.parties[1].events[-5:]
    assert [event.kind for event in seen] == ["message", "failed", "joined", "message", "message"]
    assert sorted(member.party for member in seen[2].who) == ["x", "y", "z"]
    assert [event.view for event in seen] == [view, view + 1, view + 1, view + 1, view + 1]


def test_death_of_a_party_is_a_failure_leave_at_every_member() -> None:
    """INV-26."""
    cluster = formed(5, 3)
    cluster.kill(cluster.parties[2])
    for other in cluster.parties[:2]:
        cluster.world.eventually(lambda o=other: o.kinds()[-1] == "failed", 0.5, "the failure is seen")
        assert [member.party for member in other.events[-1].who] == ["p3"]


def test_death_of_a_node_removes_all_its_members_in_one_batch_of_each_group() -> None:
    cluster = formed(6, 4)
    for name in ("q1", "q2"):
        cluster.party(4, name)
    for number in (1, 2, 4):
        cluster.party(number, f"other{number}", "other")
    cluster.settle()
    cluster.crash_node(4)
    cluster.show_view(1, 2, 3)
    watcher = cluster.parties[0]
    cluster.world.eventually(lambda: watcher.kinds()[-1] == "failed", 1.0, "the failure is seen")
    assert {member.party for member in watcher.events[-1].who} == {"p4", "q1", "q2"}
    cluster.settle()
    assert [m.node for m in cluster.world.machine(1, "groups").replica.get("other").members.values()] == [1, 2]


def test_a_dead_coordinator_is_followed_by_one_that_knows_all_it_decided() -> None:
    cluster = formed(7, 5)
    for n in range(5):
        cluster.parties[3].say(f"before {n}")
    cluster.crash_node(1)
    cluster.world.run(0.2)
    cluster.elect(2)
    cluster.show_view(2, 3, 4, 5)
    cluster.settle()
    cluster.check_promises()
    assert all(op.error is None for _, op in cluster.parties[3].said)


@pytest.mark.parametrize("step", ["before the log", "in the log", "answered"])
def test_coordinator_dies_between_append_and_announcement(step: str) -> None:
    """INV-24: what is in the log is told by the next one, once; what is not is proposed again."""
    cluster = formed(8, 3)
    before = len(cluster.core.decisions)
    if step == "before the log":
        cluster.core.latest = 5.0
    speaker = cluster.parties[1]
    operation = speaker.say("in the balance")
    if step == "before the log":
        cluster.world.run(0.02)
        assert len(cluster.core.decisions) == before
    else:
        cluster.world.eventually(lambda: len(cluster.core.decisions) > before, 1.0, "it is in the log")
    if step == "answered":
        for other in (2, 3):  # the announcements are lost with their sender
            cluster.world.cut(1, other, one_way=True)
        cluster.world.run(0.01)
    cluster.restart_groups(1)
    cluster.core.latest = 0.003
    cluster.world.heal()
    cluster.world.eventually(lambda: operation.done, 5.0, "the speaker knows")
    cluster.settle()
    assert operation.error is None
    assert cluster.parties[0].texts.count("in the balance") == 1
    cluster.world.run(6.0)  # the append of the dead one lands now, and is void
    cluster.restart_groups(1)
    cluster.settle()
    cluster.check_promises()


def test_an_append_that_lands_after_two_restarts_is_void() -> None:
    """The successor reads the log before the dead coordinator's append lands, and decides otherwise at that place."""
    cluster = formed(9, 3)
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


def test_a_minority_is_frozen_told_once_and_thawed() -> None:
    """INV-27 and SPEC 11.4."""
    cluster = formed(10, 3)
    lonely = cluster.parties[2]
    cluster.isolate(3)
    cluster.world.run(0.1)
    asked = lonely.say("anybody?")
    cluster.world.run(7.0)
    assert isinstance(asked.error, Frozen)
    assert isinstance(lonely.say("still?").error or cluster.world.run(0.1) or lonely.said[-1][1].error, Frozen)
    assert lonely.kinds().count("frozen") == 1
    count = lonely.cursor
    cluster.parties[0].say("we go on")
    cluster.world.run(2.0)
    assert cluster.parties[0].texts[-1] == "we go on"
    assert lonely.cursor == count
    cluster.rejoin()
    cluster.settle()
    assert lonely.kinds().count("thawed") == 1
    after = lonely.events[lonely.kinds().index("frozen") + 1 :]
    assert next(e.body for e in after if e.kind == "message") == b"we go on", "what it missed comes with the thaw"
    assert "anybody?" not in cluster.parties[0].texts
    cluster.check_promises()


def test_a_removed_node_comes_back_as_new_members_only() -> None:
    cluster = formed(11, 3)
    lonely = cluster.parties[2]
    cluster.isolate(3)
    cluster.show_view(1, 2)
    cluster.world.run(7.0)
    watcher = cluster.parties[0]
    assert watcher.kinds()[-1] == "failed"
    lonely.alive = False
    cluster.return_node(3)
    again = cluster.party(3, "p3")
    cluster.settle()
    assert again.joined is not None and again.joined > watcher.events[-1].sequence - 10
    members = cluster.world.machine(1, "groups").replica.get(GROUP).members
    assert [key for key in members if key[0] == 3] == [(3, "n3.2", "p3")]


def test_proposal_without_coordinator_is_withdrawn_or_decided_never_both() -> None:
    cluster = formed(12, 3)
    cluster.core.deaf = 1.0  # the log commits and never answers
    operation = cluster.parties[1].say("who knows")
    cluster.world.run(12.0)
    assert operation.error is not None and operation.error.code in ("core.timeout", "groups.frozen")
    cluster.core.deaf = 0.0
    cluster.settle()
    cluster.check_promises()


def test_a_withdrawn_proposal_came_to_nothing() -> None:
    cluster = formed(13, 3)
    cluster.world.cut(2, 1, one_way=True)  # beats arrive, proposals do not
    operation = cluster.parties[1].say("unheard")
    cluster.world.run(6.5)
    cluster.world.heal()
    cluster.world.eventually(lambda: operation.done, 2.0)
    assert isinstance(operation.error, CoordinatorChanged)
    cluster.settle()
    cluster.check_promises()


def test_members_that_died_while_no_machine_ran_are_failed_at_its_start() -> None:
    cluster = formed(14, 3)
    dead = cluster.parties[2]
    dead.alive = False
    cluster.restart_groups(3)
    watcher = cluster.parties[0]
    cluster.world.eventually(lambda: watcher.kinds()[-1] == "failed", 3.0, "the failure is seen")
    assert [member.party for member in watcher.events[-1].who] == ["p3"]


def test_a_restarted_cluster_reads_its_groups_back_from_the_log() -> None:
    cluster = formed(15, 3)
    sequence = cluster.parties[0].cursor
    for number in (1, 2, 3):
        cluster.crash_node(number)
    for number in (1, 2, 3):
        cluster.world.start(number)
    cluster.elect(2)
    cluster.show_view(1, 2, 3)
    fresh = cluster.party(1, "fresh")
    cluster.settle()
    assert fresh.joined is not None and fresh.joined > sequence
    assert [m.party for m in fresh.join_asked.result["members"]] == ["fresh"]
    cluster.check_promises()
