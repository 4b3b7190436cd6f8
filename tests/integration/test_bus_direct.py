"""Links of a party's own, on real sockets and with real keys: who gets through, and everybody who must not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import zmq
from covey.bus import codec, direct
from covey.bus.direct import Direct
from covey.bus.messages import HELLO, Header, Hello, Kind, NodeInfo, Peer
from covey.bus.port import Port
from covey.bus.security import Keys, secure_client
from covey.bus.session import DATA, OPEN, frame
from covey.errors import Unreachable

LIMIT = 30
HELLO_HEAD = codec.encode_header(Header(Kind.CONTROL, topic=HELLO))
HEAD = codec.encode_header(Header(Kind.REQUEST, topic="word"))


class End:
    """One node's party."""

    def __init__(self, number: int, keys: Keys | None, cluster: str = "c1", host: int = 0) -> None:
        self.number, self.keys = number, keys
        self.heard: list[tuple[int, bytes]] = []
        self.changes: list[tuple[int, bool]] = []
        self.refused: list[str] = []
        self.host = f"127.1.0.{host or number}"
        place = NodeInfo(number, f"n{number}", f"id{number}", cluster)
        self.direct = Direct(
            "registry",
            place,
            [f"{self.host}/16"],
            keys,
            lambda node, header, body: self.heard.append((node, bytes(body))),
            lambda: None,
            lambda node, up, reason: self.changes.append((node, up)),
            lambda refusal: self.refused.append(refusal.reason),
        )

    @property
    def peer(self) -> Peer:
        """As the cluster defines it: the port is its broker's."""
        return Peer(f"n{self.number}", (f"{self.host}:7400",), self.keys.public if self.keys else "")

    def know(self, *others: End) -> None:
        self.direct.configure({each.number: each.peer for each in others}, [each.number for each in others])

    def say(self, to: int, word: str) -> None:
        self.direct.send(to, [HEAD, word.encode()])


@asynccontextmanager
async def ends(*made: End) -> AsyncIterator[None]:
    try:
        yield
    finally:
        for each in made:
            await each.direct.close()


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(LIMIT):
            await story()

    asyncio.run(limited())


async def until(holds: Callable[[], object]) -> None:
    while True:
        if holds():
            return
        await asyncio.sleep(0.005)


def pair(curve: bool) -> tuple[End, End]:
    one, two = (End(number, Keys.make() if curve else None) for number in (1, 2))
    one.know(two)
    two.know(one)
    return one, two


async def link(one: End, two: End) -> None:
    """Tell one where the other is, and wait until both can speak."""
    one.direct.reach(2, two.direct.endpoints)
    await until(lambda: one.direct.ready(2) and two.direct.ready(1))


@pytest.mark.parametrize("curve", [True, False])
def test_two_talk_over_one_session_as_soon_as_one_knows_where_the_other_is(curve: bool) -> None:
    async def story() -> None:
        one, two = pair(curve)
        async with ends(one, two):
            two.direct.reach(1, one.direct.endpoints)  # the one with the higher number does not dial
            assert not one.direct.ready(2) and not two.direct.ready(1)
            with pytest.raises(Unreachable):
                two.say(1, "nothing stands yet")
            await link(one, two)
            for number in range(100):
                one.say(2, f"a{number}")
                two.say(1, f"b{number}")
            await until(lambda: len(one.heard) == len(two.heard) == 100)
            assert two.heard == [(1, f"a{number}".encode()) for number in range(100)]
            assert one.heard == [(2, f"b{number}".encode()) for number in range(100)]
            assert (one.changes, two.changes) == ([(2, True)], [(1, True)])
            assert one.direct.state(2)["messages_out"] == two.direct.state(1)["messages_in"] == 101
            assert one.direct.state(7) == {}
        assert two.changes in ([(1, True)], [(1, True), (1, False)])

    run(story)


