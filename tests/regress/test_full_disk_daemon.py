"""On a full disk the daemon ended when another node became the primary: it could not write that down. And a crash of a
component, or a step of the boot, that could not be written down ended it too."""

from __future__ import annotations

import asyncio
import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from covey.components.dcm import bootlog, storage
from covey.components.dcm.bootlog import BootLog
from covey.components.dcm.definitions import ClusterDefinition, NodeDefinition, NodeTable, Replica, ServerList
from covey.components.dcm.home import Home

CLUSTER = ClusterDefinition("lab", "c" * 32)
NODE = NodeDefinition(2, "n2", "machine-2", "2" * 32, ("127.1.0.2/16",), 7400)
REPLICA = Replica(CLUSTER, NODE, ServerList((1, 2, 3), 1, 4), NodeTable({2: NODE}, 4))


class Bus:
    async def call(self, *_: Any, **__: Any) -> None: ...

    async def publish(self, *_: Any) -> None: ...


class Disk:
    """Writes of documents, while there is room."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.problem = 0
        write = storage.write_document

        def written(*arguments: Any, **options: Any) -> None:
            if self.problem:
                raise OSError(self.problem, "no")
            write(*arguments, **options)

        monkeypatch.setattr(storage, "write_document", written)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    node = SimpleNamespace(name="n2", port=7400, adapters=("127.1.0.2/16",), identity=SimpleNamespace(value="x"))
    config = SimpleNamespace(node=node, security=SimpleNamespace(mode="open"), liveness={}, controllers={})
    made = Home(config, tmp_path, Bus(), {})  # type: ignore[arg-type]
    made.store.make_cluster(CLUSTER)
    made.store.commit_replica(REPLICA)
    made.store.commit_cluster(CLUSTER)
    made.load()
    return made


def renewed(old: Replica) -> Replica:
    return msgspec.structs.replace(old, servers=ServerList((1, 2, 3), 3, 5))


def test_another_primary_is_known_now_and_written_when_there_is_room(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)

    async def main() -> None:
        disk.problem = errno.ENOSPC
        assert await home.refresh(renewed) == ["servers"]
        await home.save_again()
        assert home.here().servers.primary == 3
        assert home.store.servers(CLUSTER.id).primary == 1
        disk.problem = 0
        await home.save_again()
        assert home.store.servers(CLUSTER.id) == home.here().servers

    asyncio.run(main())


def test_what_this_node_itself_is_must_be_on_the_disk(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(monkeypatch).problem = errno.ENOSPC
    with pytest.raises(OSError, match="no"):
        asyncio.run(
            home.refresh(lambda old: msgspec.structs.replace(old, node=msgspec.structs.replace(NODE, name="other")))
        )
    assert home.here().node.name == "n2"


def test_another_error_of_the_disk_is_not_waited_out(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    Disk(monkeypatch).problem = errno.EIO
    with pytest.raises(OSError, match="no"):
        asyncio.run(home.refresh(renewed))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_boot_goes_on_that_cannot_be_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = BootLog(tmp_path / "boot.log")
    opened = bootlog.os.open
    monkeypatch.setattr(bootlog.os, "open", lambda path, *more: opened("/dev/full", bootlog.os.O_WRONLY))
    log.record(1)
    assert [record.step for record in log._records] == [1]
