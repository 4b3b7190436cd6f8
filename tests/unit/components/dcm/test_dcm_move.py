"""Moving a node: with a crash, a lost or doubled message and a cut at every step it ends in one of the two clusters."""

from __future__ import annotations

import pytest
from covey.bus.machine import ImpossibleTransition
from covey.components.dcm import life, move
from covey.errors import MoveFailed, Refused
from move_world import A, B, World

ALL = ["m1", "m2", "m3", "m4", "m5", "m6"]


def moved() -> World:
    world = World()
    world.ask(B)
    return world


def pieces() -> tuple[int, int]:
    """How many pieces of work and messages a move has, until it is answered."""
    world = moved()
    while not world.moved:
        world.run(0.01)
    return world.count, world.messages


WORK, MESSAGES = pieces()


def test_a_move_goes_through_its_steps_and_back_again() -> None:
    world = moved()
    assert world.ended() == "B"
    assert world.steps == ALL == list(move.STEPS)
    assert world.moved == [None]
    world.ask(A)
    assert world.ended() == "A"
    assert world.moved == [None, None]


@pytest.mark.parametrize("again", [None, 7, 60], ids=["once", "twice-soon", "twice-later"])
def test_a_crash_at_any_moment_ends_in_exactly_one_cluster(again: int | None) -> None:
    ends = set()
    for at in range(1, WORK + 1):
        world = World()
        world.crash_at = {at} if again is None else {at, at + again}
        world.ask(B)
        where = world.ended()
        ends.add(where)
        assert len(world.moved) <= 2  # one for the request, one for the move that was found at the start
    assert ends == {"A", "B"}


@pytest.mark.parametrize("fault", ["lose", "twice"])
def test_any_message_may_be_lost_or_come_twice(fault: str) -> None:
    for number in range(1, MESSAGES + 1):
        world = World()
        getattr(world, fault).add(number)
        world.ask(B)
        where = world.ended()
        assert where == "B" or (fault == "lose" and isinstance(world.moved[0], Refused)), (number, where)


@pytest.mark.parametrize("step", ALL)
@pytest.mark.parametrize("cluster", [A, B], ids=["from-A", "from-B"])
@pytest.mark.parametrize("seconds", [2.0, 45.0])
def test_a_cut_at_any_step(step: str, cluster: str, seconds: float) -> None:
    world = World()
    world.on_step[step] = lambda: (world.cut.add(cluster), world.after(seconds, world.cut.clear))  # type: ignore[func-returns-value]
    world.ask(B)
    late = cluster == B and seconds > move.MOVE_TIME and step in ("m1", "m2", "m3", "m4")
    assert world.ended() == ("A" if late else "B")
    assert isinstance(world.moved[0], MoveFailed) == late


def test_many_faults_at_once() -> None:
    ends = {None: 0, "A": 0, "B": 0}
    for seed in range(150):
        world = World(seed)
        world.loss, world.double, world.late = 0.15, 0.1, 0.05
        world.crash_at = {world.random.randrange(1, 3 * WORK) for _ in range(seed % 3)}
        if seed % 5 == 0:
            world.after(world.random.random(), lambda world=world: world.cut.add(world.random.choice((A, B))))
        world.ask(B)
        world.run(40.0)
        ends[world.ended()] += 1
    assert ends["A"] > 5
    assert ends["B"] > 50
    assert ends[None] == 0


def test_a_target_that_does_not_answer_is_refused_at_once_and_changes_nothing() -> None:
    world = World()
    world.clusters[B].up = False
    before = world.disk
    world.ask(B)
    assert world.ended() == "A"
    assert isinstance(world.moved[0], Refused)
    assert (world.disk, world.steps) == (before, [])


def test_a_target_that_has_forgotten_the_node_meanwhile() -> None:
    world = World()
    world.on_step["m2"] = lambda: setattr(world.clusters[B], "listed", False)
    world.ask(B)
    assert world.ended() == "A"
    assert isinstance(world.moved[0], MoveFailed)
    assert "undefined" in world.moved[0].message


