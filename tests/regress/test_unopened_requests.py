"""A body that no service could open was not answered, and each one left a line in the service's log: anybody on the
machine could fill the disk with them, and who asked waited until the deadline."""

from __future__ import annotations

import asyncio
import logging

import msgspec
import pytest
from covey import errors
from covey.bus import codec
from covey.bus.messages import Header, Kind, NodeInfo, Role
from covey.bus.routing import Router
from covey.bus.serving import Serving


class Answers:
    """What a service says."""

    def __init__(self) -> None:
        self.said: list[tuple[Kind, str, int]] = []

    def add(self, kind: Kind, destination: str, topic: str, item: bytes, number: int, cause: str) -> None:
        self.said.append((kind, codec.decode_error(item).code, number))


@pytest.mark.parametrize(
    ("count", "compressed", "body"),
    [
        (2, False, b"\x80"),
        (3, False, b"\x92\x80\x80"),
        (1, True, b"\x05\0\0\0garbage"),
        (1, True, b"\xff\xff\xff\xffgarbage"),
        (1, True, b""),
        (2, False, b"\x91" * 100_000),
    ],
)
def test_each_request_of_a_body_that_cannot_be_opened_is_answered(
    count: int, compressed: bool, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> list[tuple[Kind, str, int]]:
        from covey.bus.service import Service

        answers = Answers()
        serving = Serving(answers)  # type: ignore[arg-type]
        serving.services["store"] = Service("store", {"get": lambda: 1})
        ids = tuple(range(1, count + 1))
        serving.take(Header(Kind.REQUEST, ids, "a@1", "store", "store.get", count, compressed=compressed), body)
        await serving.close()
        return answers.said

    with caplog.at_level(logging.INFO):
        said = asyncio.run(main())
    assert said == [(Kind.ERROR, errors.Malformed.code, number) for number in range(1, count + 1)]
    assert not caplog.records


def test_the_source_of_another_node_is_a_name_and_a_number() -> None:
    router = Router()
    router.configure(NodeInfo(1, "n1", "i", "c", "lab", "b"), {})
    router.caller_came("p", NodeInfo(3))
    request = Header(Kind.REQUEST, (1,), "a@b@3", "store", "store.get", role=Role.LOOK)
    assert router.from_caller("p", request, msgspec.msgpack.encode({}), 0.0) == []
    assert router.counters["forged_source"] == 1
