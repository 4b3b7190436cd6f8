"""Registry servers moved by chance, one message, timer or sync at a time; COVEY_SIM_SEEDS asks for more seeds."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from registry_chance import Chance

SEEDS = 5 * int(os.environ.get("COVEY_SIM_SEEDS", "8"))
EACH = 20


@pytest.mark.parametrize("first", range(0, SEEDS, EACH))
def test_any_order_of_single_steps_leaves_one_log(first: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(first, first + EACH):
        try:
            seen.update(Chance(seed).play().guard.seen)
        except AssertionError as failure:
            raise AssertionError(f"seed {seed}: {failure}") from failure
    assert seen["changes of primary"] and seen["entries that did not fit"] and seen["copies refilled"], seen
