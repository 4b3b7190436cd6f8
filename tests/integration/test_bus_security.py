"""Two brokers in mode curve, and everybody who should not get in: refused, counted, told, and nothing arrives."""

from __future__ import annotations

import asyncio
import contextlib
import socket as sockets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from covey import errors
from covey.bus import codec, session
from covey.bus.broker import Broker, BrokerSettings
from covey.bus.broker_service import run_broker
from covey.bus.client import Client, connect
from covey.bus.messages import HELLO, Header, Hello, Kind, NodeInfo, Peer, Role
from covey.bus.port import Port
from covey.bus.security import Keys, secure_client
from covey.bus.service import Request, verb
from msgspec import msgpack
from real_nodes import free_port
from tcp_recorder import Recorder

TOPICS = ("door.knock",)
LIMIT = 30


class Door:
    """A service that keeps everything it was ever asked."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, str, str]] = []

    @verb()
    async def knock(self, request: Request, *, word: str = "", long: bytes = b"") -> list[str]:
        """May be asked by everybody."""
        self.heard.append((request.source, request.role.name, request.key, word))
        return [request.source, request.role.name, request.key]

    @verb()
    async def look(self, request: Request, *, word: str = "") -> None:
        """May be asked by peers."""
        self.heard.append((request.source, request.role.name, request.key, word))

    @verb()
    async def hang(self, request: Request) -> None:
        """Is asked, and never answers."""
        self.heard.append((request.source, request.role.name, request.key, "hang"))
        await asyncio.Event().wait()

    def words(self) -> list[str]:
        return [word for *_, word in self.heard]


class Node:
    """A running broker, a client on it, and its keys."""

    def __init__(self, number: int, port: int, keys: Keys | None, broker: Broker, bus: Client) -> None:
        self.number, self.port, self.keys, self.broker, self.bus = number, port, keys, broker, bus
        self.refused: list[dict[str, Any]] = []

    @property
    def peer(self) -> Peer:
        return Peer(f"n{self.number}", (self.place(),), self.keys.public if self.keys else "")

    def place(self, above: int = 0) -> str:
        return f"127.1.0.{self.number}:{self.port + above}"

    def strangers(self) -> str:
        """The join port, as one who knows this node's key dials it."""
        assert self.keys
        return f"{self.place(1)}#{self.keys.public}"

    def know(self, *others: Node, number: int | None = None, boot: str = "boot") -> None:
        own = self.number if number is None else number
        info = NodeInfo(own, f"n{own}", f"id{own}", "c1", "lab", boot)
        self.broker.configure(info, {other.number: other.peer for other in others})

    def count(self, reason: str) -> int:
        return self.broker.router.counters[f"refused_{reason}"]

    def clean(self) -> bool:
        return not any(name.startswith("refused_") for name in self.broker.router.counters)


@asynccontextmanager
async def node(folder: Path, number: int, port: int, keys: Keys | None) -> AsyncIterator[Node]:
    settings = BrokerSettings(
        f"{folder}/{number}/run", (f"127.1.0.{number}/16",), port, keys=keys, join_topics=TOPICS if keys else ()
    )
    async with run_broker(settings) as (broker, _), connect(f"{folder}/{number}") as bus:
        here = Node(number, port, keys, broker, bus)

        async def listen() -> None:
            async for event in bus.subscribe("bus.refused"):
                here.refused.append(event.body)

        listening = asyncio.ensure_future(listen())
        try:
            yield here
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


@asynccontextmanager
async def pair(folder: Path) -> AsyncIterator[tuple[Node, Node, Door]]:
    """Nodes 1 and 2 of one cluster; node 1 has the door."""
    port = free_port()
    door = Door()
    async with (
        node(folder, 1, port, Keys.make()) as one,
        node(folder, 2, port, Keys.make()) as two,
        one.bus.serve("door", door),
    ):
        one.know(two)
        two.know(one)
        yield one, two, door
        one.broker.router.check_invariants()


def run(story: Callable[[], Any]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT):
            await story()

    asyncio.run(limited())


async def until(holds: Callable[[], bool]) -> None:
    while True:
        if holds():
            return
        await asyncio.sleep(0.005)


async def refused_call(bus: Client, node: int | str, verb: str = "look", match: str | None = None) -> None:
    with pytest.raises(errors.Unreachable, match=match):
        await bus.call("door", verb, word="forbidden", node=node, timeout=5)


