"""Faults by chance, for the simulation kit: what to break, for how long, and that all is mended in the end.

Knows the world of `simulation.py` and nothing of what runs in it. All chance is the world's own, so a seed
holds the faults too, and a failure lists those that happened.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from .simulation import Link, World

Kind = Literal["crash", "power", "restart", "pause", "cut", "one-way", "partition", "loss"]
ALL: tuple[Kind, ...] = ("crash", "power", "restart", "pause", "cut", "one-way", "partition", "loss")
_HURTS_NODES = ("crash", "power", "restart", "pause", "partition")


class Nemesis:
    """Break things until `until` seconds from now, then heal everything and start every node that is down.

    A fault comes on average every `gap` seconds and lasts up to `most`. Nodes in `spare` do not crash or
    pause and are never on the smaller side of a partition; links between any two nodes may suffer.
    """

    def __init__(
        self,
        world: World,
        until: float,
        kinds: Iterable[Kind] = ALL,
        *,
        spare: Iterable[int] = (),
        gap: float = 8.0,
        most: float = 10.0,
    ) -> None:
        self.world = world
        self.end = world.now + until
        self.kinds = sorted(kinds)
        self.spare = set(spare)
        self.gap = gap
        self.most = most
        self._schedule()
        world.after(until, self._mend_all)

    def _schedule(self) -> None:
        self.world.after(self.world.random.expovariate(1 / self.gap), self._strike)

    def _strike(self) -> None:
        world, random = self.world, self.world.random
        if world.now >= self.end:
            return
        kind = random.choice(self.kinds)
        length = min(self.end - world.now, random.uniform(0.3, self.most))
        running = [n for n in sorted(world.nodes) if world.nodes[n].running and not world.nodes[n].paused]
        prey = [n for n in running if n not in self.spare]
        if kind in _HURTS_NODES:
            if prey:
                self._hurt_node(kind, prey, length)
        elif len(running) > 1:
            a, b = random.sample(running, 2)
            self._hurt_link(kind, a, b, length)
        self._schedule()

    def _hurt_node(self, kind: Kind, prey: list[int], length: float) -> None:
        world, random = self.world, self.world.random
        victim = random.choice(prey)
        if kind == "pause":
            world.pause(victim)
            world.after(length, lambda: world.resume(victim))
        elif kind == "partition":
            away = set(random.sample(prey, random.randint(1, len(prey))))
            rest = set(world.nodes) - away
            world.partition(away, rest)
            world.after(length, lambda: world.mend([(a, b) for a in world.nodes for b in world.nodes]))
        else:
            world.crash(victim, power=kind == "power")
            delay = random.uniform(0.1, 1.0) if kind == "restart" else length
            world.after(delay, lambda: self._start(victim))

    def _hurt_link(self, kind: Kind, a: int, b: int, length: float) -> None:
        world, random = self.world, self.world.random
        if kind == "loss":
            world.set_link(a, b, Link(loss=random.uniform(0.1, 0.9), duplicate=0.1, reorder=0.1))
            world.after(length, lambda: world.set_link(a, b, None))
        else:
            world.cut(a, b, one_way=kind == "one-way")
            world.after(length, lambda: world.mend([(a, b), (b, a)]))

    def _start(self, number: int) -> None:
        if not self.world.nodes[number].running:
            self.world.start(number)

    def _mend_all(self) -> None:
        self.world.heal()
        for number in sorted(self.world.nodes):
            self._start(number)
