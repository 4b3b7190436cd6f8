"""Faults by chance for a simulated registry: networks, machines, disks, and the operator who changes the servers.

A profile is a table of weights; a seed chooses one, how often something strikes and how long it lasts. Nothing is
struck that nobody could recover from: damage leaves a majority of sound copies in every list of servers that may come
to be in force, and while a copy is damaged the list is left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from covey.bus.simulation import Link
from covey.components.registry.messages import Get, Operation, Transact
from registry_clients import KEYS, Call
from registry_cluster import AGENTS, RegistryCluster

Profile = dict[str, int]
NETWORK: Profile = {"cut": 3, "one-way": 3, "partition": 4, "isolate": 4, "bridge": 3, "ring": 2, "loss": 3, "delay": 3}
MACHINES: Profile = {"crash": 4, "power": 2, "restart": 4, "pause": 4, "pause the primary": 4, "eio": 2, "leave": 1}
DISKS: Profile = {"damage": 6, "slow disk": 3, "full disk": 3, "power failure": 2, "eio": 2, "crash": 2}
PROFILES: dict[str, Profile] = {
    "network": NETWORK,
    "machines": MACHINES,
    "disks": DISKS,
    "mixed": {**NETWORK, **MACHINES, **DISKS},
    "partial cuts": {"bridge": 4, "ring": 3, "isolate": 2, "one-way": 3, "pause the primary": 1},
    "power": {"power failure": 5, "power": 3, "restart": 2, "slow disk": 2},
    "damage": {"damage": 8, "crash": 2, "isolate": 2, "pause the primary": 1, "loss": 1},
    "hand-over": {"hand over": 6, "leave": 2, "pause the primary": 2, "isolate": 2, "delay": 2, "crash": 1},
}


class RegistryNemesis:
    """Strike every `gap` seconds on average until `until` seconds from now; the cluster is healed by its owner."""

    def __init__(self, cluster: RegistryCluster, profile: Profile, until: float, gap: float, most: float) -> None:
        self.cluster, self.world, self.random = cluster, cluster.world, cluster.world.random
        self.kinds = sorted(profile)
        self.weights = [profile[kind] for kind in self.kinds]
        self.end = self.world.now + until
        self.gap, self.most = gap, most
        self.struck: Counter[str] = Counter()
        self.changing: Call | None = None
        self._schedule()

    def _schedule(self) -> None:
        self.world.after(self.random.expovariate(1 / self.gap), self._strike)

    def _strike(self) -> None:
        if self.world.now >= self.end:
            return
        kind = self.random.choices(self.kinds, self.weights)[0]
        length = min(self.end - self.world.now, self.random.uniform(0.1, self.most))
        if self._acts[kind](self, length):
            self.struck[kind] += 1
        self._schedule()

    def _up(self) -> list[int]:
        nodes = self.world.nodes
        return [number for number in self.cluster.all if self.cluster.running(number) and not nodes[number].paused]

    def _voter(self) -> int:
        """Choose a server, seldom one that is not in force."""
        up = self._up()
        listed = [number for number in up if number in self.cluster.listed]
        pool = listed if listed and self.random.random() < 0.85 else up
        return self.random.choice(pool) if pool else 0

    # --- machines ---

    def _crash(self, length: float) -> bool:
        if number := self._voter():
            self.cluster.crash(number, down=length)
        return bool(number)

    def _power(self, length: float) -> bool:
        if number := self._voter():
            self.cluster.crash(number, power=True, down=length)
        return bool(number)

    def _restart(self, length: float) -> bool:
        if number := self._voter():
            self.cluster.crash(number, down=self.random.uniform(0.05, 0.5))
        return bool(number)

    def _power_failure(self, length: float) -> bool:
        self.cluster.power_failure(self.random.uniform(0.1, 2.0))
        return True

    def _pause(self, length: float) -> bool:
        if number := self._voter():
            self._pause_one(number, length)
        return bool(number)

    def _pause_primary(self, length: float) -> bool:
        primary = self.cluster.primary
        if primary and not self.world.nodes[primary].paused:
            length = self.random.uniform(1.5, 6.0)
            self._pause_one(primary, length)
            self._tempt(primary, length, 1.0)
            return True
        return False

    def _pause_one(self, number: int, length: float) -> None:
        self.world.pause(number)
        self.world.after(length, lambda: self.world.resume(number))

    def _tempt(self, primary: int, delay: float, seconds: float) -> None:
        """Read at a primary that may be deposed by then what is written elsewhere meanwhile."""
        clients, rest = self.cluster.clients, [n for n in (*self.cluster.listed, AGENTS[0]) if n != primary]
        for at in range(int(seconds * 10)):
            id, other = clients.id(), self.random.choice(rest)
            put = Transact(id, (), (Operation("put", KEYS[0], id),))
            self.world.after(delay + at * 0.1, lambda p=put, o=other: clients.call(o, p))  # type: ignore[misc]
            self.world.after(delay + at * 0.1 + 0.05, lambda: clients.call(primary, Get(KEYS[0])))

    def _eio(self, length: float) -> bool:
        if number := self._voter():
            self.cluster.disk_error(number, self.random.uniform(0.05, 1.0))
        return bool(number)

    # --- disks ---

    def _damage(self, length: float) -> bool:
        if self.changing is not None and not self.changing.over:
            return False
        fit = [number for number in self.cluster.all if self.cluster.may_damage(number)]
        if fit:
            self.cluster.damage(self.random.choice(fit), length)
        return bool(fit)

    def _slow_disk(self, length: float) -> bool:
        if number := self._voter():
            low = self.random.choice([0.01, 0.05, 0.3])
            self.cluster.slow_disk(number, low, low * self.random.choice([2, 5]), length)
        return bool(number)

    def _full_disk(self, length: float) -> bool:
        if number := self._voter():
            self.cluster.fill_disk(number, length)
        return bool(number)

    # --- the network ---

    def _cut_for(self, ways: list[tuple[int, int]], length: float) -> bool:
        world = self.world
        for a, b in ways:
            world.cut(a, b, one_way=True)
        world.after(length, lambda: world.mend(ways))
        return bool(ways)

    def _cut(self, length: float) -> bool:
        a, b = self.random.sample([*self.cluster.all, *AGENTS], 2)
        return self._cut_for([(a, b), (b, a)], length)

    def _one_way(self, length: float) -> bool:
        voters = self.cluster.listed
        if len(voters) < 2:
            return False
        a, b = self.random.sample(voters, 2)
        return self._cut_for([(a, b)], length)

    def _partition(self, length: float) -> bool:
        nodes = [*self.cluster.all, *AGENTS]
        away = set(self.random.sample(nodes, self.random.randint(1, len(nodes) - 1)))
        return self._apart(away, set(nodes) - away, length)

    def _isolate(self, length: float) -> bool:
        """Cut the primary off from the other servers, perhaps not from its clients; or they from it, one way."""
        primary = self.cluster.primary
        others = set(self.cluster.all) - {primary}
        if self.random.random() < 0.5:
            others |= set(AGENTS)
        if not primary or not others:
            return False
        self._tempt(primary, 0.9, 2.0)
        if self.random.random() < 0.3:
            return self._cut_for([(b, primary) for b in sorted(others)], length)
        return self._apart({primary}, others, length)

    def _apart(self, left: set[int], right: set[int], length: float) -> bool:
        ways = [(a, b) for a in sorted(left) for b in sorted(right)]
        return self._cut_for([*ways, *((b, a) for a, b in ways)], length)

    def _bridge(self, length: float) -> bool:
        """Two sides that only one server sees both of: with three servers, A and B do not see each other and C does."""
        voters = list(self.cluster.listed)
        if len(voters) < 3:
            return False
        self.random.shuffle(voters)
        half = len(voters) // 2
        return self._apart(set(voters[:half]), set(voters[half : 2 * half]), self.random.uniform(1.0, 2 * self.most))

    def _ring(self, length: float) -> bool:
        """Each server sees only its two neighbours: everybody has a majority, and no two have the same."""
        voters = list(self.cluster.listed)
        if len(voters) < 4:
            return False
        self.random.shuffle(voters)
        size = len(voters)
        far = [
            (a, b) for i, a in enumerate(voters) for j, b in enumerate(voters) if (i - j) % size not in (0, 1, size - 1)
        ]
        return self._cut_for(far, length)

    def _loss(self, length: float) -> bool:
        return self._link(Link(loss=self.random.uniform(0.1, 0.9), duplicate=0.1, reorder=0.2), length)

    def _delay(self, length: float) -> bool:
        low = self.random.choice([0.02, 0.1, 0.4])
        return self._link(Link(low=low, high=3 * low, reorder=0.3, late=2.0, duplicate=0.05), length)

    def _link(self, link: Link, length: float) -> bool:
        world = self.world
        a = self._voter() or 1
        for b in self.random.sample([*self.cluster.all, *AGENTS], self.random.randint(1, 3)):
            for way in ((a, b), (b, a)):
                world.set_link(*way, link)
                world.after(length, lambda w=way: world.set_link(*w, None))  # type: ignore[misc]
        return True

    # --- the operator ---

    def _hand_over(self, length: float) -> bool:
        to = self.random.choice([0, *self.cluster.listed])
        self.cluster.hand_over(to)
        return True

    def _leave(self, length: float) -> bool:
        """Stop the primary in order: it hands over, and ends half a second later."""
        primary = self.cluster.primary
        if not primary:
            return False
        self.cluster.leave(primary)
        self.world.after(0.5, lambda: self.cluster.crash(primary, down=length))
        return True

    def walk(self, sizes: list[int], pause: float) -> None:
        """Bring the number of servers to one size after another, each change when the one before is done."""

        def go() -> None:
            if self.world.now >= self.end:
                return
            if not sizes:
                return
            voters = self.cluster.truth.servers.voters
            if len(voters) == sizes[0]:
                sizes.pop(0)
            elif self._calm():
                self._change(sizes[0] > len(voters), list(voters))
            self.world.after(self.random.uniform(0.3, pause), go)

        self.world.after(self.random.uniform(0.5, pause), go)

    def _calm(self) -> bool:
        """No copy is damaged, and no change is under way."""
        servers = self.cluster.truth.servers
        return (
            not self.cluster.spoiled() & set(servers.voters)
            and not servers.learners
            and (self.changing is None or self.changing.over)
        )

    def _change(self, more: bool, voters: list[int]) -> None:
        named = {*voters, *self.cluster.truth.servers.learners}
        pool = sorted(set(self.cluster.all) - named) if more else voters
        if pool:
            self.struck["define" if more else "undefine"] += 1
            self.changing = self.cluster.change("define" if more else "undefine", self.random.choice(pool))

    _acts: dict[str, Callable[[RegistryNemesis, float], bool]] = {
        "crash": _crash,
        "power": _power,
        "restart": _restart,
        "power failure": _power_failure,
        "pause": _pause,
        "pause the primary": _pause_primary,
        "eio": _eio,
        "damage": _damage,
        "slow disk": _slow_disk,
        "full disk": _full_disk,
        "cut": _cut,
        "one-way": _one_way,
        "partition": _partition,
        "isolate": _isolate,
        "bridge": _bridge,
        "ring": _ring,
        "loss": _loss,
        "delay": _delay,
        "hand over": _hand_over,
        "leave": _leave,
    }
