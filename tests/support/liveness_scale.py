"""Liveness with up to ten thousand nodes, in virtual time: what is touched by a fault is run, what is not is left out.

A path between two healthy nodes carries a probe and its answer each second and changes nothing, so it is not played.
What is real: the leader, a whole `LivenessMachine` with its rings, cut, trials and proposals; at each other node that
observes somebody with a fault, or has one itself, its `Peers` with those paths. Played: the network, who answers, the
log (50 ms), and each node's half of applying a view, down the tree of `relay.py`. What it cannot show is what the
touched nodes do to the rest beyond accusing them; the whole machines together are run with up to a thousand nodes by
`liveness_cluster.py`.

python tests/support/liveness_scale.py NODES [SCENARIO …]
"""

from __future__ import annotations

import heapq
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import msgspec
from covey.bus.machine import Address, Received, Send
from covey.components.liveness.machine import LivenessMachine
from covey.components.liveness.messages import (
    Adapters,
    Alert,
    Heartbeat,
    HeartbeatAck,
    Look,
    Member,
    Suspect,
    ViewsAnnounced,
)
from covey.components.liveness.networks import networks_of, observers, subjects
from covey.components.liveness.peers import Peer, Peers
from covey.components.liveness.relay import hearers
from covey.components.liveness.settings import Settings
from covey.components.liveness.views import make, step_to
from covey.components.registry.messages import AppendSystem, Leading, ReadSystem, SystemAppended, SystemRead
from liveness_cluster import adapters

LEADER = 1
HOP = 0.0005
"""Seconds that a message takes."""

Path = tuple[int, int, str]
"""From, to, network."""


class Observer:
    """A node that observes somebody with a fault, or has one itself: those paths, and what it told the leader."""

    def __init__(self, number: int, settings: Settings, phase: float) -> None:
        self.number = number
        self.peers = Peers(settings)
        self.beat_at = phase
        self.beat = 0
        self.told: tuple[Any, ...] = ()
        self.told_at = 0.0
        self.stopped_at: float | None = None
        self.unsure_until = 0.0
        self.due = 0.0


