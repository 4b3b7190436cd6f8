"""Standard output that is closed, or full: no traceback, and a failed exit code where something was lost."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("version >&-", 0),
        ("version >&- 2>&- <&-", 0),
        ("explain nosuch.code >&-", 4),
        ("-o json version >/dev/full", 1),
    ],
)
def test_output_that_nobody_can_read(how: str, code: int) -> None:
    command = ["sh", "-c", f"{sys.executable} -m covey.cli {how}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert done.returncode == code
