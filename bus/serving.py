"""What a party serves: requests come in as batches, answers leave as batches.

A verb runs at once. What it returns may be the answer, a coroutine, which gets a task, or a future that something else
ends, which needs none and so costs less than half. The budget of what is waited for is watched by the one timer of
`Deadlines`. Whatever a verb does, whoever asked gets exactly one answer.

Odd: whether a plain function returns futures is seen when it does; from then on it is refused, before it runs, when too
much is waited for already. (What has begun cannot be refused: whoever asked would do it twice.)
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import traceback
from collections.abc import Awaitable, Coroutine
from functools import partial
from typing import Any

from ..errors import CoveyError, InternalError, NoService, Overloaded, ServiceDied, Timeout
from . import codec
from .batch import Outbox
from .deadlines import Deadlines
from .messages import Header, Kind, Role
from .service import Request, Service, Verb, current_cause, requests_of, role_of

log = logging.getLogger(__name__)

_MACHINES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors that are no bug of a verb: the machine has no room, or its disk is broken."""

_SHARES = {Role.LOOK: 0.5, Role.OPERATOR: 1.0, Role.ADMIN: 1.0, Role.COMPONENT: 1.5}
"""How much of that may be taken when another comes of that role: people do not keep components from working."""

CANCELLED = "its work was cancelled"
"""By something of the verb's own: that is its failure, and whoever asked must hear of it."""

_PLAIN = frozenset({type(None), bool, int, float, str, bytes, dict, list, tuple})
"""Types of results that nobody need look at twice to see that they are not to be waited for."""


class Serving:
    """Run the requests that come to one party. `services` are by name."""

    def __init__(self, outbox: Outbox) -> None:
        self.services: dict[str, Service] = {}
        self._outbox = outbox
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[asyncio.Future[Any], Header, int]] = {}
        self._deadlines = Deadlines(self._loop, self._waiting, self._late)

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
        most = int(service.most * _SHARES[role_of(header)])
        try:
            for index, arguments in enumerate(found):
                if isinstance(arguments, CoveyError):
                    self._answer(header, index, arguments)
                    continue
                cause = header.cause(index)
                current_cause.set(cause)
                if verb.waits and len(self._waiting) >= most:
                    self._answer(header, index, _full(header, most))
                    continue
                self._run(header, index, verb, request_of(index, cause) if request_of else None, arguments, most)
        finally:
            current_cause.set("")  # the loop runs other messages in this same context

    def end(self, name: str) -> None:
        """A service is served no more: what it still works on is cancelled, and whoever asked is told."""
        del self.services[name]
        for number, (future, header, index) in list(self._waiting.items()):
            if header.destination.partition("@")[0] == name:
                del self._waiting[number]
                future.cancel()
                problem = ServiceDied(f"the service '{name}' ended before it answered", "it may have happened")
                self._answer(header, index, problem)

    async def close(self) -> None:
        """Cancel what is waited for and wait for its end; nobody is answered any more."""
        self._deadlines.close()
        futures = [future for future, _, _ in self._waiting.values()]
        self._waiting.clear()
        for future in futures:
            future.cancel()
        await asyncio.gather(*futures, return_exceptions=True)

    # --- inside ---------------------------------------------------------------------------------------------

    def _run(
        self, header: Header, index: int, verb: Verb, request: Request | None, arguments: dict[str, Any], most: int
    ) -> None:
        try:
            result = verb.run(request, arguments)
        except CoveyError as problem:
            self._answer(header, index, problem)
        except Exception as problem:
            self._answer(header, index, _bug(header, problem))
        else:
            if type(result) in _PLAIN:
                self._answer(header, index, result)
            elif isinstance(result, asyncio.Future):
                verb.waits = True
                self._follow(header, index, result)
            elif not isinstance(result, Awaitable):
                self._answer(header, index, result)
            elif len(self._waiting) < most:
                self._follow(header, index, asyncio.ensure_future(result))
            else:  # it has not begun
                self._answer(header, index, _full(header, most))
                if isinstance(result, Coroutine):
                    result.close()

    def _follow(self, header: Header, index: int, future: asyncio.Future[Any]) -> None:
        """Answer with what a future comes to, now or when it ends."""
        if future.done():
            self._answer(header, index, _outcome(header, future))
            return
        number = next(self._numbers)
        self._waiting[number] = future, header, index
        future.add_done_callback(partial(self._ended, number, header, index))
        if header.budget > 0:
            self._deadlines.add(number, header.budget)

    def _ended(self, number: int, header: Header, index: int, future: asyncio.Future[Any]) -> None:
        if self._waiting.pop(number, None):
            self._answer(header, index, _outcome(header, future))
        elif not future.cancelled():
            _outcome(header, future)  # nobody hears it any more, but a bug is logged

    def _late(self, number: int) -> None:
        future, header, index = self._waiting.pop(number)
        future.cancel()
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


def _full(header: Header, most: int) -> Overloaded:
    return Overloaded(f"{header.destination} works on {most} requests already", "try again later")


def _outcome(header: Header, future: asyncio.Future[Any]) -> Any:
    """Return what a future came to: its result, or an error that can be told."""
    problem = RuntimeError(CANCELLED) if future.cancelled() else future.exception()
    if problem is None:
        return future.result()
    return problem if isinstance(problem, CoveyError) else _bug(header, problem)


def _bug(header: Header, problem: BaseException) -> CoveyError:
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
