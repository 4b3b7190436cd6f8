"""Events as async iterators: one SUB socket a party, shared by its subscriptions.

Events may be lost on their way to a slow reader; each source numbers what it publishes on a topic, so a gap is seen
and told as `missed`. A reader's own queue is bounded too, and what does not fit counts as missed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

import msgspec
import zmq

from ..errors import Malformed, Timeout
from . import codec
from .messages import EventHead
from .port import Port

log = logging.getLogger(__name__)

QUEUE = 10_000
"""Events that wait for one reader; more are dropped and counted as missed."""

READY_LIMIT = 5.0
"""Seconds a broker may take to confirm a subscription."""


class Event(msgspec.Struct, frozen=True):
    """One event. `missed` says how many of this source and topic were lost just before it."""

    topic: str
    body: Any
    source: str
    sequence: int
    missed: int
    cause: str


class Subscription:
    """`async for event in …`; ends with `aclose`. The first `ready()` or step waits until the broker confirmed it."""

    def __init__(self, owner: Subscriptions, prefix: bytes) -> None:
        self._owner = owner
        self.prefix = prefix
        self._queue: deque[Event] = deque()
        self._filled = asyncio.Event()
        self._confirmed = asyncio.Event()
        self._last: dict[tuple[str, str], int] = {}
        self._closed = False

    async def ready(self) -> None:
        """Wait until events surely arrive here; raises Timeout when the broker does not answer."""
        try:
            async with asyncio.timeout(READY_LIMIT):
                await self._confirmed.wait()
        except TimeoutError:
            raise Timeout(f"the broker did not confirm the subscription within {READY_LIMIT:g} s") from None

    async def aclose(self) -> None:
        """Stop listening; a reader that waits ends."""
        if not self._closed:
            self._closed = True
            self._filled.set()
            self._owner.remove(self)

    async def __aenter__(self) -> Subscription:
        await self.ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        if not self._confirmed.is_set():
            await self.ready()
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._filled.clear()
            await self._filled.wait()
        return self._queue.popleft()

    def take(self, topic: str, head: EventHead, body: Any) -> None:
        """Queue one event, counting what was missed before it."""
        if len(self._queue) >= QUEUE:
            return
        key = (head.source, topic)
        last = self._last.get(key)
        # a source that starts again counts from 1 again: that is no gap
        missed = head.sequence - last - 1 if last is not None and head.sequence > last else 0
        self._last[key] = head.sequence
        self._queue.append(Event(topic, body, head.source, head.sequence, missed, head.cause))
        self._filled.set()

    def confirm(self) -> None:
        """The broker said that this subscription stands."""
        self._confirmed.set()


class Subscriptions:
    """All subscriptions of one party. The socket is made when the first is."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], endpoint: str) -> None:
        self._context = context
        self._endpoint = endpoint
        self._port: Port | None = None
        self._all: list[Subscription] = []

    def add(self, topic: str) -> Subscription:
        """Return a subscription to `name` exactly, or with `name.*` to all topics that begin with `name.`."""
        prefix = topic[:-1].encode() if topic.endswith("*") else topic.encode() + b"\0"
        if self._port is None:
            socket = self._context.socket(zmq.SUB)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVHWM, QUEUE)
            self._port = Port(socket, self._heard)
            socket.connect(self._endpoint)
        found = Subscription(self, prefix)
        self._all.append(found)
        self._port.socket.setsockopt(zmq.SUBSCRIBE, prefix)
        self._port.touched()
        return found

    def remove(self, subscription: Subscription) -> None:
        """Forget one."""
        self._all.remove(subscription)
        if self._port:
            self._port.socket.setsockopt(zmq.UNSUBSCRIBE, subscription.prefix)
            self._port.touched()

    def close(self) -> None:
        """End all."""
        for subscription in list(self._all):
            subscription._closed = True
            subscription._filled.set()
        self._all.clear()
        if self._port:
            self._port.close()
            self._port = None

    def _heard(self, frames: list[zmq.Frame]) -> None:
        try:
            topic, head = codec.decode_event(frames[0].bytes)
            if head.welcome:
                for subscription in self._all:
                    if subscription.prefix.rstrip(b"\0").decode() == topic:
                        subscription.confirm()
                return
            body = codec.decode_body(head.body, head.compressed)
        except Malformed as problem:
            log.warning("dropped an event: %s", problem)
            return
        name = topic.encode() + b"\0"
        for subscription in self._all:
            if name.startswith(subscription.prefix):
                subscription.take(topic, head, body)
