"""A kill or a loss of power at any call to the system leaves the copy of before or the new one; and a long life of a
copy, with kills, tears and full disks in it, held against a plain model."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest
from covey.components.registry import create, layout, records
from covey.components.registry.disk import Disk
from covey.components.registry.files import NoRoom
from covey.components.registry.loaded import Loaded
from covey.components.registry.loading import load
from covey.components.registry.settings import Settings
from hypothesis import given, settings
from hypothesis import strategies as st
from power_loss import Killed, Power

CLUSTER = "c-1"
SMALL = Settings(segment_bytes=300)
registry = settings(settings.get_profile("registry"), max_examples=12)


@dataclass(frozen=True)
class Log:
    """What a copy must hold: digests of the entries behind `base`, what is committed, promise and vote."""

    base: int
    digests: tuple[bytes, ...]  # of entry `base`, then of those behind it
    committed: int
    hard: tuple[int, int]

    @property
    def last(self) -> int:
        return self.base + len(self.digests) - 1

    @property
    def chain(self) -> bytes:
        return self.digests[-1]

    def is_what(self, loaded: Loaded) -> bool:
        """Is it just this that was loaded?"""
        assert not loaded.damaged, loaded.damaged
        at = loaded.snapshot.index if loaded.snapshot else 0
        chain = loaded.snapshot.payload[: records.DIGEST_BYTES] if loaded.snapshot else records.START
        found = tuple(record.digest for record in loaded.entries)
        assert [record.index for record in loaded.entries] == list(range(at + 1, at + 1 + len(found)))
        return (
            self.base <= at <= self.last
            and (chain, *found) == self.digests[at - self.base :]
            and loaded.committed == self.committed
            and (loaded.promised, loaded.voted_for) == self.hard
        )


class Life:
    """Makes up what happens to a copy: each of these returns records for one batch, and what the copy holds then."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._word = itertools.count()

    def grow(self, log: Log, most: int = 3) -> tuple[list[bytes], Log]:
        batch, digests = [], list(log.digests)
        for index in range(log.last + 1, log.last + 1 + self.random.randint(1, most)):
            payload = b"%d " % next(self._word) * self.random.randint(1, 30)
            batch.append(records.encode(4, 1, index, payload, digests[-1]))
            digests.append(records.digest(batch[-1]))
        return batch, replace(log, digests=tuple(digests))

    def hint(self, log: Log) -> tuple[list[bytes], Log]:
        index = self.random.randint(log.committed, log.last + 1)
        committed = index if index <= log.last else log.committed
        return [records.encode_committed(index)], replace(log, committed=committed)

    def cut(self, log: Log) -> tuple[list[bytes], Log]:
        index = self.random.randint(log.committed, log.last)
        digests = log.digests[: index - log.base + 1]
        return [records.encode_cut(index, 1, digests[-1])], replace(log, digests=digests)

    def vote(self, log: Log) -> tuple[list[bytes], Log]:
        hard = (log.hard[0] + 1, self.random.randint(0, 3))
        return [records.encode_hard_state(*hard)], replace(log, hard=hard)

    def install(self, log: Log) -> tuple[list[bytes], Log]:
        index, chain = self.random.randint(log.committed + 1, log.last + 5), self.random.randbytes(16)
        return [snapshot(index, chain)], Log(index, (chain,), index, log.hard)

    def batch(self, log: Log, *kinds: Callable[..., tuple[list[bytes], Log]]) -> tuple[list[bytes], Log]:
        """Several of them, one behind the other, in one batch."""
        found: list[bytes] = []
        for kind in kinds or self.random.choices([self.grow, self.hint, self.cut, self.vote], k=3):
            more, log = kind(log)
            found += more
        return found, log


def snapshot(index: int, chain: bytes) -> bytes:
    return records.encode(records.SNAPSHOT, 1, index, chain + b"state", records.SEED[records.SNAPSHOT])


def own_snapshot(disk: Disk, log: Log, index: int) -> None:
    disk.write_snapshot(snapshot(index, log.digests[index - log.base]))
    disk.trim()


@contextmanager
def opened(folder: Path) -> Iterator[tuple[Disk | None, Loaded]]:
    disk, loaded = Disk.open(folder, CLUSTER, SMALL)
    try:
        yield disk, loaded
    finally:
        if disk:
            disk.abandon()


def founded(folder: Path) -> Log:
    """Found a copy in `folder`; return what it holds."""
    create(folder, cluster_id=CLUSTER, cluster_name="blue", node={"number": 1}, servers=[1])
    loaded, _ = load(layout.folder_of(folder), CLUSTER)
    assert (loaded.committed, loaded.promised, loaded.voted_for) == (1, 1, 0)
    return Log(0, (records.START, loaded.entries[0].digest), 1, (1, 0))


