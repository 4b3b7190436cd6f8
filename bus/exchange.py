"""Requests and their replies: where a request goes, who waits for which answer, and what is said when none can come.

Pure, a part of the router's mind. Requests are remembered one by one under the name of who asks, `pending[source][id]`,
but all of one message share what is remembered, so a batch costs little more than one. A reply is taken only from the
connection that was asked.

Odd: the name of a party changes with its node's number; answers to the old name still come, so it keeps its table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from ..errors import (
    CoveyError,
    Malformed,
    NoService,
    Overloaded,
    ServiceDied,
    TooLarge,
    UnknownNode,
    Unreachable,
    UsageError,
)
from . import codec
from .ends import Caller, Connection, End, Lane, LinkKey, Out, Party, Pending, out
from .fanout import MAX_TOPIC
from .messages import Header, Kind, NodeInfo, Peer, split_address

LONGEST_BUDGET = 24 * 3600.0
"""Seconds a request is remembered at most. A header may say infinity, or no number at all."""

MAX_WAITING = 10_000
"""Requests of one party, or of one peer, that wait for an answer."""

MOST_LOOKS = 1_500
"""Messages that wait for a service when a request of one who may only look is refused: the rest of its window is for
others."""

MAX_ROUTES = 10_000
"""Destinations whose target is remembered. More than that is a client that makes up addresses."""

MAX_CAUSE = 64
"""Characters of a cause that errors of the broker repeat."""

MOST_CAUSES = 3000
"""Characters of all causes that an answer of the broker's own repeats; with more its header could be too long."""

REQUEST = Kind.REQUEST  # looking a member up in its enumeration costs as much as a call


