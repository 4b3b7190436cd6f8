"""Short stories of two brokers, each with one thing that goes wrong; `links_world.py` is where they play."""

from __future__ import annotations

from collections.abc import Callable

from covey.bus.acceptor import Acceptor
from covey.bus.dialler import FALTER, HOLD_DOWN
from covey.bus.messages import Kind
from covey.bus.session import LULL, OPEN, RESUME, SILENT, UNKNOWN, Transmit, frame
from links_world import ADDRESSES, World

TOLD = SILENT + 0.5  # a look at all sessions every quarter of a second, and delays


def connected(seed: int = 1) -> World:
    world = World(seed)
    world.send_a()
    world.run(0.5)
    assert world.a.up
    assert len(world.keys) == 1
    return world


def an_idle_connection_stays_up_for_a_heartbeat_a_second() -> None:
    world = connected()
    steps = world.steps
    world.run(30.0)
    assert world.a.up
    assert world.keys
    assert not world.downs
    assert world.steps - steps < 30 * 8  # ping and pong, and the looks of the side that is dialled


def a_calm_connection_costs_little_and_who_waits_is_told_as_ever() -> None:
    world = connected()
    world.do_a("hush", True)
    steps = world.steps
    world.run(65.0)
    assert world.a.up and world.keys and not world.downs
    assert world.steps - steps < 65
    world.stop("A", "B")
    world.send_a()
    world.run(TOLD)
    assert [side for _, side, _ in world.downs] == ["A"]
    world.run(LULL)
    assert sorted(side for _, side, _ in world.downs) == ["A", "B"]
    world.heal()
    world.send_a()
    world.run(3.0)
    assert world.a.up
    world.check_healed()


def _pulled(ways: str) -> None:
    world = connected()
    world.stop(*ways)
    pulled = world.now
    for _ in range(20):
        world.send_a()
        world.send_b()
        world.run(0.01)
    told = TOLD
    if ways == "B":  # the dialler has hung up to try the other address, so the other side heard it until then
        told += FALTER
    world.run(told if ways == "AB" else told - 0.2)
    first = {side: at for at, side, _ in reversed(world.downs)}
    assert set(first) == {"A", "B"}
    assert all(at - pulled <= told for at in first.values())
    lost = {side: sum(down.lost for _, by, down in world.downs if by == side) for side in "AB"}
    assert lost["A"] >= (20 if "A" in ways else 0)
    assert lost["B"] >= (20 if "B" in ways else 0)
    world.heal()
    world.send_a()
    world.run(3.0)
    assert world.a.up
    world.check_healed()


def a_broken_connection_is_resumed_and_nobody_is_told() -> None:
    world = connected()
    for number in range(600):
        world.send_a()
        world.send_b()
        world.run(0.002)
        if number % 120 == 30:
            world.break_wire()
    world.run(2.0)
    assert not world.downs
    assert world.a.counters.resumed == 5
    assert world.made == 6
    world.check_healed()


def a_peer_that_was_started_anew_is_told_apart() -> None:
    world = connected()
    world.stop("A")  # what is sent now does not arrive
    for _ in range(3):
        world.send_a()
    world.start_b()
    world.run(0.02)
    world.heal()
    world.run(1.0)
    (down,) = [down for _, side, down in world.downs if side == "A"]
    assert (down.reached, down.lost) == (True, 3)
    assert "anew" in down.reason
    world.send_a()
    world.run(1.0)
    world.check_healed()


def a_peer_that_forgot_the_session_says_so_on_the_living_connection() -> None:
    world = connected()
    key = world.keys[-1]
    world.b.end(world.now, key, "forgotten", UNKNOWN)  # its goodbye is lost
    world.keys.clear()
    world.send_a()
    world.run(0.1)
    (down,) = [down for _, side, down in world.downs if side == "A"]
    assert down.lost == 1


def a_refused_peer_is_told_at_once() -> None:
    world = connected()
    world.refusing = True
    world.break_wire()
    broken = world.now
    world.run(1.0)
    ((at, side, down),) = world.downs
    assert side == "A"
    assert "refused" in down.reason
    assert at - broken < 0.3
    world.send_a()
    world.run(0.5)
    _, _, second = world.downs[1]
    assert not second.reached  # surely nothing happened


def a_pause_of_either_side_below_the_limit_costs_nothing() -> None:
    for side in "AB":
        world = connected()
        world.pause(side)
        world.after(4.0, lambda world=world, side=side: world.resume(side))  # type: ignore[misc]
        world.run(10.0)
        assert not world.downs
        world.check_healed()


def the_last_message_lost_within_a_connection_is_sent_again() -> None:
    world = connected()
    world.loss = 1.0
    world.send_a()
    world.send_b()
    world.loss = 0.0
    world.run(2.5)
    assert not world.downs
    world.check_healed()


def what_is_not_confirmed_is_bounded() -> None:
    world = connected()
    world.stop("A", "B")
    for kind in (Kind.EVENT, Kind.REQUEST, Kind.REPLY):
        for _ in range(11_000):
            world.send_a(kind=kind)
    assert world.a.session.waiting == 10_000
    world.heal()
    world.run(3.0)
    assert world.a.session.waiting == 0
    world.check_healed()


