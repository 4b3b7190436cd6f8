"""Three registry servers on real nodes under load: frozen, killed all at once, with spoiled files, on full disks.

Clients on every node write, read and watch all the while (`registry_load.py`); what they were told is judged. More of
this, for as long as you like: bench/registry_chaos.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from covey.testing import Cluster, Node
from registry_load import Load, roles, settled, whole


class Small:
    """File systems of 24 MiB for the state folders of a cluster's nodes, if this process may mount any."""

    def __init__(self, cluster: Cluster) -> None:
        self.places: list[Path] = []
        for node in cluster:
            node.state.mkdir()
            mount = ["mount", "-t", "tmpfs", "-o", "size=24m,mode=700", "none", str(node.state)]
            with suppress(OSError):
                if not subprocess.run(mount, capture_output=True, check=False).returncode:
                    self.places.append(node.state)

    def close(self) -> None:
        for place in self.places:
            subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def three() -> Iterator[Cluster]:
    cluster = Cluster(3, isolation="inline", servers=3)
    with closing(cluster), closing(Small(cluster)):
        try:
            cluster.up()
            yield cluster
            for node in cluster:
                assert "Traceback (most recent call last)" not in node.log.read_text()
        finally:
            cluster.show()
            for node in cluster:
                if node._child is not None and node.ended is None:
                    node.kill()


@contextmanager
def load(three: Cluster, name: str) -> Iterator[Load]:
    """Clients under way, all servers voting; afterwards what they were told is judged."""
    whole(three)
    clients = Load([node.state for node in three], f"/app/{name}/")
    clients.begin()
    yield clients
    settled(three, clients)


def copy_of(node: Node) -> Path:
    (folder,) = node.state.glob("*/configuration/registry")
    return folder


def a_primary_that_froze_wakes_and_tells_nothing_old(three: Cluster, load: Load) -> None:
    primary, one, _ = roles(three)
    for pid in primary.processes():
        os.kill(pid, signal.SIGSTOP)
    frozen = time.monotonic()
    try:
        one.wait(
            "another primary", lambda found: found["primary"] not in (None, primary.number), ask=("registry", "status")
        )
        load.more()
    finally:
        for pid in primary.processes():
            os.kill(pid, signal.SIGCONT)
    assert load.gap(frozen) < 5.0
    load.more(60)  # its clients read on, and a read of what it held would be found out


def all_are_killed_at_once_and_nothing_is_lost(three: Cluster, load: Load) -> None:
    for node in three:
        os.kill(node.pid, signal.SIGKILL)
    for node in three:
        node.kill()
        node.start()
    load.more(seconds=60)


def flip(folder: Path) -> str:
    """Change one bit in the middle of the log."""
    path = max(folder.glob("log-*"))
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 3)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))
    return str(path)


def a_spoiled_copy_is_named_and_filled_again(three: Cluster, load: Load) -> None:
    _, one, _ = roles(three)
    one.kill()
    path = flip(copy_of(one))
    load.more()
    said = one.log.stat().st_size
    one.start()
    one.wait_online()
    whole(three)
    told = one.log.read_bytes()[said:].decode()
    assert f"{path} is damaged at byte " in told and "this server's copy was filled anew" in told, told


def a_full_disk_stops_nobody_but_its_server(three: Cluster, load: Load) -> None:
    primary, _, other = roles(three)
    if not os.path.ismount(primary.state):
        return  # nothing may be mounted here
    for node in (primary, other):
        ballast = node.state / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        full = time.monotonic()
        load.more(200)
        assert load.gap(full) < 5.0, "another one leads, if it was the primary's"
        ballast.unlink()
        whole(three)


def test_what_faults_do(three: Cluster) -> None:
    """One after the other on one cluster, since its start takes longer than any of them."""
    for scenario in (
        a_primary_that_froze_wakes_and_tells_nothing_old,
        all_are_killed_at_once_and_nothing_is_lost,
        a_spoiled_copy_is_named_and_filled_again,
        a_full_disk_stops_nobody_but_its_server,
    ):
        with load(three, scenario.__name__) as clients:
            scenario(three, clients)
