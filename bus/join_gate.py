"""What strangers may say on the join port: which verbs, how often, and under which name. Pure.

Knows no socket, clock or key of a node: any key may come here, since the nodes that do are in no cluster yet, or not
any more. Each pair of connection and asker becomes a source of its own, `join-N@0`, that nobody else can have; answers
get the asker's own name back. Whatever is not one of the few verbs is counted and gets no answer at all.

Odd: numbers are never used again, so an answer that comes late finds nobody instead of somebody else.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable

import msgspec

from .messages import Header, Kind, Role, split_address
from .trust import RateLimit, source_of

MOST_ASKERS = 500
"""Askers remembered; the one that was quiet longest goes first. Each of a join or verdict asks for some seconds."""

MOST_ITEMS = 10
"""Requests in one message, as they come when somebody asks several things at once; each counts for the rate."""

LONGEST_TEXT = 255
"""Characters of an asker's name and of other text of the header that is passed on."""


class Gate:
    """Decide what passes the join port, in either direction."""

    def __init__(self, topics: Collection[str], limit: RateLimit | None = None) -> None:
        self.topics = frozenset(topics)
        self._limit = RateLimit() if limit is None else limit
        self._askers: dict[tuple[Hashable, str], int] = {}  # longest quiet first
        self._names: dict[int, tuple[Hashable, str]] = {}
        self._last = 0

    def knock(self, now: float, address: str) -> str:
        """Return why a handshake from this address is refused now: "" or "join_rate"."""
        return "" if self._limit.allow(now, source_of(address)) else "join_rate"

    def let(self, now: float, connection: Hashable, key: str, address: str, header: Header) -> Header | str:
        """Return the header with which a message goes on, or why it does not: "join_rate" or "join_topic"."""
        cost = min(max(header.count, 1), MOST_ITEMS)
        if not self._limit.allow(now, source_of(address), cost):
            return "join_rate"
        if (
            header.kind is not Kind.REQUEST
            or header.topic not in self.topics
            or not self._meant(header)
            or not 1 <= header.count == len(header.ids) <= MOST_ITEMS
            or max(map(len, (header.source, header.cluster, *header.causes, *header.request_ids))) > LONGEST_TEXT
            or header.compressed  # small bodies never are; a small one that unpacks to a large one is an attack
        ):
            return "join_topic"
        source = f"join-{self._number(connection, header.source)}@0"
        return msgspec.structs.replace(header, source=source, role=Role.LOOK, uid=-1, key=key)

    def back(self, header: Header) -> tuple[Hashable, Header] | None:
        """Return the connection and the header with which an answer leaves; None when its asker is forgotten."""
        name = header.destination.removeprefix("join-").removesuffix("@0")
        asker = self._names.get(int(name)) if name.isdecimal() and len(name) < 20 else None
        if asker is None:
            return None
        return asker[0], msgspec.structs.replace(header, destination=asker[1])

    @property
    def askers(self) -> int:
        """How many askers are known at the moment."""
        return len(self._askers)

    def _number(self, connection: Hashable, source: str) -> int:
        asker = (connection, source)
        number = self._askers.pop(asker, 0)
        if not number:
            self._last += 1
            number = self._last
            self._names[number] = asker
        self._askers[asker] = number
        if len(self._askers) > MOST_ASKERS:
            oldest = next(iter(self._askers))
            del self._names[self._askers.pop(oldest)]
        return number

    @staticmethod
    def _meant(header: Header) -> bool:
        """Say whether the service that the message is for is the one that its topic names."""
        try:
            service, where = split_address(header.destination)
        except ValueError:
            return False
        return header.topic.startswith(f"{service}.") and (not where or isinstance(where, str))
