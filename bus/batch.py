"""What one loop turn says to one destination goes out as one message.

Speed comes from here: a message costs ten times what an item in it costs. Nothing waits for a timer: a batch leaves at
the end of the turn that began it, or when it is full. What a party says to one destination is never reordered: another
verb, topic or budget in between ends a batch. Events are one destination of their own.

Knows nothing of calls, verbs or subscriptions. What finds no room in the socket waits here and goes first later.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

import zmq

from ..errors import CoveyError, Overloaded, TooLarge, UsageError
from . import codec
from .messages import Header, Kind
from .port import LARGE, Port

log = logging.getLogger(__name__)

MAX_TEXT = 6000
"""Bytes of names, causes and request ids in one header: it has room for them beside a hundred ids."""

MAX_WAITING = 8 * 1024 * 1024
"""Bytes that may wait here while the broker does not read; more is refused."""

MAX_CHECKED = 1000
"""Names remembered as such that a header carries."""

RETRY = 0.02
"""Seconds between tries while the broker does not read. Its reading also wakes the socket, this is for the rest."""


_OWN = (Kind.REQUEST, Kind.EVENT)
"""What a party says of itself; its names are checked, so that a mistake is told to whoever makes it."""


class Batch:
    """Items on their way to one destination, and in what they are alike: kind, topic, cluster, budget, whether they
    have no cause and whether nobody waits for a reply. `size` is in bytes, `text` is what they add to the header.
    """

    __slots__ = ("alike", "causes", "destination", "ids", "items", "request_ids", "sequence", "size", "text", "topic")

    def __init__(self, destination: str, alike: tuple[Kind, str, str, float, bool, bool], sequence: int) -> None:
        self.destination = destination
        self.alike = alike
        self.sequence = sequence
        self.topic = alike[1] if alike[0] is Kind.EVENT and alike[4] else None
        self.size = self.text = 0
        self.ids: list[int] = []
        self.items: list[bytes] = []
        self.causes: list[str] = []
        self.request_ids: list[str] = []

    def frames(self) -> list[bytes]:
        """Return the message."""
        kind, topic, cluster, budget, _, _ = self.alike
        causes = self.causes
        if causes and causes.count(causes[0]) == len(causes):
            causes = causes[:1]
        header = Header(
            kind,
            tuple(self.ids),
            "",
            self.destination,
            topic,
            len(self.items),
            cluster,
            0,
            -1,
            budget,
            self.sequence,
            False,
            False,
            tuple(causes),
            tuple(self.request_ids),
        )
        return [codec.encode_header(header), codec.join_items(self.items)]


class Outbox:
    """Gather what is said and send it through a port, in the order of each destination."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._open: dict[str, Batch] = {}
        self._waiting: deque[list[bytes]] = deque()
        self._waiting_bytes = 0
        self._scheduled = False
        self._sent = False
        self._checked: set[tuple[str, str, str]] = set()
        self._retry: asyncio.TimerHandle | None = None

    def add(
        self,
        kind: Kind,
        destination: str,
        topic: str,
        item: bytes,
        number: int = 0,
        cause: str = "",
        request_id: str = "",
        cluster: str = "",
        budget: float = 0.0,
        sequence: int = 0,
        now: bool = False,
    ) -> None:
        """Take one item; `number` 0: nobody waits for a reply. `sequence` is that of this event.

        `now`: it need not wait for others. Raises TooLarge and UsageError for names that no header carries, Overloaded
        when too much waits already.
        """
        batch = self._open.get(destination)
        size, text = len(item), 0
        if cause or request_id:
            text = _text(topic, cause, request_id) if kind in _OWN else len(cause)
        alike = (kind, topic, cluster, budget, not cause, not number)
        if batch is not None and (
            batch.alike != alike or batch.size + size > codec.BATCH_BYTES or batch.text > MAX_TEXT
        ):
            del self._open[destination]
            self._send(batch)
            batch = None
        if batch is None:
            if kind in _OWN:
                self._check(destination, topic, cluster)
            batch = self._open[destination] = Batch(destination, alike, sequence)
            if not (now or self._scheduled or self._port.draining):  # a drain ends with a flush
                self._scheduled = True
                self._loop.call_soon(self.flush)
        if text:
            batch.text += text
            if cause:
                batch.causes.append(cause)
        if request_id or batch.request_ids:
            batch.request_ids += [""] * (len(batch.items) - len(batch.request_ids)) + [request_id]
        if number:
            batch.ids.append(number)
        batch.items.append(item)
        batch.size += size
        if len(batch.items) >= codec.MAX_BATCH or batch.size >= codec.BATCH_BYTES:
            del self._open[destination]
            self._send(batch)
            self._port.touched()
        elif now:
            self.flush()

    def event(self, topic: str, item: bytes, sequence: int) -> None:
        """Take an event that has no cause: what `add` does, in half the time when the last was of the same topic."""
        batch = self._open.get("")
        if batch is not None and batch.topic == topic:
            items, size = batch.items, batch.size + len(item)
            if size < codec.BATCH_BYTES and len(items) < codec.MAX_BATCH - 1:
                items.append(item)
                batch.size = size
                return
        self.add(Kind.EVENT, "", topic, item, sequence=sequence)

    def flush(self) -> None:
        """Send all now."""
        self._scheduled = False
        if self._open:
            batches = list(self._open.values())
            self._open.clear()
            for batch in batches:
                self._send(batch)
        if self._sent:
            self._sent = False
            self._port.touched()

    def control(self, topic: str, body: bytes, ids: tuple[int, ...] = ()) -> None:
        """Talk to the broker itself, after everything that was said before; said at once."""
        self.flush()
        self._put([codec.encode_header(Header(Kind.CONTROL, ids, topic=topic)), body])
        self._sent = False
        self._port.touched()

    def forget(self) -> None:
        """Drop what waits: the broker it was meant for is gone."""
        self._open.clear()
        self._waiting.clear()
        self._waiting_bytes = 0
        self.close()

    def close(self) -> None:
        """Try nothing more by itself."""
        if self._retry:
            self._retry.cancel()
            self._retry = None

    def _check(self, destination: str, topic: str, cluster: str) -> None:
        if self._waiting_bytes > MAX_WAITING:
            raise Overloaded("the broker does not keep up with this party", "send less at a time")
        names = destination, topic, cluster
        if names not in self._checked:
            _text(topic, *names)
            if len(self._checked) >= MAX_CHECKED:
                self._checked.clear()
            self._checked.add(names)

    def _send(self, batch: Batch) -> None:
        try:
            frames = batch.frames()
        except CoveyError as problem:  # the names in an answer are those of the request: not checked before
            log.warning("an answer about '%.40s' is lost: %s", batch.alike[1], problem)
            return
        self._put(frames)

    def _put(self, frames: list[bytes]) -> None:
        self._sent = True
        if not self._waiting:
            try:
                self._port.put(frames, len(frames[1]) < LARGE)
                return
            except zmq.Again:
                pass
        self._waiting.append(frames)
        self._waiting_bytes += len(frames[0]) + len(frames[1])
        if self._retry is None:
            self._retry = self._loop.call_later(RETRY, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        while self._waiting:
            frames = self._waiting[0]
            try:
                self._port.put(frames, len(frames[1]) < LARGE)
            except zmq.Again:
                self._retry = self._loop.call_later(RETRY, self._try_again)
                break
            self._waiting.popleft()
            self._waiting_bytes -= len(frames[0]) + len(frames[1])
        self._port.touched()


def _text(topic: str, *names: str) -> int:
    """Return how much these add to a header; raises for what no header carries."""
    try:
        size = sum(len(name.encode()) for name in names)
    except UnicodeEncodeError as problem:
        raise UsageError(f"{problem.object!a} is no Unicode text, a message cannot carry it") from None
    if size > MAX_TEXT:
        raise TooLarge(
            f"'{topic[:40]}': {size} bytes of names, at most {MAX_TEXT} are allowed",
            "names of services, verbs, topics, causes and request ids are short",
        )
    return size
