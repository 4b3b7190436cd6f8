"""Every order of events of a small registry, looked at state by state; and that this finds what chance does not.

COVEY_EXPLORE=1000000 looks further than the suite does; the number of states is printed (`pytest -s`).
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import registry_mistakes
from registry_explore import Explorer, Found

STATES = int(os.environ.get("COVEY_EXPLORE", "0"))


def explored(most: int, **bounds: int | bool) -> Explorer:
    explorer = Explorer(most, **bounds)  # type: ignore[arg-type]
    explorer.run()
    print(f"\n{len(explorer.seen)} states of {explorer.looked_at} looked at, {explorer.steps} steps, {bounds}")
    return explorer


def test_three_servers_three_epochs_three_entries_all_of_it() -> None:
    """All that can happen when nothing crashes, every message may be lost or late, and answers are prompt or lost."""
    explorer = explored(1_000_000, epochs=3, entries=3, crashes=0, flight=3, late=False)
    assert explorer.whole
    assert len(explorer.seen) > 5_000


def test_as_far_as_time_allows_with_a_crash_and_late_answers() -> None:
    explorer = explored(STATES or 1200, epochs=4, entries=4, crashes=1, flight=5)
    assert explorer.whole or explorer.depth > 4


@pytest.mark.parametrize(
    ("plant", "what", "most", "bounds"),
    [
        (
            registry_mistakes.count_copies_of_old_epochs,
            "INV-4",
            12_000,
            {"crashes": 0, "entries": 3, "flight": 3, "late": False},
        ),
        (registry_mistakes.forget_the_vote, "INV-1", 2500, {"epochs": 3, "flight": 3, "late": False}),
        (registry_mistakes.vote_for_any_log, "INV-4", 400, {"epochs": 3}),
        (registry_mistakes.vote_twice, "INV-1", 1200, {"epochs": 3}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_planted_mistake_is_found(
    plant: Callable[[pytest.MonkeyPatch], None],
    what: str,
    most: int,
    bounds: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    with pytest.raises(Found, match=what):
        explored(most, **bounds)
