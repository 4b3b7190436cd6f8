"""The audit log as it is asked for over the bus."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from covey.components.dcm.audit import AuditLog
from covey.components.dcm.auditing import AuditVerbs
from covey.errors import BadArguments, BadExpression


def asked(log: AuditLog, **arguments: Any) -> dict[str, Any]:
    verbs = AuditVerbs()
    verbs._home = SimpleNamespace(audit_log=log)  # type: ignore[assignment]
    return asyncio.run(verbs.log_audit(**arguments))


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    times = iter(f"2026-01-01T00:00:0{second}.000Z" for second in range(9))
    log = AuditLog(tmp_path / "audit.log", clock=lambda: next(times))
    log.append("client-1", 0, "node_define", "done", name="n2")
    log.append("client-2", 1000, "node_undefine", "core.refused", number=2)
    log.append("dcm", None, "local_refreshed", "done")
    return log


def test_the_last_entries_come_oldest_first(log: AuditLog) -> None:
    told = asked(log, last=2)
    assert [one["what"] for one in told["entries"]] == ["node_undefine", "local_refreshed"]
    assert told["entries"][0]["with"] == {"number": 2}
    assert "previous" not in told["entries"][0]
    assert told["breaks"] == []


@pytest.mark.parametrize(
    ("select", "found"),
    [
        ('outcome != "done"', ["node_undefine"]),
        ('what =~ "node_*" && uid == 0', ["node_define"]),
        ("uid >= 0", ["node_define", "node_undefine"]),
        ('at > "2026-01-01T00:00:01Z"', ["local_refreshed"]),
    ],
)
def test_a_selection_is_judged_before_they_are_counted(log: AuditLog, select: str, found: list[str]) -> None:
    assert [one["what"] for one in asked(log, select=select)["entries"]] == found


def test_bad_arguments_are_refused(log: AuditLog) -> None:
    with pytest.raises(BadExpression, match="outcom"):
        asked(log, select='outcom == "done"')
    for last in (0, 1001):
        with pytest.raises(BadArguments):
            asked(log, last=last)


def test_what_somebody_changed_is_named_and_what_is_no_entry_is_left_out(log: AuditLog) -> None:
    path = log.files()[0]
    lines = path.read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), "outcome": "done"})
    path.write_text("\n".join([*lines, "7", ""]))
    told = asked(log)
    assert len(told["entries"]) == 3
    assert [(one["file"], one["line"]) for one in told["breaks"]] == [("audit.log", 3), ("audit.log", 4)]


def test_a_node_that_wrote_nothing_has_an_empty_log(tmp_path: Path) -> None:
    assert asked(AuditLog(tmp_path / "audit.log")) == {"entries": [], "breaks": []}
