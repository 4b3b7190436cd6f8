"""What registry servers say to each other goes directly while it can, and by the brokers while it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from covey import errors
from covey.bus.codec import encode_header
from covey.bus.direct import FRESH, Direct
from covey.bus.messages import Header, Kind
from covey.bus.security import Keys
from covey.components.registry.messages import Leading
from real_nodes import story
from registry_nodes import Node, Servers, key_file, three
from tcp_proxy import Proxy


class Passed:
    """Counts the requests of one verb that pass a node's broker."""

    def __init__(self, node: Node, topic: str = "registry.message") -> None:
        self.count = 0
        exchange = node.broker.router.exchange
        real = exchange.request

        def request(origin: Any, source: str, role: int, uid: int, header: Any, *rest: Any) -> Any:
            # questions of the agents who leads are of this verb, too
            self.count += header.topic.startswith(topic) and header.topic != "registry.message"
            return real(origin, source, role, uid, header, *rest)

        exchange.request = request  # type: ignore[method-assign]


async def put(servers: Servers, at: int, number: int) -> None:
    assert (await servers[at].bus.call("registry", "put", key="/app/x", value=number))["succeeded"]


async def links(servers: Servers, at: int) -> dict[int, dict[str, Any]]:
    status = await servers[at].bus.call("registry", "status")
    return {one["number"]: one for one in status["direct"]}


def used(found: dict[int, dict[str, Any]], number: int) -> bool:
    """Whether messages to a server go directly now."""
    return number in found and found[number]["up"] and found[number]["silence"] < FRESH


async def all_direct(servers: Servers, primary: int = 1) -> None:
    """Wait until the primary and both others use the direct way."""
    others = {1, 2, 3} - {primary}
    while True:
        found = await links(servers, primary)
        back = [await links(servers, other) for other in others]
        if all(used(found, other) for other in others) and all(used(each, primary) for each in back):
            return
        await asyncio.sleep(0.02)


async def until(holds: Callable[[], object]) -> None:
    while True:
        if holds():
            return
        await asyncio.sleep(0.01)


