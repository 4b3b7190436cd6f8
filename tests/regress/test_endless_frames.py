"""A message of millions of frames held up a loop for seconds; one without an end took all memory by the join port."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
from covey.bus import join_port, port
from covey.bus.inlet import Inlet
from covey.bus.join_port import JoinPort
from covey.bus.port import Port

FRAMES = 30_000


@pytest.mark.parametrize("kind", [Inlet, Port])
def test_the_loop_goes_on_while_a_message_of_many_frames_is_thrown_away(kind: type[Any]) -> None:
    async def main() -> tuple[int, list[Any], int]:
        context: zmq.Context[Any] = zmq.Context()
        one, other = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
        one.setsockopt(zmq.LINGER, 0)
        other.setsockopt(zmq.LINGER, 0)
        one.bind("inproc://here")
        other.connect("inproc://here")
        other.send_multipart([b"x"] * FRAMES)
        other.send_multipart([b"head", b"body"])
        seen: list[Any] = []
        bad: list[int] = []
        if kind is Inlet:
            reader: Port = Inlet(one, lambda _, head, body: seen.append(head), lambda: bad.append(1), lambda: None)
        else:
            reader = Port(one, lambda frames: (seen if len(frames) == 3 else bad).append(len(frames)))
        turns = 0
        until = time.monotonic() + 20
        while not seen and time.monotonic() < until:
            turns += 1
            await asyncio.sleep(0)
        reader.close()
        other.close()
        context.term()
        return turns, seen, len(bad)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(port, "DRAIN_TIME", 0.0)
        turns, seen, bad = asyncio.run(main())
    assert (len(seen), bad) == (1, 1)
    assert turns > 10, "it was read in one go"


def test_the_join_port_is_opened_anew_when_the_process_grew_much(monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[str] = []
    size = 1000
    monkeypatch.setattr(join_port, "resident", lambda: size)
    monkeypatch.setattr(
        join_port, "Callers", lambda *_, **__: SimpleNamespace(listen=lambda _: 0, close=lambda: 0, state=dict)
    )

    async def main() -> JoinPort:
        nonlocal size
        guard: Any = SimpleNamespace(refused=refused.append)
        found = JoinPort(None, [], guard, lambda *_: None, lambda _: None, lambda: None)  # type: ignore[arg-type]
        found.listen()
        found._arrivals = SimpleNamespace(open=1, close=lambda: None)  # type: ignore[assignment]
        found.sweep()
        assert not refused
        size += join_port.MOST_MEMORY + 1
        found.sweep()
        found.sweep()
        found._arrivals = SimpleNamespace(open=1, close=lambda: None)  # type: ignore[assignment]
        found.sweep()
        return found

    assert asyncio.run(main()).renewed == 1
    assert refused == ["join_memory"]
