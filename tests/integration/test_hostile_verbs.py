"""Everything that can be said to a whole node is said by those who may not: nothing crashes, nothing changes, each
request is answered, each kind of refusal is counted.

Raw sockets on `bus.sock`, so that headers and bodies can be anything. The broker takes them for users without a role,
or for operators; every verb of every service gets made-up arguments, bodies that are none, and batches that lie.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import lz4.block
import msgspec
import pytest
import zmq
from covey.bus import broker_service, codec
from covey.bus.broker import Broker
from covey.bus.client import Client
from covey.bus.messages import (
    HELLO,
    PROTOCOL,
    READ,
    SUBSCRIBE,
    WELCOME,
    Header,
    Hello,
    Kind,
    Role,
    Subscribe,
    Welcome,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from real_nodes import free_port
from whole_nodes import define_cluster, running

EXAMPLES = 12
AT_ONCE = 60
"""Requests of one example; they are said at once, since some of them are long polls."""

BUDGET = 0.1
PATIENCE = 30.0
NOBODY = 65534

LEAVES = frozenset({"dcm.node_offline", "dcm.cluster_offline"})
"""An operator may rightly stop the node with these, and then there is nothing to talk to."""


class Raw:
    """A socket on the bus that says what it likes."""

    def __init__(self, folder: Path) -> None:
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.connect(f"ipc://{folder}/run/bus.sock")
        self.name = ""
        self.next = 1

    def say(self, *frames: bytes) -> None:
        self.socket.send_multipart(frames)

    def header(self, kind: Kind, body: bytes = b"", **fields: Any) -> None:
        self.say(codec.encode_header(Header(kind, **fields)), body)

    async def hear(self, count: int) -> list[tuple[Header, bytes]]:
        """Return so many messages as come; AssertionError when they do not."""
        found: list[tuple[Header, bytes]] = []
        until = time.monotonic() + PATIENCE
        while len(found) < count:
            try:
                frames = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                assert time.monotonic() < until, f"{len(found)} of {count} messages came"
                await asyncio.sleep(0.005)
            else:
                found.append((codec.decode_header(frames[0]), frames[1]))
        return found

    async def ask(self, requests: list[tuple[str, list[bytes], bool]]) -> list[tuple[str, str]]:
        """Send requests (topic, items, compressed) and return each topic with the error's code of its answer, or ""."""
        asked: dict[int, str] = {}
        for topic, items, compressed in requests:
            ids = tuple(range(self.next, self.next + len(items)))
            self.next += len(items)
            asked |= dict.fromkeys(ids, topic)
            self.header(
                Kind.REQUEST,
                codec.join_items(items),
                ids=ids,
                count=len(ids),
                destination=topic.rpartition(".")[0],
                topic=topic,
                budget=BUDGET,
                compressed=compressed,
            )
        answers: list[tuple[str, str]] = []
        while asked:
            for header, body in await self.hear(1):
                if not header.ids:
                    continue
                data = codec.unpack_body(body, header.compressed)
                for number, item in zip(header.ids, codec.split_items(data, header.count), strict=True):
                    code = codec.decode_error(item).code if header.kind is Kind.ERROR else ""
                    answers.append((asked.pop(number), code))  # KeyError: answered twice
        return answers


class Place:
    """A node in its cluster, and strangers on its bus."""

    def __init__(self, folder: Path, bus: Client, broker: Broker) -> None:
        self.folder = folder
        self.bus = bus
        self.broker = broker
        self.verbs: dict[str, dict[str, Any]] = {}
        self.strangers: list[Raw] = []

    async def learn(self) -> None:
        """Find out which verbs there are."""
        for party in (await self.bus.call("bus", "status"))["parties"]:
            for service in party["services"]:
                for each in await self.bus.call(service, "describe"):
                    self.verbs[f"{service}.{each['verb']}"] = each

    async def stranger(self, role: Role) -> Raw:
        """Connect somebody whom the broker takes for a user with that role."""
        raw = Raw(self.folder)
        self.strangers.append(raw)
        raw.header(Kind.CONTROL, msgspec.msgpack.encode(Hello()), topic=HELLO)
        ((header, body),) = await raw.hear(1)
        assert header.topic == WELCOME
        raw.name = msgspec.msgpack.decode(body, type=Welcome).name
        (party,) = [each for each in self.broker.router.parties.values() if each.name == raw.name]
        party.role, party.uid = role, NOBODY
        return raw

    async def stands(self) -> Any:
        """Return what nobody without a role may change: the registry, the groups, and every file that is no log."""
        status = await self.bus.call("registry", "status")
        listed = await self.bus.call("registry", "ls", prefix="/")
        node = await self.bus.call("dcm", "node_show")
        groups = await self.bus.call("groups", "ls")
        return status["incarnation"][:2], status["revision"], listed["items"], node, groups, files(self.folder)


