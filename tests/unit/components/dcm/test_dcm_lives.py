"""The lives of processes: one that is asked to rest goes on in the next cluster, one that does not obey is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from covey.components.dcm.lives import Lives
from covey.components.dcm.processes import Exit
from covey.errors import CoveyError


class Spawner:
    """Notes what was started and stopped."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.broken = False

    async def start(self, name: str) -> None:
        if self.broken:
            raise CoveyError("no process can be made")
        self.did.append(f"start {name}")

    async def stop(self, name: str, deadline: float) -> None:
        self.did.append(f"stop {name}")

    async def exits(self) -> AsyncIterator[Exit]:
        await asyncio.Event().wait()
        yield Exit("", 0)


async def process(lives: Lives, name: str, lived: list[str]) -> None:
    """Live as it is told, as `child.run_component` does."""
    life = "one"
    while True:
        lived.append(life)
        life = await lives.ask(name, life)


async def rested_and_stopped() -> None:
    spawner, lived = Spawner(), list[str]()
    lives = Lives(spawner)
    await lives.begin("liveness", "one")
    running = asyncio.ensure_future(process(lives, "liveness", lived))
    await asyncio.sleep(0)
    await lives.end("liveness", 5.0, keep=True)
    assert lives.at_rest == ["liveness"]
    await lives.begin("liveness", "two")
    await asyncio.sleep(0)
    await lives.end("liveness", 5.0, keep=True)
    assert lived == ["one", "", "two", ""]
    assert spawner.did == ["start liveness"]
    await lives.stop_resting(1.0)
    assert lives.at_rest == []
    running.cancel()

    await lives.begin("groups", "one")  # it never asks: it hangs, or has not come so far
    await lives.end("groups", 0.01, keep=True)
    await lives.begin("groups", "two")
    asking = asyncio.ensure_future(lives.ask("groups", "two"))
    await asyncio.sleep(0)
    await lives.end("groups", 0.01, keep=True)  # it asked once, and does not end
    lives.gone("groups")
    await lives.end("groups", 1.0, keep=False)
    asking.cancel()
    groups = [each for each in spawner.did if "groups" in each]
    assert groups == ["start groups", "stop groups", "start groups", "stop groups", "stop groups"]

    spawner.broken = True
    with pytest.raises(CoveyError):
        await lives.begin("resources", "two")
    spawner.broken = False
    await lives.begin("resources", "two")
    assert spawner.did[-1] == "start resources"


def test_a_process_lives_rests_and_lives_again() -> None:
    asyncio.run(rested_and_stopped())
