"""A process that ended with thousands of connections held up the broker for seconds: each was searched for."""

from __future__ import annotations

from typing import Any

from covey.bus.exchange import Exchange
from covey.bus.fanout import Fanout
from covey.bus.messages import Header, Hello, Kind, NodeInfo, Role
from covey.bus.routing import Router


def test_who_never_served_or_published_is_not_searched_for(monkeypatch: Any) -> None:
    router = Router()
    router.hello("s", Hello("store", True, ("store",)), Role.COMPONENT, 0, 2)
    for key in ("a", "b"):
        router.hello(key, Hello(), Role.LOOK, 0, 3)
    router.from_party("a", Header(Kind.REQUEST, (1,), "", "store", "store.get", budget=5.0), b"\x80", 0.0)
    router.configure(NodeInfo(1, "n1", "i", "c", "lab", "b"), {})
    router.from_party("a", Header(Kind.REQUEST, (2,), "", "store", "store.get", budget=5.0), b"\x80", 0.0)
    with monkeypatch.context() as patch:
        for owner, name in ((Exchange, "_select"), (Fanout, "end_source")):
            patch.delattr(owner, name)
        router.party_gone("a", "process ended")
        router.party_gone("b", "process ended")
    router.check_invariants()
    assert set(router.exchange.pending) == {"store@0", "store@1"}
    assert [out.kind for out in router.party_gone("s", "process ended")] == []