def grown(folder: Path, life: Life, batches: int = 6) -> Log:
    """Found a copy and let it live for a while."""
    log = founded(folder)
    with opened(layout.folder_of(folder)) as (disk, _):
        assert disk
        for number in range(batches):
            batch, log = life.batch(log, life.grow, life.hint, life.grow, life.cut, life.grow, life.vote)
            disk.append(batch)
            if number in (2, 4):
                own_snapshot(disk, log, log.committed)
    return log


def crash_everywhere(
    place: Path, root: Path, change: Callable[[], Any], check: Callable[[Path, bool], Any], losses: int = 4
) -> int:
    """Do `change`; before each of its calls, and behind the last, give `check` what a crash there may leave of `root`,
    and whether it was over. Return how many calls there were."""
    place.mkdir(exist_ok=True)
    power = Power(root, Random(str(root.name)))
    number = itertools.count()

    def crash(over: bool = False) -> None:
        for loss in range(1 + losses * (1 + over)):
            check((power.lost if loss else power.killed)(place / f"crash{next(number)}"), over)

    power.each = crash
    with power.watching():
        change()
    crash(over=True)
    power.close()
    return power.calls


HAPPENINGS = {
    "grow": lambda life: [life.grow],
    "grow and hint": lambda life: [life.grow, life.hint, life.vote],
    "cut": lambda life: [life.cut, life.grow],
    "cut alone": lambda life: [life.grow, life.cut],
    "install": lambda life: [life.install],
    "install in between": lambda life: [life.grow, life.vote, life.install, life.grow, life.cut, life.grow, life.hint],
}


@pytest.mark.parametrize("segment_bytes", [1, 1 << 20], ids=["new segment", "same segment"])
@pytest.mark.parametrize("kind", HAPPENINGS)
def test_a_crash_at_any_call_leaves_the_old_or_the_new(tmp_path: Path, kind: str, segment_bytes: int) -> None:
    life = Life(Random(kind))
    before = grown(tmp_path / "state", life)
    folder = layout.folder_of(tmp_path / "state")
    disk, _ = Disk.open(folder, CLUSTER, Settings(segment_bytes=segment_bytes))
    assert disk
    batch, after = life.batch(before, *HAPPENINGS[kind](life))
    allowed = (before, replace(before, hard=after.hard), after)
    met = set()

    def check(copy: Path, over: bool) -> None:
        with opened(copy) as (again, loaded):
            found = [log for log in allowed if log.is_what(loaded)]
            assert again and found, loaded
            assert not over or after.is_what(loaded), "it was said to be durable"
            met.add(allowed.index(found[0]))
            more, then = life.batch(found[0], life.grow, life.cut, life.grow)
            again.append(more)  # it can go on from there
        last, scan = load(copy, CLUSTER)
        assert then.is_what(last) and not last.repaired
        assert scan and not scan.superseded and not list(copy.glob("*.tmp"))

    calls = crash_everywhere(tmp_path, folder, lambda: disk.append(batch), check)
    disk.abandon()
    assert after.is_what(load(folder, CLUSTER)[0])
    assert calls >= 3 and met >= {0, 2}
    if "install" in kind:
        assert [path.name for path in folder.glob("snapshot-*")] == [f"snapshot-{after.base:020d}"]
        assert len(list(folder.glob("log-*"))) == 1


def test_a_crash_at_any_call_of_a_snapshot_trim_or_opening_changes_nothing(tmp_path: Path) -> None:
    life = Life(Random(7))
    log = grown(tmp_path / "state", life, 12)
    folder = layout.folder_of(tmp_path / "state")
    snapshots = len(list(folder.glob("log-*")))

    def check(copy: Path, over: bool) -> None:
        loaded, found = load(copy, CLUSTER)
        assert found and log.is_what(loaded)

    disk, _ = Disk.open(folder, CLUSTER, SMALL)
    assert disk
    crash_everywhere(tmp_path / "a", folder, lambda: own_snapshot(disk, log, log.committed), check)
    disk.abandon()
    assert len(list(folder.glob("log-*"))) < snapshots, "nothing was trimmed"
    with next(iter(sorted(folder.glob("log-*"), reverse=True))).open("ab") as file:
        file.write(b"torn")

    def reopen() -> None:
        with opened(folder) as (_, loaded):
            assert log.is_what(loaded) and loaded.repaired

    crash_everywhere(tmp_path / "b", folder, reopen, check)


