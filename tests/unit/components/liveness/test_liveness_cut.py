"""Whom to remove: by example, and against a naive twin that tries every set."""

from __future__ import annotations

import itertools
from random import Random

from covey.components.liveness.cut import cut


def test_nobody_accused_nobody_goes() -> None:
    assert cut([1, 2, 3], {}, 1) == set()


def test_one_of_three_goes_when_both_others_accuse_it_and_not_before() -> None:
    assert cut([1, 2, 3], {3: {1}}, 1) == set()
    assert cut([1, 2, 3], {3: {1, 2}}, 1) == {3}


def test_of_two_the_leader_decides_alone() -> None:
    assert cut([1, 2], {2: {1}}, 1) == {2}


def test_the_leader_stays_whoever_accuses_it() -> None:
    assert cut([1, 2, 3], {1: {2, 3}}, 1) == set()
    assert cut([1, 2], {1: {2}}, 1) == set()


def test_two_of_three_go_together_on_the_word_of_the_one_who_stays() -> None:
    assert cut([1, 2, 3], {2: {1}, 3: {1}}, 1) == {2, 3}


def test_half_is_no_majority() -> None:
    assert cut([1, 2, 3, 4, 5], {5: {1, 2}}, 1) == set()
    assert cut([1, 2, 3, 4, 5], {5: {1, 2, 3}}, 1) == {5}


def test_two_who_only_cannot_hear_one_another_both_stay() -> None:
    assert cut([1, 2, 3], {2: {3}, 3: {2}}, 1) == set()


def test_one_who_accuses_everybody_goes_alone_when_the_others_agree() -> None:
    accusers = {2: {3, 4, 5}, 3: {2}, 4: {2}, 5: {2}}
    assert cut([1, 2, 3, 4, 5], accusers, 1) == {2}


def test_one_who_accuses_everybody_removes_nobody() -> None:
    assert cut([1, 2, 3, 4, 5], {1: {2}, 3: {2}, 4: {2}, 5: {2}}, 1) == set()


def test_a_minority_with_the_leader_removes_the_majority_it_cannot_reach() -> None:
    accusers = {3: {1, 2}, 4: {1, 2}, 5: {1, 2}, 1: {3, 4, 5}, 2: {3, 4, 5}}
    assert cut([1, 2, 3, 4, 5], accusers, 1) == {3, 4, 5}


def supported(members: set[int], accusers: dict[int, set[int]], going: set[int]) -> bool:
    staying = members - going
    return all(2 * len(accusers.get(n, set()) & staying) > len(staying) for n in going)


def test_whatever_is_cut_is_supported_and_nothing_larger_is() -> None:
    """Against every set there is: what is found is supported, and found whenever there is any supported set."""
    smaller = 0
    for seed in range(400):
        random = Random(seed)
        members = set(range(1, random.randint(2, 6) + 1))
        density = random.choice([0.2, 0.5, 0.9])
        accusers = {n: {m for m in members - {n} if random.random() < density} for n in sorted(members)}
        found = cut(members, accusers, 1)
        assert 1 not in found and supported(members, accusers, found)
        others = sorted(members - {1})
        sets = [set(s) for size in range(len(others), 0, -1) for s in itertools.combinations(others, size)]
        largest = next((s for s in sets if supported(members, accusers, s)), set())
        smaller += len(found) < len(largest)
    assert smaller <= 8, "the search from above misses the largest set now and then, and no more than that"


def test_a_crash_of_any_number_is_found_whole() -> None:
    for seed in range(200):
        random = Random(seed)
        members = list(range(1, random.randint(2, 12) + 1))
        dead = set(random.sample(members[1:], random.randint(1, len(members) - 1)))
        alive = set(members) - dead
        accusers = {n: set(alive) for n in dead}
        for n in dead:  # what the dead said just before they died
            for m in random.sample(members, random.randint(0, 2)):
                accusers.setdefault(m, set()).add(n)
        assert cut(members, accusers, 1) == dead
