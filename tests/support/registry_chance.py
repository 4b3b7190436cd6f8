"""Servers moved by hand, by chance: any message at any time and twice, any timer, any sync, crashes, damage, changes.

Less like a network than a storm (registry_storm.py) and a hundred times as fast: a schedule is a few hundred steps of
bare machines, so that what needs three rare things in a row comes up. The guard watches; in the end there is peace.

python tests/support/registry_chance.py FIRST LAST    plays these seeds and prints those that fail
"""

from __future__ import annotations

import sys
from random import Random

from covey.components.registry import messages
from msgspec.structs import replace
from registry_script import SETTINGS, Flight, Script


class Chance:
    """One schedule. Damage is struck only where a majority of sound copies is left in every list of servers."""

    def __init__(self, seed: int) -> None:
        random = self.random = Random(f"chance {seed}")
        settings = replace(
            SETTINGS,
            snapshot_bytes=random.choice([500, 1 << 30]),
            requests_kept=random.choice([4, 1000]),
            append_bytes=random.choice([1, 400]),
            part_bytes=random.choice([200, 100_000]),
            learner_lag=random.choice([0, 4]),
        )
        self.script = Script(random.choice([2, 3, 3, 3, 4, 5]), random.choice([0, 0, 1, 2]), settings=settings)
        self.script.dice.fair = random.random() < 0.5
        self.restless = random.choice([0.03, 0.1, 0.4])  # how readily time-outs of followers ring
        self.late: list[Flight] = []
        self.since: dict[str, int] = {}
        if random.random() < 0.8:
            self.script.open(1)

    def play(self, steps: int = 500) -> Script:
        """Play it to the end; return what was played."""
        for step in range(steps):
            self._step(step)
        self.script.peace(60.0)
        return self.script

    def _step(self, step: int) -> None:
        s, random = self.script, self.random
        chance = random.random()
        up, down = sorted(s.machines), [number for number in s.all if number not in s.machines]
        if chance < 0.67:
            self._message(chance)
        elif chance < 0.83 and up:
            self._time(random.choice(up), chance < 0.8)
        elif chance < 0.86 and up:
            s.slow.add(random.choice(up))
        elif chance < 0.9 and s.slow:
            number = random.choice(sorted(s.slow))
            if number in s.machines:
                s.sync(number, random.choice([1, 2, 99]))
            if random.random() < 0.5:
                s.slow.discard(number)
                if number in s.machines:
                    s.sync(number)
        elif chance < 0.905 and up:
            number = random.choice(up)
            s.crash(number, random.randint(0, 6))
            s.slow.discard(number)
        elif chance < 0.935 and down:
            s.start(random.choice(down))
        elif chance < 0.936 and up:
            self._damage(random.choice(up))
        elif chance < 0.985 and (leading := [number for number in up if s.leads(number)]):
            self._ask(random.choice(leading), step)

    def _message(self, chance: float) -> None:
        s, random = self.script, self.random
        if chance < 0.62 and s.flight:
            one = s.flight[random.randrange(min(len(s.flight), random.choice([1, 3, 100])))]
            if random.random() < 0.1:
                self.late.append(one)
            else:
                s.flight.remove(one)
            s.hand(one)
        elif chance < 0.66 and s.flight:
            s.flight.pop(random.randrange(len(s.flight)))
        elif chance >= 0.66 and self.late:
            s.hand(random.choice(self.late))

    def _time(self, number: int, timer: bool) -> None:
        s, random = self.script, self.random
        deadline = s.machines[number].deadline
        if not timer:
            s.wait(number, random.choice([0.1, 0.1, 0.1, 1.0, 2.5]) if self.restless > 0.05 else 0.05)
        elif deadline is not None and (s.leads(number) or random.random() < self.restless):
            s.clock[number] = max(s.clock[number], deadline)
            s.step(number)

    def _damage(self, number: int) -> None:
        s = self.script
        bad = {other for other in s.all if s.disks[other].damage} | {number}
        lists = [set(copy.in_force.voters) for copy in s.guard.ordered.values() if copy.servers]
        if all(len(one & bad) < len(one) - len(one) // 2 for one in [set(s.truth.servers.voters), *lists]):
            s.slow.discard(number)
            s.damage(number)

    def _ask(self, number: int, step: int) -> None:
        s, random = self.script, self.random
        chance = random.random()
        if chance < 0.5:
            id = f"k{random.randrange(12)}" if random.random() < 0.5 else f"u{step}"
            s.put(number, step, id, since=self.since.setdefault(id, s.committed(number)))
        elif chance < 0.7:
            s.read(number)
        elif chance < 0.8:
            s.ask(number, messages.HandOver(random.choice([0, *s.all])))
        elif not any(s.disks[other].damage for other in s.truth.servers.voters):
            change = random.choice(["define", "define", "undefine", "stop", "start"])
            s.define(number, random.choice(s.all), change)


def main() -> int:
    failures = 0
    for seed in range(int(sys.argv[1]), int(sys.argv[2])):
        try:
            Chance(seed).play()
        except AssertionError as failure:
            failures += 1
            print(f"seed {seed}: {failure}", flush=True)
    print(f"{failures} failures")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
