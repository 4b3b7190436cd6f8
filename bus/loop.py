"""Run a program on the fastest event loop there is: uvloop when it is installed (`covey[fast]`), else asyncio's own.

For the processes of a daemon: a command is over before uvloop is loaded, and uvloop does not hear a second Ctrl-C at
once. Nothing may depend on which one it is; uvloop's
clock counts whole milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from importlib import import_module
from typing import Any, TypeVar

Result = TypeVar("Result")
Factory = Callable[[], asyncio.AbstractEventLoop]


def _fastest() -> Factory:
    try:
        found: Factory = import_module("uvloop").new_event_loop
    except ImportError:
        return asyncio.new_event_loop
    return found


# here and not later: processes that are forked share what their parent has loaded
new_event_loop = _fastest()


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end on a loop of its own, like `asyncio.run`."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(main)
