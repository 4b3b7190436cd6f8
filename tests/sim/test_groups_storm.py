"""Groups under faults by chance: members come, speak and die while coordinators change and messages are lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from groups_world import storm

SEEDS = int(os.environ.get("COVEY_SIM_SEEDS", "15"))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_storm(seed: int) -> None:
    """INV-23, 24, 25, 27, 31 over random faults."""
    storm(seed)


def test_same_seed_same_trace() -> None:
    """INV-34, under another hash seed too."""
    support = Path(__file__).parent.parent / "support"
    code = "import groups_world; print(groups_world.storm(3, seconds=5.0).world.digest())"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(support)}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert told.stdout.strip() == storm(3, seconds=5.0).world.digest()