# --- a whole new copy -----------------------------------------------------------------------------------------------


def wreck(home: Path, kind: str) -> None:
    if kind == "missing":
        home.rename(home.with_name("elsewhere"))
    elif kind != "superseded":
        (home / "synced").unlink()
    if kind == "damaged again":
        kept = home.with_name("registry.damaged")
        kept.mkdir()
        (kept / "older").write_bytes(b"older")


@pytest.mark.parametrize("kind", ["damaged", "damaged again", "missing", "superseded"])
def test_a_crash_at_any_call_of_a_refill_leaves_the_old_or_a_whole_new_copy(tmp_path: Path, kind: str) -> None:
    life = Life(Random(kind))
    before = grown(tmp_path / "state", life)
    home = layout.folder_of(tmp_path / "state")
    wreck(home, kind)
    old = {path.name: path.read_bytes() for path in home.glob("*")}
    image, base = life.install(before)
    more, after = life.batch(replace(base, hard=(9, 2)), life.grow, life.hint)
    met = set()

    def check(copy: Path, over: bool) -> None:
        place = copy / "registry"
        beside = {path.name: path.read_bytes() for path in (copy / "registry.damaged").glob("*")}
        with opened(place) as (disk, loaded):
            if disk and loaded.identity and loaded.identity.gen == 3:
                assert after.is_what(loaded)
                assert kind == "missing" or beside == old
                met.add("new")
            elif place.exists():
                now = {path.name: path.read_bytes() for path in place.iterdir() if path.name != "synced"}
                assert now.items() >= {name: data for name, data in old.items() if name != "synced"}.items()
                assert before.is_what(loaded) if kind == "superseded" else loaded.damaged
                met.add("old")
            else:
                assert "missing" in loaded.damaged[0].reason
                assert kind == "missing" or beside == old
                met.add("none")
            assert not over or (disk and loaded.identity and loaded.identity.gen == 3)
        assert not (copy / "registry.new").exists()

    def refill() -> None:
        hard_state = records.encode_hard_state(9, 2)
        Disk.refill(home, CLUSTER, SMALL, hard_state, image[0], gen=3, log=more).abandon()

    crash_everywhere(tmp_path, home.parent, refill, check, losses=2)
    assert met >= ({"new", "none"} if kind == "missing" else {"new", "old", "none"})
    identity = load(home, CLUSTER)[0].identity
    assert identity and identity.gen == 3 and identity.server_id != identity.disk_id
    assert not (home.with_name("registry.damaged") / "older").exists()


def test_a_crash_at_any_call_of_the_founding_leaves_nothing_or_a_whole_copy(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "configuration").mkdir(parents=True)
    met = set()

    def check(copy: Path, over: bool) -> None:
        home = layout.folder_of(copy)
        met.add(home.exists())
        assert home.exists() or not over
        if home.exists():
            assert load(home, CLUSTER)[0].committed == 1
        else:
            founded(copy)

    crash_everywhere(tmp_path, state, lambda: founded(state), check)
    assert met == {True, False}


# --- a full disk ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("segment_bytes", [1, 1 << 20], ids=["new segment", "same segment"])
@pytest.mark.parametrize("kind", [kind for kind in HAPPENINGS if kind != "cut alone"])
def test_a_batch_that_finds_no_room_leaves_no_trace(tmp_path: Path, kind: str, segment_bytes: int) -> None:
    life = Life(Random(kind))
    log = grown(tmp_path / "state", life)
    folder = layout.folder_of(tmp_path / "state")
    disk, _ = Disk.open(folder, CLUSTER, Settings(segment_bytes=segment_bytes))
    assert disk
    batch, after = life.batch(log, *[kind for kind in HAPPENINGS[kind](life) if kind != life.vote])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    refused = 0
    for room in itertools.count(0, 23):
        power = Power(folder, Random(room))
        power.room = room
        with power.watching():
            try:
                disk.append(batch)
            except NoRoom:
                refused += 1
            else:
                break
            finally:
                power.close()
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    disk.close()
    assert refused > 3 and after.is_what(load(folder, CLUSTER)[0])


