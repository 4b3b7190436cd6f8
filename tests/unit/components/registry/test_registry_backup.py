"""Backups: written whole or not at all, believed only when every byte is right; a new generation made of one."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest
from covey.components.registry import backup, entries, generation, records
from covey.components.registry.keys import pack_value, unpack_value
from covey.components.registry.loaded import Loaded
from covey.components.registry.messages import Comparison, Operation
from covey.components.registry.parts import Parts
from covey.components.registry.recovery import encode_snapshot, recover
from covey.components.registry.settings import Settings
from covey.components.registry.store import Store
from covey.errors import BackupDamaged, Busy, Compacted, CoveyError, NotFound, Refused
from killed import every_step

AT = "2026-01-01T00:00:00.000Z"
VALUES: list[Any] = ["text", 7, -1, 1 << 63, 0.1, 1e300, None, True, {"a": [1, {"b": None}]}, "", "ünïcode ☃"]


def filled() -> tuple[Store, bytes]:
    """Return a state as a cluster leaves it, and the digest of its last entry."""
    store, chain = Store(), records.START
    keys = {"/cluster/definition": {"id": "c-1", "name": "blue"}, "/cluster/servers": {"servers": [1, 2, 3]}}
    then = tuple((key, pack_value(key, value)) for key, value in keys.items())
    bodies: list[entries.Body] = [entries.Founded("c-1", 2, then), entries.Reigned(1)]
    for number, value in enumerate(VALUES):
        key = f"/app/{number}"
        bodies.append(entries.Transacted(f"id-{number}", (), ((key, pack_value(key, value)),), ()))
    bodies.append(entries.Committed("", "liveness.view", "", b"a view", 2))
    for index, body in enumerate(bodies, 1):
        record = entries.encode(entries.Entry(3, index, index, body), chain)
        store.apply(entries.Entry(3, index, index, body))
        chain = records.digest(record)
    return store, chain


@pytest.fixture
def record() -> bytes:
    return encode_snapshot(*filled())


def test_a_backup_is_read_as_it_was_written(tmp_path: Path, record: bytes) -> None:
    path = tmp_path / "night.backup"
    label = backup.write(path, record, AT)
    store, chain = filled()
    assert (label.cluster_id, label.cluster_name, label.incarnation) == ("c-1", "blue", (2, 3, store.index))
    assert (label.revision, label.keys, label.taken_at, label.size) == (store.revision, 13, AT, len(record))
    found = backup.read(path)
    assert found.label == label
    assert found.chain == chain
    assert found.store.image() == store.image()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["night.backup"]
    assert path.read_bytes().startswith(b"covey-backup 1 ")  # `head -1` shows what it is


def test_every_flip_and_every_cut_is_seen(tmp_path: Path, record: bytes) -> None:
    path = tmp_path / "b"
    backup.write(path, record, AT)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(BackupDamaged):
            backup.read(path)
        path.write_bytes(whole[:at])
        with pytest.raises(BackupDamaged):
            backup.read(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(BackupDamaged, match="longer"):
        backup.read(path)
    path.write_bytes(whole)
    backup.read(path)


def test_a_line_of_another_backup_is_seen(tmp_path: Path, record: bytes) -> None:
    """The line and the record are each sound, and do not belong together."""
    store, chain = filled()
    other = encode_snapshot(generation.begin(store, chain, 1).store, chain)
    a, b = tmp_path / "a", tmp_path / "b"
    backup.write(a, record, AT)
    backup.write(b, other, AT)
    line, _ = a.read_bytes().split(b"\n", 1)
    label = msgspec.structs.replace(backup.read(b).label, revision=1)
    said = msgspec.json.encode(label)
    b.write_bytes(f"covey-backup 1 {records.digest_of(b'backup', said).hex()} ".encode() + said + b"\n" + other)
    with pytest.raises(BackupDamaged, match="revision"):
        backup.read(b)
    b.write_bytes(line + b"\n" + other)
    with pytest.raises(BackupDamaged):
        backup.read(b)


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"hello\n", b"covey-backup 1\n", b"\xff\xfe\n\n", b"covey-backup 1 a b\n"]
)
def test_other_files_are_no_backups(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(text)
    with pytest.raises(BackupDamaged) as caught:
        backup.read(tmp_path / "b")
    assert str(tmp_path / "b") in caught.value.message
    assert caught.value.exit_code == 10
    with pytest.raises(BackupDamaged):
        backup.read(tmp_path)
    with pytest.raises(BackupDamaged):
        backup.read(tmp_path / "none")


def test_a_newer_format_is_named(tmp_path: Path, record: bytes) -> None:
    path = tmp_path / "b"
    backup.write(path, record, AT)
    path.write_bytes(path.read_bytes().replace(b"covey-backup 1 ", b"covey-backup 2 ", 1))
    with pytest.raises(BackupDamaged, match="format 2"):
        backup.read(path)


def test_nothing_is_replaced_and_nothing_left(tmp_path: Path, record: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b"
    path.write_bytes(b"precious")
    with pytest.raises(Refused):
        backup.write(path, record, AT)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(Refused):
        backup.write(tmp_path / "link", record, AT)
    with pytest.raises(Refused):
        backup.write(tmp_path / "none" / "b", record, AT)
    with pytest.raises(BackupDamaged):
        backup.write(tmp_path / "c", record[:-1] + b"?", AT)
    monkeypatch.setattr(backup, "check_absent", lambda path: None)  # it comes while we write
    with pytest.raises(Refused):
        backup.write(path, record, AT)
    assert path.read_bytes() == b"precious"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["b", "link"]


@pytest.mark.parametrize("call", ["fsync", "link"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_or_broken_disk_leaves_nothing(
    call: str, number: int, tmp_path: Path, record: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(CoveyError, match="cannot be written"):
        backup.write(tmp_path / "b", record, AT)
    assert list(tmp_path.iterdir()) == []


def test_a_kill_at_every_step_leaves_a_whole_file_or_none(tmp_path: Path, record: bytes) -> None:
    folder = tmp_path / "backups"
    path = folder / "b"

    def fresh() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()

    whole = 0
    for _ in every_step(lambda: backup.write(path, record, AT), fresh, least=3):
        if path.exists():
            backup.read(path)
            whole += 1
        else:
            backup.write(path, record, AT)  # what is left of the first attempt is in nobody's way
    assert whole > 0


def test_a_file_system_without_links(tmp_path: Path, record: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    backup.write(tmp_path / "b", record, AT)
    assert backup.read(tmp_path / "b").label.taken_at == AT
    assert [one.name for one in tmp_path.iterdir()] == ["b"]


# --- a new generation -------------------------------------------------------------------------------------------------


def test_a_new_generation_has_all_data_and_counts_beyond_what_was_lost() -> None:
    store, chain = filled()
    before = store.image()
    made = generation.begin(
        store,
        chain,
        2,
        promised=9,
        compare=[Comparison("/app/0", store.mod_revision("/app/0")), Comparison("/app/new", 0)],
        then=[Operation("put", "/app/new", {"a": 1}), Operation("delete", "/app/1")],
    )
    assert store.image() == before  # pure
    snapshot = records.decode_only(made.snapshot, records.SNAPSHOT)
    found = recover(Loaded(snapshot=snapshot), Settings()).store
    assert found.image() == made.store.image()
    assert (found.gen, found.cluster_id) == (3, "c-1")
    assert found.epoch == 9 + generation.EPOCHS == snapshot.epoch
    assert records.decode_only(made.hard_state, records.HARD_STATE).epoch == found.epoch
    assert found.index == store.index + generation.ENTRIES + 1 == snapshot.index
    assert found.revision == store.revision + generation.ENTRIES + 1
    for number, value in enumerate(VALUES):
        item = found.get(f"/app/{number}")
        assert (item is None) if number == 1 else (item is not None and unpack_value(item.value) == value)
    assert found.system("liveness.view") == store.system("liveness.view")
    servers = found.get("/cluster/servers")
    assert servers is not None
    assert unpack_value(servers.value) == {"servers": [2], "learners": [], "stopped": [], "primary": 2}
    with pytest.raises(Compacted):  # whoever watched the lost registry, however far it had come
        found.changes("/", store.revision + 500_000_000, 1000)


def test_a_new_generation_of_another_state_is_refused() -> None:
    store, chain = filled()
    with pytest.raises(generation.Conflict) as caught:
        generation.begin(store, chain, 1, compare=[Comparison("/app/0", 0), Comparison("/app/x", 0)])
    assert caught.value.keys == ["/app/0"]


# --- handing out ------------------------------------------------------------------------------------------------------


def test_an_answer_is_handed_out_in_parts() -> None:
    async def work() -> None:
        parts = Parts(part=4)
        told = parts.begin(b"0123456789")
        assert (told["size"], told["parts"]) == (10, 3)
        assert parts.give(told["token"], 0) == b"0123"
        with pytest.raises(Busy):
            parts.check_free()
        with pytest.raises(Busy):
            parts.begin(b"other")
        assert [parts.give(told["token"], number) for number in (1, 2, 2)] == [b"4567", b"89", b"89"]
        for token, number in ((told["token"], 3), (told["token"], -1), ("", 0), ("other", 0)):
            with pytest.raises(NotFound):
                parts.give(token, number)
        again = parts.begin(b"next")
        with pytest.raises(NotFound):
            parts.give(told["token"], 0)
        assert parts.give(again["token"], 0) == b"next"
        parts.drop()

    asyncio.run(work())


def test_who_went_away_is_forgotten() -> None:
    async def work() -> None:
        parts = Parts(part=4, idle=0.001)
        told = parts.begin(b"0123456789")
        async with asyncio.timeout(10):
            while True:
                try:
                    parts.check_free()
                except Busy:
                    await asyncio.sleep(0)
                else:
                    break
        with pytest.raises(NotFound):
            parts.give(told["token"], 0)

    asyncio.run(work())