def test_a_disk_that_takes_no_pointer() -> None:
    world = World()
    world.full = True
    world.ask(B)
    world.run(5.0)
    assert world.ended() == "A"
    assert isinstance(world.moved[0], MoveFailed)
    world = World()
    world.on_step["m5"] = lambda: (
        setattr(world, "full", True),
        world.after(3.0, lambda: setattr(world, "full", False)),
    )  # type: ignore[func-returns-value]
    world.ask(B)
    world.run(2.0)
    assert world.disk.current == A
    assert world.ended() == "B"
    assert world.moved == [None]


def test_an_operators_word_holds_in_the_middle_of_a_move() -> None:
    world = World()
    world.on_step["m4"] = lambda: world.feed(life.OfflineAsked("asked by an operator"))
    world.ask(B)
    assert world.ended() == "A"
    assert (world.disk.offline, world.node.state) == (True, "offline")
    world.ask(B)  # a node that is offline can be moved, and is online then
    assert world.ended() == "B"
    assert not world.disk.offline


def test_a_node_that_was_offline_is_so_again_when_its_move_fails() -> None:
    world = World()
    world.feed(life.OfflineAsked("asked by an operator"))
    world.run(5.0)
    world.on_step["m2"] = lambda: setattr(world.clusters[B], "up", False)
    world.ask(B)
    world.run(60.0)
    world.clusters[B].up = True
    assert world.ended() == "A"
    assert (world.disk.offline, world.node.state) == (True, "offline")


def test_an_impossible_input_names_the_story() -> None:
    machine = move.MoveMachine()
    machine.step(0.0, move.Asked(A, B))
    with pytest.raises(ImpossibleTransition, match=r"checking \+ Asked"):
        machine.step(0.0, move.Asked(A, B))


class GoesThoughItCannotPoint(move.MoveMachine):
    def step(self, now: float, input: move.Input | None = None) -> list[move.Effect]:
        unpointed = self.state == "pointing" and isinstance(input, move.Pointed)
        return super().step(now, move.Pointed() if unpointed else input)


class FollowsTooEarly(move.MoveMachine):
    def step(self, now: float, input: move.Input | None = None) -> list[move.Effect]:
        effects = super().step(now, input)
        early = any(isinstance(each, move.Go) for each in effects) and self.state == "moving"
        return [*effects, move.Point(self.target, self.target)] if early else effects


class ForgetsToGoBack(move.MoveMachine):
    def step(self, now: float, input: move.Input | None = None) -> list[move.Effect]:
        effects = super().step(now, input)
        return [each for each in effects if not (isinstance(each, move.Go) and self.state == "returning")]


class NeverGivesUp(move.MoveMachine):
    @property
    def deadline(self) -> float | None:
        return None if self.state == "moving" else super().deadline


class ForgetsWhatItFinds(move.MoveMachine):
    def step(self, now: float, input: move.Input | None = None) -> list[move.Effect]:
        return [] if isinstance(input, move.Found) else super().step(now, input)


MISTAKES = (GoesThoughItCannotPoint, FollowsTooEarly, ForgetsToGoBack, NeverGivesUp, ForgetsWhatItFinds)


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda each: each.__name__)
def test_a_planted_mistake_is_caught(mistake: type[move.MoveMachine]) -> None:
    def runs() -> None:
        for at in range(0, WORK, 3):
            world = World(machine=mistake)
            world.crash_at = {at}
            world.ask(B)
            assert world.ended() in ("A", "B")
            world = World(machine=mistake)
            world.on_step["m3"] = lambda world=world: setattr(world.clusters[B], "up", False)
            world.after(45.0, lambda world=world: setattr(world.clusters[B], "up", True))
            world.ask(B)
            world.run(40.0)
            assert world.ended() == "A"
            world = World(machine=mistake)
            world.full = True
            world.ask(B)
            world.run(1.0)
            assert world.ended() == "A"

    with pytest.raises((AssertionError, ImpossibleTransition)):
        runs()
