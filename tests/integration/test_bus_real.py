"""Real sockets, real brokers, in one process or two: what users of the bus rely on."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zmq
from covey import errors
from covey.bus.broker import Broker, BrokerSettings
from covey.bus.broker_service import run_broker
from covey.bus.client import Client, connect
from covey.bus.messages import Kind, NodeInfo, Peer, Role
from covey.bus.service import Request, verb
from covey.bus.subscription import Subscription
from real_nodes import free_port


class Greeter:
    """A service as authors write one."""

    @verb()
    async def greet(self, *, name: str, times: int = 1) -> str:
        """Greet somebody."""
        return " ".join([f"hello {name}"] * times)

    @verb(Role.COMPONENT)
    def secret(self) -> str:
        """Not for everybody."""
        return "42"

    @verb()
    def who(self, request: Request) -> list[object]:
        """Say who asks."""
        return [request.source, request.role.name, request.cause]

    @verb()
    async def hang(self) -> None:
        """Never answer."""
        await asyncio.Event().wait()

    @verb()
    def broken(self) -> None:
        """Raise what no author meant to raise."""
        raise ValueError("oops")


@asynccontextmanager
async def node(folder: Path, number: int = 0, port: int = 0) -> AsyncIterator[tuple[Broker, Client]]:
    adapters = (f"127.1.0.{number}/16",) if port else ()
    async with (
        run_broker(BrokerSettings(f"{folder}/{number}/run", adapters, port)) as (broker, _),
        connect(f"{folder}/{number}") as bus,
    ):
        yield broker, bus


def pair(a: Broker, b: Broker, port: int) -> None:
    for number, broker in ((1, a), (2, b)):
        peers = {other: Peer(f"n{other}", (f"127.1.0.{other}:{port}",)) for other in (1, 2) if other != number}
        broker.configure(NodeInfo(number, f"n{number}", f"id{number}", "c1", "lab", "boot"), peers)


async def until(holds: Callable[[], Awaitable[bool] | bool]) -> None:
    """Wait until something holds; `run` sets the deadline."""
    while True:
        now = holds()
        if now if isinstance(now, bool) else await now:
            return
        await asyncio.sleep(0.001)


async def now(events: Subscription, field: str) -> object:
    """Return a field of the next event that is no last value of before."""
    while (event := await anext(events)).welcome:
        pass
    return event.body[field]


async def waiting(bus: Client, more_than: int) -> bool:
    return bool((await bus.call("bus", "status"))["waiting"] > more_than)


def run(coroutine: object) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await coroutine  # type: ignore[misc]

    asyncio.run(limited())


def test_a_call_and_its_errors(folder: Path) -> None:
    async def story() -> None:
        async with node(folder) as (_, bus), connect(f"{folder}/0") as author, author.serve("greeter", Greeter()):
            assert await bus.call("greeter", "greet", name="x", times=2) == "hello x hello x"
            with pytest.raises(errors.BadArguments, match="nam"):
                await bus.call("greeter", "greet", nam="x")
            with pytest.raises(errors.NoVerb, match="gret"):
                await bus.call("greeter", "gret")
            with pytest.raises(errors.Denied, match="component"):
                await bus.call("greeter", "secret")
            with pytest.raises(errors.NoService):
                await bus.call("greter", "greet")
            with pytest.raises(errors.Timeout):
                await bus.call("greeter", "hang", timeout=0.05)
            with pytest.raises(errors.InternalError, match="ValueError: oops"):
                await bus.call("greeter", "broken")
            with pytest.raises(errors.WrongCluster):
                async with author.serve("mine", Greeter()) as service:
                    service.cluster_id = "c1"
                    await bus.call("mine", "greet", name="x", cluster="c2")
            source, role, cause = await bus.call("greeter", "who", cause="story-1")
            assert (source, role, cause) == (f"{bus.name}@0", "ADMIN", "story-1")
            described = {each["verb"]: each for each in await bus.call("greeter", "describe")}
            assert described["greet"]["arguments"]["required"] == ["name"]
            assert described["secret"]["role"] == "component"

    run(story())


def test_no_daemon_is_said_at_once(folder: Path) -> None:
    async def story() -> None:
        with pytest.raises(errors.NoDaemon, match=r"bus\.sock"):
            async with connect(folder):
                pass

    run(story())


def test_the_death_of_the_called_process_is_told_at_once(folder: Path) -> None:
    code = """