class Exchange:
    """Pass requests to who serves them and replies to who asked."""

    def __init__(self, counters: Counter[str]) -> None:
        self.node = NodeInfo()
        self.peers: dict[int, Peer] = {}
        self.services: dict[str, Party] = {}
        self.pending: dict[str, dict[int, Pending]] = {}
        self.counters = counters
        self._local: dict[str, Party] = {}  # sources that are parties of this node
        self._routes: dict[str, End] = {}
        self._lanes: dict[tuple[int, str], Lane] = {}

    def joined(self, party: Party) -> None:
        """A party came, or got another name with its node's number."""
        self._local[party.source] = party
        if party.source not in party.sources:
            party.sources.append(party.source)
        self.pending[party.source] = party.pending

    def serves(self, party: Party, services: tuple[str, ...]) -> None:
        """A party serves these names, and no others any more."""
        for service in party.services:
            self.services.pop(service, None)
        party.services = services
        party.served = party.served or bool(services)
        self.services |= dict.fromkeys(services, party)
        self._routes.clear()

    def place(self, node: NodeInfo, peers: dict[int, Peer]) -> None:
        """This node's place in a cluster changed."""
        self.node, self.peers = node, peers
        self._routes.clear()
        # services with one list go by one link; it is named by the first of them
        self._lanes = {
            (number, service): Lane(number, min(other for other, same in peer.lists.items() if same == listed))
            for number, peer in peers.items()
            for service, listed in peer.lists.items()
        }

    def lane(self, node: int, service: str) -> LinkKey:
        """Return the link by which a service of another node is reached."""
        return self._lanes.get((node, service), node)

    def left(self, end: End) -> list[Out]:
        """An end is gone: forget what it asked, and end what it was asked."""
        if isinstance(end, Party):
            self.serves(end, ())
            for source in end.sources:
                if self._local.get(source) is end:
                    del self._local[source]
                    self.pending.pop(source, None)
            end.pending.clear()
            if not end.served:
                return []  # nobody asked it anything: thousands that end at once are not to be searched for
        else:
            for source, number in self._select(lambda p: p.origin is end):
                self._forget(source, number)
        return self.fail(
            self._select(lambda p: p.target == end.connection),
            lambda p: ServiceDied(
                f"{p.destination} died before it answered '{p.topic}'",
                "read before you ask again: it may have happened",
            ),
        )

    def link_down(self, key: LinkKey, reason: str, reached: bool) -> list[Out]:
        """End what waits for an answer over a link that broke (`reached`: it may have happened) or was never made."""
        hint = "`covey liveness status` shows who is alive"
        if isinstance(key, str):
            hint = "check the address, and that a daemon was started with it"
        if reached:
            hint = f"it may have happened, read before you ask again; {hint}"
        gone = Connection("link", key)
        return self.fail(
            self._select(lambda p: p.target == gone),
            lambda p: Unreachable(f"{p.destination} cannot be reached: {reason}", hint),
        )

    def busy_links(self) -> set[LinkKey]:
        """Return the links over which somebody waits for an answer."""
        targets = {p.target for table in self.pending.values() for p in table.values()}
        return {target.key for target in targets if target.port == "link"}

    def expire(self, now: float) -> None:
        """Forget requests whose caller has long given up (it knows its own deadline best)."""
        for source, number in self._select(lambda p: p.expires < now):
            self._forget(source, number).origin.waiting -= 1
            self.counters["expired"] += 1

    # --- messages -------------------------------------------------------------------------------------------

    def request(
        self, origin: End, source: str, role: int, uid: int, header: Header, body: Any, now: float, key: str = ""
    ) -> list[Out]:
        """Pass a request, or a batch of them, to who serves it; or tell who asks at once why not.

        `key` is what the connection proved that it came over.
        """
        ids, destination, count = header.ids, header.destination, header.count
        self.counters["requests"] += count
        table = self.pending.get(source)
        if table and (ids[0] in table if len(ids) == 1 else not table.keys().isdisjoint(ids)):
            self.counters["malformed"] += 1  # said twice: an error would be taken for the answer to the first
            return []
        try:
            target = self._routes.get(destination) if source in self._local else None
            if target is None or len(header.topic) > MAX_TOPIC:
                target = self._target(origin, header)
            if origin.waiting + len(ids) > MAX_WAITING:
                raise Overloaded(f"{MAX_WAITING} requests wait for an answer already", "ask less at a time")
            window, cluster, compressed = target.window, header.cluster, header.compressed
            if window is None:
                cluster = cluster or self.node.cluster_id
                if not compressed:
                    body, compressed = codec.compress(body)
            frame = codec.encode_header(
                Header(
                    REQUEST,
                    ids,
                    source,
                    destination,
                    header.topic,
                    count,
                    cluster,
                    role,
                    uid,
                    header.budget,
                    0,
                    compressed,
                    False,
                    header.causes,
                    header.request_ids,
                    key,
                )
            )
            if window is not None and (
                (not role and window.messages >= MOST_LOOKS) or not window.take(REQUEST, len(frame) + len(body))
            ):
                raise Overloaded(f"'{destination}' does not keep up", "try again later")
        except CoveyError as problem:
            return self._refuse(origin, source, header, problem)
        if ids:
            if table is None:
                table = self.pending[source] = {}
            budget = header.budget
            expires = now + 1 + (min(budget, LONGEST_BUDGET) if budget > 0 else 0)
            causes = header.causes if len(header.causes) == 1 and len(header.causes[0]) <= MAX_CAUSE else ()
            pending = Pending(origin, target.connection, source, destination, header.topic, causes, expires)
            if count == 1:
                table[ids[0]] = pending
            else:
                table.update(dict.fromkeys(ids, pending))
            origin.waiting += count
        return [Out(target.connection, REQUEST, frame, body, header.topic)]

    def reply(self, connection: Connection, source: str, header: Header, body: Any) -> list[Out]:
        """Pass a reply, an error, or a batch of them, to who waits for it."""
        table = self.pending.get(header.destination)
        ids, count = header.ids, header.count
        if not table or not ids:
            self.counters["orphan_reply"] += count
            return []
        if count == 1:
            pending = table.get(ids[0])
            if pending is None or pending.target != connection:
                self.counters["orphan_reply"] += 1
                return []
            del table[ids[0]]
        else:
            found = set(map(table.get, ids))  # few: requests that came as one message share what is remembered
            pending = next(iter(found))
            if pending is None or not all(
                each and each.target == connection and each.origin is pending.origin for each in found
            ):
                return self._one_by_one(connection, source, header, body, table)
            for number in ids:
                del table[number]
        self.counters["replies"] += count
        origin = pending.origin
        origin.waiting -= count
        if not table and header.destination not in self._local:
            del self.pending[header.destination]
        window, compressed = origin.window, header.compressed
        if window is None and not compressed:
            body, compressed = codec.compress(body)
        answer = Header(
            header.kind,
            ids,
            source,
            header.destination,
            pending.topic,
            count,
            header.cluster,
            header.role,
            header.uid,
            0.0,
            0,
            compressed,
            False,
            header.causes,
            header.request_ids,
        )
        try:
            frame = codec.encode_header(answer)
        except TooLarge as problem:
            return self.error(origin, ids, pending.source, pending.topic, (), problem)
        if window is not None and not window.take(header.kind, len(frame) + len(body)):
            return self.no_room(origin, answer)
        return [Out(origin.connection, header.kind, frame, body, answer.topic)]

    def no_room(self, origin: End, answer: Header) -> list[Out]:
        """Return what is said instead of an answer that cannot be sent."""
        self.counters["replies_refused"] += answer.count
        problem = Overloaded("the answer found no room: this party does not read", "read faster, or ask for less")
        return self.error(origin, answer.ids, answer.destination, answer.topic, answer.causes, problem)

    def fail(self, which: Iterable[tuple[str, int]], problem: Callable[[Pending], CoveyError]) -> list[Out]:
        """End pending requests with an error to who asked: one message for those that came as one."""
        failed: dict[Pending, list[int]] = {}
        for source, number in which:
            failed.setdefault(self._forget(source, number), []).append(number)
        outs: list[Out] = []
        for pending, ids in failed.items():
            pending.origin.waiting -= len(ids)
            self.counters["requests_failed"] += len(ids)
            told = problem(pending)
            outs += self.error(pending.origin, tuple(ids), pending.source, pending.topic, pending.causes, told)
        return outs

    def error(
        self,
        end: End,
        ids: tuple[int, ...],
        destination: str,
        topic: str,
        causes: tuple[str, ...],
        problem: CoveyError,
    ) -> list[Out]:
        """Return an answer of the broker's own to each of the requests; it is always sent."""
        count = max(len(ids), 1)
        source = f"bus@{self.node.number}"
        if sum(map(len, causes)) > MOST_CAUSES:
            causes = ()
        header = Header(Kind.ERROR, ids, source, destination, topic, count, causes=causes)
        return out(end, header, codec.join_items([codec.encode_error(problem)] * count))

    # --- inside ---------------------------------------------------------------------------------------------

    def _refuse(self, origin: End, source: str, header: Header, problem: CoveyError) -> list[Out]:
        if not header.ids:
            self.counters["notes_dropped"] += header.count
            return []
        self.counters["requests_overloaded" if isinstance(problem, Overloaded) else "no_target"] += header.count
        return self.error(origin, header.ids, source, header.topic[:MAX_TOPIC], header.causes, problem)

    def _target(self, origin: End, header: Header) -> End:
        destination = header.destination
        if len(destination) > MAX_TOPIC or len(header.topic) > MAX_TOPIC:
            raise UsageError(f"names of services and verbs have at most {MAX_TOPIC} characters")
        try:
            service, where = split_address(destination)
        except ValueError as problem:
            raise UsageError(f"cannot send to '{destination}': {problem}") from None
        here = where is None or where in (0, self.node.number)
        if isinstance(origin, Caller):
            if isinstance(where, int) and not here:
                raise Unreachable(f"node {self.node.number} got a request for node {where}: the address table is stale")
            here = True
        target: End
        if here:
            found = self.services.get(service)
            if found is None:
                there = ", ".join(sorted(self.services)) or "none"
                raise NoService(f"no service '{service}' on node {self.node.number or 'here'}", f"there are: {there}")
            target = found
        else:
            if isinstance(where, int) and where not in self.peers:
                raise UnknownNode(f"node {self.node.number} knows no node {where}", "`covey node ls` lists the nodes")
            target = End(Connection("link", self.lane(where, service) if isinstance(where, int) else where))
        if isinstance(origin, Party):
            if len(self._routes) >= MAX_ROUTES:
                self._routes.clear()
            self._routes[destination] = target
        return target

    def _one_by_one(
        self, connection: Connection, source: str, header: Header, body: Any, table: dict[int, Pending]
    ) -> list[Out]:
        """Pass a batch of replies one by one: some of them are nobody's, or have several askers. It is rare."""
        try:
            items = codec.split_items(codec.unpack_body(bytes(body), header.compressed), header.count)
        except Malformed as problem:
            self.counters["malformed"] += 1
            found = [(number, table.get(number)) for number in header.ids]
            lost = [(header.destination, number) for number, each in found if each and each.target == connection]
            error = problem  # Python forgets the other name at the end of this block
            return self.fail(lost, lambda _: error)
        outs = []
        for index, number in enumerate(header.ids):
            each = Header(header.kind, (number,), "", header.destination, causes=(header.cause(index),))
            outs += self.reply(connection, source, each, bytes(items[index]))
        return outs

    def _select(self, which: Callable[[Pending], bool]) -> list[tuple[str, int]]:
        seen: set[int] = set()  # a party's table may stand under two names
        found = []
        for source, table in self.pending.items():
            if id(table) not in seen:
                seen.add(id(table))
                found += [(source, number) for number, pending in table.items() if which(pending)]
        return found

    def _forget(self, source: str, number: int) -> Pending:
        table = self.pending[source]
        pending = table.pop(number)
        if not table and source not in self._local:
            del self.pending[source]
        return pending