def test_a_party_that_was_started_anew_is_found_at_its_new_port() -> None:
    async def story() -> None:
        one, two = pair(True)
        async with ends(one):
            one.direct.reach(2, two.direct.endpoints)
            await until(lambda: one.direct.ready(2))
            await two.direct.close()
            await until(lambda: not one.direct.ready(2))
            again = End(2, two.keys)
            async with ends(again):
                again.know(one)
                one.direct.reach(2, again.direct.endpoints)
                await until(lambda: one.direct.ready(2) and again.direct.ready(1))
                one.say(2, "there you are")
                await until(lambda: again.heard)
            assert one.changes[:3] == [(2, True), (2, False), (2, True)]

    run(story)


def test_a_key_that_is_revoked_cuts_the_link_on_both_sides_and_brings_nothing_more() -> None:
    async def story() -> None:
        for cutter in (0, 1):
            one, two = both = pair(True)
            async with ends(*both):
                await link(one, two)
                both[cutter].know()
                assert not both[cutter].direct.ready(2 - cutter)
                await until(lambda: len(one.changes) == len(two.changes) == 2)  # noqa: B023
                assert not one.direct.ready(2) and not two.direct.ready(1)
                one.direct.reach(2, two.direct.endpoints)
                if cutter:
                    await until(lambda: "revoked" in two.refused)  # noqa: B023
                assert not one.direct.ready(2) and not two.direct.ready(1)
                assert not two.heard and not one.heard

    run(story)


def test_who_is_wanted_no_more_is_cut_though_its_key_is_good() -> None:
    async def story() -> None:
        for cutter in (0, 1):
            one, two = both = pair(True)
            async with ends(*both):
                await link(one, two)
                both[cutter].direct.configure({2 - cutter: both[1 - cutter].peer}, [])
                await until(lambda: not one.direct.ready(2) and not two.direct.ready(1))  # noqa: B023

    run(story)


def test_a_strangers_key_is_refused() -> None:
    async def story() -> None:
        one, two = pair(True)
        stranger = End(1, Keys.make())
        stranger.know(two)
        async with ends(one, two, stranger):
            stranger.direct.reach(2, two.direct.endpoints)
            await until(lambda: "unknown_key" in two.refused)
            assert not two.changes and not two.heard and not stranger.direct.ready(2)
            assert two.direct.counters["refused_unknown_key"] >= 1

    run(story)


def test_the_key_of_one_node_does_not_speak_for_another() -> None:
    async def story() -> None:
        two, three = End(2, Keys.make()), End(3, Keys.make())
        one = End(1, Keys.make())
        liar = End(1, two.keys, host=2)  # node 2 says that it is node 1
        for each, others in ((three, (one, two)), (liar, (three,))):
            each.know(*others)
        async with ends(one, two, three, liar):
            liar.direct.reach(3, three.direct.endpoints)
            await until(lambda: "wrong_node" in three.refused)
            assert not three.changes and not three.direct.ready(1) and not three.direct.ready(2)

    run(story)


def test_who_has_another_key_than_the_node_that_is_dialled_is_not_spoken_with() -> None:
    async def story() -> None:
        one, two = pair(True)
        other = End(2, Keys.make())  # where node 2 was, somebody else listens now
        other.know(one)
        async with ends(one, two, other):
            one.direct.reach(2, other.direct.endpoints)
            await until(lambda: other.direct.counters["refused_wrong_key"])
            assert not one.changes and not other.changes

    run(story)


@pytest.mark.parametrize("number, cluster", [(2, "c2"), (3, "c1")])
def test_in_mode_open_number_and_cluster_must_be_right_on_both_sides(number: int, cluster: str) -> None:
    async def story() -> None:
        one, two = End(1, None), End(2, None)
        other = End(number, None, cluster, host=2)
        one.know(two)
        other.know(one)
        async with ends(one, two, other):
            one.direct.reach(2, other.direct.endpoints)
            await until(lambda: one.direct.counters["refused_stranger"] + other.direct.counters["refused_stranger"])
            assert not one.direct.ready(2) and not one.changes

    run(story)


