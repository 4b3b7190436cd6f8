"""Groups machines in the simulator, members that use them, and the checks of what the members saw.

The core log and the membership are played by two small fakes, so that a test can do to the groups machines what a
real log would do only once in a thousand runs: commit an append long after its coordinator died, or never answer.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
from covey.bus.machine import Address, Effect, Message, Publish, Received, Send
from covey.bus.simulation import Birth, Link, Occurrence, Operation, World
from covey.components.groups.machine import SYNCED, GroupsMachine
from covey.components.groups.messages import (
    Announce,
    Caught,
    Decision,
    Default,
    Entry,
    Event,
    PartyGone,
    Terms,
    Vote,
)
from covey.components.groups.questions import (
    AwaitVote,
    Broadcast,
    CastVote,
    Expel,
    JoinGroup,
    Poll,
    ProposeVote,
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
from covey.errors import CoordinatorChanged, Rejected

GROUP = "db"
GONE = ("left", "failed", "expelled")
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
        self.slots: dict[str, list[tuple[str, int, int, bytes]]] = {}
        self.known: dict[str, int] = {}
        self.decisions: set[tuple[str, int, bytes]] = set()

    def append(self, message: AppendSystem) -> int:
        """Apply an entry once; return its index."""
        if message.id not in self.known:
            self.index += 1
            self.known[message.id] = self.index
            kept = self.slots.setdefault(message.slot, [])
            kept.append((message.slot, self.index, message.epoch, message.body))
            del kept[: -message.keep]
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
            return SystemRead(message.id, tuple(e for kept in self.core.slots.values() for e in kept), epoch)
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
        self.fast: tuple[int, int, int] | None = None
        self.unsure: set[int] = set()  # views of whose fast messages this party was told to have missed some
        self.view = 0
        self.streams: dict[int, list[str]] = {}
        self.frozen = False
        self.alive = True
        self.judge: Callable[[dict[str, Any]], Vote | None] | None = None
        self.awaited: Operation | None = None
        self.casts: dict[tuple[int, int], Vote | None] = {}
        self.put: list[tuple[str, Operation]] = []
        self.said: list[tuple[str, Operation]] = []
        self.join_asked = self.ask(JoinGroup(group, name))
        self.polled: Operation | None = None
        self.follow()

    def ask(self, question: Any) -> Operation:
        return self.cluster.world.ask(self.node, "groups", question)

    def say(self, text: str) -> Operation:
        self.said.append((text, self.ask(Broadcast(self.group, self.name, text.encode()))))
        return self.said[-1][1]

    def shout(self, text: str) -> Operation:
        """Send a fast message."""
        return self.ask(Broadcast(self.group, self.name, text.encode(), fast=True))

    def propose(self, text: str, phases: int = 1, default: Default = "reject", deadline: float = 1.0) -> Operation:
        terms = Terms(phases, default, deadline)
        self.put.append((text, self.ask(ProposeVote(self.group, self.name, text.encode(), terms))))
        return self.put[-1][1]

    def vote(self) -> None:
        """Ask for something to vote on, and vote."""
        if self.awaited is not None and self.awaited.done and not self.awaited.error and self.awaited.result["vote"]:
            asked = self.awaited.result["vote"]
            place = (asked["protocol"], asked["phase"])
            if self.judge is not None and place not in self.casts:
                self.casts[place] = self.judge(asked)
            if self.judge is not None:
                self.ask(CastVote(self.group, self.name, *place, self.casts[place], "as I see it"))
        if self.awaited is None or self.awaited.done or self.awaited.unknown:
            self.awaited = self.ask(AwaitVote(self.group, self.name, 2.0))

    def follow(self) -> None:
        """Look 100 times a second whether an answer came; ask again after a loss."""
        if not self.alive:
            return
        if self.judge is not None and self.joined is not None:
            self.vote()
        if self.joined is None:
            if self.join_asked.done and not self.join_asked.error:
                self.joined = self.join_asked.result["joined"]
                self.cursor = self.joined - 1
                self.fast = self.join_asked.result["fast"]
            elif self.join_asked.done or self.join_asked.unknown:
                self.join_asked = self.ask(JoinGroup(self.group, self.name))
        elif self.polled is None or self.polled.unknown:
            self.polled = self.ask(Poll(self.group, self.cursor, 2.0, self.frozen, self.fast))
        elif self.polled.done:
            self.take(self.polled.result)
            self.polled = self.ask(Poll(self.group, self.cursor, 2.0, self.frozen, self.fast))
        self.cluster.world.after(0.01, self.follow)

    def take(self, result: dict[str, Any]) -> None:
        if result["missed"]:  # only fast messages can be: the others are counted below
            assert self.fast is not None
            self.unsure.update(range(self.fast[0], result["fast"][0] + 1))
        self.frozen, self.fast = result["frozen"], result["fast"]
        for event in result["events"]:
            if event.kind in ("frozen", "thawed"):
                self.events.append(event)
                continue
            if event.fast:
                stream = self.streams.setdefault(event.view, [])
                after = len(stream)
                assert event.sequence == after + 1 or event.view in self.unsure, f"{self.name}: {event} after {after}"
                stream.append(event.body.decode())
                continue
            if event.view > self.view:
                out = event.kind in GONE and (self.node, self.name) in [(each.node, each.party) for each in event.who]
                for view in range(self.view or event.view, event.view) if not out else ():
                    self.cluster.passed(self, view)
                self.view = event.view
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
        self.streams: dict[tuple[str, int], list[str]] = {}
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
                if first is decision and decision.tally is not None:
                    self.voted(decision)
                assert first == decision, f"two decisions: {first} and {decision}"

    def passed(self, party: Party, view: int) -> None:
        """INV-25: those who go on from a view have had the same fast messages in it."""
        if view in party.unsure:
            return
        mine = party.streams.get(view, [])
        told = self.streams.setdefault((party.group, view), mine)
        assert told == mine, f"{party.name} leaves view {view} with {mine}, others with {told}"

    def voted(self, decision: Decision) -> None:
        """The outcome follows from the votes, these are what the members said, and none has two."""
        tally = decision.tally
        assert tally is not None and tally.protocol == decision.version
        last = tally.rounds[-1] if tally.rounds else ()
        against = any(cast.vote == "reject" for cast in last)
        assert all(cast.vote != "reject" for votes in tally.rounds[:-1] for cast in votes), tally
        assert tally.outcome == "withdrawn" or (tally.outcome == "rejected") == against, tally
        assert len(tally.rounds) <= tally.terms.phases, tally
        said = {(p.node, p.name): p.casts for p in self.parties if p.group == decision.group}
        for phase, votes in enumerate(tally.rounds, 1):
            assert len({(cast.node, cast.party) for cast in votes}) == len(votes), f"two votes of one member: {votes}"
            for cast in votes:
                if cast.how == "voted":
                    mine = said[cast.node, cast.party].get((tally.protocol, phase))
                    assert mine == cast.vote, f"{cast} is not what it said: {mine}"
                else:
                    assert cast.vote == tally.terms.default, cast

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
        self.check_votes([(e.kind, e.body.decode()) for _, e in sorted(decided.items())])

    def check_votes(self, events: list[tuple[str, str]]) -> None:
        """The outcome of a vote reached all or none, and its proposer was told the same."""
        votes = [event for event in events if event[0] == "decided"]
        assert len(votes) == len(set(votes)), "a proposal was decided twice"
        for party in self.parties:
            for text, operation in party.put:
                if operation.done and operation.error is None:
                    assert ("decided", text) in events, f"{text!r} was said to be decided"
                if isinstance(operation.error, Rejected | CoordinatorChanged):
                    assert ("decided", text) not in events, f"{text!r} was said to have come to nothing"
                if isinstance(operation.error, Rejected):
                    assert ("rejected", text) in events, f"nobody was told that {text!r} was rejected"


def formed(seed: int, size: int = 3, link: Link | None = None, make: Any = GroupsMachine) -> Cluster:
    """Return a cluster with one member `p1`, `p2`, … on each node."""
    cluster = Cluster(seed, size, link, make)
    for number in range(1, size + 1):
        cluster.party(number, f"p{number}")
    cluster.settle()
    return cluster


def storm(seed: int, make: Any = GroupsMachine, seconds: float = 40.0) -> Cluster:
    """Members come, speak, go and die while messages are lost and coordinators change; then all is healed."""
    random = Random(f"storm {seed}")
    size = random.choice([3, 4, 5])
    cluster = Cluster(seed, size, Link(), make)

    def some_judge() -> Callable[[Any], Vote | None] | None:
        leaning: list[Vote | None] = ["approve"] * 6 + ["continue"] * 4 + ["reject", None]
        return None if random.random() < 0.2 else lambda asked: random.choice(leaning)

    world = cluster.world
    for number in range(1, size + 1):
        cluster.party(number, f"p{number}", random.choice([GROUP, GROUP, "other"]))
        cluster.parties[-1].judge = some_judge()
    world.run(1.0)
    world.default_link = ROUGH if random.random() < 0.7 else Link(loss=0.3, duplicate=0.3, reorder=0.3, late=1.0)
    made, shouts = size, 0

    def some_party() -> Party | None:
        living = [p for p in cluster.parties if p.alive and p.joined is not None]
        return random.choice(living) if living else None

    def speak() -> None:
        party = some_party()
        if party and world.nodes[party.node].running:
            party.say(f"{party.name} says {len(party.said)}")

    def shout() -> None:
        nonlocal shouts
        party = some_party()
        if party and world.nodes[party.node].running:
            shouts += 1
            party.shout(f"{party.name} shouts {shouts}")

    def propose() -> None:
        party = some_party()
        if party and world.nodes[party.node].running:
            default: Default = random.choice(["approve", "reject"])
            text = f"{party.name} proposes {len(party.put)}"
            party.propose(text, random.randint(1, 3), default, random.choice([0.3, 1.0, 3.0]))

    def expel() -> None:
        party, other = some_party(), some_party()
        if party and other and party.group == other.group and party is not other:
            party.ask(Expel(party.group, party.name, f"{other.name}@{other.node}"))
            cluster.kill(other)  # it goes by one way or the other

    def come() -> None:
        nonlocal made
        made += 1
        if made < 20:
            cluster.party(random.choice(sorted(cluster.connected)), f"p{made}", random.choice([GROUP, "other"]))
            cluster.parties[-1].judge = some_judge()

    def die() -> None:
        party = some_party()
        if party:
            cluster.kill(party)

    def restart() -> None:
        cluster.restart_groups(random.choice([cluster.core.primary, random.randint(1, size)]))

    def elect() -> None:
        cluster.elect(random.choice(sorted(cluster.connected)))

    away = 0

    def hurt_node() -> None:
        """Cut a node off, or kill it; a killed one, and some that are cut off, are removed from the view."""
        nonlocal away
        if away:
            come_back()
            return
        away = random.randint(1, size)
        fate = random.choice(["cut off", "cut off and removed", "killed"])
        if fate == "killed":
            cluster.crash_node(away)
            cluster.connected.discard(away)
        else:
            cluster.isolate(away)
        if cluster.core.primary == away:
            cluster.elect(random.choice(sorted(cluster.connected)))
        if fate != "cut off":
            world.run(random.expovariate(1.0))
            cluster.remove_node(away)

    def come_back() -> None:
        nonlocal away
        if away in {peer.number for peer in cluster.view.members}:
            cluster.rejoin()
        else:
            cluster.return_node(away)
        away = 0

    def slow_log() -> None:
        cluster.core.latest = random.choice([0.003, 0.003, 0.3, 2.0])
        cluster.core.deaf = random.choice([0.0, 0.0, 0.3])

    acts: list[Callable[[], None]] = [speak] * 40 + [shout] * 30 + [propose] * 8 + [come] * 6 + [die] * 2
    acts += [expel] + [restart] * 4
    acts += [elect] * 3 + [hurt_node] * 3 + [slow_log] * 4
    end = world.now + seconds
    while world.now < end:
        random.choice(acts)()
        world.run(random.expovariate(4.0))
    cluster.core.latest, cluster.core.deaf = 0.003, 0.0
    world.default_link = Link()
    if away:
        come_back()
    cluster.party(cluster.core.primary, "last", GROUP)
    cluster.settle()
    cluster.check_promises()
    return cluster