@asynccontextmanager
async def proxied(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[dict[int, Proxy]]:
    """Everybody who dials nodes 2 and 3 directly does so through these."""
    async with Proxy("127.1.0.2", ("", 0)) as two, Proxy("127.1.0.3", ("", 0)) as three:
        proxies = {2: two, 3: three}
        real = Direct.reach

        def reach(self: Direct, number: int, endpoints: Any) -> None:
            host, _, port = endpoints[0].rpartition(":")
            proxies[number]._target = (host, int(port))
            real(self, number, [f"{host}:{proxies[number].port}"])

        monkeypatch.setattr(Direct, "reach", reach)
        yield proxies


@pytest.mark.parametrize("curve", [False, True])
@story
async def test_writes_of_three_servers_pass_no_broker(folder: Path, curve: bool) -> None:
    async with three(folder, curve) as servers:
        await servers.up()
        await all_direct(servers)
        passed = [Passed(node) for node in servers.nodes]
        before = await links(servers, 1)
        for number in range(50):
            await put(servers, 1 + number % 3, number)
        after = await links(servers, 1)
        assert [each.count for each in passed] == [0, 0, 0]
        for other in (2, 3):
            assert after[other]["messages_out"] - before[other]["messages_out"] >= 25
            assert after[other]["messages_in"] - before[other]["messages_in"] >= 25
            assert after[other]["bytes_out"] > before[other]["bytes_out"]
            assert (after[other]["by_brokers"], after[other]["lost"]) == (before[other]["by_brokers"], 0)


@story
async def test_a_direct_way_that_breaks_stalls_or_is_refused_is_left_and_taken_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with proxied(monkeypatch) as proxies, three(folder) as servers:
        await servers.up()
        await all_direct(servers)
        epoch = (await servers[1].bus.call("registry", "status"))["epoch"]
        assert proxies[2].connections and proxies[3].connections
        passed = Passed(servers[1])
        for break_, mend in (
            (Proxy.cut, None),
            (lambda proxy: proxy.stall("up", "down"), Proxy.heal),
            (lambda proxy: proxy.stall("up"), Proxy.heal),
            (Proxy.refuse, Proxy.listen),
        ):
            for proxy in proxies.values():
                break_(proxy)
            if mend:
                before = passed.count
                while passed.count - before < 10:
                    await put(servers, 2, passed.count)
                found = await links(servers, 1)
                assert not used(found, 2) and not used(found, 3)
                for proxy in proxies.values():
                    if (done := mend(proxy)) is not None:
                        await done
            for number in range(10):
                await put(servers, 2, number)
            await all_direct(servers)
            before = passed.count
            for number in range(10):
                await put(servers, 2, number)
            assert passed.count == before
        assert (await servers[1].bus.call("registry", "status"))["epoch"] == epoch, "nobody missed the primary"


@story
async def test_a_server_that_comes_back_is_spoken_with_directly_again(folder: Path) -> None:
    async with three(folder, curve=True) as servers:
        await servers.up()
        for number in (3, 2):
            await servers[number].stop()
            await put(servers, 1, number)
            assert not (await links(servers, 1))[number]["up"]
            local = (1, 2, 3)
            await (await servers[number].start(servers=local)).until("registry.writes")
            await all_direct(servers)
        await servers[1].stop()  # the one that dials
        await servers.voting(2, 3, by=2)
        await (await servers[1].start(servers=(1, 2, 3))).until("registry.writes")
        status = await servers.voting(1, 2, 3, by=1)
        await all_direct(servers, status["primary"])


@story
async def test_a_node_that_is_undefined_is_cut(folder: Path) -> None:
    async with three(folder, curve=True) as servers:
        await servers.up()
        await all_direct(servers)
        for number in (1, 2):
            await servers[number].know({one: each for one, each in servers[1].nodes.items() if one != 3})
        await servers.seen(3, lambda status: not status["direct"][0]["up"])
        found = (await links(servers, 1)).get(3)
        assert found is None or not found["up"]
        for number in range(10):
            await put(servers, 1, number)
        assert (await links(servers, 1))[2]["up"]


@story
async def test_a_key_file_that_is_not_the_nodes_leaves_the_way_by_the_brokers(folder: Path) -> None:
    async with three(folder, curve=True) as servers:
        key_file(folder, 2, Keys.make())
        (folder / "n3.key").unlink()
        await servers.up()
        for number in range(10):
            await put(servers, 2, number)
        status = await servers[1].bus.call("registry", "status")
        assert [(one["number"], one["up"]) for one in status["direct"]] == [(2, False), (3, False)]
        assert all(one["by_brokers"] >= 10 for one in status["direct"])
        assert (await servers[2].bus.call("registry", "status"))["direct"] == []


@story
async def test_nothing_is_left_open_when_a_server_ends(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("dialler", "links"):  # links between brokers come and go with their use
        monkeypatch.setattr(f"covey.bus.{module}.IDLE_LIMIT", 1.0)
    async with three(folder, curve=True) as servers:
        await servers.up()
        await all_direct(servers)
        held = []
        for _ in range(3):  # the first time the brokers link up anew as well
            await servers[3].stop()
            await put(servers, 1, 1)
            await (await servers[3].start(servers=(1, 2, 3))).until("registry.writes")
            await all_direct(servers)
            if held:
                await until(lambda: _held() <= held[0])
            held.append(_held())


def _held() -> int:
    """Return how many of ZeroMQ's threads and how many files this process has. The loop's own threads come and stay."""
    names = [(task / "comm").read_text() for task in Path("/proc/self/task").iterdir()]
    return sum(name.startswith("ZMQ") for name in names) + len(list(Path("/proc/self/fd").iterdir()))


@story
async def test_what_is_no_message_of_a_server_is_counted_and_changes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[int, Direct] = {}
    real = Direct.configure

    def configure(self: Direct, *given: Any) -> None:
        made[self.place.number] = self
        real(self, *given)

    monkeypatch.setattr(Direct, "configure", configure)
    async with three(folder) as servers:
        await servers.up()
        await all_direct(servers)
        head = encode_header(Header(Kind.REQUEST))
        many = encode_header(Header(Kind.REQUEST, count=9, compressed=True))
        leading = msgspec.msgpack.encode(Leading(99, 2, "writes", True))
        for frames in ([head, b"\xc1"], [head, leading], [many, b"\xff\xff\xff\x7fxx"], [many, b""]):
            made[2].send(1, frames)
        await servers.seen(1, lambda status: status["direct"][0]["malformed"] == 4)
        await put(servers, 1, 1)
        assert (await servers[1].bus.call("registry", "status"))["primary"] == 1


@story
async def test_a_tap_shows_what_passes_directly_and_costs_nothing_when_it_is_off(folder: Path) -> None:
    async with three(folder, curve=True) as servers:
        await servers.up()
        await all_direct(servers)
        copies = [Passed(node, "bus.tap_show") for node in servers.nodes]
        filter = 'topic =~ "registry.message*"'
        for number in (1, 2):
            bus = servers[number].bus
            tap = (await bus.call("bus", "tap_attach", filter=filter, payload=True))["tap"]
            records: list[Any] = []
            while not {"in", "out"} <= {one["direction"] for one in records if one["kind"] == "request"}:
                await put(servers, 1, len(records))
                records += (await bus.call("bus", "tap_next", tap=tap, wait=0.1))["records"]
            shown = next(one for one in records if one["direction"] == "out")
            assert (shown["source"], shown["destination"][:9]) == (f"registry@{number}", "registry@")
            assert shown["topic"] == ("registry.message.append" if number == 1 else "registry.message.appended")
            assert msgspec.msgpack.decode(shown["body"])["type"] == ("Append" if number == 1 else "Appended")
            account = await bus.call("bus", "tap_detach", tap=tap)
            counted = account["counters"]
            assert counted["matched"] == counted["fetched"] == len(records) + len(account["records"])
            assert copies[number - 1].count
        for each in copies:
            each.count = 0
        while True:  # the word that nobody taps any more may be on its way
            before = [each.count for each in copies]
            for number in range(5):
                await put(servers, 1, number)
            if [each.count for each in copies] == before:
                break


@story
async def test_nobody_shows_what_another_said_and_who_shows_in_vain_is_told(folder: Path) -> None:
    async with three(folder) as servers:
        bus = servers[1].bus
        head = encode_header(
            Header(Kind.REQUEST, source="registry@1", destination="registry@2", topic="registry.message")
        )
        for direction in ("in", "out"):
            with pytest.raises(errors.Denied, match="said or was told itself"):
                await bus.call("bus", "tap_show", direction=direction, header=head, body=b"")
        with pytest.raises(errors.Malformed):
            await bus.call("bus", "tap_show", direction="out", header=b"x", body=b"")
        own = encode_header(Header(Kind.REQUEST, source="tester@1", destination="registry@2", topic="registry.message"))
        async with bus.subscribe("bus.tap") as events:
            await bus.call("bus", "tap_show", direction="out", header=own, body=b"")
            assert (await anext(events)).body == {"on": False}
