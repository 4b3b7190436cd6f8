"""Mistakes planted into liveness: each must be caught by a seed or a short script, or the tests prove nothing."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from covey.bus.simulation import Link, SimulationFailure
from covey.components.liveness import leader, machine
from covey.components.liveness.beats import Beats
from covey.components.liveness.leader import Leader
from covey.components.liveness.machine import LivenessMachine
from covey.components.liveness.peers import Peers
from covey.components.liveness.views import Chain
from liveness_cluster import Cluster
from liveness_storm import storm

Plant = Callable[[pytest.MonkeyPatch], None]


def announce_before_the_log_has_it(patch: pytest.MonkeyPatch) -> None:
    say = Leader._say

    def mutant(self: Leader, now: float) -> None:
        say(self, now)
        if self.proposal is not None and not self.reads:
            announced = leader.ViewsAnnounced((self.proposal,))
            self.orders += [(m.number, announced) for m in self.proposal.members if m.number != self.number]

    patch.setattr(Leader, "_say", mutant)


def believe_the_log_without_reading_back(patch: pytest.MonkeyPatch) -> None:
    make = Leader.__init__

    def mutant(self: Leader, *arguments: Any) -> None:
        make(self, *arguments)
        self.chain.views.clear()

    patch.setattr(Leader, "__init__", mutant)


def take_views_that_do_not_fit(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Chain, "fits", lambda self, view: True)


def let_departed_boot_ids_return(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: Leader, asked: Any, number: int, now: float) -> None:
        joiner = self.joiners[number] = leader.Joiner(asked.boot_id, asked.name, now)
        joiner.view = asked.view

    patch.setattr(Leader, "_join", mutant)


def one_accuser_is_enough(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leader, "cut", lambda members, accusers, own: set(accusers) - {own})


def all_of_the_others_are_needed(patch: pytest.MonkeyPatch) -> None:
    def mutant(members: list[int], accusers: dict[int, set[int]], own: int) -> set[int]:
        return {n for n, who in accusers.items() if n != own and len(who) == len(members) - 1}

    patch.setattr(leader, "cut", mutant)


def no_probes_before_suspicion(patch: pytest.MonkeyPatch) -> None:
    make = Peers.__init__

    def mutant(self: Peers, settings: Any) -> None:
        make(self, settings)
        self.silence = settings.interval * 1.01
        self.settings = machine.Settings(grace=0.0)

    patch.setattr(Peers, "__init__", mutant)


def a_stopped_node_accuses(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Peers, "excuse", lambda self, now: None)


def a_sign_of_any_boot_id_counts(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: Peers, number: int, boot_id: str, now: float) -> None:
        if number in self._peers:
            self._peers[number].heard = now
            self._peers[number].turn("sign", now)

    patch.setattr(Peers, "sign", mutant)


def never_frozen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Beats, "word_until", property(lambda self: float("inf")))


def no_catching_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leader, "_catch_up", lambda self, number, held, now: None)


def the_removed_are_not_told(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Leader, "_say_removed", lambda self, number, boot_id: None)


def one_removal_a_view(patch: pytest.MonkeyPatch) -> None:
    whole = leader.cut
    patch.setattr(leader, "cut", lambda *arguments: set(sorted(whole(*arguments))[:1]))


def the_order_of_a_set(patch: pytest.MonkeyPatch) -> None:
    """Stands for iteration in hash order: what differs from run to run."""
    chance = Random()

    def mutant(self: LivenessMachine) -> list[int]:
        numbers = [peer.number for peer in self.peers]
        chance.shuffle(numbers)
        return numbers

    patch.setattr(LivenessMachine, "_all_peers", mutant)


# --- what catches them ----------------------------------------------------------------------------------------------


def storms() -> None:
    for seed in (2, 3, 4, 8):
        storm(seed)


def a_lossy_minute() -> None:
    cluster = Cluster(1, 2, link=Link(loss=0.2))
    cluster.settle(15)
    cluster.world.run(60)
    assert cluster.left() == []


def a_one_way_cut() -> None:
    cluster = Cluster(1, 3)
    cluster.settle(5)
    cluster.world.cut(2, 3, one_way=True)
    cluster.world.run(10)
    assert cluster.left() == []


def two_crash_at_once() -> None:
    cluster = Cluster(1, 4)
    cluster.settle(5)
    views = len(cluster.views)
    cluster.world.crash(3, power=True)
    cluster.world.crash(4, power=True)
    cluster.settle(6)
    assert len(cluster.views) == views + 1


def a_stopped_leader() -> None:
    """Its links broke while it was stopped, and for two seconds after it woke they are not up again."""
    cluster = Cluster(1, 2)
    cluster.settle(5)
    cluster.world.pause(1)
    cluster.world.cut(1, 2)
    cluster.world.run(30)
    cluster.world.resume(1)
    cluster.world.run(2)
    cluster.world.mend([(1, 2), (2, 1)])
    cluster.world.run(5)
    assert cluster.left() == []


def lost_announcements() -> None:
    cluster = Cluster(1, 3, link=Link(loss=0.3))
    cluster.settle(15)
    for _ in range(8):
        cluster.world.restart(3)
        cluster.settle(20)


def a_quick_restart_with_the_join_lost() -> None:
    """The new boot id answers heartbeats of those who can hear it; that does not keep the old one alive."""
    cluster = Cluster(1, 3)
    cluster.settle(5)
    cluster.world.crash(3, power=True)
    cluster.world.cut(3, 1)
    cluster.world.start(3)
    cluster.world.eventually(lambda: not cluster.machine(1).chain.boot_id(3), 6, "the old boot id is out")


def a_partition() -> None:
    cluster = Cluster(1, 3)
    cluster.settle(5)
    cluster.world.partition([3], [1, 2])
    cluster.world.run(10)
    assert not cluster.machine(3).quorate
    cluster.world.heal()
    cluster.settle(30)


def a_late_join_message() -> None:
    """A join that was doubled and delayed arrives when its boot id is long gone."""
    cluster = Cluster(1, 3, link=Link(duplicate=0.5, reorder=0.5, late=12.0))
    cluster.settle(60)
    for _ in range(3):
        cluster.world.restart(3)
        cluster.world.run(20)


def the_same_twice() -> None:
    digests = set()
    for _ in range(2):
        cluster = Cluster(1, 4)
        cluster.world.run(5)
        digests.add(cluster.world.digest())
    assert len(digests) == 1


CASES: list[tuple[Plant, Callable[[], None]]] = [
    (announce_before_the_log_has_it, storms),
    (believe_the_log_without_reading_back, storms),
    (take_views_that_do_not_fit, lost_announcements),
    (let_departed_boot_ids_return, a_late_join_message),
    (one_accuser_is_enough, a_one_way_cut),
    (all_of_the_others_are_needed, two_crash_at_once),
    (no_probes_before_suspicion, a_lossy_minute),
    (a_stopped_node_accuses, a_stopped_leader),
    (a_sign_of_any_boot_id_counts, a_quick_restart_with_the_join_lost),
    (never_frozen, a_partition),
    (no_catching_up, storms),
    (the_removed_are_not_told, a_partition),
    (one_removal_a_view, two_crash_at_once),
    (the_order_of_a_set, the_same_twice),
]


@pytest.mark.parametrize("catch", list(dict.fromkeys(catch for _, catch in CASES)), ids=lambda f: f.__name__)
def test_what_catches_mutants_passes_without_them(catch: Callable[[], None]) -> None:
    catch()


@pytest.mark.parametrize(("plant", "catch"), CASES, ids=lambda f: f.__name__)
def test_a_planted_mistake_is_caught(plant: Plant, catch: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises((SimulationFailure, AssertionError)):
        catch()
