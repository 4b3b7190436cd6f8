"""Where every message goes: the broker's mind, without sockets, clocks or decoding of bodies.

The router knows the parties of its node, who serves what, which requests wait for a reply, and which peers there are.
Each method takes what happened and returns what to send: a list of `Out`. `broker.py` does the sending and reports what
could not be sent. A request gets a number of its own on each hop (`Pending`), so a reply can only come from the very
connection that got the request, and a death or a closed link ends exactly the requests it concerns, at once.

Odd: a destination that names this very node and one that names none are the same, and a message that came from a peer
is never passed on to another peer, so nothing can circle.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from ..errors import (
    CoveyError,
    Denied,
    NameTaken,
    NoService,
    ServiceDied,
    Unreachable,
    UsageError,
)
from . import codec
from .messages import (
    GOODBYE,
    HELLO,
    HELLO_WANTED,
    PARTY_TOPIC,
    WELCOME,
    EventHead,
    Header,
    Hello,
    Kind,
    NodeInfo,
    Peer,
    Role,
    Welcome,
    split_address,
)

SERVICE_NAME = re.compile(r"[a-z][a-z0-9_.:-]{0,62}\Z")
MAX_TOPICS = 10_000
"""Topics with a sequence counter. More than that is a client that makes up topic names; the oldest counters go."""

LONGEST_BUDGET = 24 * 3600.0
"""Seconds a request is remembered at most. A header may say infinity, or no number at all."""


class Connection(NamedTuple):
    """One end the broker can send to: `local` (a party, by ZeroMQ identity), `peer` (a broker that dialled us, by
    identity), `link` (a broker we dial, by node number or host:port)."""

    port: str
    key: bytes | int | str


class Out(NamedTuple):
    """One message to send, or (connection None) one event to publish on this node."""

    connection: Connection | None
    header: Header
    body: Any = b""


class Party(msgspec.Struct):
    """A local process end on the bus. `pid` 0: in the broker's own process."""

    connection: Connection
    name: str
    role: Role
    uid: int
    pid: int
    services: tuple[str, ...] = ()


class Pending(NamedTuple):
    """A request on its way: who waits, under which number, and who must answer."""

    origin: Connection
    origin_id: int
    origin_name: str
    to: Connection
    destination: str
    header: Header
    expires: float


