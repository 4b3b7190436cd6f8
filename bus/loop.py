"""Run a program on the fastest event loop there is: uvloop when it is installed (`covey[fast]`), else asyncio's own.

For what runs long: loading uvloop takes longer than a short command. Nothing may depend on which one it is; uvloop's clock counts whole milliseconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end on a loop of its own, like `asyncio.run`."""
    with asyncio.Runner(loop_factory=_fastest()) as runner:
        return runner.run(main)


def _fastest() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
