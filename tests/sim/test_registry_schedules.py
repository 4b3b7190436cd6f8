"""Every classic schedule of a replicated log, played by hand on real machines: what storms find seldom or never."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import registry_changes
import registry_schedules

SCRIPTS = (*registry_schedules.SCRIPTS, *registry_changes.SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_a_classic_schedule_does_no_harm(script: Callable[[], None]) -> None:
    script()