class Scale:
    """`n` nodes on `networks` networks, in one view; faults are ordered, then `run` lets time pass.

    `loss` maps a way (from, to, network) to the chance that something is lost on it; dead nodes answer nothing.
    """

    def __init__(self, n: int, seed: int = 1, networks: int = 1) -> None:
        self.n = n
        self.random = Random(f"scale {seed}")
        self.settings = Settings()
        self.now = 0.0
        self.counts: Counter[str] = Counter()
        self.adapters = adapters(n, networks)
        self.dead: set[int] = set()
        self.loss_in: dict[int, float] = {}
        self.cuts: set[Path] = set()
        self.dead_networks: set[tuple[int, str]] = set()
        self.views: list[tuple[float, tuple[int, ...]]] = []
        self.told: Counter[int] = Counter()
        self.observers: dict[int, Observer] = {}
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._made = 0
        self._log: list[bytes] = []
        self._armed = 0.0
        self.phases = {node: self.random.random() for node in range(1, n + 1)}
        self.machine = LivenessMachine(LEADER, "n1.1", "n1", self.settings, self.now)
        first = make(None, 1, [Member(node, f"n{node}.1", "online", f"n{node}") for node in range(1, n + 1)])
        self._log.append(msgspec.msgpack.encode(step_to(first, None)))
        self.left: dict[int, float] = {}
        self.members = {m.number: m.boot_id for m in first.members}
        self.settle()
        self.feed(Adapters(tuple(self.adapters.items())))
        self.feed(ViewsAnnounced((step_to(first, None),)), LEADER + 1)
        self.feed(Leading(1, LEADER, "writes", True), LEADER, "registry")
        self.run(0.1)
        assert self.machine.leading and len(self.machine.chain.members) == n

    def settle(self) -> None:
        """Work out the rings of these members once."""
        self.networks = networks_of(self.members, self.adapters)
        nodes = {network: tuple(sorted(places)) for network, places in self.networks.items()}
        self.seen_by = {network: observers(found) for network, found in nodes.items()}
        self.sees = {network: subjects(found) for network, found in nodes.items()}

    # --- faults ---------------------------------------------------------------------------------------------------

    def crash(self, numbers: Iterable[int], *, refused: bool = True) -> None:
        """These die now. `refused`: their machines live and say at once that nobody listens; else power is lost."""
        numbers = sorted(numbers)
        self.dead |= set(numbers)
        self.touch(numbers)
        if refused:
            for number in numbers:
                for observer in self.observers_of(number):
                    self.later(self._until_beat(observer), lambda o=observer, n=number: self._refuse(o, n))  # type: ignore[misc]

    def _until_beat(self, number: int) -> float:
        """A node learns of a refusal when it probes next."""
        return (self.phases[number] - self.now) % self.settings.interval

    def lossy(self, numbers: Iterable[int], chance: float) -> None:
        """What comes in at these is lost with that chance."""
        self.loss_in.update(dict.fromkeys(numbers, chance))
        self.touch(numbers)

    def cut_one_way(self, a: int, b: int) -> None:
        """Nothing from `a` arrives at `b`."""
        self.cuts |= {(a, b, network) for network in self.networks}
        self.touch([a, b])

    def isolate(self, number: int, *, off: bool = False) -> None:
        """Nothing reaches or leaves a node; `off`: all does again."""
        (self.loss_in.pop(number, None) if off else self.loss_in.__setitem__(number, 1.0))
        self.touch([number])

    def kill_network(self, numbers: Iterable[int], network: str) -> None:
        """These nodes' adapters on a network die."""
        numbers = set(numbers)
        self.dead_networks |= {(number, network) for number in numbers}
        self.touch(numbers, [network])

    def stop(self, number: int, seconds: float) -> None:
        """A node does not run for a while."""
        self.dead.add(number)
        self.touch([number])
        self.later(seconds, lambda: self._wake(number))

    def _wake(self, number: int) -> None:
        self.dead.discard(number)
        observer = self.observers.get(number)
        if observer is not None:
            observer.peers.excuse(self.now)
            observer.unsure_until = self.now + self.settings.unsure

    def touch(self, numbers: Iterable[int], networks: Iterable[str] | None = None) -> None:
        """Play the paths from and to these nodes from now on, on these networks or on all."""
        touched = set(numbers)
        played: dict[int, dict[tuple[int, str], str]] = {}
        for network in self.networks if networks is None else networks:
            for number in sorted(touched & self.networks[network].keys()):
                for observer in self.seen_by[network][number]:
                    played.setdefault(observer, {})[number, network] = self.members[number]
                for subject in self.sees[network][number]:
                    played.setdefault(number, {})[subject, network] = self.members[subject]
        for number, paths in played.items():
            if number != LEADER:
                self._play(number, paths)

    def _play(self, number: int, paths: dict[tuple[int, str], str]) -> None:
        observer = self.observers.get(number)
        if observer is None:
            at = self.now + self._until_beat(number)
            observer = self.observers[number] = Observer(number, self.settings, at)
            self.at(observer, at)
        held = {(p.number, p.network): p.boot_id for p in observer.peers}
        observer.peers.follow(((*place, boot_id) for place, boot_id in (held | paths).items()), self.now)

    # --- the run --------------------------------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self.now, _, act = heapq.heappop(self._heap)
            act()
        self.now = end

    def later(self, delay: float, act: Callable[[], None]) -> None:
        self._made += 1
        heapq.heappush(self._heap, (self.now + delay, self._made, act))

    def at(self, observer: Observer, at: float) -> None:
        observer.due = at
        self.later(at - self.now, lambda: self._turn(observer, at))

    def _turn(self, observer: Observer, at: float) -> None:
        if observer.due != at or observer.number not in self.members:
            return
        if observer.number in self.dead:
            self.at(observer, self.now + self.settings.interval)
            return
        probed = observer.peers.tick(self.now)
        if self.now >= observer.beat_at:
            observer.beat_at += self.settings.interval
            probed = [peer for peer in observer.peers if peer.opinion != "probed" or peer in probed]
        if probed:
            observer.beat += 1
            for peer in probed:
                self._probe(observer, peer)
        self._alert(observer)
        deadline = observer.peers.deadline
        self.at(observer, min(observer.beat_at, observer.beat_at if deadline is None else max(deadline, self.now)))

    def _probe(self, observer: Observer, peer: Peer) -> None:
        observer.peers.sent(peer, observer.beat, self.now)
        self.counts["probes"] += 1
        if self.arrives(observer.number, peer.number, peer.network) and self.answers(peer, observer.number):
            observer.peers.answer(peer.number, peer.network, peer.boot_id, observer.beat, self.now - 2 * HOP, self.now)

    def answers(self, peer: Peer, number: int) -> bool:
        """Tell whether a node answers, and the answer arrives."""
        return peer.number not in self.dead and self.arrives(peer.number, number, peer.network)

    def arrives(self, a: int, b: int, network: str) -> bool:
        """Tell whether what `a` sends now arrives at `b`."""
        if a in self.dead or b in self.dead or (a, b, network) in self.cuts:
            return False
        if (a, network) in self.dead_networks or (b, network) in self.dead_networks:
            return False
        return not self.loss_in or (self.loss_in.get(a) != 1.0 and self.random.random() >= self.loss_in.get(b, 0.0))

    def _refuse(self, number: int, dead: int) -> None:
        observer = self.observers.get(number)
        if observer is not None and number not in self.dead:
            observer.peers.link_closed(dead, self.now)
            self._turn(observer, observer.due)
        elif number == LEADER:
            self.machine.peers.link_closed(dead, self.now)
            self._ring(self._armed)

    def _alert(self, observer: Observer) -> None:
        suspects = observer.peers.suspects
        again = suspects and self.now >= observer.told_at + self.settings.alert_every(len(self.members))
        if suspects == observer.told and not again:
            return
        observer.told, observer.told_at = suspects, self.now
        unsure = self.now < observer.unsure_until or self.deaf(observer)
        self.counts["alerts"] += 1
        alert = Alert(
            self.members[observer.number], self.machine.chain.id, tuple(Suspect(*each) for each in suspects), unsure
        )
        if self.loss_in.get(observer.number) != 1.0:
            self.later(HOP, lambda: self.feed(alert, observer.number))

    def deaf(self, observer: Observer) -> bool:
        """As `Peers.deaf`, with the healthy whom its peers leave out."""
        silent = Counter(network for _, network in observer.peers.suspects)
        return all(4 * silent[network] > 3 * len(self.sees[network][observer.number]) for network in self.networks)

    # --- the leader and its log -----------------------------------------------------------------------------------

    def feed(self, message: Any, node: int = 0, service: str = "liveness") -> None:
        """Give the leader's machine a message, or a fact of its own node, or (None) its deadline."""
        if node and node != LEADER and node not in self.members:
            return
        received = Received(Address(service, node), message) if node else message
        for effect in self.machine.step(self.now, received):
            if isinstance(effect, Send):
                self._carry(effect.to, effect.message)
        if self.machine.chain.id > (1, 1) and len(self.machine.chain.members) != len(self.members):
            self._view()
        deadline = self.machine.deadline
        if deadline is not None and (self._armed <= self.now or deadline < self._armed):
            self._armed = deadline = max(deadline, self.now)
            self.later(deadline - self.now, lambda: self._ring(deadline))

    def _ring(self, at: float) -> None:
        if self._armed == at:
            self._armed = 0.0
            self.feed(None)

    def _carry(self, to: Address, message: Any) -> None:
        if isinstance(message, ReadSystem):
            entries = tuple(("", i + 1, 1, body) for i, body in enumerate(self._log))
            self.later(0.01, lambda: self.feed(SystemRead(message.id, entries, 1), LEADER, "registry"))
        elif isinstance(message, AppendSystem):
            self._log.append(message.body)
            told = SystemAppended(message.id, len(self._log), 1)
            self.later(0.05, lambda: self.feed(told, LEADER, "registry"))
        elif isinstance(message, Heartbeat):
            answer = HeartbeatAck(f"n{to.node}.1", message.view, message.beat, network=message.network)
            if self.arrives(LEADER, to.node, message.network) and self.arrives(to.node, LEADER, message.network):
                self.later(2 * HOP, lambda: self.feed(answer, to.node))
        elif isinstance(message, Look):
            observer = self.observers.get(to.node)
            if observer is not None and to.node not in self.dead:
                observer.peers.link_closed(message.number, self.now)
                self.later(HOP, lambda: self._turn(observer, observer.due))
        elif isinstance(message, ViewsAnnounced):
            self.told[to.node] += 1

    def _view(self) -> None:
        """The leader committed a view: the others hear of it down the tree, and observe whom it says."""
        members = {m.number: m.boot_id for m in self.machine.chain.members}
        gone = tuple(sorted(self.members.keys() - members.keys()))
        self.views.append((self.now, gone))
        self.left.update(dict.fromkeys(gone, self.now))
        self.members = members
        self.settle()
        self.machine.check_invariants()
        self._check_tree()
        followed = {(a, p.number, p.network) for a, o in self.observers.items() for p in o.peers}
        for observer in self.observers.values():
            if observer.number in members:
                kept = [
                    (p.number, p.network, p.boot_id)
                    for p in observer.peers
                    if p.number in members and observer.number in self._seen_by(p)
                ]
                observer.peers.follow(kept, self.now)
                observer.told = ()
        self.touch({*self.dead, *self.loss_in} & members.keys())
        for network in sorted({network for _, network in self.dead_networks}):
            self.touch((n for n, dead in self.dead_networks if dead == network and n in members), [network])
        self.counts["paths"] = max(self.counts["paths"], len(followed))

    def _seen_by(self, peer: Peer) -> tuple[int, ...]:
        return self.seen_by[peer.network][peer.number]

    def _check_tree(self) -> None:
        """Every member hears of a view from the leader or from one that does; nobody tells more than the fan-out."""
        numbers = sorted(self.members)
        reached, level = {LEADER}, [LEADER]
        if len(numbers) <= 128:
            return
        while level:
            following: list[int] = []
            for number in level:
                told = hearers(numbers, LEADER, number)
                assert len(told) <= 128
                following += told
            reached |= set(following)
            level = following
            self.counts["levels"] += bool(level)
        assert reached == set(numbers), "the tree misses a member"

    def observers_of(self, number: int) -> list[int]:
        """Who observes a node, on any network."""
        return sorted({each for nodes in self.seen_by.values() for each in nodes.get(number, ())})


