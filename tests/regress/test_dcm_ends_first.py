"""An orderly end of a daemon could fail with "Bad file descriptor": the DCM's end was seen before the end of its line.

Both came in one turn of the supervisor's loop, the process first; its socket was then closed, and read after that.
"""

from __future__ import annotations

import os
import select
from typing import Any

import pytest
from covey.components.dcm import child
from covey.components.dcm.supervisor import Supervisor


def test_the_line_of_a_dcm_that_ended_is_not_read_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "dcm", lambda *_: None)  # a DCM that ends at once, in order
    supervisor = Supervisor(None)
    supervisor._start_dcm()
    monkeypatch.undo()
    pid = supervisor._pids["dcm"]
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert supervisor._dcm is not None
    assert select.select([supervisor._dcm], [], [], 30)[0]

    ready = supervisor._selector.select

    def process_first(timeout: float | None = None) -> list[Any]:
        return sorted(ready(timeout), key=lambda found: not isinstance(found[0].fileobj, int))

    monkeypatch.setattr(supervisor._selector, "select", process_first)
    supervisor._turn()
    supervisor._selector.close()
    assert supervisor._ended
    assert supervisor._exit_code == 0
