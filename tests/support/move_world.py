"""A node with its move machine and its life machine, and two clusters that it is defined to, in virtual time.

Each message between the node and a cluster may be lost, late or come twice, each piece of work may be the daemon's
last, and the node may be cut off from either cluster. Holds at each step: the components of the node speak for one
cluster at most; they begin to only for the one that the target pointer on the disk names; current follows last.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

from covey.components.dcm import life, move
from covey.components.dcm.definitions import Clusters
from covey.components.dcm.identity import Copy
from covey.components.dcm.machine import NodeMachine
from covey.errors import CoveyError, Refused

A, B = "a" * 32, "b" * 32
NAMES = {A: "A", B: "B"}
OFFERED = {
    "registry.reads": "registry",
    "registry.writes": "registry",
    "liveness": "liveness",
    "groups": "groups",
    "resources": "resources",
}
ORDER = ("registry", "liveness", "groups", "resources")
PLAN = life.Plan(ORDER, OFFERED)
SILENCE = 4.0
"""Seconds after which a cluster takes a member for dead that does not speak for it."""


class FakeCluster:
    """What a cluster knows of the node: whether it lists it, under which boot it is a member, who departed."""

    def __init__(self) -> None:
        self.up = True
        self.listed = True
        self.member = ""
        self.online = False
        self.departed: set[str] = set()
        self.heard = 0.0

    def out(self) -> None:
        self.departed.add(self.member)
        self.member, self.online = "", False


class World:
    """The node is online in A when the world begins to be tested; `moved` holds how each request ended."""

    def __init__(self, seed: int = 0, machine: type[move.MoveMachine] = move.MoveMachine) -> None:
        self.machine = machine
        self.random = random.Random(seed)
        self.loss = self.double = self.late = 0.0
        self.now = 0.0
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.clusters = {A: FakeCluster(), B: FakeCluster()}
        self.cut: set[str] = set()
        self.disk = Clusters(current=A, target=A)
        self.full = False
        self.count = 0
        self.crash_at: set[int] = set()
        self.messages = 0
        self.lose: set[int] = set()
        self.twice: set[int] = set()
        self.steps: list[str] = []
        self.on_step: dict[str, Callable[[], None]] = {}
        self.moved: list[CoveyError | None] = []
        self.boots = itertools.count(1)
        self.stay = 0  # which run of the daemon: what an earlier one was about to hear is heard by nobody
        self.start()
        self.beat()
        self.run(10.0)
        assert self.clusters[A].online
        self.count = self.messages = 0

    # --- time and faults ------------------------------------------------------------------------------------------

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self.agenda, (self.now + seconds, next(self.order), do))

    def mine(self, seconds: float, do: Callable[[], None]) -> None:
        """Do something later, unless the daemon has ended meanwhile."""
        stay = self.stay
        self.after(seconds, lambda: do() if self.stay == stay else None)

    def send(self, cluster: str, do: Callable[[], None]) -> None:
        """Carry a message to a cluster or back from it."""
        self.messages += 1
        if self.messages in self.lose or cluster in self.cut or self.random.random() < self.loss:
            return
        for _ in range(1 + (self.messages in self.twice or self.random.random() < self.double)):
            self.after(0.01 + self.random.random() * self.late, do)

    def work(self) -> bool:
        """Count one piece of work; say whether the daemon lives to do it."""
        self.count += 1
        if self.count in self.crash_at:
            self.crash()
            return False
        return True

    def run(self, seconds: float) -> World:
        until = self.now + seconds
        while self.agenda and self.agenda[0][0] <= until:
            self.now, _, do = heapq.heappop(self.agenda)
            do()
            self.check()
        self.now = until
        return self

    # --- the daemon -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.stay += 1
        self.lives: dict[str, tuple[str, str]] = {}  # by component: the cluster and the boot it lives in
        self.node, self.mover = NodeMachine(PLAN), self.machine()
        self.here: str | None = self.disk.target
        self.boot = ""
        if self.disk.target is not None and self.disk.target != self.disk.current:
            self.to_mover(move.Found(self.disk.current, self.disk.target, self.disk.offline))
        self.feed(life.Started(self.here is not None, False, self.disk.offline, self.new_boot()))

    def crash(self) -> None:
        self.stay += 1
        self.lives = {}
        self.after(1.0, self.start)

    def new_boot(self) -> str:
        return f"boot-{next(self.boots)}"

    def ask(self, target: str) -> None:
        self.to_mover(move.Asked(self.disk.current, target, offline=self.disk.offline))

    def feed(self, input: Any) -> None:
        stay = self.stay
        effects = self.node.step(self.now, input)
        self.node.check_invariants()
        for effect in effects:
            if self.stay == stay and self.work():
                self.does(effect)
        self.arm(self.node, self.feed)

    def to_mover(self, input: Any) -> None:
        stay = self.stay
        for effect in self.mover.step(self.now, input):
            if self.stay == stay and self.work():
                self.mover_does(effect)
        self.arm(self.mover, self.to_mover)

    def arm(self, machine: Any, feed: Callable[[Any], None]) -> None:
        deadline = machine.deadline
        if deadline is not None:
            wait = max(0.0, deadline - self.now)
            self.mine(wait, lambda: feed(None) if machine.deadline == deadline else None)

    # --- what the move machine orders -----------------------------------------------------------------------------

    def mover_does(self, effect: Any) -> None:
        if isinstance(effect, move.Check):
            self.mine(3.0, lambda: self.checked(Refused("no registry server answers")))
            target = self.clusters[effect.target]
            answer = None if target.listed else Refused("it does not list this node")
            if target.up:
                self.send(effect.target, lambda: self.send(effect.target, lambda: self.checked(answer)))
        elif isinstance(effect, move.Point):
            self.mine(0.005, lambda: self.point(effect))
        elif isinstance(effect, move.Go):
            there = self.mover.target if self.mover.state == "moving" else self.mover.current
            assert self.disk.target == there, "the node is sent where no pointer points"
            self.feed(life.Switch(self.new_boot(), False, effect.reason))
        elif isinstance(effect, move.Rest):
            self.feed(life.OfflineAsked(effect.reason, operator=False))
            if self.node.state in move.AT_REST:
                self.mine(0.0, lambda: self.to_mover(move.NodeIs(self.node.state, self.disk.target or "")))
        elif isinstance(effect, move.At):
            self.steps.append(effect.step)
            if effect.step in self.on_step:
                self.on_step.pop(effect.step)()
        else:
            self.moved.append(effect.problem)

    def checked(self, problem: CoveyError | None) -> None:
        if self.mover.state == "checking":
            self.to_mover(move.Checked(problem))

    def point(self, effect: move.Point) -> None:
        if self.full:
            self.to_mover(move.Pointed("no room"))
            return
        if effect.current != self.disk.current:
            assert (self.node.state, self.here) == ("online", effect.current), "current goes ahead"
        self.disk = self.disk.pointing(effect.current, effect.target, offline=self.disk.offline and not effect.online)
        if self.work():
            self.to_mover(move.Pointed())

    # --- what the life machine orders -----------------------------------------------------------------------------

    def does(self, effect: Any) -> None:
        if isinstance(effect, life.StateChanged):
            if effect.state in move.AT_REST:
                self.here = self.disk.target
            self.tell(effect.state)
        elif isinstance(effect, life.Begin):
            assert not self.lives
            self.boot, self.here = effect.boot_id, self.disk.target
            self.tell(self.node.state)
        elif isinstance(effect, life.StartComponent):
            assert self.here is not None
            self.lives[effect.name] = (self.here, self.boot)
            self.mine(0.003, lambda: self.feed(life.ComponentStarted(effect.name)))
            self.mine(0.01, lambda: self.component(effect.name, self.boot))
        elif isinstance(effect, life.StopComponent):
            self.lives.pop(effect.name)
            self.mine(0.003, lambda: self.feed(life.ComponentStopped(effect.name)))
        elif isinstance(effect, life.ReadGlobal):
            self.question("read")
        elif isinstance(effect, life.Leave):
            self.question("leave")
        elif isinstance(effect, life.Announce):
            self.question("announce")
        elif isinstance(effect, life.Discover):
            self.mine(0.02, lambda: self.feed(life.DiscoveryDone()))
        elif isinstance(effect, life.KeepOffline):
            self.disk = self.disk.pointing(self.disk.current, self.disk.target, offline=effect.offline)
        elif isinstance(effect, life.EraseLocal):
            current = None if self.disk.current == self.here else self.disk.current
            self.disk = self.disk.pointing(current, current, offline=False)
            self.here = current
            self.mine(0.01, lambda: self.feed(life.Erased()))

    def tell(self, state: life.State) -> None:
        self.to_mover(move.NodeIs(state, self.here or "", self.node.reason))

    def component(self, name: str, boot: str) -> None:
        """A component gets ready, as soon as what it needs is there."""
        if self.boot != boot or name not in self.lives or self.lives[name][1] != boot:
            return
        ready, node = self.node.ready, self.node
        if name == "registry" and "registry.reads" not in ready:
            self.question("reads")
        elif name == "registry" and "groups" in ready and "registry.writes" not in ready:
            self.feed(life.FunctionReady("registry.writes"))
        elif name == "liveness" and "dcm.local" in ready and name not in ready:
            self.question("join")
        elif name == "groups" and "liveness" in ready and name not in ready:
            self.feed(life.FunctionReady(name))
        elif name == "resources" and {"groups", "registry.writes"} <= ready and name not in ready:
            self.feed(life.FunctionReady(name))
            self.feed(life.ControllersReady())
        if node is self.node and not ready.issuperset(PLAN.functions_of(name)):
            self.mine(0.1, lambda: self.component(name, boot))

    # --- the clusters ---------------------------------------------------------------------------------------------

    def question(self, what: str) -> None:
        """Ask the cluster where the node is, over the network."""
        assert self.here is not None
        stay, boot, cluster = self.stay, self.boot, self.here
        waiting = [what]

        def answered(said: Any) -> None:
            if self.stay == stay and waiting:
                waiting.clear()
                self.answer(what, boot, said)

        if what in ("read", "leave", "announce"):  # whoever asks for these gives up in time
            self.mine(2.0, lambda: answered(None))

        def asked() -> None:
            there = self.clusters[cluster]
            if not there.up:
                return
            said = self.at_cluster(there, what, boot)
            self.send(cluster, lambda: answered(said))

        self.send(cluster, asked)

    def at_cluster(self, there: FakeCluster, what: str, boot: str) -> Any:
        there.heard = self.now
        if what == "read":
            return there.listed
        if what == "join" and there.listed and boot not in there.departed:
            if there.member not in ("", boot):
                there.out()  # its number comes under another boot, and the old one is silent
            there.member = boot
        if what == "announce" and there.member == boot:
            there.online = True
        if what == "leave":
            if there.member == boot:
                there.out()
            there.departed.add(boot)
        return there.member == boot

    def answer(self, what: str, boot: str, said: Any) -> None:
        if self.boot != boot or self.here is None:
            return
        if what == "reads":
            self.feed(life.FunctionReady("registry.reads"))
        elif what == "join" and said:
            self.feed(life.FunctionReady("liveness"))
        elif what == "join":
            self.feed(life.Removed(self.new_boot(), False))
        elif what == "leave":
            self.feed(life.Left())
        elif what == "announce":
            self.feed(life.Announced(bool(said)))
        elif what == "read":
            local = Copy(self.here, 1, "d" * 32, "me")
            found = local if said else None
            self.feed(life.GlobalRead("me", local, found, known=said is not None, why="nobody answers"))

    def beat(self) -> None:
        """Once a second the clusters look who speaks for them."""
        for name, there in self.clusters.items():
            speaks = (name, there.member) in self.lives.values() and name not in self.cut
            there.heard = self.now if speaks else there.heard
            if there.member and self.now - there.heard > SILENCE:
                lost = there.member
                there.out()
                if self.boot == lost and self.node.state in ("starting", "configuring", "online"):
                    self.mine(SILENCE, lambda lost=lost: self.removed(lost))
        self.after(1.0, self.beat)

    def removed(self, boot: str) -> None:
        if self.boot == boot:
            self.feed(life.Removed(self.new_boot(), False))

    # --- what must hold -------------------------------------------------------------------------------------------

    def check(self) -> None:
        spoken = {cluster for cluster, _ in self.lives.values()}
        assert len(spoken) <= 1, f"the node speaks for {spoken}"

    def ended(self) -> str | None:
        """Let the faults do their work, then be over, and everything settle; return in which cluster the node is."""
        self.run(60.0)
        self.cut, self.loss, self.double, self.full = set(), 0.0, 0.0, False
        self.crash_at, self.lose, self.twice = set(), set(), set()
        self.run(100.0)
        now = self.disk
        assert self.mover.state == "idle", self.mover.state
        assert now.current == now.target, "between two clusters"
        if now.current is None or now.offline:
            assert not self.lives
            return NAMES.get(now.current or "")
        assert self.node.state == "online", (self.node.state, self.node.reason)
        assert {cluster for cluster, _ in self.lives.values()} == {now.current}
        for name, there in self.clusters.items():
            assert there.member == (self.boot if name == now.current else ""), f"{NAMES[name]} lists {there.member}"
        return NAMES[now.current]
