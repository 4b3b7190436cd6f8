"""A registry ended when a second primary was told of just as a call left the one before: its time-out was expiring."""

from __future__ import annotations

import asyncio
from typing import Any

from covey.bus.machine import Address, Received
from covey.bus.messages import Role
from covey.bus.service import Request
from covey.components.registry import messages
from covey.components.registry.forward import ForwardEngine
from covey.components.registry.messages import Leading


class Bus:
    """Nodes 1 and 2 hang, node 3 answers."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.hangs = asyncio.Event()

    async def call(self, _service: str, _verb: str, /, *, node: int, **_: Any) -> Any:
        self.asked.append(node)
        if node != 3:
            self.hangs.set()
            await asyncio.Event().wait()
        return "answered"


def test_a_call_that_leaves_one_primary_hears_of_the_next() -> None:
    async def main() -> list[int]:
        bus = Bus()
        engine = ForwardEngine(bus, 4, (1, 2, 3), "c1")  # type: ignore[arg-type]

        def led_by(number: int) -> None:
            leading = Leading(number, number, "writes", True)
            engine._driver.feed(Received(Address("registry", number), leading))

        led_by(1)
        request = Request("test", 4, Role.ADMIN, budget=5.0)
        asking = asyncio.create_task(engine.ask(messages.Get("/app/a"), request))
        await bus.hangs.wait()
        led_by(2)
        asyncio.get_running_loop().call_soon(led_by, 3)  # the time-out of the call at 1 has rung, its task has not run
        assert await asking == "answered"
        assert not engine._driver.stopped
        return bus.asked

    asked = asyncio.run(main())
    assert (asked[0], asked[-1]) == (1, 3)
