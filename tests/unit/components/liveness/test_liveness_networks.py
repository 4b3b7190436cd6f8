"""Networks, rings, the tree of announcements: what all nodes must compute alike."""

from __future__ import annotations

import pytest
from covey.components.liveness.networks import networks_of, observers, subjects
from covey.components.liveness.relay import FAN_OUT, hearers


def test_a_prefix_that_all_members_have_is_a_network_and_the_rest_is_reached_by_routing() -> None:
    lab = {n: (f"127.1.0.{n}/16", f"127.2.0.{n}/16") for n in (1, 2, 3)}
    assert networks_of([1, 2], lab) == {
        "127.1.0.0/16": {1: "127.1.0.1", 2: "127.1.0.2"},
        "127.2.0.0/16": {1: "127.2.0.1", 2: "127.2.0.2"},
    }
    racks = {1: ("10.1.0.1/24", "10.8.0.1/24"), 2: ("10.1.0.2/24",), 3: ("10.2.0.3/24",)}
    assert networks_of([1, 2, 3], racks) == {"default": {1: "10.1.0.1", 2: "10.1.0.2", 3: "10.2.0.3"}}
    assert networks_of([1, 2, 9], lab)["127.1.0.0/16"] == {1: "127.1.0.1", 2: "127.1.0.2"}, "9 is not defined here yet"
    assert networks_of([1, 2], {}) == {"": {1: "", 2: ""}}
    assert networks_of([9], lab) == {}


@pytest.mark.parametrize("n", [1, 2, 11])
def test_a_few_observe_one_another(n: int) -> None:
    nodes = tuple(range(1, n + 1))
    assert all(set(seen) == set(nodes) - {node} for node, seen in observers(nodes).items())


@pytest.mark.parametrize("n", [12, 200, 2000])
def test_of_many_each_has_ten_observers_or_a_few_less_and_observes_about_as_many(n: int) -> None:
    nodes = tuple(range(1, n + 1))
    seen, sees = observers(nodes), subjects(nodes)
    assert all(5 <= len(each) <= 10 and node not in each for node, each in seen.items())
    assert all(len(each) <= 10 for each in sees.values())
    assert {(a, b) for b, each in seen.items() for a in each} == {(a, b) for a, each in sees.items() for b in each}
    assert sum(map(len, seen.values())) >= 9.5 * n or n == 12
    assert observers(nodes)[7] == observers(tuple(range(1, n + 1)))[7]


def test_one_that_leaves_changes_the_observers_of_few() -> None:
    nodes = tuple(range(1, 501))
    before, after = observers(nodes), observers(nodes[:-1])
    assert sum(before[node] != after[node] for node in nodes[:-1]) <= 10


@pytest.mark.parametrize(("n", "levels"), [(2, 1), (129, 1), (130, 2), (16_513, 2), (16_514, 3)])
def test_the_tree_reaches_everybody_once(n: int, levels: int) -> None:
    numbers, level, told = list(range(1, n + 1)), [5 if n > 5 else 1], 0
    leader, reached = level[0], set(level)
    while level := [h for number in level for h in hearers(numbers, leader, number)]:
        assert reached.isdisjoint(level)
        reached |= set(level)
        told += 1
    assert reached == set(numbers) and told == levels
    assert len(hearers(numbers, leader, leader)) <= FAN_OUT
    assert hearers(numbers, leader, n + 7) == ()
