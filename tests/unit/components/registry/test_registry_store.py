"""The store against a naive model: a list of whole states, one for each revision."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from covey.components.registry import entries, ordered, reading
from covey.components.registry.loaded import Loaded
from covey.components.registry.messages import Get, List, ListSystem
from covey.components.registry.records import SNAPSHOT, decode_only
from covey.components.registry.recovery import encode_snapshot, recover
from covey.components.registry.settings import Settings
from covey.components.registry.store import Image, Item, Store
from covey.errors import Compacted, KeyNotFound, TooLarge
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

SMALL = Settings(history_changes=20, history_bytes=6000, history_seconds=5.0, requests_kept=8)
KEYS = ["/app/a", "/app/a/b", "/app/ab", "/app/b", "/nodes/1", "/z"]
PREFIXES = ["/", "/app/a", "/app/a/", "/none"]
keys = st.sampled_from(KEYS)
values = st.one_of(st.none(), st.integers(0, 5).map(lambda n: msgspec.msgpack.encode({"n": n})))
branch = st.dictionaries(keys, values, max_size=3).map(lambda found: tuple(found.items()))


class Model(RuleBasedStateMachine):
    """States by revision, all changes ever, all answers ever, all system entries ever: nothing is clever here."""

    @initialize()
    def begin(self) -> None:
        self.store = Store(SMALL)
        self.states: list[dict[str, tuple[bytes, int, int]]] = [{}]
        self.times = [0]
        self.changes: list[tuple[int, str, bytes | None]] = []
        self.answers: list[tuple[str, tuple[int, bool]]] = []
        self.system: dict[tuple[str, str], list[tuple[int, int, bytes]]] = {}
        self.time, self.epoch = 0, 1

    def _apply(self, body: entries.Body) -> Any:
        return self.store.apply(entries.Entry(self.epoch, self.store.index + 1, self.time, body))

    @rule(
        id=st.sampled_from(["", "r1", "r2", "r3"]),
        compare=st.dictionaries(keys, st.sampled_from(["now", "none", "old"]), max_size=2),
        then=branch,
        otherwise=branch,
    )
    def transact(self, id: str, compare: dict[str, str], then: Any, otherwise: Any) -> None:
        now = self.states[-1]
        wanted = tuple(
            (key, {"now": now.get(key, (b"", 0, 0))[1], "none": 0, "old": len(self.states) + 3}[what])
            for key, what in compare.items()
        )
        known = dict(self.answers[-SMALL.requests_kept :])
        answer = self._apply(entries.Transacted(id, wanted, then, otherwise))
        if id and id in known:
            assert (answer.revision, answer.succeeded) == known[id]
            return
        succeeded = all(now.get(key, (b"", 0, 0))[1] == revision for key, revision in wanted)
        after, revision, changed = dict(now), len(self.states), False
        for key, value in then if succeeded else otherwise:
            if value is None:
                if after.pop(key, None) is None:
                    continue
            else:
                after[key] = (value, revision, now[key][2] if key in now else revision)
            changed = True
            self.changes.append((revision, key, value))
        if changed:
            self.states.append(after)
            self.times.append(self.time)
        assert (answer.revision, answer.succeeded) == (len(self.states) - 1, succeeded)
        if id:
            self.answers = [(known, reply) for known, reply in self.answers if known != id]
            self.answers.append((id, (answer.revision, succeeded)))

    @rule(ids=st.lists(st.integers(0, 10**6), min_size=1, max_size=9, unique=True))
    def many_requests(self, ids: list[int]) -> None:
        for number in ids:
            id = f"many-{number}"
            if id in dict(self.answers):
                continue
            self._apply(entries.Transacted(id, (), (), ()))
            self.answers.append((id, (len(self.states) - 1, True)))

    @rule(
        kind=st.sampled_from(["k", "l"]),
        slot=st.sampled_from(["", "s"]),
        body=st.binary(max_size=3),
        keep=st.integers(0, 3),
    )
    def commit(self, kind: str, slot: str, body: bytes, keep: int) -> None:
        answer = self._apply(entries.Committed("", kind, slot, body, keep))
        kept = [*self.system.get((kind, slot), []), (answer.index, self.epoch, body)]
        self.system[kind, slot] = kept[-keep:] if keep else []

    @rule(seconds=st.floats(0.0, 3.0), reigns=st.booleans())
    def later(self, seconds: float, reigns: bool) -> None:
        self.time += int(seconds * 1000)
        if reigns:
            self.epoch += 1
            self._apply(entries.Reigned(1))

    @rule()
    def snapshot(self) -> None:
        record = encode_snapshot(self.store, b"c" * 16)
        found = recover(Loaded(snapshot=decode_only(record, SNAPSHOT)), SMALL)
        assert not found.damaged and found.chain == b"c" * 16
        assert found.store.history_start == self.store.revision + 1
        assert found.store.image() == self.store.image()
        self.store = found.store

    @invariant()
    def same_state(self) -> None:
        self.store.check_invariants()
        now = self.states[-1]
        assert self.store.revision == len(self.states) - 1
        for prefix in PREFIXES:
            expected = [(key, now[key]) for key in sorted(now) if key.startswith(prefix)]
            found = [(key, (one.value, one.mod_revision, one.create_revision)) for key, one in self.store.ls(prefix)]
            assert found == expected
        for key in KEYS:
            item = self.store.get(key)
            assert (item is None) == (key not in now)

    @invariant()
    def same_system(self) -> None:
        for kind in ("k", "l"):
            expected = sorted(
                (index, epoch, slot, body)
                for (of, slot), kept in self.system.items()
                for index, epoch, body in kept
                if of == kind
            )
            assert [(one.index, one.epoch, slot, one.body) for slot, one in self.store.system(kind)] == expected

    @invariant()
    def same_watch(self) -> None:
        start, revision = self.store.history_start, self.store.revision
        assert start <= revision + 1
        for prefix in PREFIXES:
            expected = [(at, key, value) for at, key, value in self.changes if key.startswith(prefix)]
            for begin in sorted({start, start + 1, revision - 3, revision, revision + 1, revision + 2}):
                if begin < start:
                    continue
                seen, next_from = [], begin
                while next_from <= revision:
                    batch = self.store.changes(prefix, next_from, 300)
                    assert batch.start == next_from and batch.end >= next_from
                    seen += [(at, event.key, event.value) for at, event in batch.events]
                    next_from = batch.end + 1
                assert seen == [one for one in expected if one[0] >= begin]
            for too_old in range(max(start - 2, 0), start):
                with pytest.raises(Compacted) as caught:
                    self.store.changes(prefix, too_old, 300)
                assert caught.value.details == {"compacted": start, "revision": revision}

    @invariant()
    def history_is_kept_and_bounded(self) -> None:
        kept = range(self.store.history_start, self.store.revision + 1)
        assert len(kept) <= SMALL.history_changes
        newest = self.times[-1]
        assert all(newest - self.times[revision] <= SMALL.history_seconds * 1000 for revision in kept[:-1])


TestModel = Model.TestCase
TestModel.settings = settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow],
)


def _put(store: Store, key: str, value: bytes, time: int = 0) -> None:
    store.apply(entries.Entry(1, store.index + 1, time, entries.Transacted("", (), ((key, value),), ())))


class Keys(RuleBasedStateMachine):
    """Keys in blocks against a plain sorted list, with blocks small enough to split and vanish."""

    def __init__(self) -> None:
        super().__init__()
        self.keys, self.plain = ordered.OrderedKeys(), set[str]()

    @rule(key=st.text("ab", max_size=4))
    def flip(self, key: str) -> None:
        if key in self.plain:
            self.keys.remove(key)
            self.plain.remove(key)
        else:
            self.keys.add(key)
            self.plain.add(key)

    @rule(start=st.text("abc", max_size=3))
    def since(self, start: str) -> None:
        assert list(self.keys.since(start)) == [key for key in sorted(self.plain) if key >= start]

    @invariant()
    def same(self) -> None:
        assert list(self.keys) == sorted(self.plain) == list(ordered.OrderedKeys(self.plain))


def test_keys_in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ordered, "BLOCK", 2)
    run_state_machine_as_test(Keys, settings=settings(Model.TestCase.settings, stateful_step_count=60))


def test_an_entry_out_of_order_is_refused() -> None:
    store = Store()
    for index, epoch in ((2, 1), (0, 1)):
        with pytest.raises(ValueError, match="cannot follow"):
            store.apply(entries.Entry(epoch, index, 0, entries.Reigned(1)))
    store.apply(entries.Entry(3, 1, 0, entries.Reigned(1)))
    with pytest.raises(ValueError, match=r"2\.2 cannot follow on 3\.1"):
        store.apply(entries.Entry(2, 2, 0, entries.Reigned(1)))


def test_log_time_never_goes_back_and_ages_the_history() -> None:
    store = Store(Settings(history_seconds=10))
    for time in (0, 9_000, 5_000, 12_000):
        _put(store, "/a", b"\x01", time)
    assert store.time == 12_000 and store.history_start == 2
    _put(store, "/a", b"\x01", 25_000)
    assert store.history_start == 5


def test_a_changed_snapshot_is_not_taken() -> None:
    store = Store()
    _put(store, "/a", b"\x01")
    image = store.image()
    changed = msgspec.structs.replace(image, items=[("/a", Item(b"\x02", 1, 1))])
    with pytest.raises(ValueError, match="state hash"):
        Store.restore(changed)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(image), type=Image) == image


def test_a_record_of_a_newer_version_makes_the_copy_damaged(kit: Any) -> None:
    machine = kit.machine([[kit.founded()]])
    assert not machine.damaged
    from covey.components.registry import records

    strange = records.encode(17, 1, 2, b"", records.digest(kit.founded()))
    machine = kit.machine([[kit.founded()], [strange]])
    assert machine.phase == "offline" and "unknown kind 17" in machine.damaged[0].reason


def test_reading_in_parts() -> None:
    store = Store()
    for number in range(7):
        _put(store, f"/app/{number}", msgspec.msgpack.encode("x" * 100))
    found, after = [], ""
    while True:
        part = reading.ls(store, List("/app/", after=after, limit=3), 10_000)
        found += [item["key"] for item in part["items"]]
        if not part["more"]:
            break
        after = found[-1]
    assert found == [f"/app/{number}" for number in range(7)]
    with pytest.raises(TooLarge, match="read them in parts"):
        reading.ls(store, List("/app/"), 500)
    short = reading.ls(store, List("/app/", limit=7), 500)
    assert len(short["items"]) == 2 and short["more"]


def test_what_is_not_there_is_an_error_with_the_revision() -> None:
    store = Store()
    _put(store, "/app/a", b"\xc0")
    assert reading.get(store, Get("/app/a"))["value"] is None
    with pytest.raises(KeyNotFound) as caught:
        reading.get(store, Get("/app/b"))
    assert caught.value.details == {"key": "/app/b", "revision": 1}
    assert reading.system(store, ListSystem("k"), 4) == {"entries": [], "epoch": 4, "more": False}
