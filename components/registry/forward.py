"""The engine that every node's callers meet: its own copy answers if it can, else the primary's, over fail-overs.

Knows no key. Who leads is the agent's machine's affair (`agent.py`); on a registry server's node the own copy
(`server.py`) stands behind this and is asked first. A call that only a primary can answer goes to the node that leads,
with one request id for all its tries, so a write that was applied before the answer was lost is not applied again. It
is tried again while its budget lasts; when no primary has been known for `PATIENCE` seconds, `NoQuorum` comes at once
and says why. A call that another node's registry handed on is answered by the own copy or not at all: whoever handed
it on finds the next one, so no call goes in circles.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from functools import partial
from typing import Any

import msgspec

from ...bus.client import Client
from ...bus.driver import Background, Driver, Outbox, settle
from ...bus.machine import Address, Effect, Message, Publish, Received, Send
from ...bus.messages import PEER_TOPIC
from ...bus.service import Request, current_cause
from ...errors import (
    Busy,
    ConnectionLost,
    CoveyError,
    Damaged,
    NoQuorum,
    NoService,
    NotPrimary,
    ServiceDied,
    Timeout,
    Unreachable,
)
from . import messages
from .agent import AgentMachine, AskNow, CopyClosed, CopySaid, OthersKnown
from .calls import Call, RequestIds
from .messages import SERVICE, AnyMessage, FindPrimary, Leading, Question
from .peers import PeerMessage, Reach
from .server import ServerEngine
from .settings import Settings

log = logging.getLogger(__name__)
_messages = msgspec.msgpack.Decoder(AnyMessage | PeerMessage | Reach)

PATIENCE = 2.0
"""Seconds without a known primary after which a call is refused at once: a fail-over takes less."""

FIND_TIME = 2.0
"""Seconds a server may take to say who leads; the machine has asked again by then."""

TABLE_TIME = 0.5
"""Seconds for the primary to say how all servers are; else this node shows what it knows of them."""

TURN = 2.0
"""Seconds a server may take to say what any of them can, before the next one is asked."""

DOUBT = 0.25
"""Seconds without an answer, while a call waits for one, after which the primary is asked whether it is there."""

PAUSE = 0.05
"""Seconds between two tries of one call."""

GONE = (Unreachable, ServiceDied, NoService, ConnectionLost, NotPrimary)
"""The primary is not where it was: find it again, then try again."""

AGAIN = (*GONE, Busy)
"""Errors that need not stay what a call came to."""

CHANGES = messages.Transact | messages.ChangeServers

IN_DOUBT = (ServiceDied, ConnectionLost, Unreachable)
"""After these a write may have been carried out: its link or its server went away while it was on its way."""


class ForwardEngine:
    """The registry as one node's callers see it. `own` is this node's copy, on a registry server."""

    def __init__(
        self, bus: Client, node: int, servers: Iterable[int], cluster_id: str, settings: Settings | None = None
    ) -> None:
        servers = tuple(servers)
        self.machine = AgentMachine(node, servers, settings)
        self.own: ServerEngine | None = None
        self._loop = asyncio.get_running_loop()
        self._bus = bus
        self._cluster_id = cluster_id
        self._driver = Driver(self.machine, self._perform)
        self._background = Background()
        self._outbox = Outbox(bus)
        self._changed = asyncio.Event()
        self._ids = RequestIds()
        self._order = servers
        self._asking: dict[asyncio.Timeout, int] = {}  # calls at a primary, and at which
        self._expected = 0  # how many of these are to be answered at once: all but watches
        self._doubt: asyncio.TimerHandle | None = None
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
            if self._doubt:
                self._doubt.cancel()
            await self._background.close()

    @property
    def known(self) -> Leading:
        """Who leads, as far as this node knows."""
        return self.machine.known

    @property
    def index(self) -> int:
        """The newest index that this node knows to be committed, 0: none."""
        return max(self.machine.index, self.own.index if self.own else 0)

    def traffic(self) -> list[dict[str, Any]]:
        """Return what passed over the direct links of this node's copy, by network."""
        return self.own.traffic() if self.own else []

    def ask(self, question: Question, request: Request) -> Awaitable[Any]:
        """Answer a question from where it can be answered; raises CoveyError. What the own copy answers takes no task,
        and is done already when nothing need be waited for: a task would be half of what a read costs."""
        own, node = self.own, self.machine.node
        if (request.service == SERVICE and request.node != node) or isinstance(question, messages.AppendSystem):
            if own is None:
                raise NotPrimary(
                    f"node {node} runs no registry server",
                    f"node {self.known.primary or 'nobody'} leads",
                    primary=self.known.primary,
                )
            if isinstance(question, messages.Status):
                return own.status(question, request)
            return own.ask(question, request)
        if isinstance(question, messages.Status):
            return self._status(question, request)
        if getattr(question, "consistency", "") == "stale":
            found = own.ask(question, request) if own is not None else None
            if found is not None and not (found.done() and isinstance(found.exception(), Damaged | NotPrimary)):
                return found
            return self._stale(question, request, found)
        if own is not None and self.known.primary == node:
            return self._here(own, question, request)
        return self._linear(Call(self._bus, self._cluster_id, question, request))

    def hear(self, body: bytes, request: Request) -> bytes | None:
        """Take a message of another node's registry; return the answer to one that asks who leads."""
        message = _messages.decode(body)
        if isinstance(message, Leading):
            self._driver.feed(Received(Address(request.service, request.node), message, request.cause))
        elif isinstance(message, FindPrimary):
            if self.own is not None:
                self.own.asked(request.node)
            return msgspec.msgpack.encode(self._said())
        elif self.own is not None:
            self.own.hear(message, request)
        return None

    def _said(self) -> Leading:
        """What this node tells others of who leads; a server says it of itself while it leads."""
        said = self.own.machine.leading if self.own is not None else self.known
        return said if said.primary else self.known

    async def reach(self, *phases: str) -> None:
        """Wait until the primary is in one of these phases."""
        while self.known.phase not in phases or not self.known.primary:
            await self._changed.wait()

    def listed(self, servers: Iterable[int], others: Iterable[int] = (), order: Iterable[int] = ()) -> None:
        """The local configuration lists these servers now, and these other nodes. `order`: which server this node asks
        first for what any of them can answer; that spreads the nodes over them (SPEC 8.3)."""
        self._order = tuple(dict.fromkeys((*order, *servers)))
        if tuple(servers) != self.machine.servers:
            self._driver.feed(messages.ServersChanged(tuple(servers)))
        self._driver.feed(OthersKnown(tuple(others)))

    # --- the own copy ---

    def copy_said(self, leading: Leading) -> None:
        """The own copy says who leads."""
        self._driver.feed(CopySaid(leading))

    def copy_opened(self, own: ServerEngine) -> None:
        """This node has a copy from now on."""
        self.own = own

    def copy_closed(self) -> None:
        """The own copy answers no more: calls go to others."""
        self.own = None
        self._driver.feed(CopyClosed())

    # --- one call ---

    def _here(self, own: ServerEngine, question: Any, request: Request) -> asyncio.Future[Any]:
        """Take a call to the own copy, which leads; if it does not any more, from there to whoever does."""
        question = self._stamped(question)
        answer: asyncio.Future[Any] = self._loop.create_future()
        own.put(question, request, partial(self._answered_here, answer, question, request, self._loop.time()))
        return answer

    def _answered_here(
        self, answer: asyncio.Future[Any], question: Any, request: Request, began: float, found: Any
    ) -> None:
        if not isinstance(found, AGAIN) or answer.done():
            settle(answer, found)
            return
        call = Call(self._bus, self._cluster_id, question, request, began)
        task = self._background.start(self._go_on(answer, call, found), "a call that was turned away")
        answer.add_done_callback(lambda _: task.cancel())  # whoever asked may have given up

    async def _go_on(self, answer: asyncio.Future[Any], call: Call, problem: CoveyError) -> None:
        """Give a call whose first try failed here its answer."""
        current_cause.set(call.request.cause)
        try:
            found = await self._turned_away(call, self.machine.node, problem) or await self._linear(call)
        except Exception as error:
            found = error
        settle(answer, found)

    async def _linear(self, call: Call) -> Any:
        """Take a call to whoever leads, until it is answered or its time is over."""
        if not call.turned_away and isinstance(call.question, CHANGES):
            if not self.known.primary:
                await self._primary(call)  # whoever leads says how far the log is: that is what the id is stamped with
            call.question = self._stamped(call.question)
        while True:
            primary = (not call.turned_away and self.known.primary) or await self._primary(call)
            try:
                if primary == self.machine.node and self.own is not None:
                    return await self.own.ask(call.question, call.request)
                return await self._at(call, primary)
            except AGAIN as problem:
                if done := await self._turned_away(call, primary, problem):
                    return done

    async def _turned_away(self, call: Call, primary: int, problem: CoveyError) -> dict[str, Any] | None:
        """A try failed: raise what cannot be mended, else wait until the next; return what it came to nevertheless."""
        call.turned_away = True
        if isinstance(problem, Busy):  # the change before is not committed yet, or the primary hands over first
            if call.left <= PAUSE:
                raise problem
            await self._try_again(call, primary, problem)
            return None
        if isinstance(problem, IN_DOUBT) or problem.details.get("in_doubt"):
            call.doubt = problem
        await self._try_again(call, primary, problem)
        moved = call.doubt is not None and self.known.primary not in (0, primary)
        if moved and isinstance(call.question, messages.HandOver):
            return {"primary": self.known.primary, "epoch": self.known.epoch}
        return None

    async def _at(self, call: Call, primary: int) -> Any:
        """Ask a primary; when another one is known meanwhile, do not wait for the end of the link to the old one."""
        expected = not isinstance(call.question, messages.Watch)
        self._expected += expected
        if expected and self._doubt is None:
            self._doubt = self._loop.call_later(DOUBT, self._in_doubt)
        try:
            async with asyncio.timeout(None) as limit:
                self._asking[limit] = primary
                return await call.to(primary)
        except TimeoutError:
            raise NotPrimary(
                f"node {primary} did not answer, and node {self.known.primary} leads now", in_doubt=True
            ) from None
        finally:
            self._asking.pop(limit, None)
            self._expected -= expected

    def _in_doubt(self) -> None:
        """Calls wait for their answers: is the primary there?"""
        self._doubt = None
        if self._expected and not self._driver.stopped:
            self._doubt = self._loop.call_later(self.machine.settings.find_interval, self._in_doubt)
            if self.machine.answered:
                self._driver.feed(AskNow())

    def _stamped(self, question: Any) -> Any:
        """Give a change what makes its tries one: an id, and how far the log was before the first of them."""
        if not isinstance(question, CHANGES):
            return question
        several = len(self.machine.servers) > 1 or self.own is None
        changed: dict[str, Any] = {"id": self._ids.new()} if several and not question.id else {}
        if isinstance(question, messages.Transact) and several:
            changed["since"] = self.index
        return msgspec.structs.replace(question, **changed) if changed else question

    async def _try_again(self, call: Call, primary: int, problem: CoveyError) -> None:
        self._unanswered(primary, problem)
        if isinstance(problem, NotPrimary | Busy):
            self._driver.feed(AskNow())
        elif self.known.primary == primary != self.machine.node and not isinstance(problem, ServiceDied | NoService):
            self._driver.feed(messages.PeerDown(primary))
        await asyncio.sleep(min(PAUSE, max(call.left, 0.0)))

    async def _primary(self, call: Call) -> int:
        """Wait for a primary; raise when none comes, or when the call's time is over."""
        while call.left > 0:
            if self.machine.following:
                return self.known.primary
            if self._hopeless:
                break
            waited = asyncio.get_running_loop().time() - (self.machine.searching_since or 0.0)
            if waited >= PATIENCE:
                break
            try:
                async with asyncio.timeout(min(PATIENCE - waited, call.left)):
                    await self._changed.wait()
            except TimeoutError:
                pass
        if call.doubt and call.changing:
            why = call.doubt.message if isinstance(call.doubt, CoveyError) else str(call.doubt)
            raise Timeout(f"'{call.verb}' was not answered: {why}", "it may have been done: read, then decide")
        raise self._nobody()

    @property
    def _hopeless(self) -> bool:
        """The own copy is damaged, and there is no other server from which it could be filled."""
        alone = not set(self.machine.servers) - {self.machine.node}
        return self.own is not None and bool(self.own.machine.damaged) and alone

    def _nobody(self) -> CoveyError:
        """Why no primary answers, as an error."""
        if self.own is None:
            return NoQuorum(
                f"no primary registry server answers; asked: {self._asked()}", "covey registry status says more"
            )
        own = self.own.machine
        if self._hopeless:
            return own.damaged[0].error()
        return NoQuorum(
            f"no primary registry server is known to node {own.node}: {own.closed_because}",
            "what may be old: --consistency stale; covey registry status says more",
        )

    # --- what any server can answer ---

    async def _stale(self, question: Any, request: Request, found: asyncio.Future[Any] | None) -> Any:
        """Ask the others what the own copy could not answer; `found`: what it said."""
        call = Call(self._bus, self._cluster_id, question, request)
        answer = await self._of_anyone(call, self._order)
        if answer is not None:
            return answer
        said = found.exception() if found is not None else None
        raise said or NoQuorum(
            f"no registry server answers, and this node has no copy of its own; asked: {self._asked()}",
            "stale reads need a registry server too; ask on a registry server's node",
        )

    async def _status(self, question: Any, request: Request) -> Any:
        call = Call(self._bus, self._cluster_id, question, request)
        if self.own is None:
            return await self._of_anyone(call, (self.known.primary, *self.machine.servers)) or self._silence()
        found = await self.own.status(question, request)
        known = self.known
        primary = known.primary
        if primary and primary != self.machine.node:
            found |= {"primary": primary, "epoch": known.epoch, "phase": known.phase, "writable": known.writable}
            # only the primary knows how the others are
            try:
                async with asyncio.timeout(TABLE_TIME):
                    told = await call.to(primary)
                found |= {name: told[name] for name in ("servers", "tolerates")}
            except (CoveyError, TimeoutError) as problem:
                log.debug("node %d does not say how the servers are: %s", primary, problem)
        return found

    async def _of_anyone(self, call: Call, order: Iterable[int]) -> Any:
        """Return what the first other server that answers says, asked in this order; None when none does."""
        asked = [server for server in dict.fromkeys(order) if server not in (0, self.machine.node)]
        for server in asked:
            try:
                return await call.to(server, float("inf") if server == asked[-1] else TURN)
            except (*GONE, Timeout, Damaged) as problem:
                self._unanswered(server, problem)
        return None

    def _silence(self) -> dict[str, Any]:
        """Return the status when no server answers: what nobody said is null."""
        return {
            "phase": "offline",
            "writable": False,
            "closed_because": f"no registry server answers; asked: {self._asked()}",
            "incarnation": None,
            "epoch": self.known.epoch,
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
        if isinstance(effect, Send) and isinstance(effect.message, FindPrimary):
            self._background.start(self._find(effect), "find the primary")
        elif isinstance(effect, Send | Publish):
            self._outbox.put(effect)
        if isinstance(effect, Publish):
            if self.machine.following:  # not when one is lost: what was told of it still holds
                self._told.clear()
                for limit, primary in self._asking.items():
                    if primary != self.known.primary and not limit.expired():  # the call may be leaving already
                        limit.reschedule(asyncio.get_running_loop().time())
            self._changed.set()
            self._changed = asyncio.Event()

    async def _find(self, effect: Send) -> None:
        """Ask a node who leads. As a call: its answer comes back on the way of the question, also to a node that the
        others do not know at these addresses (a new place, or a copy of another node that must be told so)."""
        body = msgspec.msgpack.encode(effect.message)
        node = effect.to.node
        try:
            answer = await self._bus.call(SERVICE, "message", node=node, timeout=FIND_TIME, body=body)
        except CoveyError as problem:
            log.debug("node %d does not say who leads: %s", node, problem)  # the machine asks again
            return
        if answer is not None:
            found: Message = _messages.decode(answer)
            self._driver.feed(Received(Address(SERVICE, node), found))

    async def _hear_peers(self) -> None:
        async with self._bus.subscribe(PEER_TOPIC) as events:
            async for event in events:
                if event.body["state"] == "down" and not event.welcome:
                    node = event.body["node"]
                    self._driver.feed(messages.PeerDown(node))
                    if self.own is not None:
                        self.own.peer_down(node)