def test_nodes_of_one_cluster_talk_and_each_knows_the_others_key(folder: Path) -> None:
    async def story() -> None:
        async with pair(folder) as (one, two, _):
            assert two.keys
            assert await two.bus.call("door", "knock", node=1) == [f"{two.bus.name}@2", "ADMIN", two.keys.public]
            assert await one.bus.call("door", "knock") == [f"{one.bus.name}@1", "ADMIN", ""]
            assert one.keys
            assert (await two.bus.call("door", "knock", node=f"{one.place()}#{one.keys.public}"))[2] == two.keys.public
            assert one.clean()
            assert two.clean()
            security = (await one.bus.call("bus", "status"))["security"]
            assert (security["mode"], security["key"], security["trusted"]) == ("curve", one.keys.public, 2)
            assert security["handshakes"] >= 2
            assert one.keys.secret not in str(await one.bus.call("bus", "status"))
            assert one.keys.secret not in str(one.broker.settings)

    run(story)


def test_an_unknown_key_is_refused_counted_and_told(folder: Path) -> None:
    async def story() -> None:
        async with pair(folder) as (one, two, door), node(folder, 3, one.port, Keys.make()) as three:
            three.know(one, two)
            assert three.keys
            await refused_call(three.bus, 1, match="does not trust")
            assert one.count("unknown_key") >= 1
            await until(lambda: bool(one.refused))
            assert one.refused[0] == {
                "reason": "unknown_key",
                "address": "127.1.0.3",
                "key": three.keys.public,
                "count": 1,
            }
            assert door.heard == []
            await two.bus.call("door", "knock", node=1)

    run(story)


def test_the_key_of_a_node_that_was_undefined_is_refused(folder: Path) -> None:
    async def story() -> None:
        async with pair(folder) as (one, two, door):
            one.know()
            await refused_call(two.bus, 1, match="does not trust")
            assert one.count("revoked") >= 1
            assert one.count("unknown_key") == 0
            assert door.heard == []

    run(story)


def test_a_right_key_with_the_number_of_another_node_is_refused(folder: Path) -> None:
    async def story() -> None:
        async with pair(folder) as (one, two, door), node(folder, 3, one.port, Keys.make()) as three:
            one.know(two, three)
            two.know(one, number=3)
            await refused_call(two.bus, 1)
            assert one.count("wrong_node") >= 1
            await until(lambda: any(told["reason"] == "wrong_node" for told in one.refused))
            assert door.heard == []
            two.know(one)
            await two.bus.call("door", "knock", node=1)

    run(story)


def test_a_node_cannot_change_its_number_on_a_connection_that_stands(folder: Path) -> None:
    async def story() -> None:
        async with pair(folder) as (one, two, door), node(folder, 3, one.port, Keys.make()) as three:
            one.know(two, three)
            await two.bus.call("door", "knock", word="mine", node=1)
            hang = asyncio.ensure_future(two.bus.call("door", "hang", node=1, timeout=20))
            await until(lambda: "hang" in door.words())
            two.know(one, number=3)
            with pytest.raises(errors.Unreachable):
                await hang
            await refused_call(two.bus, 1)
            assert one.count("wrong_node") >= 1
            assert door.words() == ["mine", "hang"]

    run(story)


def test_a_peer_without_encryption_is_refused(folder: Path) -> None:
    async def story() -> None:
        async with pair(folder) as (one, _, door), node(folder, 3, one.port, None) as three:
            three.know(one)
            for _ in range(50):
                await refused_call(three.bus, 1, match="handshake")
                if one.count("null"):
                    break
            assert one.count("null") >= 1
            assert door.heard == []
            with pytest.raises(errors.UsageError, match="mode open"):
                await three.bus.call("door", "look", node=one.strangers())

    run(story)


def test_who_is_not_the_one_it_should_be_is_not_spoken_with(folder: Path) -> None:
    """The dialling side proves the listener, too: somebody else at the address of node 1 learns nothing."""

    async def story() -> None:
        async with pair(folder) as (one, two, door):
            two.broker.configure(
                two.broker.router.node,
                {1: Peer("n1", (one.place(),), Keys.make().public), 4: Peer("n4", (one.place(),))},
            )
            await refused_call(two.bus, 1, match="handshake")
            assert one.count("wrong_key") >= 1
            await refused_call(two.bus, 4, match="no key of n4 is known")
            with pytest.raises(errors.UsageError, match="key of the node there is needed"):
                await two.bus.call("door", "look", node=one.place())
            assert door.heard == []

    run(story)