def a_pulled_cable_is_told_on_both_sides_within_the_limit() -> None:
    _pulled("AB")


def a_way_that_swallows_what_the_dialler_says_is_told_on_both_sides() -> None:
    _pulled("A")


def a_way_that_swallows_what_the_listener_says_is_told_on_both_sides() -> None:
    _pulled("B")


def a_pause_of_both_sides_at_once_is_no_silence() -> None:
    for seed in range(1, 7):
        world = connected(seed)
        world.pause("A")
        world.pause("B")
        world.run(9.0)
        world.heal()
        world.run(3.0)
        assert not world.downs
        assert world.a.up


def a_session_that_is_replaced_ends_at_once() -> None:
    world = connected()
    world.refusing = True
    world.break_wire()
    world.run(0.5)
    assert [side for _, side, _ in world.downs] == ["A"]
    world.refusing = False
    world.send_a()
    world.run(0.5)
    ((_, _, down),) = [each for each in world.downs if each[1] == "B"]
    assert down.reason == "it began anew"
    world.check_healed()


def an_opening_that_comes_late_does_not_move_the_session() -> None:
    acceptor = Acceptor()
    acceptor.heard(1.0, b"\0old", [frame(OPEN, 7, 1)])
    acceptor.heard(1.1, b"\0new", [frame(RESUME, 7, 3)])
    assert not acceptor.heard(1.2, b"\0mid", [frame(RESUME, 7, 2)])
    (said,) = acceptor.send(1.3, (7).to_bytes(8, "big"), Kind.EVENT, [b"h", b"b"])
    assert isinstance(said, Transmit)
    assert said.frames[0] == b"\0new"
    assert acceptor.counters["sessions_late"] == 1


def _talk(world: World, seconds: float) -> None:
    for _ in range(int(seconds / 0.05)):
        world.send_a()
        world.send_b()
        world.run(0.05)


def a_dead_network_is_left_with_the_session_and_returned_to_after_the_hold_down() -> None:
    world = connected()
    first, second = ADDRESSES
    assert world.a.address == first
    world.dead = {first}
    _talk(world, FALTER + 0.5)
    assert (world.a.up, world.a.address) == (True, second)
    _talk(world, 2 * HOLD_DOWN)
    assert world.a.address == second, "a second connection that does not come about disturbs nothing"
    world.dead = set()
    _talk(world, HOLD_DOWN + 3.0)
    assert (world.a.up, world.a.address) == (True, first)
    world.run(1.0)
    assert not world.downs
    assert world.a.counters.resumed == 2
    world.check_healed()


def another_order_moves_a_session_and_nothing_is_lost() -> None:
    world = connected()
    first, second = ADDRESSES
    for addresses, expected in (((second, first), second), ((first,), first), ((second,), second)):
        _talk(world, 0.2)
        world.do_a("move", addresses)
        world.run(0.2)
        assert (world.a.up, world.a.address) == (True, expected)
    _talk(world, 1.0)
    assert not world.downs
    world.check_healed()
    world.do_a("move", ())
    world.run(0.1)
    assert not world.a.up
    ((_, _, down),) = [each for each in world.downs if each[1] == "A"]
    assert "no network" in down.reason


def an_order_whose_best_address_is_dead_disturbs_nothing() -> None:
    world = connected()
    first, second = ADDRESSES
    world.dead = {second}
    world.do_a("move", (second, first))
    steps = world.made
    _talk(world, 3.0)
    assert (world.a.up, world.a.address, world.made - steps) == (True, first, 0)
    assert not world.downs
    world.check_healed()


SCRIPTS: tuple[Callable[[], None], ...] = (
    a_pause_of_both_sides_at_once_is_no_silence,
    a_session_that_is_replaced_ends_at_once,
    an_opening_that_comes_late_does_not_move_the_session,
    a_pulled_cable_is_told_on_both_sides_within_the_limit,
    a_way_that_swallows_what_the_dialler_says_is_told_on_both_sides,
    a_way_that_swallows_what_the_listener_says_is_told_on_both_sides,
    an_idle_connection_stays_up_for_a_heartbeat_a_second,
    a_calm_connection_costs_little_and_who_waits_is_told_as_ever,
    a_broken_connection_is_resumed_and_nobody_is_told,
    a_peer_that_was_started_anew_is_told_apart,
    a_peer_that_forgot_the_session_says_so_on_the_living_connection,
    a_refused_peer_is_told_at_once,
    a_pause_of_either_side_below_the_limit_costs_nothing,
    the_last_message_lost_within_a_connection_is_sent_again,
    what_is_not_confirmed_is_bounded,
    a_dead_network_is_left_with_the_session_and_returned_to_after_the_hold_down,
    another_order_moves_a_session_and_nothing_is_lost,
    an_order_whose_best_address_is_dead_disturbs_nothing,
)
