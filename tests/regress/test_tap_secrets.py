"""Who may only look could read join tokens by a tap with payload, and fetch or end the taps of others by number."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from covey import errors
from covey.bus.broker_service import BrokerService
from covey.bus.messages import NodeInfo, Role
from covey.bus.service import Request
from covey.bus.tap import Taps


@pytest.fixture
def service() -> BrokerService:
    broker: Any = SimpleNamespace(taps=Taps(), router=SimpleNamespace(node=NodeInfo()), tell_taps=lambda: None)
    return BrokerService(broker)


@pytest.mark.parametrize("role", list(Role))
def test_bodies_are_shown_to_administrators_alone(service: BrokerService, role: Role) -> None:
    asker = Request("client-1", 0, role)
    assert service.tap_attach(asker, payload=False)["tap"] == 1
    if role >= Role.ADMIN:
        assert service.tap_attach(asker, payload=True)["tap"] == 2
    else:
        with pytest.raises(errors.Denied):
            service.tap_attach(asker, payload=True)


def test_a_tap_is_its_readers_alone(service: BrokerService) -> None:
    owner, other = Request("client-1", 0, Role.ADMIN), Request("client-2", 0, Role.LOOK)
    tap = service.tap_attach(owner, payload=True)["tap"]
    with pytest.raises(errors.NotFound):
        asyncio.run(service.tap_next(other, tap=tap, wait=0.0))
    with pytest.raises(errors.NotFound):
        service.tap_detach(other, tap=tap)
    assert service.tap_detach(owner, tap=tap)["counters"]["waiting"] == 0
