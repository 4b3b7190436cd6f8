"""Whatever parties and peers say, in whatever order: nothing raises, the invariants hold, every request ends once."""

from __future__ import annotations

from random import Random
from typing import Any

from bus_router import HOME, PEERS, head
from covey.bus import codec, exchange
from covey.bus.ends import Connection, Out
from covey.bus.messages import READ, SUBSCRIBE, SUBSCRIBED, UNSUBSCRIBE, Header, Hello, Kind, NodeInfo, Role, Subscribe
from covey.bus.routing import Router, sound
from covey.errors import Overloaded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec import msgpack

PARTIES = st.sampled_from(["a", "s", "x"])
NAMES = {"s": "store", "x": "shop"}
IDS = st.lists(st.integers(-1, 6), max_size=5).map(tuple)
SOURCES = st.sampled_from(
    ["client-1@1", "client-2@1", "store@1", "shop@1", "x@2", "y@2", "x@3", "x@0", "", "@", "client-1@5"]
)
DESTINATIONS = st.sampled_from(
    ["store", "shop", "store@1", "store@0", "store@2", "store@127.0.0.1:1", "no", "@", "store@x"]
)
TOPICS = st.sampled_from(["app.a", "app.b", "t", "", "x" * 300])
BODIES = st.sampled_from([b"", b"\x92\1\2", b"\x93\1\2\3", b"\xc1", b"x" * 9000])
HEADERS = st.builds(
    Header,
    kind=st.sampled_from(Kind),
    ids=IDS,
    source=SOURCES,
    destination=DESTINATIONS | SOURCES,
    topic=TOPICS | st.sampled_from([READ, SUBSCRIBE, SUBSCRIBED, UNSUBSCRIBE, "goodbye"]),
    count=st.integers(-1, 6) | st.just(10**9),
    budget=st.sampled_from([0.0, 1.0, float("nan"), float("inf"), -1.0]),
    sequence=st.integers(-1, 5),
    compressed=st.booleans(),
    welcome=st.booleans(),
    causes=st.lists(st.sampled_from(["", "s1"]), max_size=3).map(tuple),
    request_ids=st.lists(st.sampled_from(["", "r1"]), max_size=3).map(tuple),
)
SUBSCRIPTIONS = st.builds(
    Subscribe, topic=st.sampled_from(["app.a", "app.*", "*", "bus.*", "a*b", ""]), node=st.sampled_from([0, 1, 2, 9])
)


