"""Any user could take all places of parties on a bus; a component that was started anew then found none."""

from __future__ import annotations

import pytest
from covey.bus import names
from covey.bus.messages import Hello, Kind, Role
from covey.bus.routing import Router


def test_a_component_finds_room_on_a_bus_full_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MAX_PARTIES", 20)
    router = Router(reserved=("registry",))
    counts = []
    for role in Role:
        for number in range(20):
            hello = Hello(f"s{number}" if role is Role.COMPONENT else "", role is Role.COMPONENT)
            router.hello((role, number), hello, role, 0, number + 1)
        counts.append(len(router.parties))
    assert counts == [10, 15, 18, 20]
    (out,) = router.hello("one more", Hello("registry", True), Role.COMPONENT, 0, 99)
    assert out.kind is Kind.ERROR
