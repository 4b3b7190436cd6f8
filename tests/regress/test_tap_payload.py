"""A tap with payload shows join tokens as they pass: only administrators may attach one, and nobody can guess it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from covey.bus.broker import BrokerSettings
from covey.bus.broker_service import BrokerService, run_broker
from covey.bus.messages import Role
from covey.bus.service import Request
from covey.errors import Denied


@pytest.mark.parametrize("role", [Role.LOOK, Role.OPERATOR])
def test_only_administrators_see_what_is_in_messages(tmp_path: Path, role: Role) -> None:
    async def story() -> None:
        async with run_broker(BrokerSettings(str(tmp_path))) as (broker, _):
            service = BrokerService(broker)
            asker = Request("client-1", 1, role)
            with pytest.raises(Denied, match="needs the role admin"):
                service.tap_attach(asker, payload=True)
            seen = [service.tap_attach(asker)["tap"] for _ in range(2)]
            seen.append(service.tap_attach(Request("client-2", 1, Role.ADMIN), payload=True)["tap"])
            gaps = {abs(one - other) for one in seen for other in seen if one != other}
            assert len(gaps) >= 3 and min(gaps) > 1000  # the chance of failing is one in a trillion

    asyncio.run(story())