class Talk(RuleBasedStateMachine):
    """Everybody says anything; some of it makes sense."""

    def __init__(self) -> None:
        super().__init__()
        self.router = Router(reserved=("dcm",))
        self.now = 0.0
        self.asked: dict[tuple[Connection, str | None], dict[int, Connection]] = {}  # by who asks: who was asked
        self.run(self.router.configure(HOME, PEERS))
        for key in "asx":
            self.hello(key, True, 0)
        for key in "pq":
            self.caller(key, True)

    def run(self, outs: list[Out], said_by: Connection | None = None) -> None:
        """Take what is sent: each answer must be one that is waited for, and come from whoever was asked."""
        for out in outs:
            header = head(out)
            assert len(out.frame) <= codec.MAX_HEADER
            assert sound(header), header
            if header.kind in (Kind.REPLY, Kind.ERROR) and header.ids:
                waiting = self.asked[asker(out.connection, header.destination)]
                asked = {waiting.pop(number) for number in header.ids}
                assert header.source in ("bus@1", "bus@5") or asked == {said_by}, header
            if out.connection.port == "local" and out.kind is not Kind.CONTROL and header.topic != "hello":
                assert out.connection.key in self.router.parties

    def send(self, port: str, key: Any, header: Header, body: bytes) -> None:
        if port == "local":
            outs = self.router.from_party(key, header, body, self.now)
        else:
            outs = self.router.from_caller(key, header, body, self.now)
        if header.kind is Kind.REQUEST:
            asked = self.asked.setdefault(asker(Connection(port, key), header.source), {})
            for out in outs:
                if out.kind is Kind.REQUEST:
                    assert not asked.keys() & set(head(out).ids), "the same request was passed twice"
                    asked |= dict.fromkeys(head(out).ids, out.connection)
                elif out.kind is Kind.ERROR:  # refused, so it never waited
                    assert not asked.keys() & set(head(out).ids)
                    asked |= dict.fromkeys(head(out).ids, Connection(port, key))
        self.run(outs, Connection(port, key))

    @rule(key=PARTIES, serving=st.booleans(), pid=st.sampled_from([0, 1]))
    def hello(self, key: str, serving: bool, pid: int) -> None:
        name = NAMES.get(key, "") if serving else ""
        self.run(self.router.hello(key, Hello(name, True, (name,) if name else ()), Role.COMPONENT, 0, pid))

    @rule(key=PARTIES, header=HEADERS, body=BODIES)
    def anything(self, key: str, header: Header, body: bytes) -> None:
        if header.kind is not Kind.REQUEST:
            self.send("local", key, header, body)

    @rule(key=PARTIES, destination=DESTINATIONS, ids=st.sets(st.integers(0, 3), max_size=5))
    def ask(self, key: str, destination: str, ids: set[int]) -> None:
        header = Header(Kind.REQUEST, tuple(ids), "", destination, "t", max(len(ids), 1), budget=2.0)
        self.send("local", key, header, b"")

    @rule(source=st.sampled_from(["x@2", "y@2"]), ids=st.sets(st.integers(0, 3), max_size=5), key=st.sampled_from("pq"))
    def peer_asks(self, source: str, ids: set[int], key: str) -> None:
        self.send(
            "peer", key, Header(Kind.REQUEST, tuple(ids), source, "store", "t", max(len(ids), 1), budget=2.0), b""
        )

    @rule(key=PARTIES, source=SOURCES, ids=st.sets(st.integers(0, 3), min_size=1, max_size=5), good=st.booleans())
    def answer(self, key: str, source: str, ids: set[int], good: bool) -> None:
        body = codec.join_items([b"\1"] * len(ids)) if good else b"\xc1"
        self.send("local", key, Header(Kind.REPLY, tuple(ids), "", source, "t", len(ids)), body)

    @rule(key=PARTIES, data=st.data(), also=st.sets(st.integers(0, 3), max_size=2))
    def answer_what_waits(self, key: str, data: Any, also: set[int]) -> None:
        tables = {source: table for source, table in self.router.exchange.pending.items() if table}
        if tables:
            source = data.draw(st.sampled_from(sorted(tables)))
            ids = {data.draw(st.sampled_from(sorted(tables[source])))} | also
            self.answer(key, source, ids, True)

    @rule(link=st.sampled_from([2, 3, "127.0.0.1:1"]), source=SOURCES, ids=st.sets(st.integers(0, 3), min_size=1))
    def answer_of_a_node(self, link: int | str, source: str, ids: set[int]) -> None:
        body = codec.join_items([b"\1"] * len(ids))
        header = Header(Kind.REPLY, tuple(ids), "x@2", source, "t", len(ids))
        self.run(self.router.from_link(link, header, body), Connection("link", link))

    @rule(link=st.sampled_from([2, 3, "127.0.0.1:1"]), header=HEADERS, body=BODIES)
    def a_node_says(self, link: int | str, header: Header, body: bytes) -> None:
        self.run(self.router.from_link(link, header, body), Connection("link", link))

    @rule(key=st.sampled_from("pq"), header=HEADERS, body=BODIES)
    def a_peer_says(self, key: str, header: Header, body: bytes) -> None:
        self.send("peer", key, header, body)

    @rule(key=PARTIES | st.sampled_from("pq"), wanted=SUBSCRIPTIONS, topic=st.sampled_from([SUBSCRIBE, UNSUBSCRIBE]))
    def subscription(self, key: str, wanted: Subscribe, topic: str) -> None:
        port = "peer" if key in ("p", "q") else "local"
        self.send(port, key, Header(Kind.CONTROL, topic=topic), msgpack.encode(wanted))

    @rule(topic=st.sampled_from(["app.a", "app.*"]))
    def confirmed(self, topic: str) -> None:
        header = Header(Kind.CONTROL, topic=SUBSCRIBED)
        self.run(self.router.from_link(2, header, msgpack.encode(Subscribe(topic))))

    @rule(key=PARTIES, messages=st.integers(1, 9000))
    def does_not_read(self, key: str, messages: int) -> None:
        party = self.router.parties.get(key)
        if party and party.window:
            for _ in range(messages):
                party.window.sent(1)

    @rule(key=PARTIES)
    def reads(self, key: str) -> None:
        party = self.router.parties.get(key)
        if party and party.window:
            ids = (party.window._sent_messages, party.window._sent_bytes)
            self.send("local", key, Header(Kind.CONTROL, ids, topic=READ), b"")

    @rule(key=PARTIES)
    def party_gone(self, key: str) -> None:
        self.forget(Connection("local", key))
        self.run(self.router.party_gone(key, "test"))

    @rule(key=st.sampled_from("pq"), comes=st.booleans())
    def caller(self, key: str, comes: bool) -> None:
        if comes:
            self.router.caller_came(key, NodeInfo(2))
        else:
            self.forget(Connection("peer", key))
            self.run(self.router.caller_gone(key))

    @rule(link=st.sampled_from([2, 3, "127.0.0.1:1"]), up=st.booleans())
    def link(self, link: int | str, up: bool) -> None:
        self.run(self.router.link_up(link) if up else self.router.link_down(link, "test"))

    @rule(number=st.sampled_from([1, 5]))
    def configured(self, number: int) -> None:
        self.run(self.router.configure(NodeInfo(number, "n", "id", "c1", "lab", "b"), PEERS))

    @rule(seconds=st.sampled_from([0.5, 4.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.run(self.router.sweep(self.now))
        for key, waiting in self.asked.items():  # what expired is not waited for any more
            for number in waiting.keys() - self.pending(*key):
                del waiting[number]

    @invariant()
    def holds(self) -> None:
        self.router.check_invariants()
        for key, waiting in self.asked.items():
            assert waiting.keys() == self.pending(*key), "a request was forgotten, or ended twice"

    def forget(self, connection: Connection) -> None:
        self.asked = {key: waiting for key, waiting in self.asked.items() if key[0] != connection}

    def pending(self, connection: Connection, source: str | None) -> set[int]:
        found = self.router.exchange.pending
        tables = (
            [found.get(source, {})] if source is not None else {id(table): table for table in found.values()}.values()
        )
        return {n for table in tables for n, each in table.items() if each.origin.connection == connection}


def asker(connection: Connection, source: str) -> tuple[Connection, str | None]:
    """Return who waits: a party has one name at a time, a peer speaks for many."""
    return connection, source if connection.port == "peer" else None


TestTalk = Talk.TestCase
TestTalk.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["party", "caller", "link"]))
def test_random_bytes_never_get_as_far_as_to_raise(data: bytes, port: str) -> None:
    router = Router()
    router.hello("a", Hello(), Role.ADMIN, 0, 1)
    router.caller_came("p", NodeInfo(2))
    try:
        header = codec.decode_header(b"\2" + data)
    except codec.Malformed:
        return
    if port == "party":
        router.from_party("a", header, data, 0.0)
    elif port == "caller":
        router.from_caller("p", header, data, 0.0)
    else:
        router.from_link(2, header, data)
    router.check_invariants()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=30), st.integers())
