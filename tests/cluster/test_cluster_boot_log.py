"""The boot log of a real boot holds every step of SPEC 2.3 in the order of its table."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from covey.testing import Cluster

pytestmark = pytest.mark.cluster

ORDER = (  # SPEC 2.3, "The order is partial"
    "0 < 1 < 2 < 3 < 4; 1 < 5 < 6 < 7; 7 < 8 < 10 < 11; 7 < 9 < 12 < 13 < 14; 11 < 13; 14 < 15 < 16 < 18; "
    "17 < 18 < 19 < 20 < 21 < 22 < 23 < 24"
)
OTHERS = {1, 5, 15, 16}
"""Steps that are the registry server's; a client logs when it learned of them."""

COMPONENTS = {
    **dict.fromkeys((1, 2, 3, 4, 6, 7), "dcm"),
    **dict.fromkeys((5, 15, 16), "registry"),
    **dict.fromkeys((8, 10, 11), "liveness"),
    **dict.fromkeys((9, 12, 13, 14), "groups"),
    **dict.fromkeys((17, 18, 19, 20, 21), "resources"),
}


def before() -> set[tuple[int, int]]:
    """Return all pairs (earlier, later) that follow from the table."""
    pairs = {(int(a), int(b)) for chain in ORDER.split(";") for a, b in pairwise(chain.replace(" ", "").split("<"))}
    while more := {(a, d) for a, b in pairs for c, d in pairs if b == c} - pairs:
        pairs |= more
    return pairs


@pytest.mark.parametrize("number", [1, 2, 3])
def test_the_order_of_a_real_boot(shared: Cluster, number: int) -> None:
    log: list[dict[str, Any]] = shared[number].covey("-o", "json", "node", "boot-log").data
    assert {one["step"] for one in log} == set(range(25))
    assert {one["how"] for one in log} <= {"done", "remote", "waiting"}
    first: dict[int, float] = {}
    for one in log:
        if one["how"] in ("done", "remote"):
            first[one["step"]] = min(one["ms"], first.get(one["step"], one["ms"]))
            assert one["component"] == COMPONENTS.get(one["step"], one["component"]), one
    assert set(first) == set(range(25)), "steps that were never done"
    remote = {one["step"] for one in log if one["how"] == "remote"}
    assert remote == (set() if number == 1 else OTHERS)
    wrong = [(a, b, first[a], first[b]) for a, b in sorted(before()) if first[a] > first[b]]
    assert not wrong, "(earlier, later, ms, ms) in the wrong order"
    assert [one["ms"] for one in log] == sorted(one["ms"] for one in log)


def test_the_boot_log_of_another_node(shared: Cluster) -> None:
    own = shared[3].covey("-o", "json", "node", "boot-log").data
    assert shared[1].covey("-o", "json", "node", "boot-log", "n3").data == own
    assert len(shared[1].covey("node", "boot-log", "3").out.splitlines()) > 25
