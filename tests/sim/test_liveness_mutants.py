"""Mistakes planted into liveness: each must be caught by a seed or a short script, or the tests prove nothing."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import pytest
from covey.bus.simulation import Link, SimulationFailure
from covey.components.liveness import accusations, leader, machine
from covey.components.liveness.accusations import Accusations
from covey.components.liveness.backoff import Backoff
from covey.components.liveness.beats import Beats
from covey.components.liveness.cut import cut
from covey.components.liveness.doubts import Doubts
from covey.components.liveness.leader import Leader
from covey.components.liveness.machine import LivenessMachine
from covey.components.liveness.messages import Join
from covey.components.liveness.peers import Peers
from covey.components.liveness.views import Chain, make, step_to, view_of
from covey.components.registry.messages import AppendSystem, SystemAppended
from liveness_cluster import Cluster
from liveness_script import Script
from liveness_storm import storm

Plant = Callable[[pytest.MonkeyPatch], None]


def announce_before_the_log_has_it(patch: pytest.MonkeyPatch) -> None:
    say = Leader._say

    def mutant(self: Leader, now: float) -> None:
        say(self, now)
        if self.proposal is not None and not self.reads:
            announced = leader.ViewsAnnounced((step_to(self.proposal, self.chain.last),))
            self.orders += [(m.number, announced) for m in self.proposal.members if m.number != self.number]

    patch.setattr(Leader, "_say", mutant)


def believe_the_log_without_reading_back(patch: pytest.MonkeyPatch) -> None:
    read = Leader.read

    def mutant(self: Leader, came: Any) -> Any:
        steps = read(self, came)
        self.certain = True
        return steps

    patch.setattr(Leader, "read", mutant)


def take_views_that_do_not_fit(patch: pytest.MonkeyPatch) -> None:
    def mutant(step: Any, before: Any) -> Any:
        return view_of(msgspec.structs.replace(step, previous=before.id, previous_hash=before.hash), before)

    patch.setattr(machine, "view_of", lambda step, before: mutant(step, before) if before else view_of(step, before))
    patch.setattr(Chain, "fits", lambda self, view: True)


def let_departed_boot_ids_return(patch: pytest.MonkeyPatch) -> None:
    def mutant(self: Leader, asked: Any, number: int, now: float) -> None:
        joiner = self.joiners[number] = leader.Joiner(asked.boot_id, asked.name, now)
        joiner.view = asked.view

    patch.setattr(Leader, "_join", mutant)


def one_accuser_is_enough(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(accusations, "cut", lambda observers, accusers, own, unsure: {n for n, _ in accusers} - {own})


def all_of_the_others_are_needed(patch: pytest.MonkeyPatch) -> None:
    def mutant(observers: Any, accusers: dict[tuple[int, str], set[int]], own: int, unsure: Any) -> set[int]:
        return {n for (n, net), who in accusers.items() if n != own and len(who) == len(observers[net][n])}

    patch.setattr(accusations, "cut", mutant)


def a_dead_adapter_is_a_dead_node(patch: pytest.MonkeyPatch) -> None:
    networks_of = Accusations.networks_of
    patch.setattr(Accusations, "networks_of", lambda self, number: networks_of(self, number)[:1])
    patch.setattr(accusations, "cut", lambda observers, *words: cut(dict([*observers.items()][:1]), *words))


def no_trials(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Doubts, "due", lambda self, now: [])


def condemned_without_the_leader_looking(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Peers, "dead", lambda self, number: True)


def nobody_waits(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backoff, "until", lambda self, number: 0.0)


def a_new_leader_forgives(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Backoff, "restore", lambda self, waited, now, date: None)


def a_new_leader_knows_of_no_removal(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(leader, "step_to", lambda view, before, accused=(): step_to(view, before))


def word_is_passed_on_as_new(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LivenessMachine, "_word", property(lambda self: (self.leader[0], 0.0) if self.quorate else (0, 0.0)))


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
    whole = accusations.cut
    patch.setattr(accusations, "cut", lambda *arguments: set(sorted(whole(*arguments))[:1]))


def the_order_of_a_set(patch: pytest.MonkeyPatch) -> None:
    """Stands for iteration in hash order: what differs from run to run."""
    chance = Random()

    def mutant(self: Peers) -> Any:
        found = list(self._peers.values())
        chance.shuffle(found)
        return iter(found)

    patch.setattr(Peers, "__iter__", mutant)


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


def a_lost_announcement() -> None:
    """Who missed a view does not take the one after it, and has all in the end."""
    node = Script(2)
    node.leading(1, 1)
    node.announce(node.view(1, 2, 3))
    second, third = node.view(1, 2, 3, 4), node.view(1, 2, 4)
    node.announce(third)
    node.announce(second, third)
    assert [told.id for told in node.published()] == [(1, 1), (1, 2), (1, 3)]


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


def a_cut_off_pair() -> None:
    """Two members that only hear each other must not take each other's word for the leader's."""
    cluster = Cluster(1, 5)
    cluster.settle(5)
    cluster.world.partition([4, 5], [1, 2, 3])
    cluster.world.run(9)
    assert not cluster.machine(4).quorate and not cluster.machine(5).quorate


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


def a_process_restarted_within_its_reign() -> None:
    """Its predecessor had proposed another view of the same number, and the log took that one."""
    node = Script(1)
    node.leading(1, 1)
    node.load(1)
    node.hear(2, Join("b2", "n2"))
    node.wait(0.15)
    theirs = make(None, 1, [node.proposed().members[0]], 5.0)
    node.log.append(msgspec.msgpack.encode(step_to(theirs, None)))
    (asked,) = {entry.id for entry in node.sent(AppendSystem)}
    node.take()
    node.hear(1, SystemAppended(asked, 1, 1), "registry")
    assert node.published() == []


def one_of_two_networks_dead() -> None:
    cluster = Cluster(1, 4, networks=2)
    cluster.settle(5)
    for number in (1, 2, 3):
        cluster.world.cut(number, 4, network="10.1.0.0/16")
    cluster.world.run(20)
    assert cluster.left() == []


def a_dead_node_whom_one_mute_member_does_not_accuse() -> None:
    """Node 4 cannot tell the leader what it thinks, so of the four observers of node 5 only three accuse it."""
    cluster = Cluster(1, 5)
    cluster.settle(5)
    cluster.world.cut(4, 1, one_way=True)
    cluster.world.crash(5, power=True)
    cluster.world.eventually(lambda: not cluster.machine(2).chain.boot_id(5), 20, "node 5 is out")
    assert [boot for _, boot in cluster.left()] == ["n5.1"]


def a_member_whom_most_do_not_hear_but_the_leader_does() -> None:
    cluster = Cluster(1, 5)
    cluster.settle(5)
    for number in (2, 3, 4):
        cluster.world.cut(5, number)
    cluster.world.run(30)
    assert cluster.left() == []


def a_member_that_comes_and_goes() -> None:
    cluster = Cluster(1, 4)
    cluster.settle(5)
    for _ in range(8):
        cluster.world.partition([4], [1, 2, 3])
        cluster.world.run(10)
        cluster.world.heal()
        cluster.world.run(10)
    assert len(cluster.left()) <= 5


def a_member_that_comes_and_goes_with_the_leaders() -> None:
    """Each time it is removed another node leads when it is back, and a third one while it waits."""
    cluster = Cluster(1, 4, moving=(1, 2, 3))
    cluster.settle(5)
    for wait in (5, 10, 20):
        cluster.world.partition([4], [1, 2, 3])
        cluster.world.run(8)
        cluster.log.primary, cluster.log.epoch = cluster.log.primary % 3 + 1, cluster.log.epoch + 1
        cluster.world.run(1)
        cluster.world.heal()
        cluster.world.run(2)
        cluster.log.primary, cluster.log.epoch = cluster.log.primary % 3 + 1, cluster.log.epoch + 1
        cluster.world.run(wait - 2.5)
        leader = cluster.machine(cluster.log.primary)
        assert leader.leading and not leader.chain.boot_id(4), f"back before {wait} s are over"
        cluster.settle(5)


CASES: list[tuple[Plant, Callable[[], None]]] = [
    (announce_before_the_log_has_it, storms),
    (believe_the_log_without_reading_back, a_process_restarted_within_its_reign),
    (take_views_that_do_not_fit, a_lost_announcement),
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
    (a_dead_adapter_is_a_dead_node, one_of_two_networks_dead),
    (no_trials, a_dead_node_whom_one_mute_member_does_not_accuse),
    (condemned_without_the_leader_looking, a_member_whom_most_do_not_hear_but_the_leader_does),
    (nobody_waits, a_member_that_comes_and_goes),
    (a_new_leader_forgives, a_member_that_comes_and_goes_with_the_leaders),
    (a_new_leader_knows_of_no_removal, a_member_that_comes_and_goes_with_the_leaders),
    (word_is_passed_on_as_new, a_cut_off_pair),
]


@pytest.mark.parametrize("catch", list(dict.fromkeys(catch for _, catch in CASES)), ids=lambda f: f.__name__)
def test_what_catches_mutants_passes_without_them(catch: Callable[[], None]) -> None:
    catch()


@pytest.mark.parametrize(("plant", "catch"), CASES, ids=lambda f: f.__name__)
def test_a_planted_mistake_is_caught(plant: Plant, catch: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises((SimulationFailure, AssertionError)):
        catch()
