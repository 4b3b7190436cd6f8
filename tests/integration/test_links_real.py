"""Links and callers on real sockets: a way that is cut, stalled, refused; a peer that is started anew; strangers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import pytest
import zmq
from covey.bus import dialler, session
from covey.bus.callers import Callers
from covey.bus.dialler import IDLE_LIMIT
from covey.bus.links import BY_ADDRESS, Links, why_not
from covey.bus.messages import Kind, Peer
from covey.bus.window import MESSAGES
from covey.errors import CoveyError, Unreachable
from real_nodes import free_port
from tcp_proxy import Proxy

HOST = "127.1.0.1"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter than the real times."""
    monkeypatch.setattr(session, "HEARTBEAT", 0.4)
    monkeypatch.setattr(session, "SILENT", 2.0)
    monkeypatch.setattr(dialler, "SILENT", 2.0)
    monkeypatch.setattr(dialler, "DIAL_LIMIT", 0.5)


class End:
    """A broker's outer half: what it heard, and what it was told of its connections."""

    def __init__(self, address: str = "") -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.heard: list[bytes] = []
        self.bodies: list[bytes] = []
        self.ups = 0
        self.downs: list[tuple[float, str, bool]] = []
        self.gone: list[tuple[float, str]] = []
        self.keys: list[bytes] = []
        self.peer = Peer("peer", (address,))
        self.links = Links(
            self.context,
            (),
            lambda key: self.peer if isinstance(key, int) else Peer("", (key,)),
            lambda: [b"hello", b""],
            lambda _, frames: self._got(frames),
            lambda _: self._up(),
            lambda _, reason, reached: self.downs.append((monotonic(), reason, reached)),
        )
        self.callers = Callers(self.context, self._called, self._down)

    def send(self, text: str, body: Any = b"") -> None:
        self.links.send(2, Kind.REQUEST, [text.encode(), body])

    def answer(self, text: str) -> None:
        self.callers.send(self.keys[-1], Kind.REPLY, [text.encode(), b""])

    def die(self) -> None:
        """End as a killed process does: without a goodbye."""
        if self.callers._timer:
            self.callers._timer.cancel()
        assert self.callers._port
        self.callers._port.close(0)
        self.callers._port = None

    def close(self) -> None:
        self.links.close()
        self.callers.close()
        self.context.term()

    def _got(self, frames: list[zmq.Frame]) -> None:
        self.heard.append(frames[0].bytes)
        self.bodies.append(frames[1].bytes)

    def _called(self, key: bytes, frames: list[zmq.Frame], user: str | None) -> None:
        assert user is None
        if key not in self.keys:
            self.keys.append(key)
        self._got(frames)

    def _up(self) -> None:
        self.ups += 1

    def _down(self, key: bytes, reason: str) -> None:
        if key in self.keys:
            self.keys.remove(key)
        self.gone.append((monotonic(), reason))


@asynccontextmanager
async def ends() -> AsyncIterator[tuple[End, End, Proxy]]:
    """One end that dials another through a proxy."""
    port = free_port()
    two = End()
    two.callers.listen([f"{HOST}:{port}"])
    async with Proxy(HOST, (HOST, port)) as proxy:
        one = End(f"{HOST}:{proxy.port}")
        try:
            yield one, two, proxy
        finally:
            one.close()
            two.close()
            await asyncio.sleep(0)


async def until(holds: Callable[[], object]) -> None:
    while True:
        if holds():
            return
        await asyncio.sleep(0.002)


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await story()

    asyncio.run(limited())


def names(prefix: str, count: int) -> list[bytes]:
    return [f"{prefix}{number}".encode() for number in range(count)]


def test_a_way_that_is_cut_again_and_again_loses_and_doubles_nothing() -> None:
    async def story() -> None:
        async with ends() as (one, two, proxy):
            one.send("a0")
            await until(lambda: two.keys)
            heard = 0
            for number in range(1, 3000):
                one.send(f"a{number}", b"x" * (number % 5000))
                two.answer(f"b{number}")
                if number % 500 == 250:
                    await until(lambda: len(one.heard) > heard)  # noqa: B023  5 s without any way of use end a link
                    heard = len(one.heard)
                    proxy.cut()
                if number % 20 == 0:
                    await asyncio.sleep(0.001)
            await until(lambda: len(two.heard) >= 3001 and len(one.heard) >= 2999)
            await asyncio.sleep(0.1)
            assert two.heard == [b"hello", *names("a", 3000)]
            assert [len(body) for body in two.bodies[1:]] == [0, *(number % 5000 for number in range(1, 3000))]
            assert one.heard == names("b", 3000)[1:]
            assert (one.ups, one.downs, two.gone) == (1, [], [])
            assert proxy.connections > 2
            (state,) = one.links.state()
            assert 1 <= state["resumed"] < proxy.connections and state["up"]

    run(story)