class Router:
    """Decide where messages go.

    Invariants: 1. a reply reaches only the asker, and only from the party asked; 2. every pending request names two
    live ends; 3. a service name belongs to at most one party; 4. nothing a peer sends is sent to another peer, and
    peers ask only over links of their own.
    """

    def __init__(self, reserved: Iterable[str] = ()) -> None:
        self.node = NodeInfo()
        self.peers: dict[int, Peer] = {}
        self.parties: dict[Connection, Party] = {}
        self.services: dict[str, Connection] = {}
        self.callers: dict[Connection, NodeInfo] = {}  # brokers that dialled us
        self.pending: dict[int, Pending] = {}
        self.counters: Counter[str] = Counter()
        self._reserved = frozenset(reserved)
        self._next_request = 0
        self._next_client = 0
        self._sequences: dict[tuple[str, str], int] = {}

    # --- parties and peers come and go ----------------------------------------------------------------------

    def hello(self, connection: Connection, hello: Hello, role: Role, uid: int, pid: int) -> list[Out]:
        """A party says (again) who it is and what it serves: welcome it, or say why not."""
        known = self.parties.get(connection)
        outs: list[Out] = []
        try:
            self._check_names(connection, hello, role, pid, outs)
        except CoveyError as problem:
            self.counters["hello_refused"] += 1
            return [Out(connection, Header(Kind.ERROR, topic=HELLO), codec.encode_error(problem))]
        if known is None:
            if not hello.name:
                self._next_client += 1
            name = hello.name or f"client-{self._next_client}"
            known = self.parties[connection] = Party(connection, name, role, uid, pid)
            outs.append(self._event(PARTY_TOPIC, {"party": name, "state": "joined", "reason": "", "pid": pid}))
        for service in known.services:
            self.services.pop(service, None)
        known.services = hello.services
        for service in hello.services:
            self.services[service] = connection
        outs.insert(0, self._welcome(known))
        return outs

    def peer_hello(self, connection: Connection, node: NodeInfo) -> list[Out]:
        """A broker that dialled us says which node it speaks for."""
        self.callers[connection] = node
        return [Out(connection, Header(Kind.CONTROL, topic=WELCOME), _packed(Welcome("", self.node)))]

    def gone(self, connection: Connection, reason: str) -> list[Out]:
        """A party died or said goodbye, or a broker that had dialled us is unreachable: end all that waited for it."""
        self.callers.pop(connection, None)
        party = self.parties.pop(connection, None)
        name = party.name if party else "a peer"
        outs = self._fail(
            connection,
            lambda p: ServiceDied(
                f"{p.destination} died before it answered '{p.header.topic}'",
                "read before you ask again: it may have happened",
            ),
        )
        if party:
            for service in party.services:
                if self.services.get(service) == connection:
                    del self.services[service]
            outs.append(self._event(PARTY_TOPIC, {"party": name, "state": "gone", "reason": reason, "pid": party.pid}))
        return outs

    def busy_links(self) -> set[int | str]:
        """Return the links over which somebody waits for an answer."""
        return {p.to.key for p in self.pending.values() if p.to.port == "link" and not isinstance(p.to.key, bytes)}

    def link_down(self, key: int | str, reason: str) -> list[Out]:
        """The link to a peer broke or could not be made: end what waits for an answer over it."""
        hint = "`covey liveness status` shows who is alive"
        if isinstance(key, str):
            hint = "check the address, and that a daemon was started with it"
        return self._fail(
            Connection("link", key), lambda p: Unreachable(f"{p.destination} cannot be reached: {reason}", hint)
        )

    def configure(self, node: NodeInfo, peers: dict[int, Peer]) -> list[Out]:
        """This node's place in a cluster changed: tell every party."""
        self.peers = peers
        if node == self.node:
            return []
        self.node = node
        return [self._welcome(party) for party in self.parties.values()]

    # --- messages -------------------------------------------------------------------------------------------

    def message(self, connection: Connection, header: Header, body: Any, now: float) -> list[Out]:
        """Route one message from a party, a peer or a link; whoever is unknown is asked to say hello first."""
        if connection.port == "local":
            party = self.parties.get(connection)
            if party is None:
                return self._ask_hello(connection)
            source, role, uid = f"{party.name}@{self.node.number}", int(party.role), party.uid
        elif connection.port == "peer":
            caller = self.callers.get(connection)
            if caller is None:
                return self._ask_hello(connection)
            source, role, uid = header.source, header.role, header.uid
            if not source.endswith(f"@{caller.number}"):
                self.counters["forged_source"] += 1
                return []
        else:
            source, role, uid = header.source, header.role, header.uid
        header = msgspec.structs.replace(header, source=source, role=role, uid=uid)
        self.counters["passed"] += 1
        if header.kind is Kind.REQUEST and connection.port != "link":
            return self._request(connection, header, body, now)
        if header.kind in (Kind.REPLY, Kind.ERROR):
            return self._reply(connection, header, body)
        if header.kind is Kind.EVENT and connection.port == "local":
            return self._publish_for(connection, header, body)
        if header.kind is Kind.CONTROL and header.topic == GOODBYE:
            return self.gone(connection, "goodbye")
        self.counters["unexpected"] += 1
        return []

    def expire(self, now: float) -> None:
        """Forget requests whose caller has long given up (it knows its own deadline best)."""
        for number in [number for number, pending in self.pending.items() if pending.expires < now]:
            del self.pending[number]
            self.counters["expired"] += 1

    def undeliverable(self, out: Out, problem: CoveyError) -> list[Out]:
        """A message could not be sent: the asker is told; a lost reply or note is counted."""
        pending = self.pending.pop(out.header.id, None) if out.header.kind is Kind.REQUEST else None
        if pending is None:
            self.counters["undeliverable"] += 1
            return []
        return [_error(pending, problem)]

    def sequence(self, source: str, topic: str) -> int:
        """Return the next number of an event of this source on this topic, from 1."""
        key = (source, topic)
        number = self._sequences.pop(key, 0) + 1
        self._sequences[key] = number
        if len(self._sequences) > MAX_TOPICS:
            del self._sequences[next(iter(self._sequences))]
        return number

    def check_invariants(self) -> None:
        """Raise AssertionError when a numbered invariant of the class does not hold."""
        for pending in self.pending.values():
            assert pending.to.port == "link" or pending.to in self.parties, pending
            assert pending.origin.port != "link", pending
            assert not (pending.origin.port == "peer" and pending.to.port == "link"), pending
        for service, connection in self.services.items():
            assert service in self.parties[connection].services, service

    # --- inside ---------------------------------------------------------------------------------------------

    def _request(self, connection: Connection, header: Header, body: Any, now: float) -> list[Out]:
        try:
            target = self._target(connection, header)
        except CoveyError as problem:
            self.counters["no_target"] += 1
            if not header.id:
                return []
            answer = Header(Kind.ERROR, header.id, f"bus@{self.node.number}", header.source, header.topic, header.cause)
            return [Out(connection, answer, codec.encode_error(problem))]
        number = 0
        if header.id:
            number = self._next_request = self._next_request + 1
            self.pending[number] = Pending(
                connection,
                header.id,
                header.source,
                target,
                header.destination,
                header,
                now + (min(header.budget, LONGEST_BUDGET) if header.budget > 0 else 0) + 1,
            )
        cluster = header.cluster or (self.node.cluster_id if target.port == "link" else "")
        return [Out(target, msgspec.structs.replace(header, id=number, cluster=cluster), body)]

    def _target(self, connection: Connection, header: Header) -> Connection:
        try:
            service, where = split_address(header.destination)
        except ValueError as problem:
            raise UsageError(f"cannot send to '{header.destination}': {problem}") from None
        here = where is None or where in (0, self.node.number)
        if connection.port == "peer":
            if isinstance(where, int) and not here:
                raise Unreachable(f"node {self.node.number} got a request for node {where}: the address table is stale")
            here = True
        if here:
            found = self.services.get(service)
            if found is None:
                there = ", ".join(sorted(self.services)) or "none"
                raise NoService(f"no service '{service}' on node {self.node.number or 'here'}", f"there are: {there}")
            return found
        if isinstance(where, int) and where not in self.peers:
            known = ", ".join(str(number) for number in sorted(self.peers)) or "none"
            raise Unreachable(f"node {where} is not known to node {self.node.number}", f"known: {known}")
        assert where is not None
        return Connection("link", where)

    def _reply(self, connection: Connection, header: Header, body: Any) -> list[Out]:
        pending = self.pending.get(header.id)
        if pending is None or pending.to != connection:
            self.counters["orphan_reply"] += 1
            return []
        del self.pending[header.id]
        answered = msgspec.structs.replace(
            header,
            id=pending.origin_id,
            destination=pending.origin_name,
            topic=pending.header.topic,
            cause=pending.header.cause,
        )
        return [Out(pending.origin, answered, body)]

    def _fail(self, connection: Connection, problem: Any) -> list[Out]:
        outs = []
        for number, pending in list(self.pending.items()):
            if pending.to == connection:
                del self.pending[number]
                if pending.origin != connection:
                    outs.append(_error(pending, problem(pending)))
            elif pending.origin == connection:
                del self.pending[number]
        return outs

    def _check_names(self, connection: Connection, hello: Hello, role: Role, pid: int, outs: list[Out]) -> None:
        known = self.parties.get(connection)
        if known and hello.name not in ("", known.name):
            raise NameTaken(f"this connection is '{known.name}' already and cannot become '{hello.name}'")
        for name in {hello.name, *hello.services} - {""}:
            if not SERVICE_NAME.match(name):
                raise UsageError(
                    f"'{name}' cannot be a name on the bus",
                    "small letters, digits, - _ . : and a letter first",
                )
            if role < Role.OPERATOR:
                raise Denied(f"serving '{name}' needs the role operator", "see security.roles in the node's YAML")
            if role < Role.COMPONENT and (name in self._reserved or name.startswith(("controller.", "client-"))):
                raise Denied(f"the name '{name}' is reserved for covey's own components")
            holder = next((p for p in self.parties.values() if p.name == name or name in p.services), None)
            if holder is None or holder.connection == connection:
                continue
            if holder.pid and holder.pid == pid and name == hello.name:
                outs += self.gone(holder.connection, "the same process connected anew")
                continue
            raise NameTaken(f"'{name}' is served by process {holder.pid or 'of the daemon'} already")

    def _welcome(self, party: Party) -> Out:
        return Out(party.connection, Header(Kind.CONTROL, topic=WELCOME), _packed(Welcome(party.name, self.node)))

    def _ask_hello(self, connection: Connection) -> list[Out]:
        self.counters["strangers"] += 1
        return [Out(connection, Header(Kind.CONTROL, topic=HELLO_WANTED))]

    def _publish_for(self, connection: Connection, header: Header, body: Any) -> list[Out]:
        """Publish what a party says, if it may: components act on one another's events as on their own knowledge."""
        own = header.topic.partition(".")[0]
        needed = Role.COMPONENT if own in self._reserved or own == "controller" else Role.OPERATOR
        if header.role >= needed:
            return [self._publish(header, body)]
        self.counters["publish_refused"] += 1
        has = Role(header.role).name.lower()
        problem = Denied(f"publishing '{header.topic}' needs the role {needed.name.lower()}, you have {has}")
        answer = Header(Kind.ERROR, 0, f"bus@{self.node.number}", header.source, f"event {header.topic}", header.cause)
        return [Out(connection, answer, codec.encode_error(problem))]

    def _publish(self, header: Header, body: Any) -> Out:
        number = self.sequence(header.source, header.topic)
        return Out(None, msgspec.structs.replace(header, sequence=number), body)

    def _event(self, topic: str, body: dict[str, Any]) -> Out:
        return self._publish(Header(Kind.EVENT, source=f"bus@{self.node.number}", topic=topic), _packed(body))


def event_frame(out: Out) -> bytes:
    """Return the frame that publishes an event: what `Out` with no connection stands for."""
    body = out.body if isinstance(out.body, bytes) else out.body.bytes
    head = EventHead(out.header.source, out.header.sequence, out.header.cause, body, out.header.compressed)
    return codec.encode_event(out.header.topic, head)


def _packed(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


def _error(pending: Pending, problem: CoveyError) -> Out:
    header = Header(
        Kind.ERROR,
        pending.origin_id,
        pending.destination,
        pending.origin_name,
        pending.header.topic,
        pending.header.cause,
    )
    return Out(pending.origin, header, codec.encode_error(problem))
