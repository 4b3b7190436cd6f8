"""What the registry's tests build copies and machines with."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from covey.bus.machine import Asked, Effect, Notify, Persist, Persisted, Reply
from covey.components.registry import create, entries, messages, records
from covey.components.registry.disk import Disk
from covey.components.registry.layout import folder_of
from covey.components.registry.loaded import Loaded
from covey.components.registry.machine import RegistryMachine
from covey.components.registry.recovery import encode_snapshot, recover
from covey.components.registry.settings import Settings
from covey.components.registry.store import Store
from hypothesis import settings as hypothesis_settings
from registry_world import loaded_from

hypothesis_settings.register_profile("registry", deadline=None, derandomize=True)

CLUSTER = "c-1"
NODE = {"number": 1, "name": "n1", "id": "id-1", "definition_id": "d-1", "addresses": ["127.1.0.1/16"], "port": 7400}


class Kit:
    """Builders; one instance serves all tests."""

    cluster = CLUSTER
    node = NODE

    def found(self, state: Path) -> Path:
        """Found a cluster's registry; return the folder of its copy."""
        create(state / CLUSTER, cluster_id=CLUSTER, cluster_name="blue", node=NODE, servers=[1])
        return folder_of(state / CLUSTER)

    def founded(self) -> bytes:
        """Return the record of a first entry, for tests without files."""
        then = (
            ("/cluster/definition", b"\x80"),
            ("/cluster/servers", b"\x82\xa7servers\x91\x01\xa7primary\x01"),
            ("/nodes/1", b"\x80"),
        )
        return entries.encode(entries.Entry(1, 1, 0, entries.Founded(CLUSTER, 0, then)), records.START)

    def machine(self, disk: list[list[bytes]] | None = None, settings: Settings | None = None) -> RegistryMachine:
        """Return a machine on what a pretended disk holds (nothing but the first entry, if none is given)."""
        settings = settings or Settings()
        written = disk if disk is not None else [[self.founded()]]
        return RegistryMachine(1, recover(loaded_from(written), settings), settings, Random(1))