import asyncio, sys
from covey.bus.client import connect
async def hang(): await asyncio.Event().wait()
async def main():
    async with connect(sys.argv[1]) as bus, bus.serve("victim", {"hang": hang}):
        await asyncio.Event().wait()
asyncio.run(main())
"""

    async def story() -> None:
        async with node(folder) as (_, bus), bus.subscribe("bus.party") as parties:
            child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, f"{folder}/0")
            try:
                await bus.wait_for_service("victim")
                call = asyncio.ensure_future(bus.call("victim", "hang", timeout=20))
                await until(lambda: waiting(bus, 1))
            finally:
                os.kill(child.pid, signal.SIGKILL)
                await child.wait()
            with pytest.raises(errors.ServiceDied, match="victim died"):
                await call
            async for event in parties:
                if event.body["state"] == "gone":
                    assert event.body["pid"] == child.pid
                    break

    run(story())


def test_events_arrive_in_order_once_ready(folder: Path) -> None:
    async def story() -> None:
        async with (
            node(folder) as (_, bus),
            connect(f"{folder}/0") as other,
            bus.subscribe("app.x") as exact,
            bus.subscribe("app.*") as below,
        ):
            for number in range(500):
                await other.publish("app.x", number)
            await other.publish("app.xy", "another topic")
            got = [await anext(exact) for _ in range(500)]
            assert [event.body for event in got] == list(range(500))
            assert [event.sequence for event in got] == list(range(1, 501))
            assert all(event.missed == 0 for event in got)
            assert [(await anext(below)).topic for _ in range(501)][-1] == "app.xy"

    run(story())


def test_two_brokers_talk_and_a_dead_one_is_told(folder: Path) -> None:
    async def story() -> None:
        port = free_port()
        async with node(folder, 1, port) as (one, bus):
            async with node(folder, 2, port) as (two, far):
                pair(one, two, port)
                async with far.serve("greeter", Greeter()):
                    assert await bus.call("greeter", "greet", node=2, name="y") == "hello y"
                    assert (await bus.call("greeter", "who", node=2))[0] == f"{bus.name}@1"
                    assert await bus.call("greeter", "greet", node=f"127.1.0.2:{port}", name="z") == "hello z"
                    unanswered = asyncio.ensure_future(bus.call("greeter", "hang", node=2, timeout=20))
                    await until(lambda: waiting(far, 1))
                    watch = await bus.subscribe("bus.peer").__aenter__()
                    two.close()
                    with pytest.raises(errors.Unreachable, match="the other side ended"):
                        await unanswered
                    assert await now(watch, "state") == "down"
            with pytest.raises(errors.Unreachable, match="refused"):
                await bus.call("greeter", "greet", node=2, name="y")
            with pytest.raises(errors.Unreachable, match="knows no node 9"):
                await bus.call("greeter", "greet", node=9, name="y")
            with pytest.raises(errors.UsageError, match="IP:PORT"):
                await bus.call("greeter", "greet", node="nowhere:1", name="y")

    run(story())


def test_a_broker_that_dialled_us_and_is_gone_is_forgotten(folder: Path) -> None:
    async def story() -> None:
        port = free_port()

        def callers() -> list[str]:
            return [caller.node.boot_id for caller in one.router.callers.values()]

        async with node(folder, 1, port) as (one, _):
            for boot in ("boot-1", "boot-2"):
                two = Broker(BrokerSettings(f"{folder}/{boot}", ("127.1.0.2/16",), port))
                await two.start()
                two.configure(NodeInfo(2, "n2", "id2", "c1", "lab", boot), {1: Peer("n1", (f"127.1.0.1:{port}",))})
                two.links.send(1, Kind.REQUEST, [b"", b""])
                await until(lambda: callers() == [boot])  # noqa: B023
                assert [caller.node.number for caller in one.router.callers.values()] == [2]
                two.close()
            await until(lambda: not callers())

    run(story())


def test_a_restarted_broker_is_found_again(folder: Path) -> None:
    async def story() -> None:
        settings = BrokerSettings(f"{folder}/run")
        first = Broker(settings)
        await first.start()
        async with connect(folder) as author, author.serve("greeter", Greeter()), connect(folder) as bus:
            unanswered = asyncio.ensure_future(bus.call("greeter", "hang"))
            await until(lambda: any(party.waiting for party in first.router.parties.values()))
            first.close()
            with pytest.raises(errors.ConnectionLost):
                await unanswered
            second = Broker(settings)
            await second.start()
            await bus.wait_for_service("greeter")
            assert await bus.call("greeter", "greet", name="again") == "hello again"
            second.close()

    run(story())


def test_large_bodies_pass_and_too_large_ones_are_refused(folder: Path) -> None:
    async def story() -> None:
        async with node(folder) as (_, bus), bus.serve("echo", {"echo": lambda data: data}):
            blob = os.urandom(2_000_000)
            assert await bus.call("echo", "echo", data=blob) == blob
            with pytest.raises(errors.TooLarge):
                await bus.call("echo", "echo", data=bytes(17_000_000))
            assert await bus.call("echo", "echo", data=1) == 1

    run(story())


def test_hostile_frames_are_counted_and_stop_nothing(folder: Path) -> None:
    async def story() -> None:
        port = free_port()
        async with node(folder, 1, port) as (broker, bus):
            for endpoint in (f"ipc://{folder}/1/run/bus.sock", f"tcp://127.1.0.1:{port}"):
                rough = zmq.Context.instance().socket(zmq.DEALER)
                rough.setsockopt(zmq.LINGER, 0)
                rough.connect(endpoint)
                for frames in ([b""], [b"\1x", b"y"], [b"\2\xff", b""], [b"\2\x91\1"] * 4, [b"\0" * 5000, b""]):
                    rough.send_multipart(frames)
                rough.send_multipart([b"\2\x95\5\x90\xa0\xa0\xa5hello", b"no hello"])
                expected = 6 * (2 if endpoint.startswith("tcp") else 1)
                await until(lambda wanted=expected: broker.router.counters["malformed"] >= wanted)  # type: ignore[misc]
                rough.close()
            assert (await bus.call("bus", "ping"))["service"] == "bus"

    run(story())


def test_the_tap_sees_requests_replies_and_errors(folder: Path) -> None:
    async def story() -> None:
        async with node(folder) as (_, bus), bus.serve("greeter", Greeter()):
            tap = (await bus.call("bus", "tap_attach", filter='topic =~ "*.greet"', payload=True))["tap"]
            await bus.call("greeter", "greet", name="x", cause="s1")
            with pytest.raises(errors.NoService):
                await bus.call("nobody", "greet", cause="s2")
            answer = await bus.call("bus", "tap_next", tap=tap)
            kinds = [(record["kind"], record["cause"]) for record in answer["records"]]
            assert kinds == [("request", "s1"), ("reply", "s1"), ("request", "s2"), ("error", "s2")]
            assert answer["records"][0]["id"] == answer["records"][1]["id"]
            counters = (await bus.call("bus", "tap_detach", tap=tap))["counters"]
            assert counters["matched"] == 4 == counters["fetched"]

    run(story())


def test_the_socket_is_open_to_all_users_of_the_machine(folder: Path) -> None:
    async def story() -> None:
        async with node(folder):
            assert Path(f"{folder}/0/run/bus.sock").stat().st_mode & 0o777 == 0o666

    run(story())


def test_status_tells_what_each_connection_between_nodes_did(folder: Path) -> None:
    async def story() -> None:
        port = free_port()
        async with node(folder, 1, port) as (one, bus), node(folder, 2, port) as (two, far):
            pair(one, two, port)
            async with far.serve("greeter", Greeter()):
                await bus.call("greeter", "greet", node=2, name="y")
            (link,) = (await bus.call("bus", "status"))["links"]
            assert (link["peer"], link["up"], link["messages_out"], link["messages_in"]) == ("2", True, 2, 1)
            (session,) = (await bus.call("bus", "status", node=2))["sessions"]
            assert (session["peer"], session["up"], session["lost"]) == ("1", True, 0)
            for nodes, seconds, calm in (([2, 7], 60.0, True), ([], 60.0, False), ([2], 0.0, False)):
                one.vouch(nodes, seconds)
                assert one._sweeper
                one._sweeper.cancel()
                one._sweep()
                (link,) = (await bus.call("bus", "status"))["links"]
                assert link["calm"] is calm, "while somebody vouches for the node, and no longer than that holds"

    run(story())


def test_a_node_that_only_listens_is_told_that_the_other_is_gone(folder: Path) -> None:
    async def story() -> None:
        port = free_port()
        async with (
            node(folder, 1, port) as (one, bus),
            node(folder, 2, port) as (two, far),
            bus.subscribe("bus.peer") as watch,
        ):
            pair(one, two, port)
            await far.call("bus", "ping", node=1)
            await until(lambda: bool(one.router.callers))
            two.close()
            event = await anext(watch)
            assert event.body == {"node": 2, "state": "down", "reason": "the other side ended"}

    run(story())
