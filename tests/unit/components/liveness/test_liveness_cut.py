"""Whom to remove: by example, and against a naive twin that tries every set."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Set
from random import Random

from covey.components.liveness.cut import Observers, cut
from covey.components.liveness.networks import high, low, observers

Accusers = Mapping[tuple[int, str], Set[int]]


def mesh(*nodes: int, networks: tuple[str, ...] = ("",)) -> Observers:
    return {network: observers(nodes) for network in networks}


def on(accusers: Mapping[int, Set[int]], *networks: str) -> dict[tuple[int, str], Set[int]]:
    return {(number, network): who for number, who in accusers.items() for network in networks or ("",)}


def test_nobody_accused_nobody_goes() -> None:
    assert cut(mesh(1, 2, 3), {}, 1) == set()


def test_one_of_three_goes_when_both_others_accuse_it_and_not_before() -> None:
    assert cut(mesh(1, 2, 3), on({3: {1}}), 1) == set()
    assert cut(mesh(1, 2, 3), on({3: {1, 2}}), 1) == {3}


def test_of_two_the_leader_decides_alone() -> None:
    assert cut(mesh(1, 2), on({2: {1}}), 1) == {2}


def test_the_leader_stays_whoever_accuses_it() -> None:
    assert cut(mesh(1, 2, 3), on({1: {2, 3}}), 1) == set()
    assert cut(mesh(1, 2), on({1: {2}}), 1) == set()


def test_two_of_three_go_together_on_the_word_of_the_one_who_stays() -> None:
    assert cut(mesh(1, 2, 3), on({2: {1}, 3: {1}}), 1) == {2, 3}


def test_nine_of_ten_observers_are_enough_and_eight_are_not() -> None:
    ten = mesh(*range(1, 12))
    assert cut(ten, on({11: set(range(1, 10))}), 1) == {11}
    assert cut(ten, on({11: set(range(1, 9))}), 1) == set()
    assert [(high(k), low(k)) for k in (1, 2, 4, 9, 10)] == [(1, 1), (2, 1), (4, 1), (9, 3), (9, 4)]


def test_two_who_only_cannot_hear_one_another_both_stay() -> None:
    assert cut(mesh(1, 2, 3), on({2: {3}, 3: {2}}), 1) == set()


def test_one_who_accuses_everybody_goes_alone_when_the_others_agree() -> None:
    accusers = on({2: {1, 3, 4, 5}, 3: {2}, 4: {2}, 5: {2}})
    assert cut(mesh(1, 2, 3, 4, 5), accusers, 1) == {2}


def test_one_who_accuses_everybody_removes_nobody() -> None:
    assert cut(mesh(1, 2, 3, 4, 5), on({1: {2}, 3: {2}, 4: {2}, 5: {2}}), 1) == set()


def test_a_minority_with_the_leader_removes_the_majority_it_cannot_reach() -> None:
    accusers = on({3: {1, 2}, 4: {1, 2}, 5: {1, 2}, 1: {3, 4, 5}, 2: {3, 4, 5}})
    assert cut(mesh(1, 2, 3, 4, 5), accusers, 1) == {3, 4, 5}


def test_a_dead_adapter_is_no_dead_node() -> None:
    both = mesh(1, 2, 3, networks=("east", "west"))
    assert cut(both, on({3: {1, 2}}, "east"), 1) == set()
    assert cut(both, on({3: {1, 2}}, "east", "west"), 1) == {3}


def test_those_who_are_unsure_abstain_while_enough_others_speak() -> None:
    ten = mesh(*range(1, 12))
    accusers = on({11: {1, 2, 3, 4, 5}})
    assert cut(ten, accusers, 1, unsure={6, 7, 8, 9, 10}) == {11}
    assert cut(ten, accusers, 1, unsure={3, 4, 5, 6, 7, 8, 9, 10}) == set()


def supported(seen_by: Observers, accusers: Accusers, going: set[int]) -> bool:
    for number in going:
        staying = set(seen_by[""][number]) - going
        if not staying or len(accusers.get((number, ""), set()) & staying) < high(len(staying)):
            return False
    return True


def test_whatever_is_cut_is_supported_and_hardly_ever_is_there_more() -> None:
    """Against every set there is: what is found is supported, and nearly always there is no larger one."""
    smaller = 0
    for seed in range(400):
        random = Random(seed)
        members = set(range(1, random.randint(2, 6) + 1))
        seen_by, density = mesh(*sorted(members)), random.choice([0.2, 0.5, 0.9])
        accusers = on({n: {m for m in members - {n} if random.random() < density} for n in sorted(members)})
        found = cut(seen_by, accusers, 1)
        assert 1 not in found and supported(seen_by, accusers, found)
        others = sorted(members - {1})
        sets = [set(s) for size in range(len(others), 0, -1) for s in itertools.combinations(others, size)]
        largest = next((s for s in sets if supported(seen_by, accusers, s)), set())
        smaller += len(found) < len(largest)
    assert smaller <= 8, "the search from above misses the largest set now and then, and no more than that"


def test_a_crash_of_any_number_is_found_whole() -> None:
    for seed in range(200):
        random = Random(seed)
        members = list(range(1, random.randint(2, 30) + 1))
        seen_by = mesh(*members)
        most = len(members) - 1 if len(members) <= 11 else len(members) // 3
        dead = set(random.sample(members[1:], random.randint(1, most)))
        accusers = {n: set(seen_by[""][n]) - dead for n in dead}
        for n in dead:  # what the dead said just before they died
            for m in random.sample(members, random.randint(0, 2)):
                accusers.setdefault(m, set()).add(n)
        assert cut(seen_by, on(accusers), 1) == dead
