"""Real handshakes: who gets in, who does not and how it is counted, and that nothing ends the handler."""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import zmq
from covey.bus import zap as zap_module
from covey.bus.port import Port
from covey.bus.security import JOIN_DOMAIN, PEER_DOMAIN, Keys, secure_client, secure_server
from covey.bus.zap import Arrivals, Zap
from tcp_recorder import Recorder

LIMIT = 20


class Server:
    """A ROUTER that speaks CURVE, with all that was heard, refused and reported."""

    def __init__(self) -> None:
        self.keys = Keys.make()
        self.trusted: set[str] = set()
        self.heard: list[tuple[bytes, str]] = []
        self.refused: list[tuple[str, str, str]] = []
        self.errors: list[str] = []
        self.judge: Callable[[str, str], str] = lambda key, _: "" if key in self.trusted else "unknown_key"
        self.port = 0
        self.zap: Zap
        self.arrivals: Arrivals

    def reasons(self) -> list[str]:
        return [reason for reason, _, _ in self.refused]


@asynccontextmanager
async def server(
    domain: str = PEER_DOMAIN, domains: tuple[str, ...] = (PEER_DOMAIN,), patience: int = 10_000
) -> AsyncIterator[Server]:
    here = Server()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, about: here.errors.append(repr(about.get("exception"))))

    def judge(key: str, address: str) -> str:
        return here.judge(key, address)  # which a test may exchange meanwhile

    here.zap = Zap(context, dict.fromkeys(domains, judge), lambda *r: here.refused.append(r))
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.HANDSHAKE_IVL, patience)  # ms
    socket.setsockopt(zmq.BACKLOG, 1024)
    secure_server(socket, here.keys, domain)
    here.arrivals = Arrivals(socket, lambda *r: here.refused.append(r))
    here.port = socket.bind_to_random_port("tcp://127.0.0.1")
    port = Port(socket, lambda frames: here.heard.append((frames[-1].bytes, str(frames[-1].get("User-Id")))))
    try:
        yield here
    finally:
        here.arrivals.close()
        port.close()
        here.zap.close()
        context.destroy(0)


@asynccontextmanager
async def dialled(
    here: Server, prepare: Callable[[zmq.Socket[bytes]], None], say: bytes = b"hello"
) -> AsyncIterator[zmq.Socket[bytes]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    try:
        prepare(socket)
        socket.connect(f"tcp://127.0.0.1:{here.port}")
        socket.send(say)
        yield socket
    finally:
        context.destroy(0)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while True:
            if holds():
                return
            await asyncio.sleep(0.005)


def a_stranger(here: Server) -> Callable[[zmq.Socket[bytes]], None]:
    return lambda socket: secure_client(socket, Keys.make(), here.keys.public)


def a_friend(here: Server) -> Callable[[zmq.Socket[bytes]], None]:
    keys = Keys.make()
    here.trusted.add(keys.public)
    return lambda socket: secure_client(socket, keys, here.keys.public)


async def friends_still_get_in(here: Server) -> None:
    before = len(here.heard)
    async with dialled(here, a_friend(here), b"a friend"):
        await until(lambda: len(here.heard) > before)
    assert here.heard[-1][0] == b"a friend"


def test_a_trusted_key_gets_in_and_stands_on_every_message() -> None:
    async def story() -> None:
        async with server() as here:
            keys = Keys.make()
            here.trusted.add(keys.public)
            async with dialled(here, lambda socket: secure_client(socket, keys, here.keys.public)) as socket:
                socket.send(b"again")
                await until(lambda: len(here.heard) == 2)
            assert here.heard == [(b"hello", keys.public), (b"again", keys.public)]
            assert here.refused == []

    asyncio.run(story())


def no_encryption(socket: zmq.Socket[bytes]) -> None:
    """Leave the socket as it is: mechanism NULL."""


def plain(socket: zmq.Socket[bytes]) -> None:
    socket.setsockopt(zmq.PLAIN_USERNAME, b"root")
    socket.setsockopt(zmq.PLAIN_PASSWORD, b"root")


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (a_stranger, "unknown_key"),
        (lambda here: no_encryption, "null"),
        (lambda here: plain, "null"),
        (lambda here: lambda socket: secure_client(socket, Keys.make(), Keys.make().public), "wrong_key"),
    ],
    ids=["unknown-key", "null", "plain", "another-server-key"],
)
def test_whoever_is_refused_is_counted_and_nothing_arrives(
    who: Callable[[Server], Callable[[zmq.Socket[bytes]], None]], reason: str
) -> None:
    async def story() -> None:
        async with server() as here:
            while reason not in here.reasons():
                seen = len(here.refused)
                async with dialled(here, who(here)):
                    await until(lambda: len(here.refused) > seen)  # noqa: B023
                # who speaks no CURVE may see that first, and hang up before it is understood
                assert set(here.reasons()) <= ({reason, "hung_up"} if reason == "null" else {reason})
            if reason == "unknown_key":
                assert here.refused[0][1] == "127.0.0.1"
                assert len(here.refused[0][2]) == 64
            assert here.heard == []
            await friends_still_get_in(here)

    asyncio.run(story())


@pytest.mark.parametrize(("domain", "domains"), [("covey.else", (PEER_DOMAIN, JOIN_DOMAIN)), (PEER_DOMAIN, ())])
def test_a_domain_without_a_judge_lets_nobody_in(domain: str, domains: tuple[str, ...]) -> None:
    async def story() -> None:
        async with server(domain, domains) as here, dialled(here, a_friend(here)):
            await until(lambda: bool(here.refused))
            assert set(here.reasons()) == {"domain"}
            assert here.heard == []

    asyncio.run(story())


