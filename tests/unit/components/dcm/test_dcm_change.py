"""Undefine, modify and join: with a crash of either side, a lost or doubled message and a cut at every step.

The worlds are `change_world` (undefine, modify) and `move_world` (the join of one node's whole life machine).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from change_world import World, somebody_else_renames
from covey.bus.machine import ImpossibleTransition
from covey.components.dcm import change, life
from covey.errors import AlreadyDefined, NodeOnline, NotFound, Refused, Timeout
from move_world import A
from move_world import World as LifeWorld

Ask = Callable[[World], None]


def undefine(world: World) -> None:
    world.undefine()


def rename(world: World) -> None:
    world.rename("new")


ASKS = [undefine, rename]
DONE = {undefine: "", rename: "new"}


def plain(ask: Ask) -> tuple[int, int]:
    """How many pieces of work and messages it has when nothing fails."""
    world = World()
    ask(world)
    while not world.ended:
        world.advance(0.01)
    return world.count, world.messages


PLAIN = {ask: plain(ask) for ask in ASKS}


@pytest.mark.parametrize(
    ("ask", "steps"), [(undefine, ["u1", "u2", "u3", "u6"]), (rename, ["c1", "c2", "c3"])], ids=["undefine", "modify"]
)
def test_the_steps_in_their_order(ask: Ask, steps: list[str]) -> None:
    world = World()
    ask(world)
    world.advance(5.0)
    assert (world.error(), world.steps) == (None, steps)
    assert world.settled().name() == DONE[ask]
    if ask is rename:
        assert world.ended[0].result.name == "new"
    else:
        assert world.ended[0].result == {"number": 2, "name": "n2", "erased": True}


@pytest.mark.parametrize("ask", ASKS)
def test_a_crash_of_either_side_at_every_step(ask: Ask) -> None:
    ends = set()
    for who, at in itertools.product((1, 2), range(1, PLAIN[ask][0] + 1)):
        world = World()
        world.crash_at = {at: who}
        ask(world)
        ends.add(world.settled().name())
        if world.ended and world.error() is None:
            assert world.name() == DONE[ask]
        again = World.name(world)
        ask(world)  # asked again it is done, or was
        world.settled()
        assert world.name() == DONE[ask], (who, at, again)
    assert ends == {"n2", DONE[ask]}


@pytest.mark.parametrize("ask", ASKS)
def test_two_crashes(ask: Ask) -> None:
    for at in itertools.combinations(range(1, PLAIN[ask][0] + 3), 2):
        for who in itertools.product((1, 2), repeat=2):
            world = World()
            world.crash_at = dict(zip(at, who, strict=True))
            ask(world)
            world.settled()


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("fault", ["lose", "twice"])
def test_every_message_may_be_lost_or_come_twice(ask: Ask, fault: str) -> None:
    for number in range(1, PLAIN[ask][1] + 1):
        world = World()
        getattr(world, fault).add(number)
        ask(world)
        world.settled()
        error = world.error()
        if error is None:
            assert world.name() == DONE[ask]
        else:
            assert (fault, type(error)) == ("lose", Timeout), (number, error)


@pytest.mark.parametrize("ask", ASKS)
def test_a_cut_at_every_step(ask: Ask) -> None:
    steps = ["u1", "u2", "u3"] if ask is undefine else ["c1", "c2", "c3"]
    for step, who, seconds in itertools.product(steps, (1, 2), (2.0, 45.0)):
        world = World()
        world.on_step[step] = lambda world=world, who=who, seconds=seconds: (
            world.cut.add(who),
            world.after(seconds, world.cut.clear),
        )
        ask(world)
        world.settled()
        assert world.name() in ("n2", DONE[ask])


@pytest.mark.parametrize("ask", ASKS)
def test_many_faults_at_once(ask: Ask) -> None:
    ends = set()
    for seed in range(120):
        world = World(seed, loss=0.2, double=0.3, late=2.0)
        world.crash_at = {world.random.randrange(1, 40): world.random.choice((1, 2)) for _ in range(seed % 4)}
        ask(world)
        if seed % 3 == 0:
            world.after(world.random.random(), lambda world=world: rename(world) if world.nodes[1].run else None)
        ends.add(world.settled().name())
    assert ends == {"n2", "new", DONE[ask]}


def test_what_is_refused_changes_nothing() -> None:
    for ask, error in (
        (lambda world: world.undefine(7), NotFound),
        (lambda world: world.undefine(1), Refused),
        (lambda world: world.rename("n1"), AlreadyDefined),
        (lambda world: world.rename("x", 7), NotFound),
    ):
        world = World()
        if error is NotFound:
            world.nodes[7] = world.nodes[2]
        before = dict(world.registry.data)
        ask(world)
        world.advance(5.0)
        assert isinstance(world.error(), error)
        assert world.registry.data == before


def test_somebody_else_in_between() -> None:
    world = World()
    world.on_step["c2"] = lambda: somebody_else_renames(world, "other")
    rename(world)
    assert (world.settled().name(), world.error()) == ("new", None)
    for ask in ASKS:
        world = World()
        for _ in range(change.ROUNDS):  # as often as it looks
            world.after(0.0, lambda: None)

        def quicker(world: World = world, names: itertools.count[int] = itertools.count()) -> None:  # noqa: B008
            somebody_else_renames(world, f"x{next(names)}")
            world.after(0.005, lambda: quicker() if not world.ended else None)

        world.after(0.0, quicker)
        ask(world)
        world.advance(30.0)
        assert isinstance(world.error(), Refused)


def test_a_node_that_is_the_one_asked_and_an_input_out_of_place() -> None:
    machine = change.UndefineMember(2, own=2)
    machine.step(change.Begun())
    world = World()
    (end,) = machine.step(change.Read(world.read(2)))
    assert isinstance(end, change.Finish)
    assert isinstance(end.error, NodeOnline)
    for done in (machine, change.Change(lambda found: (None, found), "it")):
        with pytest.raises(ImpossibleTransition):
            done.step(change.Told(True))


# --- join -------------------------------------------------------------------------------------------------------


def away(listed: bool = True) -> LifeWorld:
    """Return a node at rest whose next join is to be tried, with its counters at zero."""
    world = LifeWorld()
    world.feed(life.OfflineAsked("to try its join", operator=False))
    world.run(10.0)
    assert world.node.state == "offline"
    world.clusters[A].listed = listed
    world.count = world.messages = 0
    return world


def join(world: LifeWorld) -> LifeWorld:
    world.feed(life.OnlineAsked(False, world.new_boot()))
    return world


def work_of_a_join(listed: bool) -> tuple[int, int]:
    world = join(away(listed))
    while world.node.state != ("online" if listed else "undefined"):
        world.run(0.05)
    return world.count, world.messages


@pytest.mark.parametrize("listed", [True, False], ids=["defined", "undefined-while-away"])
def test_a_join_with_a_fault_at_every_step(listed: bool) -> None:
    work, messages = work_of_a_join(listed)
    wanted = "A" if listed else None
    for at in range(1, work + 1):
        for again in (None, 7):
            world = away(listed)
            world.crash_at = {at} if again is None else {at, at + again}
            assert join(world).ended() == wanted, f"crash at {at}"
    for fault, number in itertools.product(("lose", "twice"), range(1, messages + 1)):
        world = away(listed)
        getattr(world, fault).add(number)
        assert join(world).ended() == wanted, f"{fault} {number}"
    for after, seconds in itertools.product((0.0, 0.02, 0.05, 0.1, 0.2, 0.4), (2.0, 45.0)):
        world = away(listed)
        world.after(after, lambda world=world: world.cut.add(A))
        world.after(after + seconds, world.cut.clear)
        assert join(world).ended() == wanted, f"cut after {after}"
