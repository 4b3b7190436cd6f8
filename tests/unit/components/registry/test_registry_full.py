"""A disk without room: nothing of the write stays, whoever waits is told so, and writes open again with room."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from covey.bus.machine import Address, Persist, Received
from covey.components.registry import messages, records
from covey.components.registry.disk import Disk, load
from covey.components.registry.files import DiskFailed, NoRoom
from covey.components.registry.messages import AppendSystem, Get, Operation, Status, Transact
from covey.components.registry.settings import Settings
from covey.components.registry.writer import Writer
from covey.errors import DiskFull

REASON = "/copy/log-1: No space left on device"


def put(key: str, id: str = "") -> Transact:
    return Transact(id, (), (Operation("put", key, 1),))


class FullDisk:
    """`os.pwrite` of a disk on which files may grow by so many bytes in all."""

    def __init__(self, patch: pytest.MonkeyPatch, room: int, error: int = errno.ENOSPC) -> None:
        self.room, self._error = room, error
        self._write = os.pwrite
        patch.setattr(os, "pwrite", self.write)

    def write(self, descriptor: int, data: Any, offset: int) -> int:
        size = os.fstat(descriptor).st_size
        fits = bytes(data)[: max(size - offset, 0) + self.room]
        if not fits:
            raise OSError(self._error, os.strerror(self._error))
        count = self._write(descriptor, fits, offset)
        self.room -= max(offset + count - size, 0)
        return count


# --- the files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1, 200])
@pytest.mark.parametrize("segment_bytes", [1, 1 << 20], ids=["new segment", "same segment"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_what_found_no_room_leaves_no_trace(
    tmp_path: Path,
    kit: Any,
    writer: Any,
    rebuild: Any,
    monkeypatch: pytest.MonkeyPatch,
    room: int,
    segment_bytes: int,
    error: int,
) -> None:
    folder = kit.found(tmp_path)
    one = writer(folder, Settings(segment_bytes=segment_bytes))
    one.append(1)
    index = one.store.index
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    batch = one.encode(8)
    with monkeypatch.context() as patch:
        disk = FullDisk(patch, room, error)
        for _ in range(2):
            disk.room = room
            with pytest.raises(NoRoom, match=r"log-0+"):
                one.disk.append(batch)
        after = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert after == before
    assert rebuild(load(folder, kit.cluster)[0]).index == index
    one.disk.append(batch)
    one.append(2)
    one.disk.close()
    loaded, _ = load(folder, kit.cluster)
    assert rebuild(loaded).state_hash == one.store.state_hash
    assert not loaded.repaired


def test_a_promise_that_found_no_room_is_the_old_one(
    tmp_path: Path, kit: Any, writer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = kit.found(tmp_path)
    one = writer(folder, Settings())
    with monkeypatch.context() as patch:
        FullDisk(patch, 3)
        with pytest.raises(NoRoom):
            one.disk.append([records.encode_hard_state(9), *one.encode(1)])
    one.disk.close()
    loaded, _ = load(folder, kit.cluster)
    assert loaded.promised < 9 and not list(folder.glob("*.tmp"))


@pytest.mark.parametrize("call", ["ftruncate", "fsync"])
def test_what_cannot_be_taken_back_for_sure_ends_the_process(
    tmp_path: Path, kit: Any, writer: Any, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    one = writer(kit.found(tmp_path), Settings())

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        FullDisk(patch, 5)
        patch.setattr(os, call, fail)
        with pytest.raises(DiskFailed, match=r"at byte \d+: No space left on device \(errno 28, ENOSPC\)"):
            one.append(1)
    one.disk.abandon()


# --- the writer's thread --------------------------------------------------------------------------------------------


class Flaky:
    """A disk that keeps what it is given, or has no room."""

    def __init__(self) -> None:
        self.full = False
        self.kept: list[bytes] = []

    def append(self, batch: list[bytes]) -> None:
        if self.full:
            raise NoRoom(errno.ENOSPC, "No space left on device", "/copy/log-1")
        self.kept += batch

    def close(self) -> None:
        pass


class Counting(Flaky):
    """A disk that remembers how many records came at once."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def append(self, batch: list[bytes]) -> None:
        super().append(batch)
        self.batches.append(len(batch))


def test_what_was_ordered_behind_a_refused_batch_is_not_written_either() -> None:
    asyncio.run(orders_behind_a_refused_batch())


async def orders_behind_a_refused_batch() -> None:
    disk, done = Flaky(), asyncio.Queue[int]()
    refused = asyncio.Queue[str]()

    def hear(reason: str) -> None:
        writer.write(4, [b"d"])  # what the machine orders when it hears of it
        refused.put_nowait(reason)

    writer = Writer(disk, done.put_nowait, lambda: None, hear)  # type: ignore[arg-type]
    writer.write(1, [b"a"])
    assert await done.get() == 1
    disk.full = True
    writer.write(2, [b"b"])
    await asyncio.sleep(0)  # the loop's turn ends: it is handed over
    while not writer._refusing:  # the loop does not know yet, and orders more
        pass
    disk.full = False
    writer.write(3, [b"c"])
    assert "No space" in await refused.get()
    assert await done.get() == 4
    await writer.close()
    assert disk.kept == [b"a", b"d"] and done.empty() and refused.empty()


