"""A copy's files: what was synced is always there, what was harmed is always named, nothing is half read."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from covey.components.registry import create, entries, records, segments
from covey.components.registry.disk import Disk, load
from covey.components.registry.files import DiskFailed
from covey.components.registry.loaded import Loaded
from covey.components.registry.mark import MarkFile, Synced
from covey.components.registry.recovery import encode_snapshot
from covey.components.registry.settings import Settings
from covey.components.registry.store import Store
from covey.errors import AlreadyDefined, AlreadyRunning, NotImplementedYet
from hypothesis import given, settings
from hypothesis import strategies as st

CLUSTER = "c-1"
FIRST = "435652310000000e0100000000000000010000000000000001920093a163009192a22f61c401015ab926f50e2c69f2f89a182b588fd613"
SECOND = (
    "4356523100000016040000000000000002000000000000000292cd05dc96a1729192a22f61019192a22f61c090c200f7"
    "0ae82a53ab308a9b116bc2287566b8"
)
Rebuild = Callable[[Loaded], Store]
registry = settings(settings.get_profile("registry"), max_examples=100)


def _harmed(source: Path, harm: Callable[[Path], None]) -> tuple[Loaded, Path]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(source, Path(place) / "copy"))
        harm(folder)
        return load(folder, CLUSTER)[0], folder


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_a_founded_copy_holds_definition_servers_and_node(tmp_path: Path, kit: Any, rebuild: Rebuild) -> None:
    folder = kit.found(tmp_path)
    loaded, _ = load(folder, CLUSTER)
    store = rebuild(loaded)
    assert (store.cluster_id, store.gen, store.epoch, store.index, store.revision) == (CLUSTER, 0, 1, 1, 1)
    assert [key for key, _ in store.ls("/")] == ["/cluster/definition", "/cluster/servers", "/nodes/1"]
    assert not loaded.repaired
    assert folder == tmp_path / CLUSTER / "configuration" / "registry"


def test_founding_is_refused_twice_and_for_two_servers(tmp_path: Path, kit: Any) -> None:
    with pytest.raises(NotImplementedYet, match=r"SPEC 9\.5, DESIGN 3"):
        create(tmp_path / CLUSTER, cluster_id=CLUSTER, cluster_name="b", node=kit.node, servers=[1, 2])
    assert not (tmp_path / CLUSTER).exists()
    kit.found(tmp_path)
    with pytest.raises(AlreadyDefined):
        kit.found(tmp_path)


def test_founding_again_after_a_crash_in_the_middle(tmp_path: Path, kit: Any, rebuild: Rebuild) -> None:
    left = tmp_path / CLUSTER / "configuration" / "registry.new"
    left.mkdir(parents=True)
    (left / "identity").write_bytes(b"half")
    rebuild(load(kit.found(tmp_path), CLUSTER)[0])
    assert not left.exists()


def test_what_was_appended_is_there_after_every_reopen(tmp_path: Path, kit: Any, writer: Any, rebuild: Rebuild) -> None:
    folder = kit.found(tmp_path)
    for round in range(5):
        one = writer(folder, Settings(segment_bytes=500))
        assert one.store.index == 1 + 6 * round
        one.append(1)
        one.append(2)
        one.append(3)
        one.disk.close()
        store = rebuild(load(folder, CLUSTER)[0])
        assert (store.index, store.state_hash) == (one.store.index, one.store.state_hash)
    assert len(segments.serials(folder)) > 3


def test_trimming_keeps_two_snapshots_and_the_log_behind_the_older(
    long_copy: tuple[Path, int, int], rebuild: Rebuild
) -> None:
    folder, index, state = long_copy
    snapshots = sorted(path.name for path in folder.glob("snapshot-*"))
    assert len(snapshots) == 2
    older = int(snapshots[0].removeprefix("snapshot-"))
    loaded, found = load(folder, CLUSTER)
    assert found is not None and not found.superseded
    assert found.segments[0].serial > 1
    assert found.segments[0].first <= older + 1 < min(segment.first for segment in found.segments[1:])
    store = rebuild(loaded)
    assert (store.index, store.state_hash) == (index, state)
    assert loaded.committed >= older


def test_disk_use_stays_within_three_times_the_data(tmp_path: Path, kit: Any, rebuild: Rebuild) -> None:
    """All sizes are a thousandth of the real ones: 100 keys of 256 bytes, 8 KiB segments, a snapshot each 16 KiB."""
    folder, numbers = kit.found(tmp_path), Settings(segment_bytes=8 << 10, snapshot_bytes=16 << 10)
    disk, loaded = Disk.open(folder, CLUSTER, numbers)
    assert disk is not None
    store, chain, since, image = rebuild(loaded), loaded.entries[-1].digest, 0, b""
    trimmed = []
    for number in range(3000):
        batch: list[bytes] = []
        if number % 7 == 0:  # what a primary that was deposed left, and the cut
            doomed = entries.Transacted("", (), (("/app/x", b"\xc4\xff" + bytes(255)),), ())
            batch += [entries.encode(entries.Entry(1, store.index + 1, 0, doomed), chain)]
            batch += [records.encode_cut(store.index, 1, chain)]
        body = entries.Transacted("", (), ((f"/app/{number % 100}", b"\xc4\xff" + bytes(255)),), ())
        entry = entries.Entry(1, store.index + 1, 0, body)
        batch += [entries.encode(entry, chain), records.encode_committed(store.index)]
        chain = records.digest(batch[-2])
        store.apply(entry)
        disk.append(batch)
        since += sum(map(len, batch))
        if since > max(numbers.snapshot_bytes, len(image) // 2):
            image, since = encode_snapshot(store, chain), 0
            disk.write_snapshot(image)
            disk.trim()
            trimmed.append(sum(path.stat().st_size for path in folder.iterdir()))
    disk.close()
    assert len(trimmed) > 30 and max(trimmed) <= 3 * 100 * 256 + (64 << 10), max(trimmed)
    assert rebuild(load(folder, CLUSTER)[0]).state_hash == store.state_hash


@registry
@given(data=st.data())
def test_any_flipped_byte_is_named_or_costs_nothing(
    data: st.DataObject, long_copy: tuple[Path, int, int], rebuild: Rebuild
) -> None:
    source, index, state = long_copy
    name = data.draw(st.sampled_from([path.name for path in _files(source)]))
    size = (source / name).stat().st_size
    at, bit = data.draw(st.integers(0, size - 1)), data.draw(st.integers(0, 7))

    def flip(folder: Path) -> None:
        raw = bytearray((folder / name).read_bytes())
        raw[at] ^= 1 << bit
        (folder / name).write_bytes(raw)

    _must_be_whole_or_named(*_harmed(source, flip), name, at, index, state, rebuild)
    loaded, _ = _harmed(source, flip)
    if name.startswith("log-"):
        assert loaded.damaged, "a flipped byte of the log was not seen"
        assert loaded.damaged[0].position <= at


@registry
@given(data=st.data())
def test_any_file_cut_short_is_named_or_costs_nothing(
    data: st.DataObject, long_copy: tuple[Path, int, int], rebuild: Rebuild
) -> None:
    source, index, state = long_copy
    name = data.draw(st.sampled_from([path.name for path in _files(source)]))
    size = (source / name).stat().st_size
    length = data.draw(st.integers(0, size - 1))

    def cut(folder: Path) -> None:
        os.truncate(folder / name, length)

    loaded, folder = _harmed(source, cut)
    _must_be_whole_or_named(loaded, folder, name, length, index, state, rebuild)
    if name.startswith("log-"):
        assert loaded.damaged, "a log cut short was not seen"
        assert loaded.damaged[0].position <= length


def _must_be_whole_or_named(
    loaded: Loaded, folder: Path, name: str, at: int, index: int, state: int, rebuild: Rebuild
) -> None:
    if loaded.damaged:
        assert str(folder / name) in [damage.path for damage in loaded.damaged]
        assert all(damage.position >= 0 and damage.reason for damage in loaded.damaged)
        assert loaded.entries == () and loaded.snapshot is None, "a damaged copy was read half"
        error = loaded.damaged[0].error()
        assert loaded.damaged[0].path in str(error) and f"byte {loaded.damaged[0].position}" in str(error)
    else:
        store = rebuild(loaded)
        assert (store.index, store.state_hash) == (index, state)


def test_every_missing_file_is_named_or_costs_nothing(long_copy: tuple[Path, int, int], rebuild: Rebuild) -> None:
    source, _, state = long_copy
    noticed = set()
    for path in _files(source):
        loaded, folder = _harmed(source, lambda folder, name=path.name: (folder / name).unlink())  # type: ignore[misc]
        if loaded.damaged:
            noticed.add(path.name)
            assert loaded.damaged[0].path.startswith(str(folder)) and "missing" in loaded.damaged[0].reason
        else:  # an older file that a newer snapshot stands for, or a newer snapshot that older files stand for
            assert rebuild(loaded).state_hash == state
    logs = [segments.path_of(source, one).name for one in segments.serials(source)]
    assert len(logs) > 2 and {"identity", "hard-state", "synced", *logs[1:]} <= noticed
    assert load(source / "nowhere", CLUSTER)[0].damaged[0].path == str(source / "nowhere")


def test_swapped_files_are_noticed(copied: Path) -> None:
    first, second = [segments.path_of(copied, one) for one in segments.serials(copied)][:2]
    a, b = first.read_bytes(), second.read_bytes()
    first.write_bytes(b)
    second.write_bytes(a)
    assert "its name or its place was changed" in load(copied, CLUSTER)[0].damaged[0].reason


def test_a_damaged_snapshot_is_replaced_by_the_older_and_put_aside(
    copied: Path, long_copy: tuple[Path, int, int], rebuild: Rebuild
) -> None:
    newest = max(copied.glob("snapshot-*"))
    raw = bytearray(newest.read_bytes())
    raw[100] ^= 1
    newest.write_bytes(raw)
    disk, loaded = Disk.open(copied, CLUSTER)
    assert disk is not None
    disk.close()
    assert [damage.path for damage in loaded.repaired] == [str(newest)]
    assert rebuild(loaded).state_hash == long_copy[2]
    assert not newest.exists() and (copied / "snapshot-unreadable").exists()


def test_a_sound_snapshot_of_another_log_is_not_taken(
    copied: Path, long_copy: tuple[Path, int, int], writer: Any, rebuild: Rebuild
) -> None:
    newest = max(copied.glob("snapshot-*"))
    record = records.decode_only(newest.read_bytes(), records.SNAPSHOT)
    payload = b"another log here" + record.payload[16:]
    seed = records.SEED[records.SNAPSHOT]
    newest.write_bytes(records.encode(records.SNAPSHOT, record.epoch, record.index, payload, seed))
    loaded, _ = load(copied, CLUSTER)
    assert [damage.path for damage in loaded.repaired] == [str(newest)]
    assert "does not belong to this log" in loaded.repaired[0].reason
    assert rebuild(loaded).state_hash == long_copy[2]


def test_without_any_sound_snapshot_a_trimmed_log_is_damaged(copied: Path) -> None:
    for path in copied.glob("snapshot-*"):
        path.unlink()
    loaded, _ = load(copied, CLUSTER)
    assert "there is no snapshot of what was before" in loaded.damaged[0].reason


def test_another_clusters_copy_serves_nothing(copied: Path) -> None:
    loaded, _ = load(copied, "c-2")
    assert "belongs to cluster c-1" in loaded.damaged[0].reason and not loaded.entries


def test_nothing_is_changed_in_a_damaged_copy(copied: Path) -> None:
    log = segments.path_of(copied, segments.serials(copied)[0])
    os.truncate(log, log.stat().st_size - 1)
    before = {path.name: path.read_bytes() for path in _files(copied)}
    disk, loaded = Disk.open(copied, CLUSTER)
    assert disk is None and loaded.damaged
    assert {path.name: path.read_bytes() for path in _files(copied)} == before


# --- what the last moment may have torn ---------------------------------------------------------------------------


def _torn(tmp_path: Path, kit: Any, writer: Any) -> tuple[Path, Any, bytes]:
    """A copy with five synced batches, and the bytes of a sixth that was on its way."""
    folder = kit.found(tmp_path)
    one = writer(folder, Settings())
    for _ in range(5):
        one.append(2)
    one.disk.close()
    path = segments.path_of(folder, 1)
    synced = path.stat().st_size
    shutil.copytree(folder, tmp_path / "ahead")
    ahead = writer(tmp_path / "ahead", Settings())
    ahead.append(3, size=60)
    ahead.disk.close()
    return folder, one, segments.path_of(tmp_path / "ahead", 1).read_bytes()[synced:]


def test_a_torn_last_batch_is_cut_and_reported_wherever_it_tore(
    tmp_path: Path, kit: Any, writer: Any, rebuild: Rebuild
) -> None:
    folder, one, batch = _torn(tmp_path, kit, writer)
    path = segments.path_of(folder, 1)
    synced = path.read_bytes()
    for length in range(1, len(batch)):
        path.write_bytes(synced + batch[:length])
        loaded, _ = load(folder, CLUSTER)
        store = rebuild(loaded)
        assert (store.index, store.state_hash) == (one.store.index, one.store.state_hash)
        assert [damage.path for damage in loaded.repaired] == [str(path)]
        assert len(synced) <= loaded.repaired[0].position <= len(synced) + length
    path.write_bytes(synced + batch)
    assert rebuild(load(folder, CLUSTER)[0]).index == one.store.index + 3, "whole, though never acknowledged"


def test_pages_of_the_last_batch_may_be_missing_in_any_pattern(
    tmp_path: Path, kit: Any, writer: Any, rebuild: Rebuild
) -> None:
    folder, one, batch = _torn(tmp_path, kit, writer)
    path = segments.path_of(folder, 1)
    synced = path.read_bytes()
    for start in range(0, len(batch), 16):
        for end in range(start + 16, len(batch) + 16, 48):
            holed = batch[:start] + bytes(min(end, len(batch)) - start) + batch[end:]
            path.write_bytes(synced + holed)
            loaded, _ = load(folder, CLUSTER)
            assert rebuild(loaded).index == one.store.index and loaded.repaired


def test_a_copy_goes_on_after_a_tear(tmp_path: Path, kit: Any, writer: Any, rebuild: Rebuild) -> None:
    folder, one, batch = _torn(tmp_path, kit, writer)
    path = segments.path_of(folder, 1)
    size = path.stat().st_size
    with path.open("ab") as file:
        file.write(batch[:-1])
    again = writer(folder, Settings())
    assert path.stat().st_size == size
    again.append(1)
    again.disk.close()
    loaded, _ = load(folder, CLUSTER)
    assert rebuild(loaded).index == one.store.index + 1 and not loaded.repaired


def test_a_stale_mark_as_after_a_loss_of_power_loses_nothing(
    tmp_path: Path, kit: Any, writer: Any, rebuild: Rebuild
) -> None:
    folder = kit.found(tmp_path)
    one = writer(folder, Settings())
    one.append(2)
    stale = (folder / "synced").read_bytes()
    for _ in range(4):
        one.append(2)
    one.disk.close()
    (folder / "synced").write_bytes(stale)
    path = segments.path_of(folder, 1)
    whole = path.read_bytes()
    assert rebuild(load(folder, CLUSTER)[0]).state_hash == one.store.state_hash
    for position in _batches(whole, path)[2:-1]:  # synced, though the mark does not know: a later batch proves it
        path.write_bytes(whole[: position + 60] + b"\xff\xff" + whole[position + 62 :])
        damage = load(folder, CLUSTER)[0].damaged[0]
        assert "proves that this one was synced" in damage.reason and position <= damage.position <= position + 62
    path.write_bytes(whole[:-1])
    assert rebuild(load(folder, CLUSTER)[0]).index == one.store.index - 2


def _batches(data: bytes, path: Path) -> list[int]:
    head = records.decode(data, 0, records.SEED[records.SEGMENT], records.SEGMENT)
    found, at = [], head.end
    while at < len(data):
        found.append(at)
        at = data.find(records.MAGIC, at)
        size = records.HEADER.unpack_from(data, at)[1]
        start = at + records.HEADER.size
        at = start + size + 16 + msgspec.msgpack.decode(data[start : start + size])[1]
    return found


def test_a_new_segment_has_no_name_until_it_is_whole(tmp_path: Path, kit: Any, writer: Any, rebuild: Rebuild) -> None:
    folder = kit.found(tmp_path)
    one = writer(folder, Settings())
    one.append(3)
    one.disk.close()
    named = segments.path_of(folder, 2)
    for content in (b"", b"CVR1\0\0", os.urandom(80)):
        named.with_name(named.name + ".tmp").write_bytes(content)
        loaded, _ = load(folder, CLUSTER)
        assert rebuild(loaded).index == one.store.index and not loaded.repaired
        again = writer(folder, Settings())
        again.disk.close()
        assert not list(folder.glob("*.tmp"))
        named.write_bytes(content)
        assert load(folder, CLUSTER)[0].damaged[0].path == str(named), "nothing tears what is synced before its name"
        named.unlink()


def test_one_bad_slot_of_the_mark_is_reported_and_the_other_used(copied: Path, rebuild: Rebuild) -> None:
    raw = bytearray((copied / "synced").read_bytes())
    raw[20] ^= 1
    (copied / "synced").write_bytes(raw)
    loaded, _ = load(copied, CLUSTER)
    rebuild(loaded)
    assert [(damage.path, damage.position) for damage in loaded.repaired] == [(str(copied / "synced"), 0)]
    raw[600] ^= 1
    raw[530] ^= 1
    (copied / "synced").write_bytes(raw)
    assert len(load(copied, CLUSTER)[0].damaged) == 2


def test_an_older_slot_of_the_mark_may_name_a_segment_that_was_trimmed(
    copied: Path, long_copy: tuple[Path, int, int], rebuild: Rebuild
) -> None:
    path, first = copied / "synced", segments.serials(copied)[0]
    assert first > 1
    MarkFile.create(path, Synced(3, first - 1, 400, b"a digest of then"))
    raw = bytearray(path.read_bytes())
    raw[530] ^= 1  # the newer slot tore
    path.write_bytes(raw)
    assert rebuild(load(copied, CLUSTER)[0]).state_hash == long_copy[2]
    MarkFile.create(path, Synced(3, segments.serials(copied)[-1] + 1, 400, b"a digest of then"))
    assert "is missing; it was synced" in load(copied, CLUSTER)[0].damaged[0].reason


def test_a_mark_of_another_log_is_damage(copied: Path) -> None:
    mark, _, _ = MarkFile.read(copied / "synced")
    assert mark
    MarkFile.create(copied / "synced", msgspec.structs.replace(mark, chain=b"another log here"))
    assert "the synced mark belongs to another log" in load(copied, CLUSTER)[0].damaged[0].reason
    MarkFile.create(copied / "synced", msgspec.structs.replace(mark, index=mark.index + 1))
    assert "the synced mark belongs to another log" in load(copied, CLUSTER)[0].damaged[0].reason


# --- records that are whole and cannot be true ----------------------------------------------------------------------


def test_a_record_that_cannot_follow_is_neither_written_nor_believed(tmp_path: Path, kit: Any, writer: Any) -> None:
    folder = kit.found(tmp_path)
    one = writer(folder, Settings())
    one.append(3)
    one.disk.append([records.encode_committed(3)])
    last, chain = one.store.index, one.chain
    wrong = {
        "cut at 2 .* committed up to 3": records.encode_cut(2, 1, chain),
        "cut at 5 .* ends at 4": records.encode_cut(5, 1, chain),
        "index 6 behind a log that ends at 4": records.encode(4, 1, last + 2, b"", chain),
        "kind 37": records.encode(records.MARK, 1, last + 1, b"", records.SEED[records.MARK]),
    }
    path = segments.path_of(folder, 1)
    for why, record in wrong.items():
        with pytest.raises(ValueError, match=why):
            one.disk.append([record])
    one.disk.close()
    whole, sound = path.read_bytes(), load(folder, CLUSTER)[0]
    assert not sound.damaged
    wrong["names another entry 3"] = records.encode_cut(3, 1, chain)
    for record in wrong.values():
        path.write_bytes(whole + segments.encode_batch(4, last + 1, [record], _salt(whole)))
        damage = load(folder, CLUSTER)[0].damaged
        assert damage and damage[0].path == str(path) and damage[0].position >= len(whole), record
    path.write_bytes(whole + segments.encode_batch(4, last + 1, [records.encode_committed(9)], _salt(whole)))
    loaded = load(folder, CLUSTER)[0]
    assert (loaded.damaged, loaded.repaired, loaded.committed) == ((), (), 3), "a hint beyond the end says nothing"


def _salt(data: bytes) -> bytes:
    head = records.decode(data, 0, records.SEED[records.SEGMENT], records.SEGMENT)
    return msgspec.msgpack.decode(head.payload, type=segments.SegmentHead).salt


# --- errors of the disk ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fdatasync", "pwrite"])
def test_an_error_of_the_disk_is_fatal_and_the_mark_does_not_move(
    tmp_path: Path, kit: Any, writer: Any, rebuild: Rebuild, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    folder = kit.found(tmp_path)
    one = writer(folder, Settings())
    one.append(1)
    mark, index = (folder / "synced").read_bytes(), one.store.index

    def fail(*_: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(DiskFailed, match=r"log-0+1 at byte \d+: Input/output error \(errno 5, EIO\)"):
            one.append(1)
    assert (folder / "synced").read_bytes() == mark
    one.disk.close()
    assert rebuild(load(folder, CLUSTER)[0]).index in (index, index + 1)


def test_a_disk_that_is_full_for_a_snapshot_harms_nothing(
    tmp_path: Path, kit: Any, writer: Any, rebuild: Rebuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = kit.found(tmp_path)
    one = writer(folder, Settings())

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            one.snapshot()
    assert not list(folder.glob("snapshot*"))
    one.append(1)
    one.disk.close()
    rebuild(load(folder, CLUSTER)[0])


def test_two_processes_cannot_open_one_copy(tmp_path: Path, kit: Any, writer: Any) -> None:
    folder = kit.found(tmp_path)
    one = writer(folder, Settings())
    with pytest.raises(AlreadyRunning):
        Disk.open(folder, CLUSTER)
    one.disk.close()
    disk, _ = Disk.open(folder, CLUSTER)
    assert disk is not None
    disk.close()


def test_a_vote_counts_only_in_the_epoch_that_was_promised(tmp_path: Path, kit: Any, writer: Any) -> None:
    folder = kit.found(tmp_path)
    one = writer(folder, Settings())
    one.disk.append([records.encode_hard_state(9, 3), records.encode_hard_state(10, 2)])
    loaded, _ = load(folder, CLUSTER)
    assert (loaded.promised, loaded.voted_for) == (10, 2)
    one.disk.append([records.encode(4, 11, 2, b"", one.chain)])
    one.disk.close()
    loaded, _ = load(folder, CLUSTER)
    assert (loaded.promised, loaded.voted_for) == (11, 0)


def test_a_promise_is_durable_apart_from_the_log(tmp_path: Path, kit: Any, writer: Any) -> None:
    folder = kit.found(tmp_path)
    one = writer(folder, Settings())
    one.disk.append([records.encode_hard_state(9)])
    one.disk.close()
    assert load(folder, CLUSTER)[0].promised == 9


# --- the record -----------------------------------------------------------------------------------------------------


@registry
@given(st.binary(max_size=200), st.binary(min_size=1, max_size=16), st.data())
def test_a_record_comes_back_only_whole(payload: bytes, previous: bytes, data: st.DataObject) -> None:
    record = records.encode(4, 3, 9, payload, previous)
    found = records.decode(record, 0, previous)
    assert (found.kind, found.epoch, found.index, found.payload, found.end) == (4, 3, 9, payload, len(record))
    at = data.draw(st.integers(0, len(record) - 1))
    for harmed in (record[:at], record[:at] + bytes([record[at] ^ 0x10]) + record[at + 1 :]):
        with pytest.raises(records.BadRecord) as bad:
            records.decode(harmed, 0, previous)
        assert bad.value.position == 0 and bad.value.reason
    with pytest.raises(records.BadRecord):
        records.decode(record, 0, previous + b"x")


def test_the_bytes_of_a_record_are_the_format_and_do_not_change() -> None:
    founded = entries.Entry(1, 1, 0, entries.Founded("c", 0, (("/a", b"\x01"),)))
    first = entries.encode(founded, records.START)
    put = entries.Transacted("r", (("/a", 1),), (("/a", None),), (), False)
    second = entries.encode(entries.Entry(2, 2, 1500, put), records.digest(first))
    assert first.hex() == FIRST
    assert second.hex() == SECOND
    assert entries.decode(records.decode(second, 0, records.digest(first))).body == put