def test_nobody_is_sent_to_an_address_that_is_not_the_nodes_own() -> None:
    async def story() -> None:
        one, two = pair(True)
        async with ends(one, two):
            elsewhere = [each.replace("127.1.0.2", "127.1.0.9") for each in two.direct.endpoints]
            for places in (elsewhere, ["nowhere"], ["127.1.0.2:0"], [], ["127.1.0.2:x", "[::1]:7"]):
                one.direct.reach(2, places)
                one.direct.reach(9, two.direct.endpoints)
                assert not one.direct._places and not one.direct._links.links
            one.direct.reach(2, [*elsewhere * 40, *two.direct.endpoints])
            assert not one.direct._places, "no more are looked at than any node has"
            one.direct.reach(2, [*elsewhere, *two.direct.endpoints])
            await until(lambda: two.direct.ready(1))

    run(story)


def test_what_does_not_say_hello_is_not_heard() -> None:
    async def story() -> None:
        one, two = pair(True)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        socket = context.socket(zmq.DEALER)
        assert one.keys and two.keys
        secure_client(socket, one.keys, two.keys.public)
        answers: list[list[zmq.Frame]] = []
        socket.connect(f"tcp://{two.direct.endpoints[0]}")
        raw = Port(socket, answers.append)
        async with ends(one, two):
            raw.send([frame(OPEN, 5, 1)])
            await until(lambda: answers)
            hello = msgspec.msgpack.encode(Hello(node=NodeInfo(1, cluster_id="c1")))
            said = [(HEAD, b"early"), (b"\x07junk", b""), (HELLO_HEAD, b"\xc1"), (HELLO_HEAD, b"x" * 20_000)]
            said += [(codec.encode_header(Header(Kind.CONTROL, topic="x")), hello), (HEAD, b"still nobody")]
            for number, (head, body) in enumerate(said, 1):
                raw.send([frame(DATA, 5, number), head, body])
            await until(lambda: two.direct.counters["malformed"] == 4)
            assert not two.heard and not two.changes
            raw.send([frame(DATA, 5, 7), HELLO_HEAD, hello])
            raw.send([frame(DATA, 5, 8), HEAD, b"node 1"])
            await until(lambda: two.heard)
            assert two.heard == [(1, b"node 1")]
        raw.close()
        context.term()

    run(story)


def test_addresses_of_both_families_are_told_as_they_are_written() -> None:
    async def story() -> None:
        one = End(1, None)
        six = Direct(
            "registry", NodeInfo(3, cluster_id="c1"), ["::1/128", "127.1.0.3/16"], None, *[lambda *_: None] * 4
        )  # type: ignore[list-item]
        async with ends(one):
            hosts = [each.rpartition(":")[0] for each in six.endpoints]
            assert hosts == ["[::1]", "127.1.0.3"]
            one.direct.configure({3: Peer("n3", ("[::1]:7400",))}, [3])
            six.configure({1: one.peer}, [1])
            one.direct.reach(3, six.endpoints)
            await until(lambda: one.direct.ready(3))
            await six.close()

    run(story)


def test_a_port_that_cannot_be_had_leaves_nothing_behind() -> None:
    async def story() -> None:
        with pytest.raises(Exception, match="cannot listen on"):
            Direct("registry", NodeInfo(1), ["192.0.2.1/24"], Keys.make(), *[lambda *_: None] * 4)  # type: ignore[list-item]

    run(story)


def test_a_link_that_was_not_heard_for_a_moment_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        one, two = pair(False)
        async with ends(one, two):
            one.direct.reach(2, two.direct.endpoints)
            await until(lambda: one.direct.ready(2))
            monkeypatch.setattr(direct, "FRESH", 0.0)
            assert not one.direct.ready(2)
            monkeypatch.setattr(direct, "FRESH", 5.0)
            assert one.direct.ready(2) and one.changes == [(2, True)]

    run(story)
