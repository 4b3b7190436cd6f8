"""Kill a piece of work at its n-th step on the disk, as SIGKILL would: no handler runs, what was done stays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

STEPS = ("mkdir", "rename", "replace", "link", "unlink", "rmdir", "fsync", "pwrite", "open", "ftruncate")
DONE, KILLED, FAILED = 0, 9, 1


def killed_at(step: int, work: Callable[[], Any]) -> int:
    """Run `work` in a process of its own that ends before its disk step number `step`; return how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = step

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **more: Any) -> Any:
            nonlocal left
            if left == 0:
                os._exit(KILLED)
            left -= 1
            return real(*args, **more)

        return call

    try:
        for name in STEPS:
            setattr(os, name, counted(getattr(os, name)))
        work()
    except BaseException:
        os._exit(FAILED)
    os._exit(DONE)


def every_step(work: Callable[[], Any], fresh: Callable[[], None], least: int = 6, most: int = 1000) -> Iterator[int]:
    """Kill `work` at each of its steps in turn, on files that `fresh` made anew; yield after each kill."""
    for step in range(most):
        fresh()
        ended = killed_at(step, work)
        assert ended != FAILED, f"it failed by itself at step {step}"
        if ended == DONE:
            assert step >= least, f"it has {step} steps only"
            return
        yield step
    raise AssertionError(f"it has more than {most} steps")
