"""In which order a service's addresses are tried: the seed's example, and what holds for all lists (SPEC 8.2, 8.3)."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from covey.components.dcm.service_lists import Candidate, ordered
from hypothesis import given, settings
from hypothesis import strategies as st

CANDIDATES = st.lists(
    st.builds(
        Candidate,
        address=st.integers(1, 250).map(lambda n: f"10.0.0.{n}"),
        priority=st.sampled_from([None, None, 0, 1, 2, 3]),
        hops=st.integers(1, 4),
        local=st.booleans(),
    ),
    max_size=12,
    unique_by=lambda each: each.address,
)


def tried(candidates: list[Candidate], node: int) -> list[str]:
    return [each.address for each in ordered(candidates, node)]


def test_the_example_of_the_seed() -> None:
    hops = {"1": 0, "3": 1, "7": 1, "9": 1, "12": 2, "2": 2}
    named = [Candidate(name, None, far, local=far == 0) for name, far in hops.items()]
    # the seed's servers are symbols, so they are ordered as text; with IP addresses 2 would come before 12
    assert tried(named, 5) == ["1", "9", "3", "7", "2", "12"]


def test_addresses_are_compared_as_such_v4_first() -> None:
    mixed = [Candidate(each) for each in ("fd00::2", "10.0.0.10", "10.0.0.9", "fd00::1")]
    assert tried(mixed, 4) == ["10.0.0.9", "10.0.0.10", "fd00::1", "fd00::2"]


def test_a_set_priority_ranks_above_hops_and_above_this_very_node() -> None:
    found = [Candidate("10.0.0.1", None, 0, local=True), Candidate("10.0.0.2", 1, 5), Candidate("10.0.0.3", 2, 9)]
    assert tried(found, 1) == ["10.0.0.3", "10.0.0.2", "10.0.0.1"]


def test_thirty_nodes_spread_over_three_servers() -> None:
    servers = [Candidate(f"10.0.0.{n}") for n in (1, 2, 3)]
    assert set(Counter(tried(servers, node)[0] for node in range(101, 131)).values()) == {10}


@settings(max_examples=100, deadline=None)
@given(CANDIDATES, st.integers(1, 20_000))
def test_every_address_once_and_in_this_order(candidates: list[Candidate], node: int) -> None:
    found = ordered(candidates, node)
    assert Counter(found) == Counter(each for each in candidates if each.priority != 0), "each once, 0 never"
    ranks = [each.priority or 0 for each in found]
    assert ranks == sorted(ranks, reverse=True), "highest priority first, those without one last"
    for one, two in pairwise(found):
        if one.priority == two.priority:
            assert one.local or not two.local, "this very node first"
            assert one.local or two.local or one.hops <= two.hops, "the nearest first"


@settings(max_examples=50, deadline=None)
@given(CANDIDATES.filter(bool), st.integers(1, 20_000))
def test_first_places_are_spread_evenly_over_consecutive_nodes(candidates: list[Candidate], node: int) -> None:
    alike = [Candidate(each.address) for each in candidates]
    firsts = Counter(tried(alike, number)[0] for number in range(node, node + 2 * len(alike)))
    assert firsts == dict.fromkeys((each.address for each in alike), 2)
