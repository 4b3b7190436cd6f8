"""The judges of histories let good ones pass, also with unknown outcomes, and refuse each kind of bad one."""

from __future__ import annotations

import time
from random import Random
from typing import Any

import pytest
from covey.bus.linearizability import (
    NotLinearizable,
    Read,
    Register,
    Transaction,
    check_registers,
    check_transactions,
    check_watch,
)


def put(called: float, returned: float | None, value: str, revision: int = 0) -> Register:
    return Register("k", "put", called, returned, value, revision)


def get(called: float, returned: float, value: str | None, revision: int) -> Register:
    return Register("k", "get", called, returned, value, revision)


def cas(called: float, returned: float | None, expected: int, value: str, revision: int, succeeded: bool) -> Register:
    return Register("k", "cas", called, returned, value, revision, expected, succeeded)


def delete(called: float, returned: float | None, revision: int = 0) -> Register:
    return Register("k", "delete", called, returned, None, revision)


GOOD = {
    "one after another": [put(0, 1, "a", 1), get(2, 3, "a", 1), delete(4, 5, 2), get(6, 7, None, 0)],
    "a read beside a write sees either": [put(0, 1, "a", 1), put(2, 9, "b", 2), get(3, 4, "a", 1), get(5, 6, "b", 2)],
    "no answer, and it happened late": [put(0, 1, "a", 1), put(2, None, "b"), get(3, 4, "a", 1), get(8, 9, "b", 5)],
    "no answer, and it never happened": [put(0, 1, "a", 1), put(2, None, "b"), get(3, 4, "a", 1)],
    "no answer, overwritten, never seen": [put(0, 1, "a", 1), put(2, None, "b"), put(3, 4, "c", 3), get(5, 6, "c", 3)],
    "no answer to a delete": [put(0, 1, "a", 1), delete(2, None), get(3, 4, "a", 1), get(5, 6, None, 0)],
    "no answer to a compare-and-set": [put(0, 1, "a", 1), cas(2, None, 1, "b", 0, True), get(3, 4, "b", 2)],
    "a comparison fails because of one without an answer": [
        put(0, 1, "a", 1),
        put(2, None, "b"),
        cas(3, 4, 1, "c", 2, False),
    ],
    "two at once, one wins": [
        put(0, 1, "a", 1),
        cas(2, 5, 1, "b", 2, True),
        cas(2, 5, 1, "c", 2, False),
        get(6, 7, "b", 2),
    ],
    "it touches": [put(0, 1, "a", 1), get(1, 2, None, 0)],
    "the deletion of nothing": [delete(0, 1, 7), put(2, 3, "a", 8)],
}