@pytest.mark.parametrize("kind", ["damaged", "missing"])
def test_a_refill_that_finds_no_room_changes_nothing(tmp_path: Path, kind: str) -> None:
    life = Life(Random(kind))
    before = grown(tmp_path / "state", life)
    home = layout.folder_of(tmp_path / "state")
    wreck(home, kind)
    image, after = life.install(replace(before, hard=(9, 2)))
    old = {path: path.read_bytes() for path in home.parent.rglob("*") if path.is_file()}
    for room in itertools.count(0, 100):
        power = Power(home.parent, Random(room))
        power.room = room
        with power.watching():
            try:
                disk = Disk.refill(home, CLUSTER, SMALL, records.encode_hard_state(9, 2), image[0], gen=0)
            except NoRoom:
                assert {path: path.read_bytes() for path in home.parent.rglob("*") if path.is_file()} == old
            else:
                break
            finally:
                power.close()
    disk.close()
    assert room > 500 and after.is_what(load(home, CLUSTER)[0])


# --- a long life ----------------------------------------------------------------------------------------------------


class Lived:
    """One copy, what it must hold, and all that may happen to it."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place, self.random = place, Random(seed)
        self.life = Life(self.random)
        self.log = founded(place / "state")
        self.folder = layout.folder_of(place / "state")
        self.disk, _ = Disk.open(self.folder, CLUSTER, SMALL)
        self.power = Power(self.folder, self.random)
        self.crashes = self.refusals = 0

    def step(self) -> None:
        assert self.disk
        what = self.random.choice(["batch"] * 6 + ["install", "snapshot", "snapshot", "reopen"])
        if what == "snapshot":
            index = self.random.randint(max(self.log.base, 1), self.log.committed)
            self.suffer(partial(own_snapshot, self.disk, self.log, index), self.log)
            self.lose_the_newest_snapshot()
        elif what == "reopen":
            self.suffer(self.reopen, self.log)
        else:
            life = self.life
            kinds = [life.grow, life.vote, life.install, life.grow, life.hint]
            some = kinds[self.random.randint(0, 2) : self.random.randint(3, 5)] if what == "install" else []
            batch, after = life.batch(self.log, *some)
            self.suffer(partial(self.disk.append, batch), after)

    def lose_the_newest_snapshot(self) -> None:
        """Without it, the older one and the log lead to the same."""
        paths = sorted(self.folder.glob("snapshot-*0*"))
        if len(paths) > 1:
            hidden = paths[-1].rename(self.folder / "hidden")
            assert self.log.is_what(load(self.folder, CLUSTER)[0])
            hidden.rename(paths[-1])

    def reopen(self) -> None:
        disk, self.disk = self.disk, None
        assert disk
        disk.close()
        self.disk, loaded = Disk.open(self.folder, CLUSTER, SMALL)
        assert self.log.is_what(loaded)

    def suffer(self, change: Callable[[], None], after: Log) -> None:
        """Do it, perhaps on a full disk, perhaps killed in the middle of it."""
        fate = self.random.random()
        if fate < 0.3:
            self.power.kill_in(self.random.randint(1, self.random.choice([8, 20])))
        elif fate < 0.5:
            self.power.room = self.random.randint(0, 600)
        try:
            with self.power.watching():
                change()
        except Killed:
            self.crash(after)
        except NoRoom:
            self.refusals += 1
            self.sound(after)
        else:
            self.log = after
            if fate > 0.9:
                self.crash(after)
        self.power.revive()

    def sound(self, after: Log) -> None:
        loaded, _ = load(self.folder, CLUSTER)
        found = [log for log in (self.log, replace(self.log, hard=after.hard)) if log.is_what(loaded)]
        assert found, loaded
        self.log = found[0]

    def crash(self, after: Log) -> None:
        """Go on with what the crash left; opening it may be killed too. What a kill left may be lost later."""
        self.crashes += 1
        if self.disk:
            self.disk.abandon()
            self.disk = None
        self.power.revive()
        if self.random.random() < 0.6:
            self.folder = self.power.lost(self.place / f"after{self.crashes}")
            self.power.close()
            self.power = Power(self.folder, self.random)
        self.power.kill_in(self.random.choice([0, 1, 3, 5]))
        try:
            with self.power.watching():
                self.disk, loaded = Disk.open(self.folder, CLUSTER, SMALL)
        except Killed:
            self.crash(after)
            return
        allowed = (self.log, replace(self.log, hard=after.hard), after)
        found = [log for log in allowed if log.is_what(loaded)]
        assert found, loaded
        self.log = found[0]
        if self.random.random() < 0.3:  # what a start was built on must not go when the power does
            self.crash(self.log)


@registry
@given(seed=st.integers(0, 2**32))
def test_a_long_life_holds_what_the_model_holds(seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    lived = Lived(tmp_path_factory.mktemp("life"), seed)
    for _ in range(24):
        lived.step()
    assert lived.disk
    lived.disk.close()
    lived.power.close()
    assert lived.log.is_what(load(lived.folder, CLUSTER)[0])
