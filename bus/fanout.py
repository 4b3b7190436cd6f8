"""Who gets which event: subscriptions, the last event of each source and topic, and who missed what.

It knows no sockets and no clock, and what an event says is not its business. Subscriptions are kept by the node whose
events are wanted (0: this one), exact and by prefix; who reads a topic is looked up once and remembered. An event that
finds no room in a reader's window is dropped and counted for that reader, and the reader gets the last event of that
source and topic when it has room again: a slow reader loses what is between, never where things stand.

Odd: of a batch the whole is kept as last event, since bodies are not opened; the reader takes the last item.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import Overloaded, UsageError
from . import codec
from .ends import End, Out
from .messages import Header, Kind, Subscribe

MAX_SUBSCRIPTIONS = 1000
"""Of one party."""

MAX_FORWARDED = 10_000
"""Subscriptions of one peer: it asks once for all its parties."""

MAX_LAST = 10_000
"""Sources and topics whose last event is kept."""

MAX_LAST_BYTES = 32 * 1024 * 1024

MAX_MISSED = 10_000
"""Sources and topics remembered as missed by one reader; of the oldest beyond, only the count is told."""

MAX_TOPIC = 255
"""Characters."""

MAX_CACHED = 10_000
"""Topics whose readers are remembered."""


Last = tuple[Header, Any, int]
"""The last event of a source and topic: header, body, and the bytes of both."""

EVENT = Kind.EVENT


class Fanout:
    """Decide who gets an event.

    Invariants: 1. the indexes hold exactly what the readers want; 2. the bytes kept are counted exactly and bounded.
    """

    def __init__(self, counters: Counter[str]) -> None:
        self.counters = counters
        self.last: dict[tuple[int, str, str], Last] = {}  # the oldest first
        self.last_bytes = 0
        self.confirmed: set[tuple[int, str]] = set()  # what another node has confirmed to us
        self._sources: dict[tuple[int, str], set[str]] = {}  # of what is in `last`
        self._readers: dict[tuple[int, str], dict[End, None]] = {}
        self._prefixes: dict[int, int] = {}  # subscriptions by prefix, per node: without any, no prefix is looked up
        self._cache: dict[tuple[int, str], tuple[End, ...]] = {}

    # --- subscriptions --------------------------------------------------------------------------------------

    def subscribe(self, end: End, wanted: Subscribe, most: int = MAX_SUBSCRIPTIONS) -> bool:
        """Add a subscription; True when it is the first on that node and topic. Raises UsageError, Overloaded."""
        key = (wanted.node, check_topic(wanted.topic))
        if key in end.wants:
            return False
        if len(end.wants) >= most:
            raise Overloaded(f"{most} subscriptions are open already", "subscribe to `name.*`, or end some")
        end.wants.add(key)
        readers = self._readers.setdefault(key, {})
        readers[end] = None
        if key[1].endswith("*"):
            self._prefixes[key[0]] = self._prefixes.get(key[0], 0) + 1
        self._cache.clear()
        return len(readers) == 1

    def unsubscribe(self, end: End, wanted: Subscribe) -> bool:
        """End a subscription; True when nobody wants that any more."""
        key = (wanted.node, wanted.topic)
        if key not in end.wants:
            return False
        end.wants.discard(key)
        readers = self._readers[key]
        del readers[end]
        if key[1].endswith("*"):
            self._prefixes[key[0]] -= 1
        self._cache.clear()
        for missed in [missed for missed in end.missed if not self._wants(end, missed[0], missed[2])]:
            del end.missed[missed]
        if readers:
            return False
        del self._readers[key]
        self.confirmed.discard(key)
        if key[0]:
            self._forget(key[0])
        return True

    def leave(self, end: End) -> list[Subscribe]:
        """End all subscriptions of a reader that is gone; return what nobody wants any more."""
        wanted = [Subscribe(topic, node) for node, topic in sorted(end.wants)]
        end.missed.clear()
        return [each for each in wanted if self.unsubscribe(end, each)]

    def unconfirmed(self) -> list[tuple[int, str]]:
        """Return what is wanted of other nodes, by node and topic, and not confirmed."""
        return sorted(key for key in self._readers if key[0] and key not in self.confirmed)

    def abroad(self) -> list[tuple[int, str]]:
        """Return what is wanted of other nodes, by node and topic."""
        return sorted(key for key in self._readers if key[0])

    def unconfirm(self, wanted: Iterable[tuple[int, str]]) -> None:
        """The connection by which this is wanted of other nodes is broken: what was confirmed does not stand."""
        self.confirmed.difference_update(wanted)

    def readers(self, node: int, topic: str) -> tuple[End, ...]:
        """Return who gets the events of a topic, each once."""
        key = (node, topic)
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            merged = dict(self._readers.get(key, {}))
            if self._prefixes.get(node):
                for pattern in _patterns(topic):
                    merged |= self._readers.get((node, pattern), {})
            found = self._cache[key] = tuple(merged)
        return found

    def waiting_for(self, node: int, topic: str) -> tuple[End, ...]:
        """Return whose subscription exactly this is."""
        return tuple(self._readers.get((node, topic), ()))

    # --- events ---------------------------------------------------------------------------------------------

    def publish(self, node: int, header: Header, body: Any) -> list[Out]:
        """Return what to send of an event of a node's, and keep it as the last of its source and topic."""
        frame = codec.encode_header(header)
        size = len(frame) + len(body)
        topic = header.topic
        key = (node, header.source, topic)
        self._keep(key, (header, body, size))
        outs: list[Out] = []
        outside: tuple[bytes, Any] | None = None
        for end in self.readers(node, topic):
            if end.missed:
                end.missed.pop(key, None)
            window = end.window
            if window is None:
                outside = outside or _outside(header, frame, body)
                outs.append(Out(end.connection, EVENT, *outside, topic))
            elif window.take(EVENT, size):
                outs.append(Out(end.connection, EVENT, frame, body))
            else:
                self.lost(end, node, header)
        if outs:
            self.counters["events_delivered"] += header.count * len(outs)
        return outs

    def lost(self, end: End, node: int, header: Header) -> None:
        """A reader did not get an event: count it, and remember whose it was."""
        end.dropped += header.count
        self.counters["events_dropped"] += header.count
        end.missed[node, header.source, header.topic] = None
        if len(end.missed) > MAX_MISSED:
            del end.missed[next(iter(end.missed))]

    def welcome(self, end: End, wanted: Subscribe) -> list[Out]:
        """Return the last events of what was subscribed to; what finds no room is told later."""
        outs: list[Out] = []
        for key in self._fitting(wanted):
            if end.missed or not self._tell(end, key, outs):
                end.missed[key] = None
        return outs

    def room(self, end: End) -> list[Out]:
        """A reader has read: return the last events of what it missed, as far as there is room."""
        outs: list[Out] = []
        while end.missed:
            key = next(iter(end.missed))
            if not self._tell(end, key, outs):
                break
            del end.missed[key]
        return outs

    def end_source(self, name: str) -> None:
        """A party of this node is gone: what it said last says nothing of how things stand any more."""
        for key in [key for key in self.last if key[0] == 0 and key[1].rpartition("@")[0] == name]:
            self._drop(key)

    def check_invariants(self, ends: Iterable[End]) -> None:
        """Raise AssertionError when a numbered invariant of the class does not hold."""
        wants = {(key, end) for end in ends for key in end.wants}
        assert wants == {(key, end) for key, readers in self._readers.items() for end in readers}
        assert all(self._readers.values())
        for node, count in self._prefixes.items():
            assert count == sum(key[0] == node and key[1].endswith("*") for key, _ in wants)
        for (node, topic), found in self._cache.items():
            fitting = {end for (number, name), end in wants if number == node and fits(name, topic)}
            assert set(found) == fitting and len(found) == len(fitting)
        assert self.last_bytes == sum(size for _, _, size in self.last.values()) <= MAX_LAST_BYTES
        assert len(self.last) <= MAX_LAST
        kept = {(node, topic, source) for node, source, topic in self.last}
        assert kept == {(*key, source) for key, sources in self._sources.items() for source in sources}
        assert self.confirmed <= self._readers.keys()

    # --- inside ---------------------------------------------------------------------------------------------

    def _tell(self, end: End, key: tuple[int, str, str], outs: list[Out]) -> bool:
        last = self.last.get(key)
        if last is None:
            return True  # too old to be kept: the next event's number tells the gap
        header, body, _ = last
        header = event_header(header, welcome=True)
        frame = codec.encode_header(header)
        if end.window is None:
            outs.append(Out(end.connection, EVENT, *_outside(header, frame, body), header.topic))
        elif end.window.take(EVENT, len(frame) + len(body)):
            outs.append(Out(end.connection, EVENT, frame, body))
        else:
            return False
        self.counters["events_told_again"] += 1
        return True

    def _keep(self, key: tuple[int, str, str], last: Last) -> None:
        old = self.last.pop(key, None)
        if old is None:
            self._sources.setdefault((key[0], key[2]), set()).add(key[1])
        else:
            self.last_bytes -= old[2]
        self.last[key] = last
        self.last_bytes += last[2]
        while self.last_bytes > MAX_LAST_BYTES or len(self.last) > MAX_LAST:
            self._drop(next(iter(self.last)))

    def _drop(self, key: tuple[int, str, str]) -> None:
        self.last_bytes -= self.last.pop(key)[2]
        sources = self._sources[key[0], key[2]]
        sources.discard(key[1])
        if not sources:
            del self._sources[key[0], key[2]]

    def _forget(self, node: int) -> None:
        """Drop the last events of another node that nobody here wants any more: nothing keeps them fresh."""
        for key in [key for key in self.last if key[0] == node and not self.readers(node, key[2])]:
            self._drop(key)

    def _fitting(self, wanted: Subscribe) -> list[tuple[int, str, str]]:
        node, topic = wanted.node, wanted.topic
        topics = [topic]
        if topic.endswith("*"):
            topics = [name for number, name in self._sources if number == node and fits(topic, name)]
        return [(node, source, name) for name in topics for source in sorted(self._sources.get((node, name), ()))]

    @staticmethod
    def _wants(end: End, node: int, topic: str) -> bool:
        return (node, topic) in end.wants or any((node, pattern) in end.wants for pattern in _patterns(topic))