# --- scenarios ----------------------------------------------------------------------------------------------------


def crash(count: Callable[[int], int], refused: bool) -> Callable[[int], dict[str, Any]]:
    """So many of `n` nodes die at once: one view, with exactly these."""

    def play(n: int) -> dict[str, Any]:
        world = Scale(n)
        world.run(2)
        dead = sorted(world.random.sample(range(2, n + 1), max(1, count(n))))
        world.crash(dead, refused=refused)
        began = world.now
        world.run(30)
        assert [gone for _, gone in world.views] == [tuple(dead)], f"views: {[len(gone) for _, gone in world.views]}"
        return {"removed": len(dead), "after": round(world.views[0][0] - began, 2), **world.counts}

    return play


def lossy(n: int) -> dict[str, Any]:
    """One in a hundred loses 80 % of what comes in, and one in a hundred dies after half a minute: who else leaves?"""
    world = Scale(n)
    bad = set(world.random.sample(range(2, n + 1), max(1, n // 100)))
    world.lossy(bad, 0.8)
    world.run(30)
    dead = set(world.random.sample([m for m in range(2, n + 1) if m not in bad], max(1, n // 100)))
    world.crash(dead, refused=False)
    began = world.now
    world.run(60)
    left = set(world.left)
    assert dead <= left, "a dead node is still in the view"
    assert left <= dead | bad, f"innocent: {sorted(left - dead - bad)}"
    last = max(world.left[n] for n in dead)
    lost = len(left & bad)
    return {
        "removed": len(dead),
        "after": round(last - began, 2),
        "lossy removed": f"{lost} of {len(bad)}",
        **world.counts,
    }


def one_way(n: int) -> dict[str, Any]:
    """One in a hundred ways between neighbours is cut: nobody leaves."""
    world = Scale(n)
    (sees,) = world.sees.values()
    for a in world.random.sample(range(2, n + 1), max(1, n // 100)):
        world.cut_one_way(a, sees[a][0])
    world.run(60)
    assert world.views == []
    return {"removed": 0, **world.counts}


def flip_flop(n: int) -> dict[str, Any]:
    """One node is cut off for 20 s and back for 20 s, again and again: it leaves once, and nobody else."""
    world = Scale(n)
    for _ in range(3):
        world.isolate(n)
        world.run(20)
        world.isolate(n, off=True)
        world.run(20)
    assert [gone for _, gone in world.views] == [(n,)]
    return {"removed": 1, "after": round(world.views[0][0], 2), **world.counts}


def slow_observer(n: int) -> dict[str, Any]:
    """One in a hundred is stopped for three seconds, each at its time, while ten die: exactly these leave."""
    world = Scale(n)
    slow = world.random.sample(range(2, n + 1), max(1, n // 100))
    dead = world.random.sample([m for m in range(2, n + 1) if m not in slow], min(10, n // 3))
    for number in slow:
        world.later(10 * world.random.random(), lambda m=number: world.stop(m, 3.0))  # type: ignore[misc]
    world.run(5)
    world.crash(dead, refused=False)
    world.run(30)
    assert sorted(world.left) == sorted(dead), f"left: {sorted(world.left)}, dead: {sorted(dead)}"
    return {"removed": len(dead), "views": len(world.views), **world.counts}


def one_network_dead(n: int) -> dict[str, Any]:
    """Of two networks one dies, everywhere: nobody leaves. Then one in a hundred loses the other adapter as well."""
    world = Scale(n, networks=2)
    world.kill_network(range(1, n + 1), "10.1.0.0/16")
    world.run(6)
    assert world.views == []
    dead = set(world.random.sample(range(2, n + 1), max(1, n // 100)))
    world.crash(dead, refused=False)
    began = world.now
    world.run(8)
    assert set(world.left) == dead
    return {"removed": len(dead), "after": round(max(world.left.values()) - began, 2), **world.counts}


SCENARIOS: dict[str, Callable[[int], dict[str, Any]]] = {
    "one killed": crash(lambda n: 1, True),
    "ten killed": crash(lambda n: min(10, n // 3), True),
    "1 % killed": crash(lambda n: n // 100, True),
    "10 % killed": crash(lambda n: n // 10, True),
    "10 % without power": crash(lambda n: n // 10, False),
    "1 % with 80 % loss": lossy,
    "one-way cuts": one_way,
    "flip-flop": flip_flop,
    "slow observers": slow_observer,
    "one of two networks dead": one_network_dead,
}


def main() -> int:
    n = int(sys.argv[1])
    for name in sys.argv[2:] or SCENARIOS:
        began = time.process_time()
        told = SCENARIOS[name](n)
        facts = ", ".join(f"{key} {value}" for key, value in told.items())
        print(f"{n} nodes, {name}: {facts}; {time.process_time() - began:.1f} s of work", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
