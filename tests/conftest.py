"""For all tests: helpers of `tests/support/` can be imported by name; `--rewrite` renews the scenario texts."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "support"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so it is in the background of a shell, and programs inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)


WAITING = ("cluster", "netns")
"""Folders of tests that mostly wait, for processes of their own."""

SPREAD = 0.85
"""Over which part of all tests those are spread, so that the last tests to run are short ones."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let tests that wait alternate with tests that compute: workers take them in order, and no processor is idle."""
    here = Path(__file__).parent
    waiting = [item for item in items if item.path.relative_to(here).parts[0] in WAITING]
    computing = [item for item in items if item.path.relative_to(here).parts[0] not in WAITING]
    places = [(SPREAD * at / len(waiting), item) for at, item in enumerate(waiting)]
    places += [(at / len(computing), item) for at, item in enumerate(computing)]
    items[:] = [item for _, item in sorted(places, key=lambda place: place[0])]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write what scenarios really answer into their files")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return what `-n auto` means: two workers more than processors, since tests with real daemons wait a good deal."""
    return (os.cpu_count() or 1) + 2