def test_without_a_handler_nobody_gets_in() -> None:
    """The domain is enforced: a socket whose handler is missing takes no key, where libzmq alone would take any."""

    async def story() -> None:
        async with server() as here:
            here.zap.close()
            async with dialled(here, a_friend(here)):
                await asyncio.sleep(0.3)
                assert here.heard == []

    asyncio.run(story())


def test_a_judge_that_raises_costs_one_handshake() -> None:
    async def story() -> None:
        async with server() as here:
            good = here.judge

            def broken(key: str, address: str) -> str:
                raise RuntimeError("no list today")

            for number in range(1, 6):
                here.judge = broken
                async with dialled(here, a_friend(here)):
                    await until(lambda: len(here.refused) >= number)  # noqa: B023
                here.judge = good
                await friends_still_get_in(here)
            assert set(here.reasons()) == {"error"}
            assert len(here.errors) == len(here.refused) >= 5
            assert all("no list today" in error for error in here.errors)

    asyncio.run(story())


def test_whoever_counts_refusals_cannot_end_the_handler_either() -> None:
    async def story() -> None:
        async with server() as here:
            here.zap._refused = None  # type: ignore[assignment]
            async with dialled(here, a_stranger(here)):
                await until(lambda: bool(here.errors))
            await friends_still_get_in(here)

    asyncio.run(story())


@pytest.mark.parametrize(
    "request_frames",
    [
        [b""],
        [b"", b"1.0"],
        [b"", b"1.0", b"1", b"covey.peer", b"127.0.0.1", b"", b"CURVE"],
        [b"", b"1.0", b"1", b"covey.peer", b"127.0.0.1", b"", b"CURVE", b"short"],
        [b"", b"1.0", b"1", b"covey.peer", b"127.0.0.1", b"", b"CURVE", b"x" * 32, b"y" * 32],
        [b"", b"2.0", b"1", b"covey.peer", b"127.0.0.1", b"", b"CURVE", b"x" * 32],
        [b"", b"1.0", b"1", b"covey.peer", b"127.0.0.1", b"", b"NULL"],
        [b"", b"1.0", b"1", b"covey.peer", b"127.0.0.1", b"", b"PLAIN", b"root", b"root"],
        [b"", b"1.0", b"1", b"covey.peer", b"127.0.0.1", b"", b"GSSAPI", b"root"],
        [b"", b"1.0", b"1", b"\xff\xfe", b"\xff" * 500, b"", b"\xff", b"x" * 32],
        [b"", b"1.0", b"1", b"covey.join", b"127.0.0.1", b"", b"CURVE", b"x" * 32],
        [b"no delimiter", b"1.0", b"1", b"covey.peer", b"127.0.0.1", b"", b"CURVE", b"x" * 32],
    ],
)
def test_no_request_gets_a_yes_by_its_form(request_frames: list[bytes]) -> None:
    async def story() -> None:
        async with server() as here:
            here.judge = lambda key, address: ""  # whoever comes to the judge is let in
            asking = here.zap._port.socket.context.socket(zmq.DEALER)
            asking.connect(zap_module.ENDPOINT)
            answers: list[list[bytes]] = []
            port = Port(asking, lambda frames: answers.append([frame.bytes for frame in frames]))
            port.send(request_frames)
            await until(lambda: bool(here.refused))
            if len(request_frames) >= 3:
                await until(lambda: bool(answers))
                assert answers[0][3] in (b"400", b"500")
                assert answers[0][5] == b""
            port.close()
            await friends_still_get_in(here)

    asyncio.run(story())


def test_a_hundred_handshakes_at_once() -> None:
    async def story() -> None:
        async with server() as here:
            context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
            kept = []
            try:
                for number in range(200):
                    socket = context.socket(zmq.DEALER)
                    kept.append(socket)
                    socket.setsockopt(zmq.RECONNECT_IVL, -1)
                    (a_stranger if number % 2 else a_friend)(here)(socket)
                    socket.connect(f"tcp://127.0.0.1:{here.port}")
                    socket.send(b"%d" % number)
                await until(lambda: len(here.heard) + len(here.refused) >= 200)  # and nobody came twice
            finally:
                for socket in kept:
                    socket.close(0)
                context.destroy(0)
            assert sorted(int(said) for said, _ in here.heard) == list(range(0, 200, 2))
            assert here.reasons() == ["unknown_key"] * 100

    asyncio.run(story())


def test_raw_connections_do_not_keep_a_friend_out() -> None:
    """Connections that never shake hands are dropped after a while, and the queue of new ones is long enough."""

    async def story() -> None:
        async with server(patience=300) as here:
            raw: list[sockets.socket] = []
            try:
                assert here.arrivals.open == 0
                for _ in range(300):
                    one = sockets.socket()
                    one.setblocking(False)
                    one.connect_ex(("127.0.0.1", here.port))
                    raw.append(one)
                async with dialled(here, a_friend(here)):
                    await until(lambda: bool(here.heard))
                await until(lambda: here.reasons().count("handshake") >= 300)
                await until(lambda: here.arrivals.open == 0)
            finally:
                for one in raw:
                    one.close()

    asyncio.run(story())


def test_replayed_bytes_of_a_session_say_nothing() -> None:
    """Every byte an honest peer ever sent, played again to the same server: the session's keys are new each time."""

    async def story() -> None:
        async with server() as here:
            with Recorder(("127.0.0.1", here.port)) as proxy:
                real, here.port = here.port, proxy.port
                async with dialled(here, a_friend(here), b"pay 100"):
                    await until(lambda: bool(here.heard))
                here.port = real
                assert len(b"".join(proxy.sent[0])) > 300
                before = list(here.heard)
                for pieces in (False, True):
                    await asyncio.to_thread(proxy.play, pieces=pieces)
                assert here.heard == before
            await friends_still_get_in(here)

    asyncio.run(story())
