"""The replicated registry under random faults: every invariant at every step, all judged and level again in the end.

A few seeds by default; COVEY_SIM_SEEDS says how many, as `make sim` does. A failure prints its seed and its story; the
same seed fails again: python tests/support/registry_storm.py SEED SEED+1.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from registry_storm import SOMETIMES, report, storm

SEEDS = int(os.environ.get("COVEY_SIM_SEEDS", "8"))
FIRST = int(os.environ.get("COVEY_SIM_FIRST", "0"))
SECONDS = 60.0 if SEEDS > 100 else 25.0
EACH = 8  # storms of one test: all profiles


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, EACH))
def test_a_storm_leaves_one_log_and_every_answer_true(first: int) -> None:
    total: Counter[str] = Counter()
    for seed in range(first, min(first + EACH, FIRST + SEEDS)):
        total.update(storm(seed, SECONDS).guard.seen)
    folder = os.environ.get("COVEY_SIM_REPORT")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        lines = [f"{count} {what}" for what, count in sorted(total.items())]
        (Path(folder) / f"storms-{first:06d}").write_text("\n".join(lines))
    for often in (
        "changes of primary",
        "reads turned away",
        "copies refilled",
        "pre-votes refused",
        "hand-overs taken",
    ):
        assert total[often], f"no storm from {first} on reached: {often}\n{report(total, EACH)}"


def test_what_the_storms_must_reach_has_names_that_are_counted() -> None:
    seen = storm(0, 12.0).guard.seen
    for what in ("operations judged", "steps checked", "entries committed", "simulated seconds", "faults"):
        assert seen[what], what
    assert len(set(SOMETIMES)) == len(SOMETIMES)


def test_one_seed_is_one_trace_under_any_hash_seed() -> None:
    """INV-34."""
    code = "from registry_storm import storm; print(*[storm(seed, 8.0).world.digest() for seed in (4, 7)])"
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(Path(__file__).parents[1] / "support")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    digests = [storm(seed, 8.0).world.digest() for seed in (4, 7)]
    assert done.stdout.split() == digests, done.stderr
    assert digests[0] != digests[1]
