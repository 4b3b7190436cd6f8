"""What a node thinks of its peers: silence, probes, suspicion, and the excuse of having been away oneself."""

from __future__ import annotations

import pytest
from covey.components.liveness.peers import Peers
from covey.components.liveness.settings import Settings


def peers(*numbers: int) -> Peers:
    found = Peers(Settings())
    found.follow([(n, "", f"b{n}") for n in numbers], 0.0)
    return found


def run(found: Peers, until: float) -> list[tuple[float, list[int]]]:
    """Let time pass from deadline to deadline; return who was probed when."""
    probes = []
    while (at := found.deadline) is not None and at <= until:
        probed = found.tick(at)
        if probed:
            probes.append((round(at, 3), [peer.number for peer in probed]))
    return probes


def test_a_silent_peer_is_probed_three_times_and_suspect_after_the_grace() -> None:
    found = peers(2)
    assert run(found, 3.95) == [(3.0, [2]), (3.3, [2]), (3.6, [2])]
    assert found.suspects == ()
    run(found, 4.0)
    assert found.suspects == ((2, ""),)
    assert found.deadline is None


def test_any_sign_of_the_same_boot_id_clears_it() -> None:
    found = peers(2)
    run(found, 5)
    found.sign(2, "", "b2", 5.0)
    assert found.suspects == () and found.troubled_since(2) is None
    assert found.deadline == 8.0


def test_sound_is_who_answered_on_every_network_and_is_not_in_doubt() -> None:
    found = Peers(Settings())
    found.follow([(2, "a", "b2"), (2, "b", "b2"), (3, "a", "b3")], 0.0)
    assert not found.sound, "nobody has answered yet"
    for number, network in ((2, "a"), (2, "b"), (3, "a")):
        found.answer(number, network, f"b{number}", 1, 0.5, 1.0)
    assert found.sound == {2, 3}
    found.sign(3, "a", "b3", 3.0)
    found.sign(2, "a", "b2", 3.0)
    found.tick(4.0)
    assert found.sound == {3}, "one network of node 2 is silent"


def test_a_sign_of_another_boot_id_is_no_sign() -> None:
    found = peers(2)
    for at in (1.0, 2.0, 3.0):
        found.sign(2, "", "other", at)
    run(found, 4)
    assert found.suspects == ((2, ""),)


def test_a_closed_link_is_looked_into_at_once() -> None:
    found = peers(2)
    found.link_closed(2, 1.0)
    found.link_closed(9, 1.0)
    assert [peer.number for peer in found.tick(1.0)] == [2]
    found.link_closed(2, 1.2)
    run(found, 2.0)
    assert found.suspects == ((2, ""),)


def test_an_answer_to_a_probe_ends_it() -> None:
    found = peers(2)
    found.link_closed(2, 1.0)
    assert [peer.number for peer in found.tick(1.0)] == [2]
    found.sign(2, "", "b2", 1.1)
    assert run(found, 3.9) == [] and found.suspects == ()


def test_who_was_away_itself_accuses_nobody() -> None:
    found = peers(2, 3)
    run(found, 2)
    found.excuse(60.0)
    assert run(found, 62.9) == []
    run(found, 64.0)
    assert found.suspects == ((2, ""), (3, ""))


def test_opinions_stay_with_those_who_stay_and_start_anew_for_a_new_boot_id() -> None:
    found = peers(2, 3)
    run(found, 4)
    found.follow([(2, "", "b2"), (3, "", "new"), (4, "", "b4")], 4.5)
    assert found.suspects == ((2, ""),)
    assert found.deadline == 7.5


def test_a_peer_that_went_is_forgotten() -> None:
    found = peers(2)
    found.follow([], 1.0)
    assert found.deadline is None and found.tick(99) == [] and found.troubled_since(2) is None


def test_an_event_no_table_knows_is_an_error() -> None:
    found = peers(2)
    with pytest.raises(KeyError):
        next(iter(found)).turn("grace over", 1.0)
