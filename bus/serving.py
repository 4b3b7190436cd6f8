"""What a party serves: requests come in as batches, answers leave as batches.

A verb that needs no waiting runs at once, without a task; one that waits gets a task, and its budget is watched by the
one timer of `Deadlines`. Whatever a verb does, whoever asked gets exactly one answer.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from ..errors import CoveyError, InternalError, NoService, Overloaded, Timeout
from . import codec
from .batch import Outbox
from .deadlines import Deadlines
from .messages import Header, Kind, Role
from .service import Request, Service, Verb, current_cause, requests_of, role_of

log = logging.getLogger(__name__)

MAX_SERVED = 1000
"""Requests one party works on at a time; more are refused with `bus.overloaded`."""

_MACHINES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that are no bug of a verb: the machine has no room, or its disk is broken."""

_SHARES = {Role.LOOK: 0.5, Role.OPERATOR: 1.0, Role.ADMIN: 1.0, Role.COMPONENT: 1.5}
"""How much of that may be taken when another comes of that role: people do not keep components from working."""

_PLAIN = frozenset({type(None), bool, int, float, str, bytes, dict, list, tuple})
"""Types of results that nobody need look at twice to see that they are not to be waited for."""


class Serving:
    """Run the requests that come to one party. `services` are by name."""

    def __init__(self, outbox: Outbox) -> None:
        self.services: dict[str, Service] = {}
        self._outbox = outbox
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._tasks: dict[int, tuple[asyncio.Task[None], Header, int]] = {}
        self._deadlines = Deadlines(self._loop, self._tasks, self._late)

    def take(self, header: Header, body: bytes | memoryview) -> None:
        """Handle the requests of one message. One that cannot be opened is answered too, and not logged: anybody may
        send it."""
        name = header.destination.partition("@")[0]
        service = self.services.get(name)
        try:
            if service is None:
                raise NoService(f"no service '{name}' here any more")
            verb = service.find(header)
            found = verb.read(codec.unpack_body(body, header.compressed), header.count)
        except CoveyError as problem:
            self._refuse(header, problem)
            return
        request_of = requests_of(header) if verb.wants_request else None
        try:
            for index, arguments in enumerate(found):
                if isinstance(arguments, CoveyError):
                    self._answer(header, index, arguments)
                    continue
                cause = header.cause(index)
                current_cause.set(cause)
                self._run(header, index, verb, request_of(index, cause) if request_of else None, arguments)
        finally:
            current_cause.set("")  # the loop runs other messages in this same context

    async def close(self) -> None:
        """Cancel what runs and wait for its end; nobody is answered any more."""
        self._deadlines.close()
        tasks = [task for task, _, _ in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- inside ---------------------------------------------------------------------------------------------

    def _run(self, header: Header, index: int, verb: Verb, request: Request | None, arguments: dict[str, Any]) -> None:
        if verb.waits:
            self._start(header, index, lambda: verb.run(request, arguments))
            return
        try:
            result = verb.run(request, arguments)
        except CoveyError as problem:
            self._answer(header, index, problem)
        except Exception as problem:
            self._answer(header, index, _bug(header, problem))
        else:
            if type(result) in _PLAIN or not isinstance(result, Awaitable):
                self._answer(header, index, result)
            else:
                self._start(header, index, lambda: result)

    def _start(self, header: Header, index: int, work: Callable[[], Awaitable[Any]]) -> None:
        most = int(MAX_SERVED * _SHARES[role_of(header)])
        if len(self._tasks) >= most:
            refusal = Overloaded(f"{header.destination} works on {most} requests already", "try again later")
            self._answer(header, index, refusal)
            return
        number = next(self._numbers)
        self._tasks[number] = self._loop.create_task(self._work(number, work)), header, index
        if header.budget > 0:
            self._deadlines.add(number, header.budget)

    async def _work(self, number: int, work: Callable[[], Awaitable[Any]]) -> None:
        header = self._tasks[number][1]
        try:
            answer = await work()
        except CoveyError as problem:
            answer = problem
        except Exception as problem:
            answer = _bug(header, problem)
        except asyncio.CancelledError:
            if number not in self._tasks:
                raise
            # the verb was cancelled by something of its own: that is its failure, and whoever asked must hear of it
            answer = _bug(header, RuntimeError("its work was cancelled"))
        found = self._tasks.pop(number, None)
        if found:
            self._answer(header, found[2], answer)

    def _late(self, number: int) -> None:
        task, header, index = self._tasks.pop(number)
        task.cancel()
        problem = Timeout(f"'{header.topic}' did not end within {header.budget:.3g} s", "it may still happen")
        self._answer(header, index, problem)

    def _refuse(self, header: Header, problem: CoveyError) -> None:
        for index in range(len(header.ids)):
            self._answer(header, index, problem)

    def _answer(self, header: Header, index: int, result: Any) -> None:
        if not header.ids:
            return
        kind = Kind.REPLY
        try:
            if isinstance(result, CoveyError):
                kind, item = Kind.ERROR, codec.encode_error(result)
            else:
                item = codec.encode_item(result)
        except (CoveyError, TypeError, ValueError) as problem:
            error = problem if isinstance(problem, CoveyError) else CoveyError(f"the answer cannot be sent: {problem}")
            kind, item = Kind.ERROR, codec.encode_error(error)
        cause = header.causes[index if len(header.causes) > 1 else 0] if header.causes else ""
        self._outbox.add(kind, header.source, header.topic, item, header.ids[index], cause)


def _bug(header: Header, problem: Exception) -> CoveyError:
    if isinstance(problem, OSError) and problem.errno in _MACHINES:
        log.error("%s failed: %s", header.topic, problem)
        return CoveyError(f"'{header.topic}' failed: {problem}", "the machine refused it: make room there, ask again")
    log.error("%s failed", header.topic, exc_info=problem)
    frames = traceback.extract_tb(problem.__traceback__)
    where = f" ({frames[-1].name}, line {frames[-1].lineno})" if frames else ""
    return InternalError(
        f"'{header.topic}' failed: {type(problem).__name__}: {problem}{where}",
        "this is a bug; the daemon's log has the traceback",
    )
