"""A party on the bus: calls, events, and serving verbs, over one connection to the node's broker.

`connect` finds the broker by the node's state folder. The connection says hello by itself, again after the broker was
restarted; calls that were under way then end with `ConnectionLost`, since nobody knows whether they happened.

How it is quick: what one turn of the loop says to one destination is one message (`batch.py`), answers come so, too; a
call costs a future and no timer (`deadlines.py`). A call that is alone does not wait for the end of the turn.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket as sockets
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import zmq

from ..errors import ConnectionLost, CoveyError, Malformed, NameTaken, NoDaemon, Timeout, UsageError
from . import codec
from .batch import Outbox
from .calls import Calls
from .messages import (
    GOODBYE,
    HELLO,
    HELLO_WANTED,
    READ,
    SUBSCRIBE,
    SUBSCRIBED,
    WELCOME,
    Header,
    Hello,
    Kind,
    NodeInfo,
    Subscribe,
    Welcome,
)
from .port import Monitor, Port, content
from .service import Service, current_cause
from .serving import Serving
from .subscription import Subscription, Subscriptions
from .window import READ_BYTES, READ_MESSAGES

log = logging.getLogger(__name__)

DEFAULT_STATE = "/var/lib/covey"
DEFAULT_TIMEOUT = 10.0
HELLO_LIMIT = 10.0
"""Seconds a broker may take to welcome a new party: milliseconds, unless a hundred others start on the same machine."""

MAX_TOPICS = 10_000
"""Topics with a sequence counter. More than that is a program that makes up topic names; the oldest counters go."""

SEND_QUEUE = 1000
"""Messages, each at most a full batch or one large body, that the socket holds while the broker does not read."""

encode_item = codec.encode_item
_welcome_decoder = msgspec.msgpack.Decoder(Welcome)
_subscribe_decoder = msgspec.msgpack.Decoder(Subscribe)

Party = TypeVar("Party", bound="Client")


class Client:
    """One party. Made by `connect`; every method must be called on the loop that made it."""

    def __init__(self, endpoint: str, name: str = "", component: bool = False) -> None:
        self.name = name
        self.node = NodeInfo()
        self.welcomed = asyncio.Event()
        """Set whenever the broker says who this party and its node are; whoever waits for it clears it."""
        self._endpoint = endpoint
        self._wished = name
        self._component = component
        self._sequences: dict[str, int] = {}
        self._hellos: deque[asyncio.Future[None] | None] = deque()
        self._read = self._read_bytes = 0  # since the first welcome on this connection
        self._said = self._said_bytes = 0
        self._counting = False
        self._closed = False
        self._lost = False

    # --- life -----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect and wait for the broker's welcome; raises NoDaemon, NameTaken, Denied."""
        self._loop = asyncio.get_running_loop()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        socket = context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.SNDHWM, SEND_QUEUE),
            (zmq.RCVHWM, 10_000),
            (zmq.RECONNECT_IVL, 50),
        ):
            socket.setsockopt(option, value)
        self._port = Port(socket, self._heard, self._drained)
        self._outbox = Outbox(self._port)
        self._calls = Calls()
        self._serving = Serving(self._outbox)
        self._subscriptions = Subscriptions(self._say)
        self._monitor = None if self._endpoint.startswith("inproc:") else Monitor(socket, self._up, self._down)
        socket.connect(self._endpoint)
        self._port.touched()
        try:
            async with asyncio.timeout(HELLO_LIMIT):
                greeting = self._greet if self._monitor is None else self._greeting
                while True:
                    try:
                        await greeting()
                        return
                    except NameTaken:
                        if not self._component:
                            raise
                        await asyncio.sleep(0.05)  # a restarted component: the broker is about to see its old self gone
                        greeting = self._greet
        except TimeoutError:
            await self.close()
            raise NoDaemon(f"the broker at {self._endpoint} did not answer within {HELLO_LIMIT:g} s") from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Say goodbye and end everything of this party: its calls, what it serves, its subscriptions."""
        if self._closed:
            return
        self._closed = True
        await self._serving.close()
        self._calls.close()
        self._subscriptions.close()
        with suppress(zmq.ZMQError):
            self._outbox.control(GOODBYE, b"")
        self._outbox.close()
        if self._monitor:
            self._monitor.close()
        self._port.close(linger=200)

    # --- asking ---------------------------------------------------------------------------------------------

    async def call(
        self,
        service: str,
        verb: str,
        /,
        *,
        node: int | str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        request_id: str = "",
        cause: str = "",
        cluster: str = "",
        **arguments: Any,
    ) -> Any:
        """Ask a service and return its answer as plain data.

        `node` is a node number or `host:port` (default: this node); `timeout` is in seconds; `cluster` makes the
        service refuse when it belongs to another one. Raises the service's error, or NoService, ServiceDied,
        Unreachable, Timeout, Overloaded, ConnectionLost of the bus.
        """
        topic = f"{service}.{verb}"
        destination = service if node is None else f"{service}@{node}"
        item = self._encode(topic, arguments)
        alone = self._calls.quiet
        number, answer = self._calls.begin(timeout)
        try:
            self._outbox.add(
                Kind.REQUEST,
                destination,
                topic,
                item,
                number,
                cause or current_cause.get(),
                request_id,
                cluster,
                timeout,
                now=alone,
            )
            return await answer
        except BaseException as problem:
            self._calls.drop(number)
            if type(problem) is TimeoutError:
                raise Timeout(
                    f"{destination} did not answer '{verb}' within {timeout:g} s", "it may still happen"
                ) from None
            raise

    async def send(
        self,
        service: str,
        verb: str,
        /,
        *,
        node: int | str | None = None,
        about: str = "",
        cause: str = "",
        **arguments: Any,
    ) -> None:
        """Send a request that nobody answers. It may be lost; nothing tells.

        `about` is appended to the topic, for those who watch: the name of a machine's message, say.
        """
        topic = f"{service}.{verb}.{about}" if about else f"{service}.{verb}"
        item = self._encode(topic, arguments)
        destination = service if node is None else f"{service}@{node}"
        self._outbox.add(Kind.REQUEST, destination, topic, item, 0, cause or current_cause.get())

    async def publish(self, topic: str, body: Any, *, cause: str = "") -> None:
        """Publish an event on this node's bus, for whoever listens.

        It needs the role operator, and below the name of a component (`registry.…`) that of a component. Nothing waits
        for an answer: a refusal is logged, and counted by the broker. Raises Overloaded when the broker does not read;
        a program that publishes without end should let its loop run now and then.
        """
        item = self._encode(topic, body)
        number = self._sequences.get(topic, 0) + 1
        cause = cause or current_cause.get()
        if cause:
            self._outbox.add(Kind.EVENT, "", topic, item, 0, cause, sequence=number)
        else:
            self._outbox.event(topic, item, number)
        self._sequences[topic] = number
        if number == 1 and len(self._sequences) > MAX_TOPICS:
            del self._sequences[next(iter(self._sequences))]

    def subscribe(self, topic: str, *, node: int | None = None) -> Subscription:
        """Return an async iterator over the events of a topic, or with `name.*` of all topics below it.

        `node`: as published on that node (default: this one). First come the last events of each source, marked
        `welcome`, then what happens from now on.
        """
        return self._subscriptions.add(topic, node or 0)

    async def wait_for_service(self, service: str, *, node: int | str | None = None, timeout: float = 30.0) -> None:
        """Wait until a service answers; raises Timeout."""
        try:
            async with asyncio.timeout(timeout):
                while True:
                    try:
                        await self.call(service, "ping", node=node, timeout=1.0)
                        return
                    except CoveyError:
                        await asyncio.sleep(0.02)
        except TimeoutError:
            raise Timeout(f"'{service}' did not appear within {timeout:g} s") from None

    # --- serving --------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def serve(self, name: str, verbs: Mapping[str, Callable[..., Any]] | object) -> AsyncIterator[Service]:
        """Serve verbs under a name while the context lasts; raises NameTaken, Denied."""
        service = Service(name, verbs)
        self._serving.services[name] = service
        try:
            try:
                async with asyncio.timeout(HELLO_LIMIT):
                    await self._greet()
            except TimeoutError:
                raise NoDaemon(f"the broker did not answer within {HELLO_LIMIT:g} s") from None
            yield service
        finally:
            self._serving.end(name)
            if not self._closed:
                self._say_hello()

    # --- inside: what goes out ------------------------------------------------------------------------------

    def _encode(self, topic: str, value: Any) -> bytes:
        if self._lost or self._closed:
            raise ConnectionLost("there is no connection to this node's broker", "it is made again by itself")
        try:
            return encode_item(value)
        except TypeError as problem:
            raise UsageError(f"what is said to '{topic}' cannot be sent: {problem}") from None

    def _say(self, topic: str, body: bytes) -> None:
        if self._closed or self._lost:
            return  # subscriptions are said again with the next hello
        self._outbox.control(topic, body)

    def _say_hello(self, waiting: asyncio.Future[None] | None = None) -> None:
        self._hellos.append(waiting)
        hello = Hello(self._wished, self._component, tuple(sorted(self._serving.services)))
        self._outbox.control(HELLO, msgspec.msgpack.encode(hello))

    async def _greet(self) -> None:
        waiting: asyncio.Future[None] = self._loop.create_future()
        self._say_hello(waiting)
        await waiting

    async def _greeting(self) -> None:
        """Wait for the answer to the hello that is said when the connection is up."""
        waiting: asyncio.Future[None] = self._loop.create_future()
        self._hellos.append(waiting)
        await waiting

    def _drained(self) -> None:
        self._outbox.flush()

    # --- inside: what comes in ------------------------------------------------------------------------------

    def _heard(self, frames: list[zmq.Frame]) -> None:
        try:
            header = codec.decode_header(frames[0].bytes)
            body = content(frames[1])
        except (Malformed, IndexError) as problem:
            log.warning("dropped a message: %s", problem)
            return
        try:
            self._handle(header, body)
        except (CoveyError, msgspec.MsgspecError) as problem:
            log.warning("dropped a message about '%.40s': %s", header.topic, problem)
        finally:  # whatever it was, it takes no room any more
            self._read += 1
            self._read_bytes += len(frames[0]) + len(body)
            if self._read - self._said >= READ_MESSAGES or self._read_bytes - self._said_bytes >= READ_BYTES:
                self._say_read()

    def _say_read(self) -> None:
        self._said, self._said_bytes = self._read, self._read_bytes
        if self._counting and not self._closed:
            self._outbox.control(READ, b"", (self._said, self._said_bytes))

    def _handle(self, header: Header, body: bytes | memoryview) -> None:
        kind = header.kind
        if kind is Kind.REPLY:
            self._calls.replies(header, body)
        elif kind is Kind.REQUEST:
            self._serving.take(header, body)
        elif kind is Kind.EVENT:
            self._subscriptions.take(header, body)
        elif kind is Kind.ERROR:
            if header.ids:
                self._calls.errors(header, body)
            else:
                self._refused(header, codec.decode_error(codec.unpack_body(body, header.compressed)))
        else:
            self._controlled(header, body)

    def _refused(self, header: Header, problem: CoveyError) -> None:
        """Handle what the broker says about something that is no request."""
        if header.topic == HELLO:
            self._greeted(problem)
        elif header.topic == SUBSCRIBE:
            wanted = Subscribe(str(problem.details.get("topic", "")), int(problem.details.get("node", 0)))
            self._subscriptions.confirm(wanted, problem)
        else:
            log.warning("%s was refused: %s", header.topic, problem)

    def _controlled(self, header: Header, body: bytes | memoryview) -> None:
        if header.topic == WELCOME:
            welcome = _welcome_decoder.decode(body)
            self.name, self.node = welcome.name, welcome.node
            self.welcomed.set()
            self._subscriptions.configure(welcome.node.number)
            if not self._counting:
                self._counting = True
                self._read = self._read_bytes = self._said = self._said_bytes = 0
            self._greeted(None)
        elif header.topic == SUBSCRIBED:
            self._subscriptions.confirm(_subscribe_decoder.decode(body))
        elif header.topic == HELLO_WANTED and (self._counting or not self._hellos):
            self._calls.fail_all("the broker was restarted")
            self._begin()

    def _begin(self) -> None:
        """Introduce this party on a connection whose broker does not know it."""
        self._counting = False  # until the broker's welcome
        waiting = [each for each in self._hellos if each is not None and not each.done()]
        self._hellos.clear()
        self._say_hello(waiting[0] if waiting else None)
        for each in waiting[1:]:
            self._say_hello(each)
        self._subscriptions.renew()

    def _greeted(self, problem: CoveyError | None) -> None:
        waiting = self._hellos.popleft() if self._hellos else None
        if waiting is None or waiting.done():
            if problem:
                log.error("the broker refused this party: %s", problem)
        elif problem is None:
            waiting.set_result(None)
        else:
            waiting.set_exception(problem)

    def _up(self) -> None:
        self._port.drain()  # what is left of an old connection does not count on the new one
        self._lost = False
        self._begin()

    def _down(self, reason: str) -> None:
        if reason == "connection closed":
            self._lost = True
            self._outbox.forget()
            self._calls.fail_all("the broker went away")


@asynccontextmanager
async def connect(
    state: str | os.PathLike[str] | None = None,
    *,
    name: str = "",
    component: bool = False,
    endpoint: str = "",
) -> AsyncIterator[Client]:
    """Connect to the daemon of a state folder (default: $COVEY_STATE or /var/lib/covey); raises NoDaemon.

    `name` is the party's name on the bus (default: the broker gives one); `endpoint` is used inside a daemon.
    """
    async with opened(Client(endpoint or find_endpoint(state), name, component)) as client:
        yield client


@asynccontextmanager
async def opened(client: Party) -> AsyncIterator[Party]:
    """Open a client and close it at the end, whatever class of client it is."""
    await client.open()
    try:
        yield client
    finally:
        await client.close()


def find_endpoint(state: str | os.PathLike[str] | None) -> str:
    """Return the endpoint of the daemon of a state folder; raises NoDaemon when none listens there."""
    folder = Path(state or os.environ.get("COVEY_STATE") or DEFAULT_STATE).absolute() / "run"
    path = folder / "bus.sock"
    hint = "start it with `covey node start FILE`, or name another state folder: --state or COVEY_STATE"
    with sockets.socket(sockets.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError as problem:
            why = problem.strerror or str(problem)
            raise NoDaemon(f"no daemon answers on {path}: {why}", hint) from None
    return f"ipc://{path}"


async def describe(
    service: str, *, state: str | os.PathLike[str] | None = None, node: int | str | None = None
) -> list[dict[str, Any]]:
    """Return the verbs of a service, each with its summary, its role and the JSON Schema of its arguments."""
    async with connect(state) as bus:
        found: list[dict[str, Any]] = await bus.call(service, "describe", node=node)
        return found
