"""The engine of a node without a registry server: hands each call to the primary's node, over fail-overs.

Knows no key and keeps no copy. Each call goes to the primary that the agent's machine follows, with one request id for
all its tries, so a write that was applied before the answer was lost is not applied again. It is tried again while
its budget lasts; when no primary has been known for `PATIENCE` seconds, `NoQuorum` comes at once and names who was
asked. What was read as stale may come from any listed server, but from a server all the same: this node has no copy.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterable
from typing import Any

import msgspec

from ...bus.client import Client
from ...bus.driver import Background, Driver, Outbox
from ...bus.machine import Address, Effect, Publish, Received, Send
from ...bus.messages import PEER_TOPIC
from ...bus.service import Request
from ...errors import (
    ConnectionLost,
    CoveyError,
    NoQuorum,
    NoService,
    NotPrimary,
    ServiceDied,
    Timeout,
    Unreachable,
)
from . import messages
from .agent import AgentMachine
from .messages import SERVICE, AnyMessage, Question
from .settings import Settings

log = logging.getLogger(__name__)
_messages = msgspec.msgpack.Decoder(AnyMessage)

PATIENCE = 2.0
"""Seconds without a known primary after which a call is refused at once: a fail-over takes less."""

MARGIN = 0.25
"""Seconds of the budget left unused, so that the caller hears our reason and not its own timeout."""

DEFAULT_BUDGET = 10.0
"""Seconds for a call that names none."""

FIND_TIME = 2.0
"""Seconds a server may take to say who leads; the machine has asked again by then."""

PAUSE = 0.05
"""Seconds between two tries of one call."""

GONE = (Unreachable, ServiceDied, NoService, ConnectionLost, NotPrimary)
"""The primary is not where it was: find it again, then try again."""

IN_DOUBT = (ServiceDied, ConnectionLost, Unreachable)
"""After these a write may have been carried out: its link or its server went away while it was on its way."""

VERBS: dict[type[Any], str] = {
    messages.Get: "get",
    messages.List: "ls",
    messages.Watch: "watch",
    messages.ListSystem: "system",
    messages.Status: "status",
    messages.Transact: "txn",
}


class ForwardEngine:
    """The agent at work."""

    def __init__(
        self, bus: Client, node: int, servers: Iterable[int], cluster_id: str, settings: Settings | None = None
    ) -> None:
        self.machine = AgentMachine(node, tuple(servers), settings)
        self._bus = bus
        self._cluster_id = cluster_id
        self._driver = Driver(self.machine, self._perform)
        self._background = Background()
        self._outbox = Outbox(bus)
        self._changed = asyncio.Event()
        self._told: dict[int, str] = {}  # by server: the code of the problem that was logged last

    async def run(self) -> None:
        """Follow the primary until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._driver.failed())
                tasks.create_task(self._outbox.post())
                tasks.create_task(self._hear_peers())
                self._driver.feed()
        finally:
            self._driver.stop()
            await self._background.close()

    async def ask(self, question: Question, request: Request) -> Any:
        """Have the primary answer; raises its error, or NoQuorum."""
        verb = VERBS.get(type(question))
        if verb is None:
            raise NotPrimary(
                f"node {self.machine.node} runs no registry server, so it cannot append system entries",
                f"node {self.machine.known.primary or 'nobody'} leads",
            )
        call = _Call(self, verb, question, request)
        if isinstance(question, messages.Status):
            return await self._of_anyone(call) or self._silence()
        if getattr(question, "consistency", "") == "stale":
            answer = await self._of_anyone(call)
            if answer is None:
                raise NoQuorum(
                    f"no registry server answers, and this node has no copy of its own; asked: {self._asked()}",
                    "stale reads need a registry server too; ask on a registry server's node",
                )
            return answer
        return await self._linear(call)

    async def hear(self, body: bytes, request: Request) -> bytes | None:
        """Take a message of another node's registry; an agent has no answer to any."""
        self._driver.feed(Received(Address(request.service, request.node), _messages.decode(body), request.cause))
        return None

    async def reach(self, *phases: str) -> None:
        """Wait until the primary is in one of these phases."""
        while self.machine.known.phase not in phases:
            await self._changed.wait()

    def listed(self, servers: Iterable[int]) -> None:
        """The local configuration lists these servers now."""
        if tuple(servers) != self.machine.servers:
            self._driver.feed(messages.ServersChanged(tuple(servers)))

    # --- one call ---

    async def _linear(self, call: _Call) -> Any:
        doubt: CoveyError | None = None
        while True:
            primary = await self._primary(call, doubt)
            try:
                return await call.to(primary)
            except GONE as problem:
                doubt = problem if isinstance(problem, IN_DOUBT) and call.verb == "txn" else doubt
                self._unanswered(primary, problem)
                if self.machine.known.primary == primary and not isinstance(problem, ServiceDied | NoService):
                    self._driver.feed(messages.PeerDown(primary))
                await asyncio.sleep(min(PAUSE, max(call.left, 0.0)))

    async def _primary(self, call: _Call, doubt: CoveyError | None) -> int:
        """Wait for a primary; raise when none comes, or when the call's time is over."""
        while call.left > 0:
            if self.machine.following:
                return self.machine.known.primary
            waited = asyncio.get_running_loop().time() - (self.machine.searching_since or 0.0)
            if waited >= PATIENCE:
                break
            try:
                async with asyncio.timeout(min(PATIENCE - waited, call.left)):
                    await self._changed.wait()
            except TimeoutError:
                pass
        if doubt:
            raise Timeout(
                f"'{call.verb}' was not answered: {doubt.message}", "it may have been done: read, then decide"
            )
        raise NoQuorum(f"no primary registry server answers; asked: {self._asked()}", "covey registry status says more")

    async def _of_anyone(self, call: _Call) -> Any:
        """Return what the first server that answers says, the primary first; None when none does."""
        for server in dict.fromkeys((self.machine.known.primary, *self.machine.servers)):
            if server:
                try:
                    return await call.to(server)
                except (*GONE, Timeout) as problem:
                    self._unanswered(server, problem)
        return None

    def _silence(self) -> dict[str, Any]:
        """Return the status when no server answers: what nobody said is null."""
        known = self.machine.known
        return {
            "phase": "offline",
            "writable": False,
            "closed_because": f"no registry server answers; asked: {self._asked()}",
            "incarnation": None,
            "epoch": known.epoch,
            "revision": None,
            "primary": None,
            "servers": [
                {"number": number, "state": "offline", "incarnation": None, "lag": None}
                for number in self.machine.servers
            ],
            "tolerates": max(len(self.machine.servers) - 1, 0) // 2,
            "damaged": [],
            "repaired": [],
        }

    def _unanswered(self, node: int, problem: CoveyError) -> None:
        """Log why a server did not answer, once: callers may ask a hundred times a second."""
        level = logging.INFO if self._told.get(node) != problem.code else logging.DEBUG
        self._told[node] = problem.code
        log.log(level, "node %d did not answer: %s", node, problem)

    def _asked(self) -> str:
        return ", ".join(f"node {number}" for number in self.machine.servers) or "nobody, the list of servers is empty"

    # --- the machine's orders ---

    def _perform(self, effect: Effect) -> None:
        if isinstance(effect, Send) and isinstance(effect.message, messages.FindPrimary):
            self._background.start(self._find(effect), "find the primary")
        elif isinstance(effect, Send | Publish):
            self._outbox.put(effect)
        if isinstance(effect, Publish):
            if self.machine.following:  # not when one is lost: what was told of it still holds
                self._told.clear()
            self._changed.set()
            self._changed = asyncio.Event()

    async def _find(self, effect: Send) -> None:
        """Ask a server who leads. As a call: its answer comes back on the way of the question, also to a node that the
        others do not know at these addresses (a new place, or a copy of another node that must be told so)."""
        body = msgspec.msgpack.encode(effect.message)
        node = effect.to.node
        try:
            answer = await self._bus.call(SERVICE, "message", node=node, timeout=FIND_TIME, body=body)
        except CoveyError as problem:
            log.debug("node %d does not say who leads: %s", node, problem)  # the machine asks again
            return
        if answer is not None:
            self._driver.feed(Received(Address(SERVICE, node), _messages.decode(answer)))

    async def _hear_peers(self) -> None:
        async with self._bus.subscribe(PEER_TOPIC) as events:
            async for event in events:
                if event.body["state"] == "down" and not event.welcome:
                    self._driver.feed(messages.PeerDown(event.body["node"]))


class _Call:
    """One call of a client on its way to a server: the same request id, and less time, at each try."""

    def __init__(self, engine: ForwardEngine, verb: str, question: Any, request: Request) -> None:
        self.verb = verb
        self._bus, self._cluster_id = engine._bus, engine._cluster_id
        self._request = request
        self._arguments = msgspec.structs.asdict(question)
        self._id = self._arguments.pop("id", "")
        if verb == "txn" and not self._id:
            self._id = f"agent-{secrets.token_hex(8)}"
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + max((request.budget or DEFAULT_BUDGET) - MARGIN, MARGIN)

    @property
    def left(self) -> float:
        """Seconds left."""
        return self._end - self._loop.time()

    async def to(self, node: int) -> Any:
        """Ask the registry of a node."""
        return await self._bus.call(
            SERVICE,
            self.verb,
            node=node,
            timeout=max(self.left, 0.01),
            request_id=self._id,
            cause=self._request.cause,
            cluster=self._cluster_id,
            **self._arguments,
        )
