"""Run the machines of `change.py` on the real bus and registry."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ...errors import CoveyError, InternalError
from . import change
from .crash import crash_at
from .entries import Transaction
from .home import Home
from .settings import WRITE_TIME

log = logging.getLogger(__name__)


async def perform(
    machine: change.Change | change.UndefineMember,
    do: Callable[[Any], Awaitable[change.Input]],
    home: Home,
) -> Any:
    """Perform what the machine orders, one after the other, by `do`; return its result, or raise why there is none."""
    effects = machine.step(change.Begun())
    while True:
        input: change.Input | None = None
        for effect in effects:
            if isinstance(effect, change.Finish):
                if effect.error is not None:
                    raise effect.error
                return effect.result
            if isinstance(effect, change.At):
                log.info("a definition is changed: step %s", effect.step)
                crash_at(effect.step, home)
                continue
            try:
                input = await do(effect)
            except CoveyError as why:
                input = change.Failed(why)
        if input is None:
            raise InternalError("a change of a definition ordered nothing")
        effects = machine.step(input)


async def changed(
    home: Home,
    read: Callable[[], Awaitable[Any]],
    decide: Callable[[Any], tuple[Transaction | None, Any]],
    what: str,
) -> Any:
    """Write what `decide` makes of what `read` gives, again when somebody was quicker; return its result."""

    async def do(effect: Any) -> change.Input:
        if isinstance(effect, change.Look):
            return change.Read(await read())
        return await written(home, effect)

    return await perform(change.Change(decide, what), do, home)


async def written(home: Home, effect: change.Write) -> change.Wrote:
    """Have the registry decide over what is to be written."""
    done = await home.bus.call("registry", "txn", **effect.transaction, timeout=WRITE_TIME)
    return change.Wrote(bool(done["succeeded"]))