BAD = {
    "stale read": [put(0, 1, "a", 1), put(2, 3, "b", 2), get(4, 5, "a", 1)],
    "stale read of nothing": [put(0, 1, "a", 1), get(2, 3, None, 0)],
    "lost write": [put(0, 1, "a", 1), put(2, 3, "b", 2), get(4, 5, "a", 1), get(6, 7, "a", 1)],
    "seen, then gone": [put(0, 1, "a", 1), put(2, None, "b"), get(3, 4, "b", 2), get(5, 6, "a", 1)],
    "never written": [put(0, 1, "a", 1), get(2, 3, "x", 1)],
    "applied twice": [put(0, 1, "a", 1), put(2, 3, "b", 2), get(4, 5, "a", 3)],
    "reordered": [put(0, 1, "a", 2), put(2, 3, "b", 1)],
    "two readers disagree about the order": [
        put(0, 9, "a", 1),
        put(0, 9, "b", 2),
        get(1, 2, "b", 2),
        get(3, 4, "a", 1),
    ],
    "two comparisons hold at once": [
        put(0, 1, "a", 1),
        cas(2, 3, 1, "b", 2, True),
        cas(2, 3, 1, "c", 3, True),
    ],
    "a comparison fails that held": [put(0, 1, "a", 1), cas(2, 3, 1, "b", 1, False)],
    "before it was asked": [get(0, 1, "a", 1), put(2, None, "a")],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_history_passes(name: str) -> None:
    assert check_registers(GOOD[name]) == len(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_a_bad_history_is_refused(name: str) -> None:
    with pytest.raises(NotLinearizable, match="no order of operations on k explains"):
        check_registers(BAD[name])


def test_keys_are_judged_by_themselves() -> None:
    other = [operation._replace(key="other") for operation in BAD["stale read"]]
    with pytest.raises(NotLinearizable, match="other"):
        check_registers([*GOOD["one after another"], *other])


# --- histories of a store that does one thing at a time -------------------------------------------------------------


class Store:
    """A store, and what clients of it hear who ask at random times and sometimes hear nothing."""

    def __init__(self, seed: int, keys: int, clients: int, unanswered: float = 0.02) -> None:
        self.random = Random(seed)
        self.keys = [f"k{n}" for n in range(keys)]
        self.free = [0.0] * clients
        self.revision = 0
        self.state: dict[str, tuple[str, int]] = {}
        self.unanswered = unanswered
        self.values = 0

    def ask(self) -> tuple[float, float, float | None]:
        """When a client asks, when the store does it, when the answer comes; in the order of doing."""
        client = min(range(len(self.free)), key=self.free.__getitem__)
        called = self.free[client]
        returned = called + self.random.uniform(0.5, 1.5)
        self.free[client] = returned + self.random.uniform(0.0, 0.3)
        lost = self.random.random() < self.unanswered
        return called, self.random.uniform(called, returned), None if lost else returned

    def registers(self, operations: int) -> list[Register]:
        random, found = self.random, []
        for called, _, returned in sorted((self.ask() for _ in range(operations)), key=lambda times: times[1]):
            key, kind = random.choice(self.keys), random.choice(["put", "get", "get", "cas", "delete"])
            value, mod = self.state.get(key, (None, 0))
            self.values += 1
            one = Register(key, kind, called, returned, f"v{self.values}", self.revision, random.choice([mod, mod, 3]))
            if kind == "get":
                one = one._replace(value=value, revision=mod)
            elif kind == "cas" and mod != one.expected:
                one = one._replace(succeeded=False)
            elif (returned is not None or random.random() < 0.5) and (kind != "delete" or mod):
                self.revision += 1
                self.state.pop(key, None)
                if kind != "delete":
                    self.state[key] = (one.value, self.revision)
                one = one._replace(revision=self.revision)
            found.append(one if kind != "delete" else one._replace(value=None))
        return found

    def transactions(self, operations: int) -> tuple[list[Transaction], list[Read]]:
        random, asked, reads = self.random, [], []
        for called, _, returned in sorted((self.ask() for _ in range(operations)), key=lambda times: times[1]):
            keys = random.sample(self.keys, 2)
            if random.random() < 0.4:
                found = {key: self.state.get(key, (None, 0)) for key in keys}
                reads.append(Read(called, returned or called + 9, self.revision, found))
                continue
            self.values += 1
            compare = ((keys[0], random.choice([self.state.get(keys[0], (None, 0))[1], 4])),)
            compare = compare if random.random() < 0.5 else ()
            then = tuple((key, f"v{self.values}" if random.random() < 0.7 else None) for key in keys)
            one = Transaction(called, returned, then, compare, ((keys[1], f"o{self.values}"),) if compare else ())
            held = all(self.state.get(key, (None, 0))[1] == revision for key, revision in compare)
            one = one._replace(succeeded=held)
            if returned is not None or random.random() < 0.5:
                self.change(one.did)
            asked.append(one._replace(revision=self.revision))
        return asked, reads

    def change(self, did: Any) -> None:
        changes = [(key, value) for key, value in did if value is not None or key in self.state]
        self.revision += bool(changes)
        for key, value in changes:
            self.state.pop(key, None)
            if value is not None:
                self.state[key] = (value, self.revision)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_a_store_that_does_one_thing_at_a_time_answers_passes(seed: int) -> None:
    check_registers(Store(seed, 3, 6, 0.1).registers(300))
    check_transactions(*Store(seed, 5, 6, 0.1).transactions(300))


def test_spoiled_histories_are_refused() -> None:
    """A read of a random earlier value of its key, long after it was overwritten."""
    for seed in range(30):
        found = Store(seed, 2, 4, 0.0).registers(200)
        old = next(one for one in found if one.kind == "put")
        late = [one for one in found if one.kind == "get" and one.key == old.key and one.called > old.returned + 20][-1]
        assert late.revision != old.revision
        found[found.index(late)] = late._replace(value=old.value, revision=old.revision)
        with pytest.raises(NotLinearizable):
            check_registers(found)


@pytest.mark.parametrize("keys", [8, 1])
def test_eleven_thousand_operations_of_four_clients_take_less_than_a_second(keys: int) -> None:
    found = Store(1, keys, 4, 0.001).registers(11_000)
    transactions = Store(2, keys + 1, 4, 0.001).transactions(11_000)
    start = time.process_time()
    assert check_registers(found) == 11_000
    registers = time.process_time() - start
    check_transactions(*transactions)
    total = time.process_time() - start
    assert registers < 1.0
    assert total - registers < 1.0


# --- transactions ---------------------------------------------------------------------------------------------------

A1 = Transaction(0, 1, (("a", "1"),), revision=1)
AB2 = Transaction(2, 3, (("a", "2"), ("b", "2")), revision=2)


def read(called: float, returned: float, revision: int, *, exact: bool = True, **found: Any) -> Read:
    return Read(called, returned, revision, found, exact)


TRANSACTIONS_GOOD: dict[str, tuple[list[Transaction], list[Read]]] = {
    "plain": ([A1, AB2], [read(4, 5, 2, a=("2", 2), b=("2", 2))]),
    "a stale read is a state that there was": ([A1, AB2], [read(4, 5, 1, exact=False, a=("1", 1), b=(None, 0))]),
    "one without an answer is found": (
        [A1, Transaction(2, None, (("a", "x"), ("b", "x")))],
        [read(9, 10, 2, b=("x", 2))],
    ),
    "one without an answer deleted": ([A1, Transaction(2, None, (("a", None),))], [read(9, 10, 2, a=(None, 0))]),
    "deletes of what is not there": ([A1, Transaction(2, 3, (("b", None),), revision=1)], []),
    "a failed comparison changes nothing": (
        [A1, Transaction(2, 3, (("b", "x"),), (("a", 0),), revision=1, succeeded=False)],
        [read(4, 5, 1, b=(None, 0))],
    ),
}

TRANSACTIONS_BAD: dict[str, tuple[list[Transaction], list[Read]]] = {
    "stale read": ([A1, AB2], [read(4, 5, 1, a=("1", 1))]),
    "half of a transaction": ([A1, AB2], [read(4, 5, 2, a=("2", 2), b=(None, 0))]),
    "lost write": ([A1, AB2], [read(4, 5, 2, a=("1", 1))]),
    "applied twice": ([A1, AB2], [read(4, 5, 3, a=("1", 3))]),
    "applied twice, the first time without an answer": (
        [A1, Transaction(2, None, (("b", "x"),))],
        [read(4, 5, 2, b=("x", 2)), read(6, 7, 3, b=("x", 3))],
    ),
    "reordered": ([A1._replace(revision=2), AB2._replace(revision=1)], []),
    "one revision for two": ([A1, AB2._replace(revision=1)], []),
    "no revision of its own": ([A1, Transaction(2, 3, (("a", None),), revision=1)], []),
    "a state that never was": ([A1, AB2], [read(4, 5, 1, exact=False, a=("2", 2))]),
    "two comparisons hold at once": (
        [
            A1,
            Transaction(2, 5, (("a", "x"),), (("a", 1),), revision=2),
            Transaction(2, 5, (("a", "y"),), (("a", 1),), revision=3),
        ],
        [],
    ),
    "a comparison failed that held": ([A1, Transaction(2, 3, (), (("a", 1),), revision=1, succeeded=False)], []),
    "before it was asked": ([A1, Transaction(4, None, (("b", "x"),))], [read(2, 3, 2, b=("x", 2))]),
    "what nobody wrote": ([A1], [read(4, 5, 1, a=("1", 1), b=("?", 1))]),
}


@pytest.mark.parametrize("name", TRANSACTIONS_GOOD)
def test_good_transactions_pass(name: str) -> None:
    transactions, reads = TRANSACTIONS_GOOD[name]
    assert check_transactions(transactions, reads) == len(transactions) + len(reads)


@pytest.mark.parametrize("name", TRANSACTIONS_BAD)
def test_bad_transactions_are_refused(name: str) -> None:
    with pytest.raises(NotLinearizable):
        check_transactions(*TRANSACTIONS_BAD[name])


# --- watches --------------------------------------------------------------------------------------------------------

CHANGES = {1: [("/a", "1")], 2: [("/b", "2"), ("/a", None)], 4: [("/a", "4")]}


def event(revision: int, key: str, value: str | None) -> dict[str, Any]:
    return {"revision": revision, "key": key, "value": value, "type": "put"}


def batch(start: int, end: int, *events: dict[str, Any]) -> dict[str, Any]:
    return {"from": start, "to": end, "events": list(events)}


def test_a_watch_that_heard_everything_passes() -> None:
    first = batch(1, 2, event(1, "/a", "1"), event(2, "/a", None))
    assert check_watch("/a", 1, [first, batch(3, 2), batch(3, 4, event(4, "/a", "4"))], CHANGES) == 4
    assert check_watch("/", 1, [{"from": 1, "compacted": 3}, batch(3, 4, event(4, "/a", "4"))], CHANGES) == 4


@pytest.mark.parametrize(
    "batches",
    [
        [batch(2, 2, event(2, "/a", None))],
        [batch(1, 1, event(1, "/a", "1")), batch(3, 4, event(4, "/a", "4"))],
        [batch(1, 2, event(1, "/a", "1"))],
        [batch(1, 2, event(2, "/a", None), event(1, "/a", "1"))],
        [batch(1, 1, event(1, "/a", "1")), batch(2, 2, event(1, "/a", "1"), event(2, "/a", None))],
        [batch(1, 2, event(1, "/a", "1"), event(2, "/b", "2"), event(2, "/a", None))],
        [batch(1, 1, event(1, "/a", "old"))],
        [{"from": 1, "compacted": 1}],
    ],
    ids=["begins late", "gap", "missing", "order", "twice", "another prefix", "value", "sent back"],
)
def test_a_watch_that_missed_or_repeated_something_is_refused(batches: list[dict[str, Any]]) -> None:
    with pytest.raises(NotLinearizable, match="a watch of /a"):
        check_watch("/a", 1, batches, CHANGES)


def test_the_judges_are_handed_on_to_authors_of_tests() -> None:
    from covey import testing

    assert testing.check_registers is check_registers
    assert all(getattr(testing, name) is not None for name in testing.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = testing.nonsense
