"""What a process says when it fails is what its end is explained with."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from covey.components.dcm.child import causes, last_words
from covey.components.dcm.supervisor import Supervisor
from covey.errors import CoveyError, DiskFailed


def fail(*problems: Exception) -> Callable[[], None]:
    def work() -> None:
        raise problems[0] if len(problems) == 1 else ExceptionGroup("a task group", problems)

    return work


@pytest.fixture
def ended() -> Callable[[Callable[[], None]], dict[str, Any]]:
    """Fork a component that does this work; return what the DCM is told of its end."""

    def fork(work: Callable[[], None]) -> dict[str, Any]:
        supervisor, told = Supervisor(None), list[dict[str, Any]]()
        supervisor._tell = told.append  # type: ignore[method-assign]
        supervisor._fork("registry", work)
        while supervisor._pids:
            supervisor._turn()
        assert not supervisor._told
        return told[0]

    return fork


def test_the_reason_of_an_end_is_the_error(ended: Any) -> None:
    full = DiskFailed("cannot write /x at byte 3", "see to the disk")
    assert ended(fail(full)) == {
        "exited": "registry",
        "status": 1,
        "reason": "exit code 1: error[registry.disk_failed]: cannot write /x at byte 3 (see to the disk)",
    }


def test_an_error_that_is_none_of_ours_says_its_place(ended: Any) -> None:
    reason = ended(fail(ValueError("two\nlines")))["reason"]
    assert reason.startswith("exit code 1: ValueError: two lines (at ") and f"{__file__}:" in reason


def test_an_endless_message_is_cut_and_one_that_cannot_be_written_is_no_problem(ended: Any) -> None:
    assert len(ended(fail(ValueError("x" * 100_000)))["reason"]) < 2100
    assert "ValueError: ?" in ended(fail(ValueError("\udcff")))["reason"]


def test_who_says_nothing_has_its_code_or_signal(ended: Any) -> None:
    assert ended(lambda: os._exit(3))["reason"] == "exit code 3"
    assert ended(lambda: os.kill(os.getpid(), 9))["reason"] == "killed by SIGKILL"


def test_groups_of_errors_are_one_line() -> None:
    inner = ExceptionGroup("inner", [CoveyError("one"), CoveyError("one")])
    problem = ExceptionGroup("outer", [inner, OSError("two")])
    assert [str(cause) for cause in causes(problem)] == ["one", "one", "two"]
    assert last_words(problem) == "error[core.error]: one; OSError: two"
