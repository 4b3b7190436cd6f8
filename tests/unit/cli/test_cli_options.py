"""The options of every command: where they may stand, which one wins, and how times are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PLACES = [
    ["-o", "json", "--state", "S", "liveness", "status"],
    ["liveness", "-o", "json", "--state", "S", "status"],
    ["liveness", "status", "-o", "json", "--state", "S"],
    ["--output=json", "liveness", "status", "--state=S"],
    ["-ojson", "liveness", "--state", "S", "status"],
]
VIEW = {"view": {"id": [3, 1], "members": []}, "quorate": True, "frozen": False}


@pytest.mark.parametrize("words", PLACES)
def test_they_may_stand_anywhere(words: list[str], covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["liveness", "status"] = VIEW
    answer = covey(*words)
    assert answer.exit_code == 0, answer.stderr
    assert json.loads(answer.stdout)["data"] == VIEW
    assert bus.state == Path("S")


def test_the_innermost_wins(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["liveness", "status"] = VIEW
    covey("--state", "outer", "liveness", "--state", "middle", "status", "--state", "inner")
    assert bus.state == Path("inner")
    covey("--state", "outer", "liveness", "status", env={"COVEY_STATE": "environment"})
    assert bus.state == Path("outer")


def test_the_state_folder_comes_from_the_environment_or_the_default(covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["liveness", "status"] = VIEW
    covey("liveness", "status", env={"COVEY_STATE": "/some/where"})
    assert bus.state == Path("/some/where")
    covey("liveness", "status")
    assert bus.state == Path("/var/lib/covey")


@pytest.mark.parametrize(("typed", "seconds"), [("500ms", 0.5), ("3s", 3), ("1.5m", 90), ("1h", 3600)])
def test_times_have_units(typed: str, seconds: float, covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["liveness", "status"] = VIEW
    assert covey("liveness", "status", "--timeout", typed).exit_code == 0
    assert bus.options[-1]["timeout"] == pytest.approx(seconds, abs=0.2)


@pytest.mark.parametrize(
    ("typed", "says"), [("10", "write 10s"), ("soon", "not a duration"), ("5 weeks", "not a duration")]
)
def test_times_without_sense_are_refused(typed: str, says: str, covey) -> None:  # type: ignore[no-untyped-def]
    answer = covey("liveness", "status", "--timeout", typed)
    assert answer.exit_code == 2
    assert says in answer.stderr


@pytest.mark.parametrize("named", ["lab", "cluster-1"])
def test_the_right_cluster_is_served(named: str, covey, bus) -> None:  # type: ignore[no-untyped-def]
    bus.answers["liveness", "status"] = VIEW
    assert covey("liveness", "status", "--cluster", named).exit_code == 0
    assert bus.options[-1]["cluster"] == "cluster-1"


def test_another_cluster_is_not_spoken_with(covey, bus) -> None:  # type: ignore[no-untyped-def]
    answer = covey("liveness", "status", "--cluster", "other", "-o", "json")
    assert answer.exit_code == 5
    assert json.loads(answer.stdout)["error"]["code"] == "registry.wrong_cluster"
    assert bus.calls == []