class Writer:
    """Appends transactions to a copy, as a machine would, and remembers the state that must come back."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        disk, loaded = Disk.open(folder, CLUSTER, settings)
        assert disk is not None, loaded.damaged
        self.disk, self.settings = disk, settings
        recovered = recover(loaded, settings)
        self.store, self.chain = rebuilt(loaded), recovered.chain

    def encode(self, count: int, size: int = 40) -> list[bytes]:
        """Make the records of `count` more transactions and apply them."""
        found = []
        for _ in range(count):
            index = self.store.index + 1
            value = b"\xc4" + bytes([size]) + bytes([index % 256]) * size
            body = entries.Transacted(f"id-{index}", (), ((f"/app/k{index % 7}", value),), ())
            entry = entries.Entry(self.store.epoch, index, index * 10, body)
            record = entries.encode(entry, self.chain)
            self.chain = records.digest(record)
            self.store.apply(entry)
            found.append(record)
        return found

    def doomed(self, count: int, size: int = 40) -> list[bytes]:
        """Make the records of `count` entries that a later primary will not have: they are not applied."""
        found, chain = [], self.chain
        for place in range(1, count + 1):
            value = b"\xc4" + bytes([size]) + b"!" * size
            body = entries.Transacted("", (), (("/app/doomed", value),), ())
            record = entries.encode(entries.Entry(self.store.epoch, self.store.index + place, 0, body), chain)
            chain = records.digest(record)
            found.append(record)
        return found

    def cut(self) -> bytes:
        """Make the record that gives up what is doomed."""
        return records.encode_cut(self.store.index, self.store.epoch, self.chain)

    def append(self, count: int, size: int = 40) -> None:
        self.disk.append(self.encode(count, size))

    def append_cut(self, doomed: int, count: int) -> None:
        """Write what is given up later, give it up, write other entries in its place and say that they stay."""
        self.disk.append(self.doomed(doomed))
        self.disk.append([self.cut(), *self.encode(count), records.encode_committed(self.store.index)])

    def image(self) -> bytes:
        return encode_snapshot(self.store, self.chain)

    def snapshot(self) -> None:
        self.disk.write_snapshot(self.image())
        self.disk.trim()


def rebuilt(loaded: Loaded) -> Store:
    """Return the state that was loaded; it must be sound."""
    assert not loaded.damaged, loaded.damaged
    recovered = recover(loaded, Settings())
    assert not recovered.damaged, recovered.damaged
    store = recovered.store
    for index in range(store.index + 1, recovered.log.last + 1):  # what a primary would commit
        store.apply(recovered.log.entry(index))
    store.check_invariants()
    return store


class Run:
    """Steps a machine over a pretended disk; what was answered is kept by request."""

    def __init__(self, machine: RegistryMachine, disk: list[list[bytes]]) -> None:
        self.machine, self.disk = machine, disk
        self.now = 100.0
        self.replies: dict[int, Any] = {}
        self.published: list[Any] = []
        self.sent: list[Any] = []
        self.snapshots: list[bytes] = []
        self.pending: list[Persist] = []
        self._request = 0

    def step(self, input: Any = None) -> list[Effect]:
        effects = self.machine.step(self.now, input)
        self.machine.check_invariants()
        for effect in effects:
            match effect:
                case Persist():
                    self.pending.append(effect)
                case Reply():
                    assert effect.request not in self.replies, "answered twice"
                    self.replies[effect.request] = effect.result
                case Notify():
                    self.snapshots.append(effect.body)
                case _:
                    (self.published if hasattr(effect, "topic") else self.sent).append(effect)
        return effects

    def ask(self, question: Any) -> int:
        self._request += 1
        self.step(Asked(self._request, question, cause=f"c{self._request}"))
        return self._request

    def sync(self, count: int | None = None) -> None:
        """Let the disk finish the next `count` orders (all, if not given)."""
        done, self.pending = self.pending[:count], self.pending[count:] if count is not None else []
        if done:
            self.disk.extend(list(order.data) for order in done)
            self.step(Persisted(done[-1].number))
            if count is None and self.pending:
                self.sync()

    def answer(self, question: Any) -> Any:
        """Ask, let the disk finish, return the answer."""
        request = self.ask(question)
        self.sync()
        return self.replies[request]

    def open(self) -> Run:
        """Bring it to phase writes."""
        self.step()
        self.sync()
        self.step(messages.GroupFormed())
        self.sync()
        assert self.machine.phase == "writes"
        return self


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit()


@pytest.fixture
def run(kit: Kit) -> Run:
    """A machine that was just built on a founded log."""
    disk = [[kit.founded()]]
    return Run(kit.machine(disk), disk)


@pytest.fixture
def new_run(kit: Kit) -> Callable[..., Run]:
    def make(disk: list[list[bytes]] | None = None, settings: Settings | None = None) -> Run:
        disk = disk if disk is not None else [[kit.founded()]]
        return Run(kit.machine(disk, settings), disk)

    return make


@pytest.fixture(scope="session")
def writer() -> type[Writer]:
    return Writer


@pytest.fixture(scope="session")
def rebuild() -> Callable[[Loaded], Store]:
    return rebuilt


@pytest.fixture(scope="session", params=["grown", "cut", "installed"])
def long_copy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, kit: Kit
) -> tuple[Path, int, int]:
    """A copy with several segments and snapshots; its folder, last index and state hash.

    One only grew and has two snapshots; one was cut again and again, below the beginning of a segment too, and says
    what is committed; one was given a snapshot by a primary, has one of its own, and grew and was cut behind that.
    """
    folder = kit.found(tmp_path_factory.mktemp("long"))
    one = Writer(folder, Settings(segment_bytes=700))
    for round in range(12):
        if request.param == "installed" and round == 6:
            one.disk.append(one.doomed(3))
            skipped = one.encode(9)
            hint = records.encode_committed(one.store.index)
            one.disk.append([*skipped[:2], one.image(), hint, *one.encode(2)])
        if request.param == "grown" or round % 2:
            one.append(1 + round % 3)
        else:
            one.append_cut(1 + round % 7, 1 + round % 3)
        if round in (3, 8) or (request.param != "installed" and round == 6):
            one.snapshot()
    one.disk.close()
    return folder, one.store.index, one.store.state_hash


@pytest.fixture
def copied(tmp_path: Path, long_copy: tuple[Path, int, int]) -> Path:
    """A copy of the long copy that a test may harm."""
    return Path(shutil.copytree(long_copy[0], tmp_path / "copy"))