def test_a_copy_that_is_no_disk_is_refilled_by_the_thread(tmp_path: Path, kit: Any, writer: Any) -> None:
    folder = kit.found(tmp_path)
    one = writer(folder, Settings())
    one.append(3)
    image, more = one.image(), one.encode(2)
    asyncio.run(refills(folder, image, one.disk, more))
    loaded, _ = load(folder, kit.cluster)
    assert (loaded.promised, loaded.voted_for, loaded.committed) == (7, 2, 4)
    assert loaded.identity and loaded.identity.gen == 1
    assert [record.index for record in loaded.entries] == [5, 6]
    with pytest.raises(OSError, match="the copy was closed"):
        one.disk.write_snapshot(image)


async def refills(folder: Path, image: bytes, disk: Disk, more: list[bytes]) -> None:
    done, refused = asyncio.Queue[int](), asyncio.Queue[str]()
    hard_state, full = records.encode_hard_state(7, 2), [True]

    def make() -> Disk:
        if full.pop():
            raise NoRoom(errno.ENOSPC, "No space left on device", str(folder))
        return Disk.refill(folder, "c-1", Settings(), hard_state, image, gen=1)

    writer = Writer(disk, done.put_nowait, lambda: None, refused.put_nowait)
    writer.refill(1, make)
    writer.write(2, more)
    assert "No space" in await refused.get() and writer.disk is None
    full.append(False)
    writer.refill(3, make)
    writer.write(4, more[:1])
    writer.write(5, more[1:])
    assert await done.get() == 3
    while await done.get() != 5:
        pass
    assert writer.disk is not None
    await writer.close()


def test_what_one_turn_of_the_loop_orders_is_one_batch() -> None:
    asyncio.run(orders_of_one_turn())


async def orders_of_one_turn() -> None:
    disk, done = Counting(), asyncio.Queue[int]()
    writer = Writer(disk, done.put_nowait, lambda: None, print)  # type: ignore[arg-type]
    for number in range(1, 31):
        writer.write(number, [b"%d" % number, b"x"])
    assert await done.get() == 30
    writer.write(31, [b"y"])
    await writer.close()  # what was ordered in the same turn is finished first
    assert await done.get() == 31
    assert disk.batches == [60, 1]


# --- the machine ----------------------------------------------------------------------------------------------------


def refuse(run: Any) -> list[Persist]:
    """The disk refuses what was ordered; return what the machine orders at that."""
    run.pending.clear()
    return [effect for effect in run.step(messages.NoRoom(REASON)) if isinstance(effect, Persist)]


def test_the_askers_are_told_reads_go_on_and_writes_open_with_room(run: Any) -> None:
    run.open()
    run.answer(put("/app/old"))
    asked = [run.ask(put(f"/app/{number}", f"id-{number}")) for number in range(3)]
    source = Address("liveness")
    run.step(Received(source, AppendSystem("s", run.machine.epoch, "liveness.view", "", b"x"), "c"))
    hash_before = run.machine.store.state_hash
    assert len(refuse(run)) == 1, "the smallest entry is tried at once"
    for request in asked:
        problem = run.replies[request]
        assert type(problem) is DiskFull and problem.exit_code == 6
        assert "node 1 is full, nothing was written: /copy/log-1" in problem.message
    assert [each.message.id for each in run.sent if isinstance(each.message, messages.SystemRefused)] == ["s"]
    refuse(run)
    assert not run.machine.writable and run.machine.leading.primary == 1
    assert run.answer(Status())["closed_because"] == f"the disk is full: {REASON}"
    assert run.answer(Get("/app/old"))["value"] == 1
    assert type(run.answer(put("/app/more"))) is DiskFull and not run.pending
    assert run.machine.deadline == run.now + 1.0
    run.now += 1.0
    run.step()
    run.sync()
    assert run.machine.writable and run.machine.deadline is None
    assert run.machine.store.state_hash == hash_before
    assert run.answer(put("/app/1", "id-1"))["succeeded"], "an id that was refused is not taken for known"
    again = [record for batch in run.disk for record in batch]
    assert run.machine.store.revision == 3 and again


def test_only_a_large_write_finds_no_room(run: Any) -> None:
    run.open()
    request = run.ask(put("/app/large"))
    assert len(refuse(run)) == 1
    run.sync()
    assert type(run.replies[request]) is DiskFull
    assert run.machine.writable and run.answer(put("/app/small"))["succeeded"]


@pytest.mark.parametrize("refusals", [1, 3])
def test_a_registry_that_starts_on_a_full_disk_waits_for_room(
    new_run: Callable[..., Any], kit: Any, refusals: int
) -> None:
    disk = [[kit.founded()]]
    run = new_run(disk)
    run.step()
    for _ in range(refusals):
        assert not refuse(run)
        assert REASON in run.machine.closed_because and run.machine.phase == "stale"
        run.now += 1.0
        run.step()
    run.sync()
    assert run.machine.phase == "reads" and run.machine.epoch >= 2
    run.step(messages.GroupFormed())
    refuse(run)
    assert REASON in run.machine.closed_because
    run.now += 1.0
    run.step()
    run.sync()
    assert run.machine.writable and run.machine.closed_because == ""
    after = new_run([list(records_of) for records_of in disk]).open()
    assert after.machine.epoch == run.machine.epoch + 1
