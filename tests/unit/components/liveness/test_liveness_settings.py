"""The times that hang together do so at every interval the configuration allows."""

from __future__ import annotations

import pytest
from covey.components.liveness.settings import Settings


@pytest.mark.parametrize("interval", [0.1, 1.0, 5.0, 60.0])
def test_what_must_outlast_heartbeats_does(interval: float) -> None:
    settings = Settings.for_interval(interval)
    assert settings.interval == interval
    assert settings.word > settings.patience * interval, "else a few lost answers freeze a healthy node"
    assert settings.tasks > 2 * 3 * interval, "the tasks are done every three intervals"
    assert settings.hold >= min(interval, 60.0)
    assert (settings.probes - 1) * settings.probe_gap < settings.grace


def test_the_default_finds_a_dead_node_within_five_seconds() -> None:
    usual = Settings.for_interval(1.0)
    assert usual == Settings()
    assert usual.patience * usual.interval + usual.grace + usual.batch < 5
