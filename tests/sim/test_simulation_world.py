"""The simulation kit itself: it loses, delays, kills and restarts as told, and one seed is one trace."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from covey.bus.machine import (
    Address,
    Asked,
    Effect,
    Message,
    Notify,
    Persist,
    Persisted,
    Publish,
    Received,
    Reply,
    Send,
)
from covey.bus.nemesis import Nemesis
from covey.bus.simulation import Birth, Link, SimulationFailure, World
from covey.errors import KeyNotFound


class Count(Message, frozen=True):
    """A number on its way round."""

    value: int


class Heard(Message, frozen=True):
    """Published by a counter when it heard one."""

    value: int


class Save(msgspec.Struct, frozen=True):
    """Ask to persist a value; answered when it is durable."""

    value: int


class LinkClosed(msgspec.Struct, frozen=True):
    """The link to a node closed."""

    node: int


class Counter:
    """Sends a rising number to the next node every second; writes down what it hears and what it is asked to save."""

    def __init__(self, birth: Birth, peers: int) -> None:
        self.node, self.peers = birth.node, peers
        self.deadline: float | None = birth.now + 1.0
        self.value = 0
        self.late = 0.0
        self.inputs: list[Any] = []
        self.heard: list[int] = []
        self.saved = list(birth.disk.synced)
        self.asked: dict[int, Asked] = {}
        self.broken = False
        self.random = birth.random

    def step(self, now: float, input: Any = None) -> list[Effect]:
        self.inputs.append(input)
        if input is None:
            assert self.deadline is not None
            self.late = max(self.late, now - self.deadline)
            self.deadline = now + 1.0
            self.value += 1
            return [Send(Address("counter", self.node % self.peers + 1), Count(self.value), "beat")]
        if isinstance(input, Received) and isinstance(input.message, Count):
            self.heard.append(input.message.value)
            return [
                Publish("counter.heard", Heard(input.message.value), input.cause),
                Notify("heard", input.message.value),
            ]
        if isinstance(input, Asked) and isinstance(input.question, Save):
            self.asked[input.question.value] = input
            return [Persist(input.question.value, input.question.value, input.cause)]
        if isinstance(input, Persisted):
            asked = self.asked.pop(input.number)
            return [Reply(asked.request, {"saved": input.number}, asked.cause)]
        if isinstance(input, Asked):
            return [Reply(input.request, KeyNotFound("nothing of that kind"), input.cause)]
        return []

    def check_invariants(self) -> None:
        assert not self.broken, "1. a counter is never broken"


class Listener:
    """Writes down everything it receives."""

    deadline: float | None = None

    def __init__(self, birth: Birth) -> None:
        self.received: list[Received] = []

    def step(self, now: float, input: Any = None) -> list[Effect]:
        self.received.append(input)
        return []

    def check_invariants(self) -> None:
        pass


def counters(seed: int, nodes: int = 3, link: Link | None = None) -> World:
    world = World(seed, link=link, peer_down={"counter": LinkClosed})
    for number in range(1, nodes + 1):
        world.add(number, {"counter": lambda birth: Counter(birth, nodes), "listener": Listener})
    return world


def test_messages_arrive_in_order_between_nodes_whose_clocks_differ() -> None:
    world = counters(1)
    world.run(10.5)
    assert [world.machine(n, "counter").heard for n in (1, 2, 3)] == [list(range(1, 11))] * 3
    assert len({world.nodes[n].offset for n in (1, 2, 3)}) == 3


def test_a_published_message_reaches_the_other_machines_of_that_node_only() -> None:
    world = counters(1)
    world.run(1.5)
    received = world.machine(2, "listener").received
    assert [(r.source, r.message) for r in received] == [(Address("counter", 2), Heard(1))]
    assert [o.what for o in world.notified] == ["heard"] * 3


def test_loss_duplicates_and_disorder_happen_as_often_as_asked() -> None:
    world = counters(5, 2, Link(loss=0.2, duplicate=0.2, reorder=0.3, late=3.0))
    world.run(500)
    heard = world.machine(2, "counter").heard
    values = set(heard)
    assert 0.7 * 500 < len(values) < 0.9 * 500
    assert len(heard) > 1.1 * len(values)
    assert heard != sorted(heard)
    assert world.counts["lost"] > 100 and world.counts["doubled"] > 100


def test_cuts_are_one_way_or_two_way_and_heal() -> None:
    world = counters(2)
    world.cut(1, 2, one_way=True)
    world.run(3.5)
    assert world.machine(2, "counter").heard == []
    assert world.machine(1, "counter").heard == [1, 2, 3]
    world.heal()
    world.partition([1, 2], [3])
    world.run(2)
    assert world.machine(2, "counter").heard == [4, 5]
    assert world.machine(3, "counter").heard == [1, 2, 3]


def test_a_paused_node_finds_its_messages_and_its_timers_late() -> None:
    world = counters(3)
    world.run(1.5)
    world.pause(2)
    world.run(5)
    assert world.machine(2, "counter").heard == [1]
    world.resume(2)
    world.run(0.1)
    assert world.machine(2, "counter").heard == [1, 2, 3, 4, 5, 6]
    assert world.machine(2, "counter").late > 4.0


def test_a_crash_loses_what_was_not_synced_and_the_answer_with_it() -> None:
    lost = set()
    for seed in range(20):
        world = counters(seed)
        first = world.ask(1, "counter", Save(1))
        world.eventually(lambda op=first: op.done, 1)
        assert first.result == {"saved": 1}
        seconds = [world.ask(1, "counter", Save(n)) for n in (2, 3)]
        world.eventually(lambda w=world: len(w.nodes[1].disks["counter"].pending) == 2, 1)
        world.crash(1)
        assert [op.unknown for op in seconds] == [True, True] and not seconds[0].done
        world.start(1)
        saved = world.machine(1, "counter").saved
        assert saved in ([1], [1, 2], [1, 2, 3])
        lost.add(len(saved))
        assert world.nodes[1].boot_id == "n1.2"
    assert lost == {1, 2, 3}


def test_peers_see_a_killed_node_at_once_and_one_without_power_not_at_all() -> None:
    world = counters(4)
    world.crash(1)
    world.run(0.1)
    assert LinkClosed(1) in world.machine(2, "counter").inputs
    world.crash(3, power=True)
    world.run(0.1)
    assert LinkClosed(3) not in world.machine(2, "counter").inputs


def test_one_service_can_die_and_come_back_alone() -> None:
    world = counters(4)
    world.crash_service(2, "counter")
    world.run(3.5)
    world.start_service(2, "counter")
    world.run(2)
    assert world.nodes[2].boot_id == "n2.1"
    assert world.machine(2, "counter").heard == [4, 5]


def test_errors_are_answers_and_the_history_keeps_every_question() -> None:
    world = counters(1)
    asked = world.ask(3, "counter", "what")
    world.run(1)
    assert asked.error is not None and asked.error.code == "registry.not_found"
    assert world.history == [asked]


def test_a_failure_prints_seed_faults_and_story() -> None:
    world = counters(77)
    world.run(1.2)
    world.cut(1, 2)
    world.machine(3, "counter").broken = True
    with pytest.raises(SimulationFailure) as caught:
        world.run(2)
    text = str(caught.value)
    assert "seed 77" in text and "1. a counter is never broken" in text
    assert "cut 1 <-> 2" in text and "Received counter@2 Count(value=1)" in text


def test_a_check_of_the_world_fails_with_the_story_too() -> None:
    world = counters(8)

    def nobody_hears_three(world: World) -> None:
        assert all(3 not in world.machine(n, "counter").heard for n in world.nodes), "three was heard"

    world.always(nobody_hears_three)
    world.run(2.9)
    with pytest.raises(SimulationFailure, match="three was heard"):
        world.run(1)


def test_what_never_comes_and_a_second_reply_are_failures() -> None:
    world = counters(9)
    with pytest.raises(SimulationFailure, match="the moon: not within 5 s"):
        world.eventually(lambda: False, 5, "the moon")
    world.machine(1, "counter").asked[7] = Asked(99, Save(7))
    world.feed(1, "counter", Persisted(7))
    with pytest.raises(SimulationFailure, match="reply to request 99"):
        world.run(1)


def test_a_machine_that_asks_for_the_same_deadline_for_ever_is_a_failure() -> None:
    world = counters(9)
    machine = world.machine(1, "counter")
    machine.step = lambda now, input=None: []
    with pytest.raises(SimulationFailure, match="same deadline for ever"):
        world.run(2)


def a_stormy_run(seed: int) -> str:
    world = counters(seed, 4, Link(loss=0.05, duplicate=0.05, reorder=0.05))
    Nemesis(world, 60, gap=2.0, most=5.0)
    for second in range(60):
        world.after(second + 0.3, lambda v=second: world.ask(v % 4 + 1, "counter", Save(v)))
    world.run(70)
    assert all(node.running and not node.paused for node in world.nodes.values())
    return world.digest()


def test_one_seed_is_one_trace_under_any_hash_seed() -> None:
    here = [a_stormy_run(11), a_stormy_run(12)]
    assert here[0] != here[1]
    code = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('t', sys.argv[1]);"
        "t = importlib.util.module_from_spec(spec); sys.modules['t'] = t; spec.loader.exec_module(t);"
        "print(t.a_stormy_run(11), t.a_stormy_run(12))"
    )
    for hash_seed in ("1", "4711"):
        done = subprocess.run(
            [sys.executable, "-c", code, __file__],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split() == here
