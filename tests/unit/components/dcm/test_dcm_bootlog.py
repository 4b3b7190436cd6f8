"""The bootstrap table and the log of the last boot."""

from __future__ import annotations

from pathlib import Path

import pytest
from boot_order import out_of_order
from covey.components.dcm.bootlog import BEFORE, STEPS, BootLog, waited_for


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def log_at(path: Path) -> BootLog:
    return BootLog(path / "boot.log", monotonic=Clock(), wall=lambda: "2026-01-01T00:00:00.000Z")


def test_the_table_is_that_of_the_specification() -> None:
    assert [step.number for step in STEPS] == list(range(25))
    spelled = "0<1 1<2 2<3 3<4 1<5 5<6 6<7 7<8 8<10 10<11 7<9 9<12 12<13 13<14 11<13 14<15 15<16 16<18 17<18"
    spelled += " 18<19 19<20 20<21 21<22 22<23 23<24"
    assert {tuple(map(int, pair.split("<"))) for pair in spelled.split()} == BEFORE
    assert waited_for(13) == (11, 12)


def test_every_number_is_there_from_the_start(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    log.begin("boot-1")
    lines = log.timeline()
    assert sorted(line["step"] for line in lines) == list(range(25))
    assert [line["how"] for line in lines].count("waiting") == 24
    assert next(line for line in lines if line["step"] == 1)["waiting_for"] == "dcm"
    assert next(line for line in lines if line["step"] == 13)["waiting_for"].startswith("step 11 (ready), step 12")


def test_a_component_that_waits_says_for_what(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    log.begin("boot-1")
    for step in (1, 2, 3, 4, 5, 6, 7):
        log.record(step)
    lines = {line["step"]: line for line in log.timeline({"liveness": {"registry.reads"}})}
    assert lines[8]["waiting_for"] == "registry.reads"
    assert lines[9]["waiting_for"] == "groups"


def test_the_boot_that_crashed_can_be_read_afterwards(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    log.begin("boot-1")
    log.record(1, "dcm", "started registry")
    log.record(5, how="remote")
    path = tmp_path / "boot.log"
    path.write_bytes(path.read_bytes() + b'{"step": 6, "comp')
    again = log_at(tmp_path).timeline()
    assert [(line["step"], line["how"]) for line in again[:3]] == [(0, "done"), (1, "done"), (5, "remote")]
    assert again[1]["event"] == "started registry"


def test_a_new_boot_replaces_the_last_one(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    log.begin("boot-1")
    log.record(1)
    log.begin("boot-2", started="2026-01-01T00:00:00Z")
    first = log_at(tmp_path).timeline()[0]
    assert first["event"] == "boot boot-2, the daemon runs since 2026-01-01T00:00:00Z"
    assert [line["step"] for line in log.timeline() if line["how"] != "waiting"] == [0]


def test_lines_are_in_the_order_of_time(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    log.begin("boot-1")
    for step in (1, 5, 2, 6):
        log.record(step)
    lines = [line for line in log.timeline() if line["ms"] is not None]
    assert [line["step"] for line in lines] == [0, 1, 5, 2, 6]
    assert [line["ms"] for line in lines] == sorted(line["ms"] for line in lines)


@pytest.mark.parametrize(("step", "how"), [(25, "done"), (-1, "done"), (1, "maybe")])
def test_what_is_no_step_is_refused(tmp_path: Path, step: int, how: str) -> None:
    log = log_at(tmp_path)
    log.begin("boot-1")
    with pytest.raises(ValueError, match="no step"):
        log.record(step, how=how)


def test_a_wrong_order_is_found(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    log.begin("boot-1")
    for step in (1, 6, 5, 7):
        log.record(step)
    assert [line.split(" at ")[0] for line in out_of_order(log.timeline())] == ["step 6"]


def test_a_step_done_elsewhere_before_breaks_no_order(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    log.begin("boot-1")
    log.record(6)
    log.record(5, how="remote")
    assert out_of_order(log.timeline()) == []
