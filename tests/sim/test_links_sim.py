"""Two brokers over a bad network: nothing twice, nothing out of order, no loss without a word, and told in time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from links_scripts import SCRIPTS
from links_world import storm

SEEDS = int(os.environ.get("COVEY_SIM_SEEDS", "12"))
RARE = (1, 2, 12, 14)
"""Storms that together reach what is rare: one test runs them all."""


@pytest.mark.parametrize("seed", [seed for seed in range(SEEDS) if seed not in RARE])
def test_storm(seed: int) -> None:
    storm(seed, 15.0)


def test_one_seed_is_one_trace() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); from links_world import storm; print(storm(5, 6.0).digest())"
    support = str(Path(__file__).parent.parent / "support")
    environment = {"PYTHONHASHSEED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code, support], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == storm(5, 6.0).digest()


def test_the_storms_reach_what_is_rare() -> None:
    worlds = [storm(seed, 25.0) for seed in RARE]
    counters = [world.a.counters for world in worlds]
    assert sum(each.resumed for each in counters) > 5
    assert sum(each.resent for each in counters) > 20
    assert sum(each.duplicates for each in counters) > 0
    assert sum(each.gaps for each in counters) > 5
    assert sum(each.lost for each in counters) > 0
    assert any(world.closed for world in worlds)
    assert any("anew" in down.reason for world in worlds for _, _, down in world.downs)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_script(script: Callable[[], None]) -> None:
    script()
