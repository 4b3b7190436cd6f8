"""What was acknowledged is there after the worst; what is damaged is named with its path, and never half-read."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from covey.errors import CoveyError
from covey.testing import Cluster, Node

pytestmark = pytest.mark.cluster

Boot = Callable[..., Cluster]
ENOUGH = 25  # acknowledged writes before the lights go out


def kill_everything(lab: Cluster) -> None:
    """SIGKILL every process of every node, the daemons last, as fast as one can."""
    for node in lab:
        for pid in sorted(node.processes(), reverse=True):
            os.kill(pid, signal.SIGKILL)
    for node in lab:
        node.kill()


def test_every_acknowledged_write_survives_the_death_of_all_processes(cluster: Boot) -> None:
    lab = cluster(2, isolation="process")
    acknowledged = asyncio.run(write_until_killed(lab))
    assert len(acknowledged) >= ENOUGH
    for node in lab:
        node.start()
    lab.wait_online()
    for node in lab:
        items = node.call("registry", "ls", prefix="/app/")["items"]
        found = {item["key"]: item["value"] for item in items}
        assert acknowledged.items() <= found.items()
        assert all(value == int(key.rpartition("/")[2]) for key, value in found.items())
    assert lab[2].covey("registry", "get", "/app/1/0").out == "0\n"


async def write_until_killed(lab: Cluster) -> dict[str, int]:
    """Write through both nodes at once until both are killed in the middle of it; return what was acknowledged."""
    acknowledged: dict[str, int] = {}
    enough = asyncio.Event()

    async def write(node: Node) -> None:
        async with node.connect() as bus:
            for number in range(100_000):
                key = f"/app/{node.number}/{number}"
                done = await bus.call("registry", "put", key=key, value=number, timeout=20.0)
                if done["succeeded"]:
                    acknowledged[key] = number
                    if node.number == 2 and number == ENOUGH:
                        enough.set()

    writers = [asyncio.ensure_future(write(node)) for node in lab]
    async with asyncio.timeout(60):
        await enough.wait()
        kill_everything(lab)
        ends = await asyncio.gather(*writers, return_exceptions=True)
    assert all(isinstance(one, CoveyError) for one in ends), ends
    return acknowledged


# --- damage ---------------------------------------------------------------------------------------------------------


def cut(path: Path) -> int:
    """Cut the file short by its last third; return how long it is then."""
    size = path.stat().st_size * 2 // 3
    os.truncate(path, size)
    return size


def flip(path: Path) -> int:
    """Flip one bit in the middle of the file; return the position."""
    data = bytearray(path.read_bytes())
    position = len(data) // 2
    data[position] ^= 0x10
    path.write_bytes(data)
    return position


@pytest.mark.parametrize("harm", [cut, flip], ids=["cut", "flipped"])
def test_a_damaged_log_is_named_and_not_read(cluster: Boot, harm: Callable[[Path], int]) -> None:
    node = cluster(1)[1]
    for number in range(10):
        node.call("registry", "put", key=f"/app/{number}", value="x" * 50)
    assert node.stop() == 0
    (log,) = node.state.glob("*/configuration/registry/log-*")
    before = log.stat().st_size
    where = harm(log)
    after = log.read_bytes()
    node.start()
    status = node.wait("the damage", lambda said: said["damaged"], 30, ask=("registry", "status"))
    assert not status["writable"]
    assert status["servers"][0]["state"] == "damaged"

    said = node.covey("-o", "json", "registry", "status")
    assert said.code == 0
    (damage,) = said.data["damaged"]
    assert damage["path"] == str(log)
    assert 0 < damage["position"] <= where < before
    assert damage["reason"]
    assert str(log) in node.covey("registry", "status").out

    for words in (["get", "/app/0"], ["get", "/app/0", "--consistency", "stale"], ["ls", "/"], ["put", "/app/0", "y"]):
        refused = node.covey("-o", "json", "--timeout", "5s", "registry", *words)
        assert refused.code == 6, (words, refused)
        assert refused.error["code"].startswith("registry."), refused.error
    refused = node.covey("-o", "json", "registry", "get", "/app/0")
    assert refused.error["code"] == "registry.damaged"
    assert str(log) in refused.error["message"]
    assert str(damage["position"]) in refused.error["message"]

    shown = node.covey("-o", "json", "cluster", "status")
    assert shown.code == 3
    assert shown.data["nodes"][0]["state"] == "pending online"
    assert log.read_bytes() == after  # nobody repaired, cut or overwrote what a person may want to look at
    assert node.stop() == 0


@pytest.mark.parametrize("name", ["hard-state", "identity"])
def test_damage_of_the_registrys_other_files_is_named_too(cluster: Boot, name: str) -> None:
    node = cluster(1)[1]
    assert node.stop() == 0
    (file,) = node.state.glob(f"*/configuration/registry/{name}")
    flip(file)
    node.start()
    status = node.wait("the damage", lambda said: said["damaged"], 30, ask=("registry", "status"))
    assert [one["path"] for one in status["damaged"]] == [str(file)]
    assert node.covey("registry", "get", "/nodes/1").code == 6


@pytest.mark.parametrize(
    ("name", "harm"),
    [("dcm/configuration/clusters.json", cut), ("*/configuration/node.json", flip)],
    ids=["cut", "flip"],
)
def test_a_damaged_file_of_the_local_configuration_is_named_and_not_used(
    cluster: Boot, name: str, harm: Callable[[Path], int]
) -> None:
    node = cluster(1)[1]
    assert node.stop() == 0
    (file,) = node.state.glob(name)
    harm(file)
    left = file.read_bytes()
    node.start()
    status: Any = node.wait("the daemon to say why", lambda said: said["node_state"] == "failed", 30)
    assert str(file) in status["reason"]
    verdict = node.covey("-o", "json", "node", "verdict")
    assert verdict.code == 0
    assert verdict.data["scenario"] is None
    assert str(file) in verdict.data["reason"]
    if file.name == "clusters.json":  # what would be written now could not be told from what was lost
        refused = node.covey("-o", "json", "cluster", "define", "other")
        assert refused.code == 10, refused
        assert str(file) in refused.error["message"]
    assert file.read_bytes() == left
    assert node.stop() == 0
