"""Paths, as both ends see them, and how long one that comes and goes has to wait."""

from __future__ import annotations

import pytest
from covey.bus.machine import Send
from covey.components.liveness.backoff import Backoff
from covey.components.liveness.messages import Adapters, Alert, JoinDelayed, Look, Seen, Status, Suspect, Waited
from covey.components.liveness.seen import Sight, paths, state_of
from covey.components.liveness.settings import Settings
from liveness_script import Script

EAST = "10.1.0.0/16"
NETWORKS = {EAST: {1: "10.1.0.1", 2: "10.1.0.2"}}
ADAPTERS = Adapters(tuple((n, (f"10.1.0.{n}/16", f"10.2.0.{n}/16")) for n in range(1, 5)))


def sight(number: int, answers: bool | None, heard: bool, rtt: float | None = None) -> Sight:
    return Sight(number, EAST, f"10.1.0.{number}", answers, heard, rtt)


def states(reports: dict[int, list[Sight]]) -> list[tuple[int, str, bool | None]]:
    rows = paths(reports, NETWORKS)
    assert [(row["from"], row["to"]) for row in rows] == [("10.1.0.1", "10.1.0.2"), ("10.1.0.2", "10.1.0.1")]
    return [(row["from_node"], row["state"], row["arrives"]) for row in rows]


def test_what_both_ends_say_is_put_together() -> None:
    both = {1: [sight(2, True, True, 0.001)], 2: [sight(1, True, True)]}
    assert states(both) == [(1, "ok", True), (2, "ok", True)]
    assert [row["rtt_ms"] for row in paths(both, NETWORKS)] == [1.0, None]
    one_way = {1: [sight(2, False, True)], 2: [sight(1, False, False)]}
    assert states(one_way) == [(1, "one-way", False), (2, "one-way", True)]
    cut = {1: [sight(2, False, False)], 2: [sight(1, False, False)]}
    assert states(cut) == [(1, "down", False), (2, "down", False)]


def test_one_end_alone_tells_what_it_can() -> None:
    assert states({1: [sight(2, True, True)]})[0] == (1, "ok", True)
    assert states({1: [sight(2, False, False)]})[0] == (1, "down", False)
    assert states({1: [sight(2, None, True)]}) == [(1, "unknown", None), (2, "unknown", True)]
    assert [state_of(*pair) for pair in ((None, None), (True, False), (None, False))] == ["unknown", "one-way", "down"]


def test_a_node_tells_what_it_sees_on_each_network() -> None:
    node = Script(2)
    node.feed(ADAPTERS)
    node.leading(1, 1)
    node.announce(node.view(1, 2, 3))
    node.peers_alive(1.5, 1, 3, leads=1)
    node.take()
    node.ask(Seen())
    (seen,) = node.replies()
    assert [(s.number, s.network, s.address, s.answers, s.heard) for s in seen] == [
        (n, net, net.replace("0.0/16", f"0.{n}"), True, True) for net in ("10.1.0.0/16", "10.2.0.0/16") for n in (1, 3)
    ]
    node.wait(6)
    node.take()
    node.ask(Seen())
    assert not any(s.answers or s.heard for s in node.replies()[0])
    alert = node_alert(node)
    assert alert.suspects == tuple(Suspect(n, net) for n in (1, 3) for net in ("10.1.0.0/16", "10.2.0.0/16"))


def node_alert(node: Script) -> Alert:
    node.wait(1.1)
    found: Alert = node.sent(Alert, to=1)[-1]
    return found


def test_who_was_stopped_says_that_it_is_unsure_and_looks_when_it_is_told() -> None:
    node = Script(2)
    node.leading(1, 1)
    node.announce(node.view(1, 2, 3, 4))
    node.peers_alive(1, 1, 3, 4, leads=1)
    node.sleep(3)
    node.hear(1, Look((1, 1), 3))
    node.hear(3, Look((1, 1), 4))
    node.peers_alive(1.2, 1, 4, leads=1)
    assert node.sent(Alert, to=1)[-1] == Alert("b2", (1, 1), (Suspect(3),), unsure=True)


def test_one_that_waits_knows_how_long() -> None:
    node = Script(2)
    node.leading(1, 1)
    node.hear(1, JoinDelayed("b2", 4.5))
    node.hear(1, JoinDelayed("other", 99.0))
    node.take()
    node.ask(Status())
    assert node.replies()[0]["waits_s"] == 4.5


@pytest.mark.parametrize("ran", [True, False])
def test_only_who_ran_waits_twice_as_long_each_time_and_is_forgiven(ran: bool) -> None:
    found, now, waits = Backoff(Settings()), 100.0, []
    for time in range(9):
        found.removed(3, f"b{time}")
        if ran:
            found.ran(3, f"b{time}", now)
            found.ran(3, f"b{time}", now + 1)
        waits.append(max(0.0, found.until(3) - now))
        now += 30
    assert waits == ([5, 10, 20, 40, 80, 160, 300, 300, 300] if ran else [0] * 9)
    found.ran(3, "never accused", now)
    found.removed(3, "b9")
    found.ran(3, "b9", now + 1000)
    assert not ran or found.until(3) == now + 1005


@pytest.mark.parametrize(("later", "dated", "left"), [(4, True, 6), (4, False, 10), (-9, True, 10), (700, True, 0)])
def test_the_next_leader_goes_on_with_a_wait_and_by_the_time_of_day_if_both_know_it(
    later: int, dated: bool, left: int
) -> None:
    former, date = Backoff(Settings()), 1e9 * dated
    for boot in ("b1", "b2"):
        former.removed(3, boot)
        waited = former.ran(3, boot, 50.0, date)
    assert waited == Waited(3, "b2", 2, date)
    found = Backoff(Settings())
    found.removed(3, "b2")  # so says the log, too
    found.restore(waited, 7000.0, date + later if dated else 0.0)
    assert max(0, found.until(3) - 7000) == left
    assert found.ran(3, "b2", 7000.0) is None, "it was counted by the former leader"


def test_one_to_whom_no_datagram_ever_got_through_is_asked_over_the_bus() -> None:
    node = Script(2)
    node.feed(ADAPTERS)
    node.leading(1, 1)
    node.announce(node.view(1, 2, 3))
    for _ in range(40):  # node 1 answers all, node 3 what comes over the bus
        node.wait(0.25)
        node.answer_beats(1, leads=1)
        node.effects = [e for e in node.effects if not (isinstance(e, Send) and e.to.node == 1)]
        over_bus = [e for e in node.effects if isinstance(e, Send) and not getattr(e.message, "network", "")]
        node.effects = over_bus
        node.answer_beats(3)
        node.take()
    assert node.machine.peers.suspects == ()
    node.wait(6)
    assert {number for number, _ in node.machine.peers.suspects} == {1, 3}