def test_revocation_ends_what_is_under_way_on_both_sides(folder: Path) -> None:
    async def story() -> None:
        other = Door()
        async with pair(folder) as (one, two, door), two.bus.serve("door", other):
            there = asyncio.ensure_future(two.bus.call("door", "hang", node=1, timeout=20))
            back = asyncio.ensure_future(one.bus.call("door", "hang", node=2, timeout=20))
            await until(lambda: bool(door.heard) and bool(other.heard) and bool(one.broker.callers.users()))
            one.know()
            with pytest.raises(errors.Unreachable, match="no peer of this node any more"):
                await back
            with pytest.raises(errors.Unreachable):
                await there
            assert one.broker.callers.users() == {}
            assert one.broker.router.callers == {}
            assert one.broker.links.state() == []
            await refused_call(two.bus, 1)
            one.know(two)
            await two.bus.call("door", "knock", node=1)

    run(story)


class Hostile:
    """A peer that speaks the protocol by hand, with a good key, and does not stop when it is told to."""

    def __init__(self, target: Node, keys: Keys, place: str) -> None:
        assert target.keys
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        secure_client(self.socket, keys, target.keys.public)
        self.answers: list[list[bytes]] = []
        self.port = Port(self.socket, lambda frames: self.answers.append([frame.bytes for frame in frames]))
        self.socket.connect(f"tcp://{place}")
        self.number, self.sequence, self.attempt = 4711, 0, 0

    def open(self) -> None:
        self.attempt += 1
        self.sequence = 0
        self.port.send([session.frame(session.OPEN, self.number, self.attempt)])

    def say(self, header: Header, body: object = None) -> None:
        self.sequence += 1
        data = session.frame(session.DATA, self.number, self.sequence)
        self.port.send([data, codec.encode_header(header), msgpack.encode(body)])

    def hello(self, number: int) -> None:
        self.say(Header(Kind.CONTROL, topic=HELLO), Hello(node=NodeInfo(number, "x", "x", "c1", "lab", "b")))

    def ask(self, source: str, word: str, verb: str = "knock", **more: Any) -> None:
        header = Header(
            Kind.REQUEST, (self.sequence + 1,), source, "door@1", f"door.{verb}", role=Role.COMPONENT, uid=0, **more
        )
        self.say(header, {"word": word})

    def close(self) -> None:
        self.port.close()
        self.context.destroy(0)


def test_a_revoked_peer_that_goes_on_talking_is_not_heard(folder: Path) -> None:
    """Its connection still stands, for ZeroMQ cannot close one of many; its key is looked at in every message."""

    async def story() -> None:
        async with pair(folder) as (one, two, door):
            assert two.keys
            evil = Hostile(one, two.keys, one.place())
            try:
                evil.open()
                evil.hello(2)
                evil.ask("dcm@2", "while trusted")
                await until(lambda: door.words() == ["while trusted"])
                assert door.heard[0] == ("dcm@2", "COMPONENT", two.keys.public, "while trusted")
                one.know()
                before = len(evil.answers)
                for number in range(5):
                    evil.ask("dcm@2", "afterwards")
                    evil.number += number
                    evil.open()
                    evil.hello(2)
                    evil.ask("dcm@2", "anew")
                await until(lambda: one.count("revoked") >= 20)
                await asyncio.sleep(0.05)
                assert door.words() == ["while trusted"]
                assert len(evil.answers) <= before + 2  # it was told that it is cut off, and nothing more
                assert [told["reason"] for told in one.refused] == ["revoked"]
                one.know(two)
                evil.open()
                evil.hello(2)
                evil.ask("dcm@2", "trusted again")
                await until(lambda: door.words() == ["while trusted", "trusted again"])
            finally:
                evil.close()

    run(story)


@pytest.mark.parametrize("number", [0, 1, 3, 99, -2])
def test_a_peer_that_says_by_hand_that_it_is_another_is_not_heard(folder: Path, number: int) -> None:
    async def story() -> None:
        async with pair(folder) as (one, two, door), node(folder, 3, one.port, Keys.make()) as three:
            one.know(two, three)
            assert two.keys
            evil = Hostile(one, two.keys, one.place())
            try:
                evil.open()
                evil.hello(number)
                evil.ask(f"dcm@{number}", "forbidden")
                await until(lambda: one.count("wrong_node") == 1)
                evil.number += 1
                evil.open()
                evil.ask(f"dcm@{number}", "without hello")
                evil.hello(2)
                evil.ask(f"dcm@{number}", "as another")
                await until(lambda: one.broker.router.counters["forged_source"] == 1)
                evil.ask("dcm@2", "as itself")
                await until(lambda: bool(door.heard))
                assert door.words() == ["as itself"]
            finally:
                evil.close()

    run(story)