def test_a_link_that_stalls_while_its_node_is_vouched_for_ends_when_it_is_not_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "WORRY", 0.3)

    async def story() -> None:
        async with ends() as (one, two, proxy):
            one.send("a0")
            await until(lambda: two.keys and not one.links.state()[0]["waiting"])
            one.links.hush({2})
            (state,) = one.links.state()
            await until(lambda: one.links.state()[0]["rtt"] != state["rtt"])  # the other side knows
            proxy.stall("up", "down")
            assert one.links.state()[0]["calm"] and not one.downs
            one.links.hush(())
            await until(lambda: one.downs)
            assert "nothing was heard" in one.downs[0][1]

    run(story)


@pytest.mark.parametrize("ways", [("up", "down"), ("up",), ("down",)])
def test_a_stalled_way_is_told_on_both_sides_in_time_and_traffic_resumes(ways: tuple[str, ...]) -> None:
    async def story() -> None:
        async with ends() as (one, two, proxy):
            one.send("a0")
            await until(lambda: two.keys)
            two.answer("b0")
            await until(lambda: one.heard)
            proxy.stall(*ways)
            stalled = monotonic()
            for number in range(1, 50):
                one.send(f"a{number}")
                two.answer(f"b{number}")
            await until(lambda: one.downs and two.gone)
            assert one.downs[0][0] - stalled < 4.0  # the limit, a look, and a busy machine
            assert two.gone[0][0] - stalled < 4.0
            assert one.downs[0][2], "it may have happened"
            proxy.heal()
            one.send("again")
            await until(lambda: b"again" in two.heard)
            two.answer("yes")
            await until(lambda: b"yes" in one.heard)
            for heard in (one.heard, two.heard):
                only = [text for text in heard if text != b"hello"]
                assert len(only) == len(set(only)), "nothing is applied twice"
            assert one.ups == 2

    run(story)


def test_a_refusal_is_told_at_once_and_nothing_happened() -> None:
    async def story() -> None:
        async with ends() as (one, two, proxy):
            proxy.refuse()
            begun = monotonic()
            one.send("a0")
            await until(lambda: one.downs)
            _, reason, reached = one.downs[0]
            assert "connection refused" in reason and not reached
            assert monotonic() - begun < 1.0
            await proxy.listen()
            one.send("a1")
            await until(lambda: two.heard == [b"hello", b"a1"])

    run(story)


def test_a_peer_that_died_is_told_at_once_and_found_again() -> None:
    async def story() -> None:
        port = free_port()
        one, two = End(f"{HOST}:{port}"), End()
        two.callers.listen([f"{HOST}:{port}"])
        one.send("a0")
        await until(lambda: two.keys)
        died = monotonic()
        two.die()
        await until(lambda: one.downs)
        assert "refused" in one.downs[0][1] and one.downs[0][2]
        assert monotonic() - died < 1.9  # not by silence
        three = End()
        three.callers.listen([f"{HOST}:{port}"])
        one.send("a1")
        await until(lambda: three.heard == [b"hello", b"a1"])
        for each in (one, two, three):
            each.close()

    run(story)


def test_a_peer_that_was_started_anew_while_the_way_was_cut_says_so() -> None:
    async def story() -> None:
        async with ends() as (one, two, proxy):
            one.send("a0")
            await until(lambda: two.keys)
            proxy.cut()
            two.callers._acceptor.sessions.clear()
            two.callers._acceptor._connections.clear()
            await until(lambda: one.downs)
            assert "anew" in one.downs[0][1]
            one.send("a1")
            await until(lambda: two.heard[-2:] == [b"hello", b"a1"])

    run(story)


def test_an_orderly_end_is_told_at_once_on_either_side() -> None:
    async def story() -> None:
        async with ends() as (one, two, _):
            one.send("a0")
            await until(lambda: two.keys)
            one.links.close()
            await until(lambda: two.gone)
            assert two.gone[0][1] == "the other side ended"
            one.send("a1")
            await until(lambda: two.keys)
            two.callers.close()
            await until(lambda: one.downs)
            assert one.downs[0][1] == "the other side ended"
            with pytest.raises(Unreachable):
                two.callers.send(b"\0" * 8, Kind.REPLY, [b"", b""])

    run(story)


def test_large_bodies_are_sent_again_whole() -> None:
    async def story() -> None:
        async with ends() as (one, two, proxy):
            blob = os.urandom(3_000_000)
            one.send("a0")
            await until(lambda: two.keys)
            for number in range(1, 7):
                one.send(f"a{number}", zmq.Frame(blob) if number % 2 else blob)
                if number == 3:
                    await asyncio.sleep(0.005)
                    proxy.cut()
            await until(lambda: len(two.heard) == 8)
            assert two.heard[1:] == names("a", 7)
            assert all(body == blob for body in two.bodies[2:])

    run(story)


def test_an_idle_link_is_closed_with_a_goodbye_and_a_kept_one_is_not() -> None:
    async def story() -> None:
        async with ends() as (one, two, _):
            one.links.keep({2})
            await until(lambda: two.keys)
            link = one.links.links[2]
            await until(lambda: not link.dialler.session or not link.dialler.session.waiting)
            link.dialler.used -= IDLE_LIMIT
            one.links.sweep(set())
            assert one.links.up(2)
            one.links.keep(set())
            link.dialler.used -= IDLE_LIMIT
            one.links.sweep(set())
            assert not one.links.up(2)
            await until(lambda: not two.callers.state())
            assert not one.downs and not two.gone

    run(story)