def _outside(header: Header, frame: bytes, body: Any) -> tuple[bytes, Any]:
    """Return an event as it leaves the node: compressed when that helps."""
    if not header.compressed:
        body, smaller = codec.compress(body)
        if smaller:
            frame = codec.encode_header(event_header(header, compressed=True))
    return frame, body


def fits(pattern: str, topic: str) -> bool:
    """Whether a topic is what a subscription names: that topic, or one below `name.*`."""
    return topic.startswith(pattern[:-1]) if pattern.endswith("*") else topic == pattern


def check_topic(topic: str) -> str:
    """Return a topic that can be subscribed to; raises UsageError."""
    if not topic or len(topic) > MAX_TOPIC or "*" in (topic.removesuffix(".*") if topic != "*" else ""):
        raise UsageError(f"cannot subscribe to '{topic[:40]}'", "a topic is a name, or `name.*` for all below it")
    return topic


def event_header(header: Header, *, welcome: bool = False, compressed: bool = False) -> Header:
    """Return the header of the same event, told again or compressed."""
    return Header(
        header.kind,
        (),
        header.source,
        header.destination,
        header.topic,
        header.count,
        header.cluster,
        header.role,
        header.uid,
        header.budget,
        header.sequence,
        header.compressed or compressed,
        header.welcome or welcome,
        header.causes,
        header.request_ids,
    )


def _patterns(topic: str) -> Iterator[str]:
    """Yield what a subscription by prefix to this topic may be called."""
    yield "*"
    dot = topic.find(".")
    while dot >= 0:
        yield f"{topic[:dot]}.*"
        dot = topic.find(".", dot + 1)
