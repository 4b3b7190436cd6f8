"""A node that was stopped while a command hung left behind what that command had started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

PROGRAM = """
import os, sys, threading
from covey.controllers import commands
words = ["sh", "-c", 'sleep 1000 & echo $! > "$1"; wait', "sh", sys.argv[1]]
more = {"env": dict(os.environ), "timeout": 60}
threading.Thread(target=commands.run, args=(words,), kwargs=more, daemon=True).start()
print(open(sys.argv[1]).read())  # waits for whoever writes
"""


def test_what_a_command_started_ends_with_the_process(tmp_path: Path) -> None:
    told = tmp_path / "told"
    os.mkfifo(told)
    words = [sys.executable, "-c", PROGRAM, str(told)]
    ended = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
    pid = int(ended.stdout)
    try:
        psutil.Process(pid).wait(timeout=30)
    except psutil.NoSuchProcess:
        pass