def test_batches_of_any_size_are_answered_in_any_grouping(sizes: list[int], seed: int) -> None:
    random = Random(seed)
    router = Router()
    router.hello("a", Hello(), Role.ADMIN, 0, 1)
    router.hello("s", Hello("store", True, ("store",)), Role.COMPONENT, 0, 2)
    numbers, asked = 2**31, []
    for size in sizes:
        ids = tuple(range(numbers, numbers + size))
        numbers += size
        asked += ids
        (out,) = router.from_party(
            "a", Header(Kind.REQUEST, ids, "", "store", "store.get", size, budget=9.0), b"b", 0.0
        )
        assert head(out).ids == ids
    random.shuffle(asked)
    while asked:
        some = [asked.pop() for _ in range(min(len(asked), random.randint(1, codec.MAX_BATCH)))]
        (out,) = router.from_party("s", Header(Kind.REPLY, tuple(some), "", "client-1@0", "", len(some)), b"b", 0.0)
        assert (out.connection.key, head(out).ids) == ("a", tuple(some))
    assert router.parties["a"].waiting == 0


@given(st.integers(1, 30))
def test_a_party_never_has_more_requests_waiting_than_it_may(most: int) -> None:
    router = Router()
    router.hello("a", Hello(), Role.ADMIN, 0, 1)
    router.hello("s", Hello("store", True, ("store",)), Role.COMPONENT, 0, 2)
    old, exchange.MAX_WAITING = exchange.MAX_WAITING, most
    try:
        for number in range(40):
            (out,) = router.from_party("a", Header(Kind.REQUEST, (number,), "", "store", "t"), b"", 0.0)
            assert (out.kind is Kind.REQUEST) == (number < most)
            if number >= most:
                assert isinstance(codec.decode_error(out.body), Overloaded)
    finally:
        exchange.MAX_WAITING = old
