"""Services that take a node's addresses in another order have a link of their own, and events come by it (SPEC 8)."""

from __future__ import annotations

from typing import Any

import msgspec
from bus_router import HOME, head, lab_router, problems, reply, request, subscribing
from covey.bus.ends import Lane, Out, node_of
from covey.bus.messages import Header, Kind, Peer, Subscribe
from covey.bus.routing import Router
from covey.errors import Unreachable

FIRST, SECOND = "127.1.0.2:7400", "127.2.0.2:7400"


def peer(**lists: tuple[str, ...]) -> dict[int, Peer]:
    return {2: Peer("n2", (FIRST, SECOND), "", lists)}


def ask(router: Router, destination: str, number: int) -> Out:
    (out,) = router.from_party("a", request(destination, number), b"", 0.0)
    return out


def said(outs: list[Out]) -> list[tuple[Any, str]]:
    return [(out.connection.key, head(out).topic) for out in outs if out.connection.port == "link"]


def test_a_link_is_shared_by_all_services_with_one_list() -> None:
    router = lab_router()
    router.configure(HOME, peer(registry=(SECOND, FIRST), groups=(SECOND, FIRST), bulk=(FIRST,)))
    keys = {each: ask(router, f"{each}@2", number).connection.key for number, each in enumerate(
        ("registry", "groups", "bulk", "liveness"), 1)}  # fmt: skip
    assert keys == {"registry": Lane(2, "groups"), "groups": Lane(2, "groups"), "bulk": Lane(2, "bulk"), "liveness": 2}
    assert [node_of(key) for key in (*keys.values(), "127.1.0.2:1")] == [2, 2, 2, 2, None]


def test_what_waits_on_one_link_is_ended_with_it_alone() -> None:
    router = lab_router()
    router.configure(HOME, peer(registry=(SECOND,)))
    lane = ask(router, "registry@2", 1).connection.key
    assert ask(router, "liveness@2", 2).connection.key == 2
    (failed,) = router.link_down(lane, "silent")
    assert isinstance(problems(failed)[0], Unreachable)
    assert head(failed).ids == (1,)
    (answered,) = router.from_link(2, reply("client-1@1", 2), b"")
    assert head(answered).ids == (2,)
    router.check_invariants()


def test_a_request_on_its_way_is_answered_by_the_link_it_took() -> None:
    router = lab_router()
    router.configure(HOME, peer())
    assert ask(router, "registry@2", 1).connection.key == 2
    router.configure(HOME, peer(registry=(SECOND,)))
    assert ask(router, "registry@2", 2).connection.key == Lane(2, "registry")
    (answered,) = router.from_link(2, reply("client-1@1", 1), b"")
    assert head(answered).ids == (1,)


def test_events_follow_their_service_to_another_link() -> None:
    router = lab_router()
    router.configure(HOME, peer())
    assert router.links_wanted() == set()
    router.from_party("a", *subscribing("registry.*", 2), 0.0)
    assert said(router.link_up(2)) == [(2, "subscribe")]
    router.from_link(2, Header(Kind.CONTROL, topic="subscribed"), msgspec.msgpack.encode(Subscribe("registry.*")))
    assert said(router.configure(HOME, peer(registry=(SECOND,)))) == [(2, "unsubscribe")], "the lane does not stand yet"
    lane = Lane(2, "registry")
    assert router.links_wanted() == {lane}
    assert said(router.link_up(lane)) == [(lane, "subscribe")]
    outs = router.from_link(lane, Header(Kind.EVENT, source="registry@2", topic="registry.phase", sequence=4), b"")
    assert [head(out).topic for out in outs] == ["registry.phase"]
    assert said(router.configure(HOME, peer())) == [(lane, "unsubscribe"), (2, "subscribe")]
    router.check_invariants()
