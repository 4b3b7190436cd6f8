"""Events as async iterators.

The broker tells the last event of each source and topic when a subscription begins (`Event.welcome`), and again where
some were lost: that one is then news like any other, behind a gap. Each source numbers what it publishes on a topic, so
a gap is seen and told as `missed`. A reader's queue is bounded in events and bytes; of what finds no room, the last
event of each source and topic is kept and told when the rest is read.

Knows no socket: `say` sends a control message. Events wait as the bytes they came in, and are decoded, a batch in one
go, when they are read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from ..errors import CoveyError, Malformed, Timeout
from . import codec
from .messages import SUBSCRIBE, UNSUBSCRIBE, Header, Subscribe

log = logging.getLogger(__name__)

QUEUE = 10_000
"""Events that wait for one reader."""

QUEUE_BYTES = 16 * 1024 * 1024
"""Bytes that wait for one reader; a single message always finds room."""

MAX_SOURCES = 20_000
"""Sources and topics whose last number a reader remembers; the oldest are forgotten, and their next gap is not seen."""

READY_LIMIT = 5.0
"""Seconds a broker may take to confirm a subscription."""

_any_decoder = msgspec.msgpack.Decoder()
_list_decoder = msgspec.msgpack.Decoder(list[Any])


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event. `missed` says how many of this source and topic were lost just before it.

    `welcome`: it happened before this reader began, and says how things stand. What shows a change, as that a party
    is gone, is old news then.
    """

    topic: str
    body: Any
    source: str
    sequence: int
    missed: int = 0
    cause: str = ""
    welcome: bool = False


Waiting = tuple[Header, bytes | memoryview]


class Subscription:
    """`async for event in …`; ends with `aclose`. The first `ready()` or step waits until the broker confirmed it."""

    def __init__(self, owner: Subscriptions, wanted: Subscribe) -> None:
        self.wanted = wanted
        self._owner = owner
        self._events: deque[Event] = deque()
        self._waiting: deque[Waiting] = deque()
        self._late: dict[tuple[str, str], Waiting] = {}
        self._count = self._bytes = 0
        self._filled = asyncio.Event()
        self._confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._last: dict[tuple[str, str], int] = {}
        self._closed = False

    async def ready(self) -> None:
        """Wait until events surely arrive here; raises Timeout when the broker does not answer, or what it refused."""
        try:
            async with asyncio.timeout(READY_LIMIT):
                await asyncio.shield(self._confirmed)
        except TimeoutError:
            raise Timeout(f"the broker did not confirm the subscription within {READY_LIMIT:g} s") from None

    async def aclose(self) -> None:
        """Stop listening; a reader that waits ends."""
        if not self._closed:
            self.end()
            self._owner.remove(self)

    async def __aenter__(self) -> Subscription:
        try:
            await self.ready()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Event:
        if self._events:
            return self._events.popleft()
        if not self._confirmed.done() and not self._closed:
            await self.ready()
        while not (self._events or self._refill()):
            if self._closed:
                raise StopAsyncIteration
            self._filled.clear()
            await self._filled.wait()
        return self._events.popleft()

    def matches(self, topic: str) -> bool:
        """Whether this asks for events of a topic."""
        wanted = self.wanted.topic
        return topic.startswith(wanted[:-1]) if wanted.endswith("*") else topic == wanted

    def take(self, header: Header, body: bytes | memoryview) -> None:
        """Keep the events of one message, all or only the last, until they are read."""
        key = (header.source, header.topic)
        late = self._late.pop(key, None)
        if late is not None:
            self._bytes -= len(late[1])
        full = self._count + header.count > QUEUE or self._bytes + len(body) > QUEUE_BYTES
        if full and self._waiting:
            self._late[key] = header, body
            while len(self._late) > QUEUE or (self._bytes + len(body) > 2 * QUEUE_BYTES and len(self._late) > 1):
                first = next(iter(self._late))
                self._bytes -= len(self._late.pop(first)[1])
        else:
            self._waiting.append((header, body))
            self._count += header.count
        self._bytes += len(body)
        self._filled.set()

    def confirm(self, problem: CoveyError | None = None) -> None:
        """The broker said that this subscription stands, or why not."""
        if self._confirmed.done():
            return
        if problem:
            self._confirmed.set_exception(problem)
            self._confirmed.exception()  # seen: nobody need wait for it
            self.end()
        else:
            self._confirmed.set_result(None)

    def end(self) -> None:
        """Let a reader that waits end."""
        self._closed = True
        self._filled.set()

    def _refill(self) -> bool:
        """Decode the next message that waits; False when there is none."""
        while self._waiting or self._late:
            if self._waiting:
                header, body = self._waiting.popleft()
                self._count -= header.count
                welcome = header.welcome
            else:
                key = next(iter(self._late))
                header, body = self._late.pop(key)
                welcome = True
            self._bytes -= len(body)
            try:
                self._decode(header, body, welcome)
            except Malformed as problem:
                log.warning("dropped %d events of %s: %s", header.count, header.topic, problem)
            if self._events:
                return True
        return False

    def _decode(self, header: Header, body: bytes | memoryview, welcome: bool) -> None:
        data, count, first = codec.unpack_body(body, header.compressed), header.count, header.sequence
        try:
            bodies = [_any_decoder.decode(data)] if count == 1 else _list_decoder.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
            raise Malformed(f"a body that does not decode: {problem}") from None
        if len(bodies) != count:
            raise Malformed(f"a batch of {len(bodies)} events, its header says {count}")
        source, topic = header.source, header.topic
        if welcome:
            first += count - 1
            bodies = bodies[-1:]
        key = (source, topic)
        last = self._last.get(key)
        old = header.welcome and last is None
        if last is None:
            missed = 0
            if len(self._last) >= MAX_SOURCES:
                del self._last[next(iter(self._last))]
        elif first > last:
            missed = first - last - 1
        elif welcome and first == last:
            return  # read already: another reader of this party came, or the connection is new
        else:
            missed = first - 1  # a source that starts again counts from 1 again
        self._last[key] = first + len(bodies) - 1
        if header.causes:
            skipped = count - len(bodies)
            causes = [header.cause(index + skipped) for index in range(len(bodies))]
            for number, each in enumerate(bodies):
                self._events.append(Event(topic, each, source, first + number, missed, causes[number], old))
                missed = 0
            return
        append = self._events.append
        append(Event(topic, bodies[0], source, first, missed, "", old))
        for each in bodies[1:]:
            first += 1
            append(Event(topic, each, source, first))


