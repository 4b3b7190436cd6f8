"""A crash at every single sync: what was acknowledged is there, once, and the next reign goes on from it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from covey.components.registry import messages, records, segments
from covey.components.registry.disk import Disk
from covey.components.registry.machine import RegistryMachine
from covey.components.registry.messages import AppendSystem, Comparison, Get, ListSystem, Operation, Transact
from covey.components.registry.recovery import recover
from covey.components.registry.settings import Settings

NewRun = Callable[..., Any]
CLUSTER = "c-1"


def work() -> list[Any]:
    """Transactions that depend on one another, and system entries between them."""
    found: list[Any] = []
    for number in range(12):
        compare = (Comparison("/app/n", 2 + (number - 1) if number else 0),)
        then = (Operation("put", "/app/n", number), Operation("put", f"/app/{number}", "x" * number))
        found.append(Transact(f"t{number}", compare, then))
        if number % 3 == 0:
            found.append(AppendSystem(f"s{number}", 2, "k", "", b"%d" % number, keep=3))
    return found


def finish(run: Any, acknowledged: dict[str, Any]) -> None:
    """Start on what the disk holds, check what was acknowledged, ask everything again, see it done once."""
    run.open()
    for question in work():
        if isinstance(question, AppendSystem) and question.id not in acknowledged:
            continue  # it belonged to the epoch that is over
        answer = run.answer(question)
        if question.id in acknowledged:
            assert answer == acknowledged[question.id], question.id
        else:
            assert answer["succeeded"], question.id
    assert run.answer(Get("/app/n"))["value"] == 11
    assert run.machine.store.revision == 1 + 12
    kept = [entry["body"] for entry in run.answer(ListSystem("k"))["entries"]]
    for id in [id for id in acknowledged if id.startswith("s")][-1:]:
        assert id.removeprefix("s").encode() in kept


@pytest.mark.parametrize("kept", [0, 1, 2, 9], ids=lambda n: f"{n}-unsynced-survive")
def test_a_crash_at_every_sync(kept: int, new_run: NewRun) -> None:
    total = 2 + len(work())
    for crash_at in range(total + 1):
        run = new_run()
        run.step()
        run.step(messages.GroupFormed())
        asked: dict[str, int] = {}
        pending_work = work()
        synced = 0
        while synced < crash_at and (run.pending or pending_work):
            while pending_work and run.machine.writable and len(run.pending) < 3:
                question = pending_work.pop(0)
                asked[question.id] = run.ask(question)
            if run.pending:
                run.sync(1)
                synced += 1
        acknowledged = {id: run.replies[number] for id, number in asked.items() if number in run.replies}
        lost = run.pending
        disk = run.disk + [list(order.data) for order in lost[:kept]]
        finish(new_run(disk), acknowledged)


def test_a_kill_at_every_sync_of_real_files_with_a_torn_tail(
    tmp_path: Path, kit: Any, new_run: NewRun, rebuild: Any
) -> None:
    settings = Settings(segment_bytes=300, snapshot_bytes=500)
    folder = kit.found(tmp_path)
    disk, loaded = Disk.open(folder, CLUSTER, settings)
    assert disk is not None
    machine = RegistryMachine(1, recover(loaded, settings), settings, Random(1))
    run = type(new_run())(machine, [])
    run.step()
    run.step(messages.GroupFormed())
    shutil.copyfile(folder / "synced", tmp_path / "mark")
    acknowledged: dict[str, Any] = {}
    asked: dict[str, int] = {}
    pending_work = work()
    crashes = 0
    while run.pending or pending_work:
        if pending_work and machine.writable:
            question = pending_work.pop(0)
            asked[question.id] = run.ask(question)
        order = run.pending[0]
        before = _size(folder)
        disk.append(order.data)
        _crash(folder, tmp_path / f"crash{crashes}", before, acknowledged, rebuild)
        crashes += 1
        run.sync(1)
        acknowledged = {id: run.replies[number] for id, number in asked.items() if number in run.replies}
        for record in run.snapshots[-1:]:
            disk.write_snapshot(record)
            disk.trim()
            run.snapshots.clear()
            run.step(messages.SnapshotWritten(records.index_of(record)))
    assert crashes > 15 and list(folder.glob("snapshot-*")) and segments.serials(folder)[0] > 1
    disk.close()


def _size(folder: Path) -> int:
    return segments.path_of(folder, segments.serials(folder)[-1]).stat().st_size


def _crash(folder: Path, place: Path, before: int, acknowledged: dict[str, Any], rebuild: Any) -> None:
    """A kill in the middle of the write of the last batch (the mark was written only behind it), and one after it."""
    for torn in (False, True):
        copy = shutil.copytree(folder, place / str(torn))
        if torn:
            shutil.copyfile(place.parent / "mark", copy / "synced")
            last = segments.path_of(copy, segments.serials(copy)[-1])
            size = last.stat().st_size
            with last.open("r+b") as file:
                file.truncate(size - 7 if size - 7 > before or size < before else size)
        disk, loaded = Disk.open(copy, CLUSTER)
        assert disk is not None, loaded.damaged
        recovered = recover(loaded, Settings())
        assert not recovered.damaged
        store = rebuild(loaded)
        for id, answer in acknowledged.items():
            kept = store.answered(id)
            assert kept is not None, f"{id} was acknowledged and is gone"
            if "revision" in answer:
                assert kept.revision == answer["revision"]
        disk.close()
    shutil.copyfile(folder / "synced", place.parent / "mark")