def files(folder: Path) -> dict[str, bytes]:
    """Return the files of a state folder but sockets and logs, which grow by themselves."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if "run/" not in name and "log" not in name.lower()}


@asynccontextmanager
async def place(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    """Run a node with a cluster of its own."""
    brokers: list[Broker] = []

    class Seen(Broker):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            brokers.append(self)

    monkeypatch.setattr(broker_service, "Broker", Seen)
    with tempfile.TemporaryDirectory(prefix="cv") as name:
        async with running(Path(name), 1, free_port()) as bus:
            await define_cluster(bus)
            found = Place(Path(name) / "n1", bus, brokers[0])
            await found.learn()
            yield found
            for each in found.strangers:
                each.socket.close()


@pytest.fixture(scope="module")
def runner() -> Iterator[tuple[asyncio.Runner, Place]]:
    """One loop and one node for all tests here; the node stands still between them."""
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as loop:
        stack = AsyncExitStack()
        found = loop.run(stack.enter_async_context(place(patch)))
        yield loop, found
        loop.run(stack.aclose())


ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.sampled_from([0, 1, -1, 2**31, 2**63 - 1, 2**64 - 1, -(2**63), 0.5, 1e308, float("inf"), float("nan")])
    | st.sampled_from(
        ["", "/", "/x", "/nodes/", "n1", "sys.registry", "host", "\0", "..", "../../etc", "x" * 3000, "é"]
    )
    | st.binary(max_size=20),
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(["a", "name", "", "id"]), each, max_size=3)
    ),
    max_leaves=4,
)
NESTED = b"\x91" * 5000 + b"\xc0"
BROKEN = st.one_of(st.binary(max_size=40), st.sampled_from([b"", b"\xc1", NESTED, b"\x81\xa1a" + NESTED, b"\xdf" * 5]))


def fitting(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return values for an argument: mostly of its own type, else anything."""
    kinds = {one.get("type") for one in [schema, *schema.get("anyOf", [])]}
    own: list[st.SearchStrategy[Any]] = [ANY]
    if "integer" in kinds or "number" in kinds:
        own.append(st.sampled_from([0, 1, 2, -1, 77, 2**40, 2**63]))
    if "number" in kinds:
        own.append(st.sampled_from([0.0, 0.01, -1.0, 1e300, float("inf"), float("nan")]))
    if "string" in kinds:
        own += [st.sampled_from(["", "/", "/app/x", "/nodes/1", "n1", "host", "sys.registry", "app", "a" * 300])] * 2
    if "array" in kinds:
        own.append(st.lists(ANY, max_size=3))
    if "object" in kinds:
        own.append(st.dictionaries(st.sampled_from(["name", "a", ""]), ANY, max_size=2))
    if "enum" in schema:
        own.append(st.sampled_from(schema["enum"]))
    return st.one_of(own)


@st.composite
def requests(draw: st.DrawFn, place: Place, role: Role) -> list[tuple[str, list[bytes], bool]]:
    """Return requests to any verbs with arguments and bodies of any kind."""
    made = []
    for topic in draw(st.lists(st.sampled_from(sorted(place.verbs)), min_size=AT_ONCE, max_size=AT_ONCE)):
        known = place.verbs[topic]["arguments"].get("properties", {})
        how = draw(st.integers(0, 9))
        if how < 7 and not (role > Role.LOOK and topic in LEAVES):
            wanted = {name: draw(fitting(schema)) for name, schema in known.items() if draw(st.integers(0, 9)) < 9}
            if how == 6:
                wanted |= {draw(st.sampled_from(["self", "request", "args", "_arguments", "", "x"])): draw(ANY)}
            if "wait" in known and isinstance(wanted.get("wait"), float):
                wanted["wait"] = min(wanted["wait"], 1.0)
            made.append((topic, [codec.encode_item(wanted)], False))
        elif how < 9:
            made.append((topic, [draw(BROKEN)], draw(st.booleans())))
        else:  # a batch: some of it, or all, is nothing
            made.append((topic, [draw(BROKEN), codec.encode_item({"no-such": 1})], draw(st.booleans())))
    return made


