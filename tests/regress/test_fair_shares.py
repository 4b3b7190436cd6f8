"""Users who may only look could fill a service's queue and its tasks, and components had to wait behind them."""

from __future__ import annotations

import asyncio
from typing import Any

from covey import errors
from covey.bus import codec
from covey.bus.exchange import MOST_LOOKS
from covey.bus.messages import Header, Hello, Kind, Role
from covey.bus.routing import Router
from covey.bus.service import MAX_SERVED, Service
from covey.bus.serving import Serving


def test_the_queue_of_a_service_keeps_room_for_others() -> None:
    router = Router()
    router.hello("s", Hello("store", True, ("store",)), Role.COMPONENT, 0, 2)
    router.hello("looker", Hello(), Role.LOOK, 1, 3)
    router.hello("admin", Hello(), Role.ADMIN, 0, 4)

    def ask(who: str, number: int) -> Any:
        (out,) = router.from_party(
            who, Header(Kind.REQUEST, (number,), "", "store", "store.get", budget=5.0), b"\x80", 0.0
        )
        return out

    told = [ask("looker", number).kind for number in range(MOST_LOOKS + 10)]
    assert Kind.ERROR not in told[: MOST_LOOKS - 10]
    assert told[-1] is Kind.ERROR
    assert router.counters["requests_overloaded"] == told.count(Kind.ERROR)
    assert ask("admin", 1).kind is Kind.REQUEST


def test_the_tasks_of_a_service_keep_room_for_others() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    async def main() -> list[int]:
        refused: list[int] = []
        counts: list[int] = []

        class Answers:
            def add(self, kind: Kind, destination: str, topic: str, item: bytes, number: int, cause: str) -> None:
                assert isinstance(codec.decode_error(item), errors.Overloaded)
                refused.append(number)

        serving = Serving(Answers())  # type: ignore[arg-type]
        serving.services["store"] = Service("store", {"wait": wait})
        for role in (Role.LOOK, Role.ADMIN, Role.COMPONENT):
            before = len(refused)
            for number in range(MAX_SERVED):
                serving.take(Header(Kind.REQUEST, (number,), "a@1", "store", "store.wait", role=role), b"\x80")
            counts.append(len(refused) - before)
        await serving.close()
        return counts

    assert asyncio.run(main()) == [MAX_SERVED // 2, MAX_SERVED // 2, MAX_SERVED // 2]