def test_a_kept_link_is_dialled_again_without_a_message() -> None:
    async def story() -> None:
        async with ends() as (one, _, proxy):
            one.links.keep({2})
            await until(lambda: one.ups == 1)
            proxy.refuse()
            await until(lambda: one.downs)
            await proxy.listen()
            await until(lambda: one.ups == 2)

    run(story)


def test_a_peer_that_is_no_peer_any_more_is_cut_off() -> None:
    async def story() -> None:
        async with ends() as (one, two, _):
            one.send("a0")
            await until(lambda: two.keys)
            one.links.retain({2: one.peer})
            assert one.links.up(2)
            one.links.retain({2: Peer("peer", one.peer.addresses, key="00" * 32)})
            assert "key changed" in one.downs[0][1]
            await until(lambda: two.gone)
            one.send("a1")
            await until(lambda: two.keys)
            two.callers.end(two.keys[0], "revoked")
            await until(lambda: len(one.downs) == 2)
            assert "does not take this node" in one.downs[1][1]

    run(story)


def test_who_takes_no_greeting_is_hung_up() -> None:
    async def story() -> None:
        async with ends() as (one, two, proxy):
            one.send("a0")
            await until(lambda: two.keys)
            one.links.greet()
            await until(lambda: two.heard == [b"hello", b"a0", b"hello"])
            proxy.stall("up", "down")
            for _ in range(2 * MESSAGES - one.links.links[2].dialler.session.waiting):  # type: ignore[union-attr]
                one.links.send(2, Kind.ERROR, [b"", b""])
            one.links.greet()
            assert one.downs[0][1] == "it does not read its messages any more"

    run(story)


def test_links_by_address_are_bounded_and_forgotten() -> None:
    async def story() -> None:
        async with ends() as (one, _, proxy):
            for number in range(BY_ADDRESS + 1):
                one.links.send(f"127.9.0.{number + 1}:{proxy.port}", Kind.REQUEST, [b"", b""])
            assert len(one.links.links) == BY_ADDRESS
            assert one.downs[0][1] == f"more than {BY_ADDRESS} addresses are asked at a time"
            await until(lambda: len(one.downs) == BY_ADDRESS + 1)
            for link in one.links.links.values():
                link.dialler.used -= IDLE_LIMIT
            one.links.sweep(set())
            assert not one.links.links

    run(story)


def test_strangers_are_counted_and_hurt_nobody() -> None:
    async def story() -> None:
        async with ends() as (one, two, proxy):
            one.send("a0")
            await until(lambda: two.keys)
            (number,) = two.callers._acceptor.sessions
            for name in (b"", b"bob"):
                rough = two.context.socket(zmq.DEALER)
                rough.setsockopt(zmq.LINGER, 0)
                if name:
                    rough.setsockopt(zmq.ROUTING_ID, name)
                rough.connect(f"tcp://{HOST}:{proxy._target[1]}")
                for frames in (
                    [b""],
                    [b"junk", b"junk"],
                    [b""] * 9,
                    [os.urandom(34)],
                    [session.frame(session.DATA, number, 3), b"h", b"b"],
                    [session.frame(session.END, number)],
                    [session.frame(session.OPEN, number, 1)],
                ):
                    rough.send_multipart(frames)
                counters, wanted = two.callers._acceptor.counters, 4 if not name else 4 + 7
                await until(lambda c=counters, w=wanted: c["malformed"] >= w)
                rough.close()
            one.send("a1")
            await until(lambda: two.heard == [b"hello", b"a0", b"a1"])
            assert counters["sessions_late"] == 3
            assert not two.gone

    run(story)


def test_a_taken_port_is_told() -> None:
    async def story() -> None:
        async with ends() as (_, two, proxy):
            with pytest.raises(CoveyError, match="cannot listen"):
                two.callers.listen([f"{HOST}:{proxy.port}"])
            with pytest.raises(CoveyError, match="Cannot assign") as told:
                two.callers.listen(["203.0.113.77:7400"])
            assert "no such address" in told.value.hint

    run(story)


def test_the_reason_why_no_connection_can_be_made() -> None:
    assert why_not("127.0.0.1:1", "") == ""
    assert "cannot send from 203.0.113.77" in why_not("127.0.0.1:1", "203.0.113.77:0;")
    assert why_not("[2001:db8::1]:1", "") in ("network is unreachable", "cannot assign requested address", "")


def test_a_socket_that_cannot_be_made_safe_is_not_used() -> None:
    def refuse(_socket: zmq.Socket[bytes], _key: int | str) -> None:
        raise CoveyError("no key is known for node 2")

    async def story() -> None:
        async with ends() as (one, two, _):
            one.links._secure = refuse
            one.send("a0")
            await until(lambda: one.downs)
            assert "no key is known" in one.downs[0][1]
            assert not two.heard

    run(story)