def told(records: list[logging.LogRecord]) -> list[str]:
    return [record.getMessage() for record in records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("role", [Role.LOOK, Role.OPERATOR])
def test_whatever_is_asked_is_answered_and_who_may_not_changes_nothing(
    runner: tuple[asyncio.Runner, Place], role: Role, caplog: pytest.LogCaptureFixture
) -> None:
    loop, place = runner
    raw = loop.run(place.stranger(role))
    before = loop.run(place.stands())
    seen: Counter[str] = Counter()
    tried: set[str] = set()

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(requests(place, role))
    def attack(wanted: list[tuple[str, list[bytes], bool]]) -> None:
        answers = loop.run(raw.ask(wanted))
        for topic, code in answers:
            seen[code] += 1
            tried.add(topic)
            assert code != "core.internal", topic
            needed = Role[place.verbs[topic]["role"].upper()]
            assert needed <= role or code == "bus.denied", (topic, code)
        assert not told(caplog.records)
        loop.run(place.bus.call("dcm", "ping"))

    attack()
    after = loop.run(place.stands())
    if role is Role.LOOK:
        assert after == before
    else:
        kept = [
            {name: data for name, data in found[-1].items() if "/registry/" not in name} for found in (before, after)
        ]
        assert kept[0] == kept[1], "an operator may write to the registry alone"
    assert (
        seen["bus.denied"] and seen[""] and seen["core.malformed"] + seen["bus.malformed"] + seen["bus.bad_arguments"]
    )
    assert len(tried) > len(place.verbs) * 0.9
    place.broker.router.check_invariants()


def test_every_kind_of_refusal_is_counted(runner: tuple[asyncio.Runner, Place]) -> None:
    loop, place = runner

    async def main() -> None:
        raw = await place.stranger(Role.LOOK)
        ask = {"destination": "registry", "topic": "registry.put"}
        good = codec.encode_header(Header(Kind.REQUEST, (1,), **ask))
        subscribe = msgspec.msgpack.encode(Subscribe("a*b"))
        far = msgspec.msgpack.encode(Subscribe("x", 77))
        kinds: dict[str, list[tuple[bytes, ...]]] = {
            "malformed": [
                (b"",),
                (b"one frame",),
                (good, b"", b"three"),
                (b"", b""),
                (bytes([PROTOCOL + 1]) + good[1:], b""),
                (good[:-4], b""),
                (b"\x02" + NESTED, b""),
                (b"\x02" + b"x" * codec.MAX_HEADER, b""),
                (codec.encode_header(Header(Kind.REQUEST, (1, 1), count=2, **ask)), b"\x92\x80\x80"),
                (codec.encode_header(Header(Kind.REQUEST, (1, 2, 3), count=2, **ask)), b"\x92\x80\x80"),
                (codec.encode_header(Header(Kind.REQUEST, (-1,), **ask)), b"\x80"),
                (codec.encode_header(Header(Kind.EVENT, topic="x", count=500)), b"\x80"),
                (codec.encode_header(Header(Kind.CONTROL, topic=HELLO)), NESTED),
                (codec.encode_header(Header(Kind.CONTROL, topic=SUBSCRIBE)), NESTED),
            ],
            "unexpected": [(codec.encode_header(Header(Kind.CONTROL, topic="welcome")), b"")],
            "orphan_reply": [
                (codec.encode_header(Header(kind, (9,), destination=f"{name}@1", topic="x.y")), b"\x80")
                for kind in (Kind.REPLY, Kind.ERROR)
                for name in ("registry", "dcm", "nobody", raw.name)
            ],
            "read_refused": [
                (codec.encode_header(Header(Kind.CONTROL, ids, topic=READ)), b"")
                for ids in ((), (1,), (10**9, 10**9), (2**64 - 1, 0))
            ],
            "publish_refused": [(codec.encode_header(Header(Kind.EVENT, topic="registry.leading", sequence=1)), b"")],
            "hello_refused": [
                (codec.encode_header(Header(Kind.CONTROL, topic=HELLO)), msgspec.msgpack.encode(hello))
                for hello in (Hello("registry"), Hello("", True, ("dcm",)), Hello(services=("bus",)), Hello("\0"))
            ],
            "subscribe_refused": [
                (codec.encode_header(Header(Kind.CONTROL, topic=SUBSCRIBE)), body) for body in (subscribe, far)
            ],
            "no_target": [(codec.encode_header(Header(Kind.REQUEST, (5,), "", where, "x.y")), b"") for where in WHERE],
        }
        for name, said in kinds.items():
            await place.bus.call("bus", "ping")
            before = Counter(place.broker.router.counters)
            for frames in said:
                raw.say(*frames)
            until = time.monotonic() + PATIENCE
            while place.broker.router.counters[name] < before[name] + len(said):
                assert time.monotonic() < until, (name, before[name], place.broker.router.counters[name], len(said))
                await asyncio.sleep(0.005)
            after = place.broker.router.counters
            grown = {each for each in kinds if after[each] != before[each]}
            assert (grown, after[name] - before[name]) == ({name}, len(said))
        place.broker.router.check_invariants()

    WHERE = ("nosuch", "@", "registry@77", "registry@x", "registry@1.2.3.4", "x" * 300)
    before = loop.run(place.stands())
    loop.run(main())
    assert loop.run(place.stands()) == before


def test_a_small_body_that_unpacks_to_a_large_one_is_refused(runner: tuple[asyncio.Runner, Place]) -> None:
    loop, place = runner
    raw = loop.run(place.stranger(Role.LOOK))
    large = lz4.block.compress(b"\x00" * (codec.MAX_BODY + 1))
    lying = (2**31).to_bytes(4, "little") + b"\0" * 10
    answers = loop.run(raw.ask([("registry.get", [body], True) for body in (large, lying)]))
    assert [code for _, code in answers] == ["bus.malformed"] * 2