def test_until_a_broker_knows_its_node_it_lets_nobody_in(folder: Path) -> None:
    async def story() -> None:
        port = free_port()
        async with node(folder, 1, port, Keys.make()) as one, node(folder, 2, port, Keys.make()) as two:
            two.know(one)
            await refused_call(two.bus, 1)
            assert one.count("not_ready") >= 1
            one.know(two)
            with pytest.raises(errors.NoService):
                await two.bus.call("door", "knock", node=1)

    run(story)


# --- the join port --------------------------------------------------------------------------------------------------


def test_a_stranger_may_ask_the_few_verbs_and_is_nobody_but_its_key(folder: Path) -> None:
    async def story() -> None:
        async with pair(folder) as (one, _, door), node(folder, 3, one.port, Keys.make()) as three:
            assert three.keys
            said = await three.bus.call("door", "knock", node=one.strangers())
            assert said == ["join-1@0", "LOOK", three.keys.public]
            three.know(number=1)  # in a cluster of its own: here it is nobody all the same
            async with connect(f"{folder}/3", name="dcm") as dcm:
                source, role, key = await dcm.call("door", "knock", node=one.strangers())
            assert (role, key) == ("LOOK", three.keys.public)
            assert source.startswith("join-")
            for verb in ("look", "hang", "describe"):
                with pytest.raises(errors.Timeout):
                    await three.bus.call("door", verb, node=one.strangers(), timeout=0.1)
            with pytest.raises(errors.Timeout):
                await three.bus.call("bus", "status", node=one.strangers(), timeout=0.1)
            assert one.count("join_topic") == 4
            assert door.words() == ["", ""]
            await until(lambda: bool(one.refused))
            assert one.refused[0]["reason"] == "join_topic"
            assert one.refused[0]["key"] == three.keys.public
            await refused_call(
                three.bus, f"{one.place()}#{one.keys.public if one.keys else ''}", match="does not trust"
            )

    run(story)


def test_answers_of_one_stranger_do_not_reach_another(folder: Path) -> None:
    async def story() -> None:
        port = free_port()
        async with pair(folder) as (one, two, _), contextlib.AsyncExitStack() as stack:
            others = [await stack.enter_async_context(node(folder, n, port, Keys.make())) for n in (3, 4, 5)]
            asked = [
                (other, other.bus.call("door", "knock", node=one.strangers()))
                for other in [two, *others]
                for _ in range(3)
            ]
            for other, call in asked:
                assert other.keys
                assert (await call)[2] == other.keys.public

    run(story)


def test_a_stranger_that_asks_too_often_gets_no_answer_and_others_do(folder: Path) -> None:
    async def story() -> None:
        port = free_port()
        async with (
            pair(folder) as (one, _, door),
            node(folder, 3, port, Keys.make()) as three,
            node(folder, 4, port, Keys.make()) as four,
        ):
            flood = []
            for number in range(100):
                call = three.bus.call("door", "knock", word=f"{number}", node=one.strangers(), timeout=1)
                flood.append(asyncio.ensure_future(call))
                await asyncio.sleep(0)
            await until(lambda: one.count("join_rate") > 50)
            await four.bus.call("door", "knock", node=one.strangers())
            answers = await asyncio.gather(*flood, return_exceptions=True)
            assert sum(isinstance(answer, errors.Timeout) for answer in answers) > 50
            assert 5 <= len(door.heard) < 50
            assert {told["reason"] for told in one.refused} == {"join_rate"}

    run(story)


def test_a_large_frame_ends_a_strangers_connection(folder: Path) -> None:
    async def story() -> None:
        async with pair(folder) as (one, two, door), node(folder, 3, one.port, Keys.make()) as three:
            with pytest.raises((errors.Unreachable, errors.Timeout)):
                await three.bus.call("door", "knock", word="x" * 10, long=b"y" * 5000, node=one.strangers(), timeout=1)
            assert door.heard == []
            await two.bus.call("door", "knock", node=1)

    run(story)


