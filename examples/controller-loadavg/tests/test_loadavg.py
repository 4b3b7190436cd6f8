"""The controller keeps its description, and its figures are those of the system."""

from __future__ import annotations

import os

import pytest
from covey import Failed, Resource
from covey.testing import check_controller
from covey_loadavg import LoadAverage


def test_it_keeps_its_description() -> None:
    found = check_controller(LoadAverage)
    assert [one["key"] for one in found] == [{"Minutes": 1}, {"Minutes": 5}, {"Minutes": 15}]


def test_figures_are_the_systems() -> None:
    values = LoadAverage().read(Resource("LoadAverage", {"Minutes": 15}, "1-x"))
    assert values["Load"] == pytest.approx(os.getloadavg()[2], abs=0.5)


def test_another_window_is_refused() -> None:
    with pytest.raises(Failed, match="no load average over 7 minutes"):
        LoadAverage().read(Resource("LoadAverage", {"Minutes": 7}, "1-x"))
