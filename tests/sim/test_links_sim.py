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


@pytest.mark.parametrize("seed", range(SEEDS))
def test_storm(seed: int) -> None:
    storm(seed, 25.0)


def test_one_seed_is_one_trace() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); from links_world import storm; print(storm(5, 6.0).digest())"
    support = str(Path(__file__).parent.parent / "support")
    digests = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, support],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": hash_seed},
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_the_storms_reach_what_is_rare() -> None:
    worlds = [storm(seed, 25.0) for seed in (1, 2, 12, 14)]
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
