"""The fast messages that one node has: of each group and view in their order, as far as they are held.

Pure data, shared by the node's half (who polls) and the coordinator's (`sequencer.py`). A *stream* is one view's
messages; they are numbered from 1 without a gap, so all nodes hold beginnings of the same. Nobody is told of a later
view before the stream of the one it knows is complete: that is what makes members that pass from view to view together
have seen the same in it. What a stream does not hold any more, a poller that lags is told to have missed. So is one
that had fast messages of the present view from a former life of this process: nobody else may have had them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

from .messages import Decision, Event, Fast, FastMessage, Report
from .replica import Group
from .settings import Settings

Cursor = tuple[int, int, int]
"""Up to where a poller has fast messages: a view, how many of it, and the session of the machine that gave it them."""

MESSAGE_BYTES = 100  # about what a message takes beside its body

MOST = 500  # of one stream in one answer to a poller


class Stream:
    """One view's fast messages. `count` is the number of the last, `end` what it will be; None: not known.

    `decided` is what it was when the view's end was decided. It is more than `end` if nobody has the last ones any
    more, though somebody may have had them.
    """

    def __init__(self, view: int) -> None:
        self.view = view
        self.count = 0
        self.end: int | None = None
        self.decided = 0
        self.held: deque[FastMessage] = deque()
        self.bytes = 0

    def add(self, messages: Iterable[FastMessage]) -> None:
        """Take the next ones."""
        for message in messages:
            self.held.append(message)
            self.bytes += len(message.body)
            self.count += 1

    def forget(self) -> None:
        """Hold the oldest no longer."""
        self.bytes -= len(self.held.popleft().body)

    def jump(self, count: int) -> None:
        """All up to `count` are not to be had."""
        self.held.clear()
        self.bytes, self.count = 0, count

    @property
    def first(self) -> int:
        """The number of the first that is held."""
        return self.count - len(self.held) + 1

    @property
    def complete(self) -> bool:
        """Whether no more will come."""
        return self.end is not None and self.count >= self.end

    def after(self, number: int) -> list[FastMessage]:
        """Return the messages after `number` that are held."""
        return list(islice(self.held, max(0, number + 1 - self.first), None))

    def events(self, number: int) -> tuple[int, list[Event], int]:
        """Return how many after `number` are lost, those that are not as events, and the number of the last."""
        lost = max(0, self.first - 1 - number)
        start = max(number + 1, self.first)
        found = [
            Event("message", start + place, self.view, (message.who,), message.body, message.number, True)
            for place, message in enumerate(self.after(number)[:MOST])
        ]
        return lost, found, start + len(found) - 1


class Streams:
    """The streams of all groups on one node."""

    def __init__(self, settings: Settings, session: int) -> None:
        self._settings = settings
        self._session = session
        self._groups: dict[str, dict[int, Stream]] = {}
        self._dropped: dict[str, int] = {}  # the latest view of each group whose stream is not held any more
        self._last: dict[tuple[str, int], tuple[int, int]] = {}

    # --- what becomes known --------------------------------------------------------------------------------------

    def get(self, name: str, view: int) -> Stream:
        """Return the stream of a view; an empty one, which leaves no trace, if there is none."""
        return self._groups.get(name, {}).get(view) or Stream(view)

    def _made(self, name: str, view: int) -> Stream:
        return self._groups.setdefault(name, {}).setdefault(view, Stream(view))

    def take(self, told: Fast, jump: bool = False) -> tuple[int, list[FastMessage]] | None:
        """Take what is new; return the number of the first new one and all that are.

        None: something before them is missing. `jump`: that is not to be had, so go on without it.
        """
        views = self._groups.get(told.group, {})
        if len(views) >= self._settings.fast_views and told.view < min(views):
            return 0, []  # long over
        if told.first > self.get(told.group, told.view).count + 1 and not jump:
            return None
        stream = self._made(told.group, told.view)
        if told.first > stream.count + 1:
            stream.jump(told.first - 1)
        first = stream.count + 1
        news = list(told.messages[first - told.first :])
        stream.add(news)
        if told.end >= 0:
            stream.end = told.end
        for message in news:
            self._last[told.group, message.who.node] = (message.session, message.number)
        self._trim(told.group)
        return first, news

    def decided(self, decision: Decision) -> None:
        """A decision that changes the members ends the stream of the view before it."""
        if decision.fast < 0 or not decision.changes_view:
            return
        views = self._groups.get(decision.group, {})
        if decision.fast or decision.view - 1 in views:
            stream = self._made(decision.group, decision.view - 1)
            stream.decided = decision.fast
            stream.end = decision.fast if stream.end is None else stream.end
        self._trim(decision.group)

    def end(self, name: str, view: int) -> None:
        """No more will come in this view than is here."""
        stream = self._groups[name][view]
        stream.end = stream.count

    def drop(self, name: str) -> None:
        """This node has to begin anew with a group."""
        self._groups.pop(name, None)

    def _trim(self, name: str) -> None:
        views = self._groups.get(name, {})
        for view in sorted(views)[: -self._settings.fast_views]:
            del views[view]
            self._dropped[name] = view
        messages = sum(len(stream.held) for stream in views.values()) - self._settings.fast_messages
        size = sum(stream.bytes for stream in views.values()) - self._settings.fast_bytes
        for _, stream in sorted(views.items()):
            while stream.held and (messages > 0 or size > 0):
                messages, size = messages - 1, size - len(stream.held[0].body)
                stream.forget()

    # --- what is asked -------------------------------------------------------------------------------------------

    def last(self, name: str, node: int) -> tuple[int, int]:
        """Return session and number of the last message of a node that is known to be sequenced."""
        return self._last.get((name, node), (0, 0))

    def cursor(self, group: Group, joined: int | None = None) -> Cursor:
        """Return where a poller begins: from now on, or from its own join at `joined`."""
        for event in (event for decision in group.recent for event in decision.events):
            if event.sequence == joined:
                return (event.view, 0, self._session)
        return (group.view, self.get(group.name, group.view).count, self._session)

    def merge(self, name: str, cursor: Cursor, events: Iterable[Event]) -> tuple[list[Event], Cursor, int]:
        """Return the events with the fast messages between them, up to where, and how many fast ones are lost.

        It ends before the first event of a view if the stream of the one before it is not complete.
        """
        streams, (view, number, session) = self._groups.get(name, {}), cursor
        found: list[Event] = []
        unsure = view <= self._dropped.get(name, -1) or (number and session != self._session)
        missed = 1 if unsure else 0  # at least, for all that is known
        for event in events:
            while view < event.view:
                stream = streams.get(view)
                if stream is not None:
                    lost, news, number = stream.events(number)
                    missed += lost
                    found += news
                    if not stream.complete or number < stream.count:
                        return found, (view, number, self._session), missed
                    missed += max(0, stream.decided - stream.count)
                view, number = min((v for v in streams if view < v < event.view), default=event.view), 0
            found.append(event)
        stream = streams.get(view)
        if stream is not None:
            lost, news, number = stream.events(number)
            missed += lost
            found += news
        return found, (view, number, self._session), missed

    def report(self) -> Report:
        """Return how many of each stream are known here."""
        return {
            name: tuple((view, stream.count) for view, stream in sorted(views.items()))
            for name, views in sorted(self._groups.items())
            if views
        }

    def missing(self, term: int, have: Report) -> tuple[list[Fast], bool]:
        """Return what a node that reports `have` lacks, at most one batch of it, and whether that is all."""
        found: list[Fast] = []
        room = self._settings.batch_bytes
        for name in sorted(self._groups):
            counts = dict(have.get(name, ()))
            for _, stream in sorted(self._groups[name].items()):
                if room < 0:
                    return found, False
                held = counts.get(stream.view, 0)
                if held < stream.count or stream.end is not None:
                    found.append(self.told(term, 0, name, stream, held))
                    room -= sum(MESSAGE_BYTES + len(message.body) for message in found[-1].messages)
        return found, True

    @staticmethod
    def told(term: int, number: int, name: str, stream: Stream, after: int) -> Fast:
        """Return the message that tells of a stream from `after` on."""
        end = -1 if stream.end is None else stream.end
        first = min(max(after + 1, stream.first), stream.count + 1)
        return Fast(term, number, name, stream.view, first, tuple(stream.after(after)), end)

    def check_invariants(self) -> None:
        """Raise AssertionError when what is held has no bound or is not what it says."""
        for name, views in self._groups.items():
            assert len(views) <= self._settings.fast_views, f"{name}: streams of {len(views)} views"
            held = sum(len(stream.held) for stream in views.values())
            assert held <= self._settings.fast_messages, f"{name}: {held} fast messages are held"
