"""The `covey` command: one file a noun; it speaks with the local node's bus and renders what comes back.

Nobody imports it. It knows services and verbs by name only, and nothing of how a component works inside. `verbs.py` is
the frame every command stands in, `connection.py` the way to the bus, `output.py` the one place that renders.
What is odd: nothing heavy is imported at the top of any file here (click only), so that `--help` is quick; a test
holds the list of modules that must not be loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `covey ARGUMENTS` (default: those of the process) and end the process with its exit code."""
    if sys.stdin is None:  # a caller that closed it, as some daemons do: whoever reads finds its end
        sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115 (it stays open)
    try:
        from .root import root
    except KeyboardInterrupt:
        raise SystemExit(130) from None

    root.main(args=arguments, prog_name="covey")
