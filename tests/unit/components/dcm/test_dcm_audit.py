"""The audit log: complete, chained, bounded."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from covey.components.dcm.audit import AuditLog


def log_at(path: Path, **settings: int) -> AuditLog:
    counter = itertools.count()
    return AuditLog(path / "audit.log", clock=lambda: f"2026-01-01T00:00:{next(counter):02}Z", **settings)


def test_an_entry_says_who_what_when_and_how_it_ended(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    log.append("client-5@1", 1000, "node_define", "done", address="127.1.0.2:7400")
    (entry,) = log.entries()
    assert entry["at"] == "2026-01-01T00:00:00Z"
    assert (entry["who"], entry["uid"], entry["what"], entry["outcome"]) == ("client-5@1", 1000, "node_define", "done")
    assert entry["with"] == {"address": "127.1.0.2:7400"}


def test_the_chain_goes_on_after_a_restart(tmp_path: Path) -> None:
    log_at(tmp_path).append("a", None, "one", "done")
    log_at(tmp_path).append("a", None, "two", "done")
    assert log_at(tmp_path).verify() == []
    assert [entry["what"] for entry in log_at(tmp_path).entries()] == ["one", "two"]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: [lines[0], lines[1].replace(b"two", b"TWO"), *lines[2:]], 3),
        (lambda lines: [lines[0], *lines[2:]], 2),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], 2),
        (lambda lines: [lines[0], lines[1][:20] + b"\n", *lines[2:]], 2),
    ],
    ids=["changed", "removed", "moved", "cut"],
)
def test_a_line_that_was_tampered_with_is_found(tmp_path: Path, change: object, line: int) -> None:
    log = log_at(tmp_path)
    for what in ("one", "two", "three", "four"):
        log.append("a", None, what, "done")
    path = tmp_path / "audit.log"
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))  # type: ignore[operator]
    assert log.verify()[0][:2] == (path, line)


def test_a_line_cut_by_a_crash_stays_and_is_reported(tmp_path: Path) -> None:
    log = log_at(tmp_path)
    log.append("a", None, "one", "done")
    log.append("a", None, "two", "done")
    path = tmp_path / "audit.log"
    path.write_bytes(path.read_bytes()[:-30])
    again = log_at(tmp_path)
    again.append("a", None, "three", "done")
    assert [entry["what"] for entry in again.entries()] == ["one", "audit.damaged", "three"]
    assert [found.line for found in again.verify()] == [2]
    assert next(entry for entry in again.entries() if entry["what"] == "audit.damaged")["with"]["line"] == 2


def test_it_is_bounded_and_the_chain_holds_over_rotated_files(tmp_path: Path) -> None:
    log = log_at(tmp_path, limit=2000, keep=3)
    for number in range(100):
        log.append("a", None, f"entry {number}", "done")
    assert len(list(tmp_path.iterdir())) == 4
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 4 * 2300
    assert log.verify() == []
    kept = [entry["what"] for entry in log.entries()]
    assert kept == [f"entry {number}" for number in range(100 - len(kept), 100)]


def test_a_disk_that_refuses_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_at(tmp_path)
    log.append("a", None, "one", "done")
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("no space left")))
        with pytest.raises(OSError, match="no space"):
            log.append("a", None, "two", "done")
    log.append("a", None, "three", "done")
    assert log.verify() == []
