"""Liveness under random faults: one chain at every step, everything converged in the end, one seed one trace."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from liveness_storm import long, storm, what_happened

SEEDS = [*range(18), *range(24, 30)] if "COVEY_SIM_LONG" in os.environ else [*range(12)]


@pytest.mark.parametrize(
    "seeds", [SEEDS[i : i + 6] for i in range(0, len(SEEDS), 6)], ids=lambda seeds: f"{seeds[0]} to {seeds[-1]}"
)
def test_a_minute_of_faults_leaves_one_chain_and_a_settled_cluster(seeds: list[int]) -> None:
    total: Counter[str] = Counter()
    for seed in seeds:
        total += what_happened(storm(seed))
    for rare in ("crash", "pause", "partition", "cut", "node removed", "frozen", "epochs"):
        assert total[rare], f"no storm of {seeds} reached: {rare}"


def test_ten_nodes_on_two_networks_with_dead_adapters_and_processes_too() -> None:
    """`make sim-hours` does this for hours."""
    counts = what_happened(long(3, 10, 40.0))
    assert counts["views"] > 5 and counts["removed"]


def test_one_seed_is_one_trace_under_any_hash_seed() -> None:
    code = "from liveness_storm import storm; print(*[storm(seed).world.digest() for seed in (0, 5)])"
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(Path(__file__).parents[1] / "support")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    digests = [storm(seed).world.digest() for seed in (0, 5)]
    assert done.stdout.split() == digests
    assert digests[0] != digests[1]
