"""What strangers write froze a node or hid its audit log.

A regular expression with a repeat inside a repeat took for ever on the command line of any user's process, and with it
everything of a node in one process. A line in the audit log that was no entry was a bug met, and nothing was shown.
"""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from covey.components.dcm.audit import AuditLog
from covey.components.dcm.auditing import _read
from covey.controllers import process
from covey.controllers.exec.formats import one_json
from covey.controllers.process import ProcessOptions
from pydantic import ValidationError

HOSTILE = [
    b"null",
    b"[1]",
    b'{"a": 1}',
    b'{"at": 5, "who": "x", "what": [], "outcome": "done", "previous": ""}',
    b'{"at": "x", "who": "x", "what": "x", "outcome": "\\ud800", "previous": ""}',
    b'{"at": "x", "who": "x", "uid": "root", "what": "x", "outcome": "done", "previous": ""}',
    b'{"at": "x", "who": "x", "what": "x", "outcome": "done", "with": [1], "previous": ""}',
    b"[" * 100_000,
    b"\xff\xfe",
]


@pytest.mark.parametrize(
    "pattern", ["(a+)+$", "(.*)*x", "(x|(y*))*", "(?:(?:a*?)b){20,}", "a{1,99999999999}", "(" * 5000]
)
def test_a_pattern_without_an_end_is_refused(pattern: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ProcessOptions.model_validate({"watch": {"a": {"command": pattern}}})
    assert "regular expression" in str(refused.value) or "for ever" in str(refused.value)


@pytest.mark.parametrize("pattern", [r"python3 .*web\.py", r"sleep 4[2]00$", "(a+ ?){3}", "(ab)+", "(a+)?b"])
def test_other_patterns_are_taken(pattern: str) -> None:
    assert ProcessOptions.model_validate({"watch": {"a": {"command": pattern}}}).watch["a"].command == pattern


def test_only_the_beginning_of_a_command_line_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil.Process, "cmdline", lambda self: ["x" * 100_000])
    assert {len(command) for _, _, command in process._all(commands=True)} == {process.LONGEST}


@pytest.mark.parametrize("line", HOSTILE, ids=range(len(HOSTILE)))
def test_a_line_that_is_no_entry_hides_no_other(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    AuditLog(path).append("n1", 0, "node_define", "done")
    path.write_bytes(path.read_bytes() + line + b"\n")
    AuditLog(path).append("n1", 0, "node_undefine", "done")
    told = _read(AuditLog(path), "", 10)
    assert [one["what"] for one in told["entries"]] == ["node_define", "audit.damaged", "node_undefine"]
    assert [one["line"] for one in told["breaks"]] == [2]


def test_a_number_without_an_end_is_told_plainly() -> None:
    with pytest.raises(ValueError, match=r"^it holds a number of too many digits$"):
        one_json('{"Count": ' + "9" * 30_000 + "}")
