"""A party on the bus: calls, events, and serving verbs, over one connection to the node's broker.

`connect` finds the broker by the node's state folder. The connection says hello by itself, again after the broker was
restarted; calls that were under way then end with `ConnectionLost`, since nobody knows whether they happened.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import secrets
import socket as sockets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import zmq

from ..errors import (
    ConnectionLost,
    CoveyError,
    Malformed,
    NameTaken,
    NoDaemon,
    NoService,
    Overloaded,
    Timeout,
    TooLarge,
)
from . import codec
from .messages import GOODBYE, HELLO, HELLO_WANTED, WELCOME, Header, Hello, Kind, NodeInfo, Welcome
from .port import Monitor, Port
from .service import Service, current_cause
from .subscription import Subscription, Subscriptions

log = logging.getLogger(__name__)

DEFAULT_STATE = "/var/lib/covey"
DEFAULT_TIMEOUT = 10.0
HELLO_LIMIT = 10.0
"""Seconds a broker may take to welcome a new party: milliseconds, unless a hundred others start on the same machine."""

MAX_SERVED = 1000
"""Requests one party works on at a time; more are refused with `bus.overloaded`."""

_welcome_decoder = msgspec.msgpack.Decoder(Welcome)


Party = TypeVar("Party", bound="Client")


class Client:
    """One party. Made by `connect`; every method must be called on the loop that made it."""

    def __init__(self, endpoints: tuple[str, str], name: str = "", component: bool = False) -> None:
        self.name = name
        self.node = NodeInfo()
        self._endpoints = endpoints
        self._wished = name
        self._component = component
        self._services: dict[str, Service] = {}
        self._calls: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._welcomed: asyncio.Future[None] | None = None
        self._closed = False
        self._lost = False

    # --- life -----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect and wait for the broker's welcome; raises NoDaemon, NameTaken, Denied."""
        loop = asyncio.get_running_loop()
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        socket = context.socket(zmq.DEALER)
        for option, value in (
            (zmq.LINGER, 0),
            (zmq.SNDHWM, 10_000),
            (zmq.RCVHWM, 10_000),
            (zmq.RECONNECT_IVL, 50),
        ):
            socket.setsockopt(option, value)
        self._port = Port(socket, self._heard)
        self._monitor = None if self._endpoints[0].startswith("inproc:") else Monitor(socket, self._up, self._down)
        self._subscriptions = Subscriptions(context, self._endpoints[1])
        socket.connect(self._endpoints[0])
        if self._monitor is None:
            loop.call_soon(self._say_hello)
        try:
            async with asyncio.timeout(HELLO_LIMIT):
                while True:
                    self._welcomed = loop.create_future()
                    try:
                        await self._welcomed
                        return
                    except NameTaken:
                        if not self._component:
                            raise
                        await asyncio.sleep(0.05)  # a restarted component: the broker is about to see its old self gone
                        self._say_hello()
        except TimeoutError:
            await self.close()
            raise NoDaemon(f"the broker at {self._endpoints[0]} did not answer within {HELLO_LIMIT:g} s") from None
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Say goodbye and end everything of this party: its calls, what it serves, its subscriptions."""
        if self._closed:
            return
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_calls("this connection was closed")
        with suppress(zmq.ZMQError):
            self._port.send([codec.encode_header(Header(Kind.CONTROL, topic=GOODBYE)), b""])
        if self._monitor:
            self._monitor.close()
        self._port.close(linger=200)
        self._subscriptions.close()

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
        Unreachable, Timeout, ConnectionLost of the bus.
        """
        number = next(self._numbers)
        destination = service if node is None else f"{service}@{node}"
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
        try:
            topic = f"{service}.{verb}"
            self._send(Kind.REQUEST, arguments, number, destination, topic, cause, cluster, timeout, request_id)
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            raise Timeout(
                f"{destination} did not answer '{verb}' within {timeout:g} s", "it may still happen"
            ) from None
        finally:
            del self._calls[number]

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
        self._send(Kind.REQUEST, arguments, 0, service if node is None else f"{service}@{node}", topic, cause)

    async def publish(self, topic: str, body: Any, *, cause: str = "") -> None:
        """Publish an event on this node's bus, for whoever listens.

        It needs the role operator, and below the name of a component (`registry.…`) that of a component. Nothing waits
        for an answer: a refusal is logged, and counted by the broker.
        """
        self._send(Kind.EVENT, body, 0, "", topic, cause)

    def subscribe(self, topic: str) -> Subscription:
        """Return an async iterator over the events of a topic, or with `name.*` of all topics below it."""
        return self._subscriptions.add(topic)

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
        self._services[name] = service
        try:
            await self._announce()
            yield service
        finally:
            del self._services[name]
            if not self._closed:
                self._say_hello()

    async def _announce(self) -> None:
        self._welcomed = asyncio.get_running_loop().create_future()
        self._say_hello()
        try:
            async with asyncio.timeout(HELLO_LIMIT):
                await self._welcomed
        except TimeoutError:
            raise NoDaemon(f"the broker did not answer within {HELLO_LIMIT:g} s") from None

    async def _serve_one(self, service: Service | None, header: Header, body: bytes) -> None:
        try:
            if service is None:
                raise NoService(f"no service '{header.destination}' here any more")
            result = await service.handle(header, codec.unpack_body(body, header.compressed))
            kind, data, compressed = Kind.REPLY, *codec.encode_body(result)
        except (CoveyError, TypeError) as problem:
            error = problem if isinstance(problem, CoveyError) else CoveyError(f"the answer cannot be sent: {problem}")
            kind, data, compressed = Kind.ERROR, codec.encode_error(error), False
        if not header.id:
            return
        answer = Header(kind, header.id, "", header.source, header.topic, header.cause, compressed=compressed)
        with suppress(zmq.ZMQError):  # the broker is gone, and with it whoever asked
            self._port.send([codec.encode_header(answer), data])

    # --- inside ---------------------------------------------------------------------------------------------

    def _send(
        self,
        kind: Kind,
        value: Any,
        number: int,
        destination: str,
        topic: str,
        cause: str = "",
        cluster: str = "",
        budget: float = 0.0,
        request_id: str = "",
    ) -> None:
        if self._lost or self._closed:
            raise ConnectionLost("there is no connection to this node's broker", "it is made again by itself")
        try:
            body, compressed = codec.encode_body(value)
        except TypeError as problem:
            raise TooLarge(f"the arguments of '{topic}' cannot be sent: {problem}") from None
        header = Header(
            kind,
            number,
            "",
            destination,
            topic,
            cause or current_cause.get() or secrets.token_hex(6),
            cluster,
            budget=budget,
            request_id=request_id,
            compressed=compressed,
        )
        try:
            self._port.send([codec.encode_header(header), body])
        except zmq.Again:
            raise Overloaded("the broker does not keep up with this party", "send less at a time") from None

    def _heard(self, frames: list[zmq.Frame]) -> None:
        try:
            header = codec.decode_header(frames[0].bytes)
            self._handle(header, frames[1].bytes)
        except (Malformed, IndexError) as problem:
            log.warning("dropped a message: %s", problem)

    def _handle(self, header: Header, body: bytes) -> None:
        if header.kind is Kind.REQUEST:
            service = self._services.get(header.destination.partition("@")[0])
            if len(self._tasks) >= MAX_SERVED:
                refusal = Header(Kind.ERROR, header.id, "", header.source, header.topic, header.cause)
                problem = Overloaded(f"{header.destination} works on {MAX_SERVED} requests already", "try again later")
                self._port.send([codec.encode_header(refusal), codec.encode_error(problem)])
                return
            task = asyncio.get_running_loop().create_task(self._serve_one(service, header, body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif header.kind is Kind.REPLY:
            self._settle(header.id, codec.decode_body(body, header.compressed), None)
        elif header.kind is Kind.ERROR and header.topic == HELLO and not header.id:
            self._resolve_welcome(codec.decode_error(body))
        elif header.kind is Kind.ERROR and not header.id:
            log.warning("%s was refused: %s", header.topic, codec.decode_error(body))
        elif header.kind is Kind.ERROR:
            self._settle(header.id, None, codec.decode_error(body))
        elif header.topic == WELCOME:
            welcome = _welcome_decoder.decode(body)
            self.name, self.node = welcome.name, welcome.node
            self._resolve_welcome(None)
        elif header.topic == HELLO_WANTED:
            self._fail_calls("the broker was restarted")
            self._say_hello()

    def _settle(self, number: int, result: Any, problem: CoveyError | None) -> None:
        future = self._calls.get(number)
        if future is None or future.done():
            return
        if problem is None:
            future.set_result(result)
        else:
            future.set_exception(problem)

    def _resolve_welcome(self, problem: CoveyError | None) -> None:
        waiting, self._welcomed = self._welcomed, None
        if waiting is None or waiting.done():
            if problem:
                log.error("the broker refused this party: %s", problem)
            return
        if problem is None:
            waiting.set_result(None)
        else:
            waiting.set_exception(problem)

    def _say_hello(self) -> None:
        hello = Hello(self._wished, self._component, tuple(sorted(self._services)))
        with suppress(zmq.ZMQError):
            self._port.send([codec.encode_header(Header(Kind.CONTROL, topic=HELLO)), msgspec.msgpack.encode(hello)])

    def _up(self) -> None:
        self._lost = False
        self._say_hello()

    def _down(self, reason: str) -> None:
        if reason == "connection closed":
            self._lost = True
            self._fail_calls("the broker went away")

    def _fail_calls(self, reason: str) -> None:
        for future in self._calls.values():
            if not future.done():
                problem = ConnectionLost(
                    f"{reason} before it answered", "read before you ask again: it may have happened"
                )
                future.set_exception(problem)


@asynccontextmanager
async def connect(
    state: str | os.PathLike[str] | None = None,
    *,
    name: str = "",
    component: bool = False,
    endpoints: tuple[str, str] | None = None,
) -> AsyncIterator[Client]:
    """Connect to the daemon of a state folder (default: $COVEY_STATE or /var/lib/covey); raises NoDaemon.

    `name` is the party's name on the bus (default: the broker gives one); `endpoints` are used inside a daemon.
    """
    async with opened(Client(endpoints or find_endpoints(state), name, component)) as client:
        yield client


@asynccontextmanager
async def opened(client: Party) -> AsyncIterator[Party]:
    """Open a client and close it at the end, whatever class of client it is."""
    await client.open()
    try:
        yield client
    finally:
        await client.close()


def find_endpoints(state: str | os.PathLike[str] | None) -> tuple[str, str]:
    """Return the endpoints of the daemon of a state folder; raises NoDaemon when none listens there."""
    folder = Path(state or os.environ.get("COVEY_STATE") or DEFAULT_STATE).absolute() / "run"
    path = folder / "bus.sock"
    hint = "start it with `covey node start FILE`, or name another state folder: --state or COVEY_STATE"
    with sockets.socket(sockets.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError as problem:
            why = problem.strerror or str(problem)
            raise NoDaemon(f"no daemon answers on {path}: {why}", hint) from None
    return f"ipc://{path}", f"ipc://{folder}/events.sock"


async def describe(
    service: str, *, state: str | os.PathLike[str] | None = None, node: int | str | None = None
) -> list[dict[str, Any]]:
    """Return the verbs of a service, each with its summary, its role and the JSON Schema of its arguments."""
    async with connect(state) as bus:
        found: list[dict[str, Any]] = await bus.call(service, "describe", node=node)
        return found