@pytest.mark.parametrize("above", [0, 1], ids=["peer-port", "join-port"])
def test_garbage_in_a_session_is_counted_and_hurts_nobody(folder: Path, above: int) -> None:
    async def story() -> None:
        async with pair(folder) as (one, two, door):
            assert two.keys
            evil = Hostile(one, Keys.make() if above else two.keys, one.place(above))
            try:
                evil.open()
                for frames in ([b""], [b"\0"], [b"x" * 34], [b"\1" * 34, b"", b""], [b"", b"", b"", b""]):
                    evil.port.send(frames)
                evil.sequence += 1
                evil.port.send([session.frame(session.DATA, evil.number, evil.sequence), b"\xff\xff", b"\xc1"])
                evil.sequence += 1
                evil.port.send([session.frame(session.DATA, evil.number, evil.sequence), b"", b""])
                if above:
                    await until(lambda: one.count("join_malformed") == 2)
                else:
                    await until(lambda: one.broker.router.counters["malformed"] >= 2)
                await two.bus.call("door", "knock", node=1)
            finally:
                evil.close()
            assert door.words() == [""]

    run(story)


def test_a_stranger_that_never_stops_does_not_hold_up_the_peers(folder: Path) -> None:
    async def story() -> None:
        async with pair(folder) as (one, two, _):
            evil = Hostile(one, Keys.make(), one.place(1))
            evil.socket.setsockopt(zmq.SNDHWM, 10)
            stop = False

            async def flood() -> None:
                while not stop:
                    with contextlib.suppress(zmq.Again):
                        for _ in range(200):
                            evil.port.send([b"garbage"])
                    await asyncio.sleep(0)

            flooding = asyncio.ensure_future(flood())
            try:
                await until(lambda: one.broker.join_port._counters["malformed"] >= 100)  # type: ignore[union-attr]
                before = one.broker.join_port._counters["malformed"]  # type: ignore[union-attr]
                began = asyncio.get_running_loop().time()
                for _ in range(50):
                    await two.bus.call("door", "knock", node=1)
                took = asyncio.get_running_loop().time() - began
                read = one.broker.join_port._counters["malformed"] - before  # type: ignore[union-attr]
                assert read <= 1500 + 600 * took  # what the port's rate allows, and no more
            finally:
                stop = True
                await flooding
                evil.close()

    run(story)


def test_connections_that_only_stay_do_not_keep_a_stranger_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covey.bus.join_port.MOST_OPEN", 20)

    async def story() -> None:
        async with pair(folder) as (one, two, _), node(folder, 3, one.port, Keys.make()) as three:
            raw = [sockets.create_connection(("127.1.0.1", one.port + above)) for above in (0, 1) for _ in range(100)]
            try:
                await two.bus.call("door", "knock", node=1)
                await three.bus.call("door", "knock", node=one.strangers())
                await until(lambda: one.count("join_full") == 1)
                await until(lambda: one.broker.join_port.state()["renewed"] == 1)  # type: ignore[union-attr]
                for _ in range(3):
                    with contextlib.suppress(errors.Unreachable):  # it was cut off with the others
                        await three.bus.call("door", "knock", node=one.strangers())
                        break
                else:
                    pytest.fail("the join port does not come back")
                await two.bus.call("door", "knock", node=1)
            finally:
                for each in raw:
                    each.close()

    run(story)


def test_what_was_said_once_cannot_be_said_again_by_another(folder: Path) -> None:
    """All bytes of an honest session, recorded on the wire and played again: nothing arrives a second time."""

    async def story() -> None:
        async with pair(folder) as (one, two, door):
            with Recorder(("127.1.0.1", one.port)) as proxy:
                peer = Peer("n1", (f"127.0.0.1:{proxy.port}",), one.peer.key)
                two.broker.configure(two.broker.router.node, {1: peer})
                await two.bus.call("door", "knock", word="pay 100", node=1)
                assert door.words() == ["pay 100"]
                assert b"pay 100" not in b"".join(b"".join(pieces) for pieces in proxy.sent)
                for pieces in (True, False):
                    await asyncio.to_thread(proxy.play, 0, pieces=pieces)
                assert door.words() == ["pay 100"]
                await two.bus.call("door", "knock", word="pay 1", node=1)
            assert door.words() == ["pay 100", "pay 1"]

    run(story)