class Subscriptions:
    """All subscriptions of one party. `say(topic, body)` sends a control message to the broker."""

    def __init__(self, say: Callable[[str, bytes], None]) -> None:
        self._say = say
        self._all: list[Subscription] = []
        self._here = 0
        self._readers: dict[tuple[str, str], tuple[Subscription, ...]] = {}  # of each topic and source

    def add(self, topic: str, node: int = 0) -> Subscription:
        """Return a subscription to `name` exactly, or with `name.*` to all topics that begin with `name.`."""
        found = Subscription(self, Subscribe(topic, node))
        self._all.append(found)
        self._readers.clear()
        self._say(SUBSCRIBE, msgspec.msgpack.encode(found.wanted))
        return found

    def remove(self, subscription: Subscription) -> None:
        """Forget one."""
        if subscription not in self._all:
            return
        self._all.remove(subscription)
        self._readers.clear()
        if all(other.wanted != subscription.wanted for other in self._all):
            self._say(UNSUBSCRIBE, msgspec.msgpack.encode(subscription.wanted))

    def renew(self) -> None:
        """Say all again: the broker does not know this connection."""
        for wanted in dict.fromkeys(subscription.wanted for subscription in self._all):
            self._say(SUBSCRIBE, msgspec.msgpack.encode(wanted))

    def configure(self, here: int) -> None:
        """Take the number of this node."""
        if here != self._here:
            self._here = here
            self._readers.clear()

    def close(self) -> None:
        """End all."""
        for subscription in self._all:
            subscription.end()
        self._all.clear()
        self._readers.clear()

    def confirm(self, wanted: Subscribe, problem: CoveyError | None = None) -> None:
        """The broker answered a subscription."""
        for subscription in self._all:
            if subscription.wanted == wanted:
                subscription.confirm(problem)
        if problem:
            self._all = [other for other in self._all if other.wanted != wanted]
            self._readers.clear()

    def take(self, header: Header, body: bytes | memoryview) -> None:
        """Hand a message with events to its readers."""
        key = (header.topic, header.source)
        readers = self._readers.get(key)
        if readers is None:
            if len(self._readers) >= MAX_SOURCES:
                self._readers.clear()
            readers = self._readers[key] = self._find(*key)
        for subscription in readers:
            subscription.take(header, body)

    def _find(self, topic: str, source: str) -> tuple[Subscription, ...]:
        number = source.rpartition("@")[2]
        own = number in ("0", str(self._here))  # what was published before the node had a number is its own, too
        return tuple(
            found
            for found in self._all
            if found.matches(topic)
            and (own if found.wanted.node in (0, self._here) else number == str(found.wanted.node))
        )
