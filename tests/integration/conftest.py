"""What tests on real brokers share; `real_nodes.py` has the nodes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cv") as name:  # short: a socket's path has at most 107 bytes
        yield Path(name)
