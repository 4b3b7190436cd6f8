"""Where every message goes: the broker's mind, without sockets, clocks or opening of bodies.

The router knows the parties of its node and the brokers that dialled it, and looks at what each of them sends. Requests
and replies go through its `Exchange`, events through its `Fanout`. Each method takes what happened and returns what to
send: a list of `Out`, every window reckoned with already. `broker.py` does the sending and reports what could not be
sent. A header that makes no sense is counted and changes nothing.

Odd: a destination that names this very node and one that names none are the same, and a message that came from a peer
is never passed on to another peer, so nothing can circle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any

import msgspec

from ..errors import CoveyError, Denied, TooLarge, UnknownNode, UsageError
from . import codec
from .ends import Caller, Connection, End, LinkKey, Out, Party, node_of, out
from .exchange import MAX_WAITING, Exchange
from .fanout import MAX_FORWARDED, MAX_SUBSCRIPTIONS, MAX_TOPIC, Fanout
from .messages import (
    COUNTERS_TOPIC,
    GOODBYE,
    HELLO,
    HELLO_WANTED,
    PARTY_TOPIC,
    READ,
    SUBSCRIBE,
    SUBSCRIBED,
    UNSUBSCRIBE,
    WELCOME,
    Header,
    Hello,
    Kind,
    NodeInfo,
    Peer,
    Role,
    Subscribe,
    Welcome,
)
from .names import check_names
from .traffic import service_of

FLOW = frozenset({"requests", "replies", "events", "events_delivered", "events_told_again"})
"""Counters of what went well, in items; all others count losses and refusals."""

REQUEST, REPLY, ERROR, EVENT, CONTROL = Kind  # looking a member up in its enumeration costs as much as a call
_subscribe_decoder = msgspec.msgpack.Decoder(Subscribe)


class Router:
    """Decide where messages go.

    Invariants: 1. a reply reaches only the asker, and only from the party asked; 2. every pending request names two
    live ends; 3. a service name belongs to at most one party; 4. nothing a peer sends is sent to another peer, and
    peers ask only over links of their own; 5. of every end it is counted how many requests wait for an answer.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self.node = NodeInfo()
        self.peers: dict[int, Peer] = {}
        self.parties: dict[Hashable, Party] = {}
        self.callers: dict[Hashable, Caller] = {}  # brokers that dialled us
        self.strangers: dict[Hashable, Caller] = {}  # those on the join port
        self.counters: Counter[str] = Counter()
        self.exchange = Exchange(self.counters)
        self.fanout = Fanout(self.counters)
        self._reserved = frozenset(reserved)
        self._linked: set[LinkKey] = set()  # links that stand
        self._next_client = 0
        self._sequences: Counter[tuple[str, str]] = Counter()
        self._told: Counter[str] = Counter()

    # --- parties and peers come and go ----------------------------------------------------------------------

    def hello(self, key: Hashable, hello: Hello, role: Role, uid: int, pid: int) -> list[Out]:
        """A party says (again) who it is and what it serves: welcome it, or say why not."""
        party = self.parties.get(key)
        try:
            replaced = check_names(self.parties.values(), self._reserved, party, hello, role, pid)
        except CoveyError as problem:
            self.counters["hello_refused"] += 1
            end = party or End(Connection("local", key))
            return out(end, Header(Kind.ERROR, topic=HELLO), codec.encode_error(problem))
        outs: list[Out] = []
        for old in replaced:
            outs += self.party_gone(old.connection.key, "the same process connected anew")
        if party is not None:
            self.exchange.serves(party, hello.services)
            return outs + self._welcome(party)
        if not hello.name:
            self._next_client += 1
        name = hello.name or f"client-{self._next_client}"
        party = self.parties[key] = Party(Connection("local", key), name, role, uid, pid, self.node.number)
        self.exchange.joined(party)
        self.exchange.serves(party, hello.services)
        told = {"party": name, "state": "joined", "reason": "", "pid": pid}
        return self._welcome(party) + outs + self.event(PARTY_TOPIC, told)

    def party_gone(self, key: Hashable, reason: str) -> list[Out]:
        """A party died or said goodbye: end all that waited for it, and all that it wanted."""
        party = self.parties.pop(key, None)
        if party is None:
            return []
        if party.published:
            self.fanout.end_source(party.name)
        told = {"party": party.name, "state": "gone", "reason": reason, "pid": party.pid}
        return [*self._leave(party), *self.event(PARTY_TOPIC, told)]

    def caller_came(self, key: Hashable, node: NodeInfo) -> None:
        """A broker that dialled us says which node it speaks for."""
        known = self.callers.setdefault(key, Caller(Connection("peer", key), node))
        known.node, known.suffix = node, f"@{node.number}"

    def caller_gone(self, key: Hashable) -> list[Out]:
        """A broker that had dialled us is unreachable: forget what it asked and wanted."""
        caller = self.callers.pop(key, None)
        return self._leave(caller) if caller else []

    def link_up(self, key: LinkKey) -> list[Out]:
        """The connection to a node stands (again): say what is wanted of it."""
        if isinstance(key, str):
            return []
        self._linked.add(key)
        wanted = self._wanted_by(key)
        self.fanout.unconfirm(wanted)
        return [each for node, topic in wanted for each in self._say(SUBSCRIBE, node, Subscribe(topic))]

    def link_down(self, key: LinkKey, reason: str, reached: bool = True) -> list[Out]:
        """The link to a peer broke or could not be made: end what waits for an answer over it. `reached`: it may have
        got what it was asked."""
        self._linked.discard(key)
        self.fanout.unconfirm(self._wanted_by(key))
        return self.exchange.link_down(key, reason, reached)

    def link_closed(self, key: LinkKey) -> None:
        """The link to a peer was closed, since nobody used it."""
        self._linked.discard(key)

    def links_wanted(self) -> set[LinkKey]:
        """Return the links that bring events which somebody here wants of other nodes: they are to be kept."""
        return {self._link_for(node, topic) for node, topic in self.fanout.abroad() if node in self.peers}

    def configure(self, node: NodeInfo, peers: dict[int, Peer]) -> list[Out]:
        """This node's place in a cluster changed: tell every party."""
        before = {key: self._link_for(*key) for key in self.fanout.abroad()}
        self.peers = peers
        self.exchange.place(node, peers)
        outs = self._regroup(before)
        if node == self.node:
            return outs
        self.node = node
        for party in self.parties.values():
            party.source = f"{party.name}@{node.number}"
            self.exchange.joined(party)
            outs += self._welcome(party)
        return outs

    def sweep(self, now: float) -> list[Out]:
        """Once a second: forget requests that nobody waits for, say again what other nodes have not confirmed or could
        not take, and tell which losses and refusals there were."""
        self.exchange.expire(now)
        outs: list[Out] = []
        for node, topic in self.fanout.unconfirmed():
            if self._link_for(node, topic) in self._linked:
                outs += self._say(SUBSCRIBE, node, Subscribe(topic))
        for caller in self.callers.values():
            outs += self.fanout.room(caller)
        for party in self.parties.values():
            self._count_unsent(party)
        changed = {
            name: count for name, count in self.counters.items() if name not in FLOW and count != self._told[name]
        }
        if changed:
            outs += self.event(COUNTERS_TOPIC, {"changed": changed})
            self._told = Counter(self.counters)  # with what this event itself did not reach
        return outs

    # --- messages -------------------------------------------------------------------------------------------

    def from_party(self, key: Hashable, header: Header, body: Any, now: float) -> list[Out]:
        """Route what a party sent; whoever is unknown is asked to say hello first."""
        party = self.parties.get(key)
        if party is None:
            return self._stranger(Connection("local", key))
        if not sound(header):
            self.counters["malformed"] += 1
            return []
        kind = header.kind
        if kind is REQUEST:
            return self.exchange.request(party, party.source, party.role, party.uid, header, body, now)
        if kind is REPLY or kind is ERROR:
            return self.exchange.reply(party.connection, party.source, header, body)
        if kind is EVENT:
            return self._publish(party, header, body)
        if header.topic == READ:
            return self._read(party, header)
        if header.topic in (SUBSCRIBE, UNSUBSCRIBE):
            return self._subscription(party, header, body)
        if header.topic == GOODBYE:
            return self.party_gone(key, "goodbye")
        self.counters["unexpected"] += 1
        return []

    def from_caller(self, key: Hashable, header: Header, body: Any, now: float, proved: str = "") -> list[Out]:
        """Route what a broker that dialled us and proved a key sent: what its node asks, whose events it wants."""
        caller = self.callers.get(key)
        if caller is None:
            return self._stranger(Connection("peer", key))
        if not sound(header):
            self.counters["malformed"] += 1
        elif header.kind is Kind.REQUEST:
            source = header.source
            if source.endswith(caller.suffix) and source.count("@") == 1 and len(source) <= MAX_TOPIC:
                role, uid = header.role, header.uid
                return self.exchange.request(caller, source, role, uid, header, body, now, proved)
            self.counters["forged_source"] += 1
        elif header.kind is Kind.CONTROL and header.topic in (SUBSCRIBE, UNSUBSCRIBE):
            return self._subscription(caller, header, body)
        elif header.kind is Kind.CONTROL and header.topic == GOODBYE:
            return self.caller_gone(key)
        else:
            self.counters["unexpected"] += 1
        return []

    def from_stranger(self, key: Hashable, header: Header, body: Any, now: float) -> list[Out]:
        """Route what was asked on the join port; the gate there has named the asker and the key it proved."""
        if not sound(header):
            self.counters["malformed"] += 1
            return []
        stranger = self.strangers.get(key)
        if stranger is None:
            stranger = self.strangers[key] = Caller(Connection("join", key), NodeInfo())
        return self.exchange.request(stranger, header.source, header.role, header.uid, header, body, now, header.key)

    def stranger_gone(self, key: Hashable) -> list[Out]:
        """A connection of the join port ended: forget what was asked over it."""
        stranger = self.strangers.pop(key, None)
        return self._leave(stranger) if stranger else []

    def from_link(self, key: LinkKey, header: Header, body: Any) -> list[Out]:
        """Route what a broker that we dialled sent: answers, and the events that we asked for."""
        node = node_of(key)
        if not sound(header):
            self.counters["malformed"] += 1
        elif header.kind is Kind.REPLY or (header.kind is Kind.ERROR and header.ids):
            return self.exchange.reply(Connection("link", key), header.source, header, body)
        elif node is not None and header.kind is Kind.EVENT:
            if not 0 < len(header.topic) <= MAX_TOPIC:
                self.counters["malformed"] += 1
            elif header.source.endswith(f"@{node}"):
                self.counters["events"] += header.count
                return self.fanout.publish(node, header, body)
            else:
                self.counters["forged_source"] += 1
        elif node is not None and header.kind is Kind.CONTROL and header.topic == SUBSCRIBED:
            return self._confirmed(node, body)
        else:
            self.counters["unexpected"] += 1
        return []

    def undeliverable(self, lost: Out, problem: CoveyError) -> list[Out]:
        """A message could not be sent: who asked is told; a lost event is remembered; what else is lost is counted."""
        header = codec.decode_header(lost.frame)
        if lost.kind is Kind.REQUEST:
            table = self.exchange.pending.get(header.source, {})
            which = [(header.source, n) for n in header.ids if n in table and table[n].target == lost.connection]
            if not header.ids:
                self.counters["notes_dropped"] += header.count
            return self.exchange.fail(which, lambda _: problem)
        ends: dict[str, Any] = {"local": self.parties, "peer": self.callers, "join": self.strangers}
        end: End | None = ends.get(lost.connection.port, {}).get(lost.connection.key)
        if lost.kind is Kind.EVENT and end:
            number = int(header.source.rpartition("@")[2])
            self.counters["events_delivered"] -= header.count
            self.fanout.lost(end, 0 if number == self.node.number else number, header)
        elif lost.kind is Kind.REPLY and end:
            return self.exchange.no_room(end, header)
        else:
            self.counters["undeliverable"] += header.count
        return []

    def event(self, topic: str, body: dict[str, Any]) -> list[Out]:
        """Publish an event of the broker's own."""
        source = f"bus@{self.node.number}"
        self._sequences[source, topic] += 1
        header = Header(Kind.EVENT, source=source, topic=topic, sequence=self._sequences[source, topic])
        self.counters["events"] += 1
        return self.fanout.publish(0, header, msgspec.msgpack.encode(body))

    def check_invariants(self) -> None:
        """Raise AssertionError when a numbered invariant of the class does not hold."""
        ends: list[End] = [*self.parties.values(), *self.callers.values(), *self.strangers.values()]
        counted: Counter[End] = Counter()
        tables = {id(table): table for table in self.exchange.pending.values()}
        for pending in (pending for table in tables.values() for pending in table.values()):
            counted[pending.origin] += 1
            assert pending.origin in ends, pending.source
            assert pending.target.port == "link" or pending.target.key in self.parties, pending.source
            assert pending.target.port == "local" or not isinstance(pending.origin, Caller), pending.source
        for end in ends:
            assert end.waiting == counted[end] <= MAX_WAITING, (end.connection, end.waiting)
        for service, party in self.exchange.services.items():
            assert service in party.services and self.parties[party.connection.key] is party, service
        for party in self.parties.values():
            assert self.exchange.pending[party.source] is party.pending, party.name
        self.fanout.check_invariants(ends)

    # --- inside ---------------------------------------------------------------------------------------------

    def _leave(self, end: End) -> list[Out]:
        self._count_unsent(end)
        unwanted = self.fanout.leave(end)
        outs: list[Out] = []
        for each in unwanted:
            if self._link_for(each.node, each.topic) in self._linked:
                outs += self._say(UNSUBSCRIBE, each.node, Subscribe(each.topic))
        return outs + self.exchange.left(end)

    def _count_unsent(self, end: End) -> None:
        if end.unsent:
            self.counters["answers_unsent"] += end.unsent
            end.unsent = 0

    def _stranger(self, connection: Connection) -> list[Out]:
        self.counters["strangers"] += 1
        return out(End(connection), Header(Kind.CONTROL, topic=HELLO_WANTED))

    def _welcome(self, party: Party) -> list[Out]:
        body = msgspec.msgpack.encode(Welcome(party.name, self.node))
        return out(party, Header(Kind.CONTROL, topic=WELCOME), body)

    def _say(self, topic: str, node: int, body: Subscribe, key: LinkKey | None = None) -> list[Out]:
        header = Header(Kind.CONTROL, topic=topic)
        link = self._link_for(node, body.topic) if key is None else key
        return out(End(Connection("link", link)), header, msgspec.msgpack.encode(body))

    def _link_for(self, node: int, topic: str) -> LinkKey:
        """Return the link by which the events of a topic come from another node: that of the topic's service."""
        return self.exchange.lane(node, service_of(topic))

    def _wanted_by(self, key: LinkKey) -> list[tuple[int, str]]:
        return [each for each in self.fanout.abroad() if self._link_for(*each) == key]

    def _regroup(self, before: dict[tuple[int, str], LinkKey]) -> list[Out]:
        """Have events come by the links by which they are to come from now on."""
        outs: list[Out] = []
        for (node, topic), old in before.items():
            new = self._link_for(node, topic)
            if new != old and node in self.peers:
                self.fanout.unconfirm([(node, topic)])
                outs += self._say(UNSUBSCRIBE, node, Subscribe(topic), old) if old in self._linked else []
                outs += self._say(SUBSCRIBE, node, Subscribe(topic)) if new in self._linked else []
        return outs

    def _read(self, party: Party, header: Header) -> list[Out]:
        if len(header.ids) != 2 or party.window is None or not party.window.read(*header.ids):
            self.counters["read_refused"] += 1
            return []
        return self.fanout.room(party) if party.missed else []

    def _publish(self, party: Party, header: Header, body: Any) -> list[Out]:
        """Publish what a party says, if it may: components act on one another's events as on their own knowledge."""
        topic = header.topic
        own = topic.partition(".")[0]
        needed = Role.COMPONENT if own in self._reserved or own == "controller" else Role.OPERATOR
        try:
            if party.role < needed:
                has = party.role.name.lower()
                raise Denied(f"publishing '{topic}' needs the role {needed.name.lower()}, you have {has}")
            if not 0 < len(topic) <= MAX_TOPIC:
                raise UsageError(f"the topic of an event has 1 to {MAX_TOPIC} characters")
            self.counters["events"] += header.count
            party.published = True
            return self.fanout.publish(
                0,
                Header(
                    EVENT,
                    (),
                    party.source,
                    "",
                    topic,
                    header.count,
                    "",
                    party.role,
                    party.uid,
                    0.0,
                    header.sequence,
                    header.compressed,
                    False,
                    header.causes,
                ),
                body,
            )
        except (Denied, UsageError, TooLarge) as problem:
            self.counters["publish_refused"] += header.count
            topic = f"event {topic[:MAX_TOPIC]}"
            return self.exchange.error(party, (), party.source, topic, header.causes[:1], problem)

    def _subscription(self, end: Party | Caller, header: Header, body: Any) -> list[Out]:
        try:
            wanted = _subscribe_decoder.decode(bytes(body))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.counters["malformed"] += 1
            return []
        node = 0 if wanted.node == self.node.number or isinstance(end, Caller) else wanted.node
        asked = Subscribe(wanted.topic, node)
        if header.topic == UNSUBSCRIBE:
            over = self.fanout.unsubscribe(end, asked)
            stands = over and self._link_for(node, wanted.topic) in self._linked
            return self._say(UNSUBSCRIBE, node, Subscribe(wanted.topic)) if stands else []
        try:
            if node and node not in self.peers:
                raise UnknownNode(f"node {self.node.number} knows no node {node}", "`covey node ls` lists the nodes")
            first = self.fanout.subscribe(end, asked, MAX_FORWARDED if isinstance(end, Caller) else MAX_SUBSCRIPTIONS)
        except CoveyError as problem:
            self.counters["subscribe_refused"] += 1
            problem.details = {"topic": wanted.topic[: 2 * MAX_TOPIC], "node": wanted.node}
            error = Header(Kind.ERROR, header.ids, f"bus@{self.node.number}", topic=SUBSCRIBE)
            return out(end, error, codec.encode_error(problem))
        if first and node:  # else it is said when the connection stands
            stands = self._link_for(node, wanted.topic) in self._linked
            return self._say(SUBSCRIBE, node, Subscribe(wanted.topic)) if stands else []
        if node and (node, wanted.topic) not in self.fanout.confirmed:
            return []
        return self._subscribed(end, wanted) + self.fanout.welcome(end, asked)

    def _confirmed(self, node: int, body: Any) -> list[Out]:
        """Another node says that our subscription stands: tell those who wait for that."""
        try:
            topic = _subscribe_decoder.decode(bytes(body)).topic
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self.counters["malformed"] += 1
            return []
        waiting = self.fanout.waiting_for(node, topic)
        if not waiting or (node, topic) in self.fanout.confirmed:
            return []
        self.fanout.confirmed.add((node, topic))
        return [each for end in waiting for each in self._subscribed(end, Subscribe(topic, node))]

    def _subscribed(self, end: End, wanted: Subscribe) -> list[Out]:
        return out(end, Header(Kind.CONTROL, topic=SUBSCRIBED), msgspec.msgpack.encode(wanted))


def sound(header: Header) -> bool:
    """Whether the numbers of a header fit together."""
    count, ids = header.count, header.ids
    if header.kind is CONTROL:
        return count == 1 and len(ids) <= 2 and (not ids or min(ids) >= 0)
    if count == 1:
        return (not ids or (ids[0] >= 0 and len(ids) == 1)) and len(header.causes) <= 1 and len(header.request_ids) <= 1
    return (
        1 < count <= codec.MAX_BATCH
        and len(header.causes) in (0, 1, count)
        and len(header.request_ids) in (0, count)
        and (not ids or (len(ids) == count == len(set(ids)) and min(ids) >= 0))
    )
