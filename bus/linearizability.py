"""Judges of histories: could what clients were told have come from one store that does one thing at a time?

Knows no registry, no network and no clock: a history is a list of what was asked when, and what was answered when.
Three judges, each raises `NotLinearizable` with the story of what does not fit:

- `check_registers`: each key for itself, by search (Wing and Gong 1993, with Lowe's memory of states, 2017). Of the
  revisions it asks only that they rise.
- `check_transactions`: transactions over many keys. The revision that each was answered with is an order of all of
  them; it is strict serialisable when real time agrees with that order and every read with the state it leads to.
- `check_watch`: batches of one watcher against what was changed.

A *revision* counts transactions that changed something; the `mod_revision` of a key is the one that last changed it,
0 when there is no such key. What was asked and never answered (`returned` None) may have happened at any time after it
was asked, or never; so may what its client gave up. Odd: values are compared, so histories in which each value is
written once tell most; times are only compared, whatever their unit, and what touches counts as overlapping.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

UNSEEN = -1  # the revision of a value whose writer never heard which it got
UNREAD = "never read"
Item = tuple[Hashable, int]  # value and mod_revision
ABSENT: Item = (None, 0)
Branch = tuple[tuple[str, Hashable], ...]  # (key, value); value None: delete it


class NotLinearizable(AssertionError):
    """No order of the operations explains what was answered; the text names one that does not fit."""


# --- one key at a time ----------------------------------------------------------------------------------------------


class Register(NamedTuple):
    """One operation on one key.

    `value` is what was written, or found (None: no such key). `revision` is the revision answered to a put, a delete
    or a compare-and-set, and the `mod_revision` found by a get. A "cas" writes `value` if the key's `mod_revision` is
    `expected`; `succeeded` says whether it did.
    """

    key: str
    kind: Literal["put", "delete", "get", "cas"]
    called: float
    returned: float | None
    value: Hashable = None
    revision: int = 0
    expected: int = 0
    succeeded: bool = True
    client: str = ""

    def __str__(self) -> str:
        end = "…" if self.returned is None else f"{self.returned:.6f}"
        asked = f"{self.kind} {self.key}" + (f" if {self.expected}" if self.kind == "cas" else "")
        result = "no answer" if self.returned is None else f"{self.succeeded} at {self.revision}"
        return f"[{self.called:.6f} {end}] {self.client} {asked} {self.value!r}: {result}"


def check_registers(operations: Iterable[Register]) -> int:
    """Check each key's operations by themselves; return how many were checked."""
    by_key: dict[str, list[Register]] = defaultdict(list)
    for operation in operations:
        by_key[operation.key].append(operation)
    for key in sorted(by_key):
        _check_register(by_key[key])
    return sum(map(len, by_key.values()))


def _after(state: Item, operation: Register) -> Item | None:
    """Return the state that an answered operation leads to, None when it cannot have had that answer there."""
    kind, revision = operation.kind, operation.revision
    value, mod = state
    if kind == "get":
        same = value == operation.value and mod in (revision, UNSEEN)
        return (value, revision) if same else None
    if kind == "put":
        return (operation.value, revision) if revision > mod else None
    if kind == "delete":
        return ABSENT if revision >= mod else None
    if not operation.succeeded:
        return state if mod != operation.expected else None
    return (operation.value, revision) if mod in (operation.expected, UNSEEN) and revision > mod else None


def _perhaps(state: Item, operation: Register) -> Item | None:
    """Return the state that an operation without an answer may have led to, None when it changes nothing there."""
    if operation.kind == "delete":
        return ABSENT if state != ABSENT else None
    if operation.kind == "cas" and state[1] not in (operation.expected, UNSEEN):
        return None
    return (operation.value, UNSEEN)


def _told(operations: Sequence[Register]) -> tuple[list[Register], list[Register]]:
    """Return the operations whose outcome is known, and those for which it is open.

    Whoever alone wrote a value that was read has done so, at the revision that was read, before that read returned. Who
    wrote what nobody read can do no more than be in the way of a comparison, so one such write is like another.
    """
    answered = [o for o in operations if o.returned is not None]
    unanswered: list[Register] = []
    reads: dict[Hashable, Register] = {}
    for one in sorted((o for o in answered if o.kind == "get"), key=lambda o: o.returned or 0.0):
        reads.setdefault(one.value, one)
    writers = Counter(o.value for o in operations if o.kind in ("put", "cas"))
    for one in operations:
        if one.returned is not None or one.kind == "get":
            continue
        read = reads.get(one.value) if one.kind != "delete" else None
        if read is not None and writers[one.value] == 1:
            answered.append(one._replace(returned=read.returned, revision=read.revision))
        else:
            unanswered.append(one if read is not None or one.kind == "delete" else one._replace(value=UNREAD))
    return answered, unanswered


class _Search:
    """The search for an order of one key's operations: depth first, over a linked list of calls and returns.

    Answered operations stand in the list, twice each: where they were called, where they returned. Those without an
    answer are tried only where nothing else fits, and a state is given up that was reached before with fewer of
    them used: whatever can follow here could follow there.
    """

    def __init__(self, operations: Sequence[Register]) -> None:
        answered, unanswered = _told(operations)
        self.answered = sorted(answered, key=lambda o: o.called)
        self.open = sorted(unanswered, key=lambda o: o.called)
        writes = [at for at, o in enumerate(self.answered) if o.kind == "put" or (o.kind == "cas" and o.succeeded)]
        writes.sort(key=lambda at: self.answered[at].revision)
        self.turn = {at: turn for turn, at in enumerate(writes)}  # revisions rise, so writes have their order
        self.rising = [*(self.answered[at].revision for at in writes), float("inf")]
        events = [(o.called, 0, at) for at, o in enumerate(self.answered)]
        events += [(o.returned or 0.0, 1, at) for at, o in enumerate(self.answered)]
        events.sort()
        events = [one for _, run in groupby(events, key=lambda one: one[1]) for one in sorted(run, key=self._likely)]
        self.place = [at if side == 0 else ~at for _, side, at in events]  # ~at: where it returned
        self.next = [*range(1, len(events) + 1), 0]  # the last is the head, and the end
        self.before = [len(events), *range(len(events))]
        self.where: list[list[int]] = [[0, 0] for _ in self.answered]
        for position, (_, side, at) in enumerate(events):
            self.where[at][side] = position
        self.reached: dict[tuple[int, Item], list[int]] = {}

    def _likely(self, event: tuple[float, int, int]) -> tuple[float, bool]:
        """Calls with no return between them are tried by rising revision: that is mostly how it was."""
        time, side, at = event
        operation = self.answered[at]
        return (time, False) if side else (operation.revision, operation.kind == "get")

    def run(self) -> Register | None:
        """Return None when there is an order, else an operation that nothing explains."""
        head = len(self.place)
        state, done, used, placed, written = ABSENT, 0, 0, 0, 0
        most, stuck = -1, None
        trail: list[tuple[int, Item, int, int]] = []  # what was tried: place in the list or ~place among the open ones
        at, retry = self.next[head], 0  # `retry`: which of the open ones to try next, once the list is at its end here
        while at != head:
            operation = self.place[at]
            if operation >= 0:
                turn = self.turn.get(operation)
                after = self._try(operation, state, written)
                if after is not None and self._new(done | 1 << operation, after, used):
                    trail.append((at, state, done, used))
                    self._lift(operation)
                    state, done, placed = after, done | 1 << operation, placed + 1
                    written += turn is not None
                    at, retry = self.next[head], 0
                else:
                    at = self.next[at]
                continue
            first = self.answered[~operation]
            if placed > most:
                most, stuck = placed, first
            found = self._open_one(state, done, used, retry, first)
            if found is not None:
                chosen, after = found
                trail.append((~chosen, state, done, used))
                state, used = after, used | 1 << chosen
                at, retry = self.next[head], 0
                continue
            while True:
                if not trail:
                    return stuck
                tried, before, done, used = trail.pop()
                same, state = state == before, before
                if tried < 0:
                    retry = ~tried + 1  # `at` is the first return, as it was then
                    at = self.next[head]
                    while self.place[at] >= 0:
                        at = self.next[at]
                    break
                operation = self.place[tried]
                self._put_back(operation)
                placed -= 1
                written -= operation in self.turn
                at, retry = self.next[tried], 0
                if not (same and self._only_looks(operation)):
                    break  # else it fitted here, changed nothing, and later could not have been better
        return None

    def _try(self, operation: int, state: Item, written: int) -> Item | None:
        """Return the state after an operation, None when it cannot be next."""
        one, following = self.answered[operation], self.rising[written]
        if operation in self.turn:
            return _after(state, one) if self.turn[operation] == written else None
        if one.kind != "get" and one.revision >= following:
            return None  # a write that it knew of comes first
        return _after(state, one)

    def _only_looks(self, operation: int) -> bool:
        one = self.answered[operation]
        return one.kind == "get" or (one.kind == "cas" and not one.succeeded)

    def _open_one(self, state: Item, done: int, used: int, start: int, first: Register) -> tuple[int, Item] | None:
        tried: set[tuple[str, Hashable, int]] = set()
        for chosen in range(len(self.open)):
            operation = self.open[chosen]
            if operation.called > (first.returned or 0.0):
                return None
            alike = (operation.kind, operation.value, operation.expected)
            if used >> chosen & 1 or alike in tried:
                continue
            tried.add(alike)  # of those that are alike the first is as good as any
            after = _perhaps(state, operation) if chosen >= start else None
            if after is not None and self._new(done, after, used | 1 << chosen):
                return chosen, after
        return None

    def _new(self, done: int, state: Item, used: int) -> bool:
        before = self.reached.setdefault((done, state), [])
        if any(old & used == old for old in before):
            return False
        before[:] = [old for old in before if old & used != used]
        before.append(used)
        return True

    def _lift(self, operation: int) -> None:
        for position in self.where[operation]:
            before, after = self.before[position], self.next[position]
            self.next[before], self.before[after] = after, before

    def _put_back(self, operation: int) -> None:
        for position in reversed(self.where[operation]):
            before, after = self.before[position], self.next[position]
            self.next[before] = self.before[after] = position


def _check_register(operations: list[Register]) -> None:
    stuck = _Search(operations).run()
    if stuck is None:
        return
    end = stuck.returned or 0.0
    near = [o for o in sorted(operations, key=lambda o: o.called) if o.returned is None or o.returned >= stuck.called]
    lines = [f"  {operation}" for operation in near if operation.called <= end and operation is not stuck][:20]
    before = [o for o in operations if o.returned is not None and o.returned < stuck.called and o.kind != "get"]
    lines += [f"  {operation} (before)" for operation in sorted(before, key=lambda o: o.called)[-5:]]
    raise NotLinearizable("\n".join([f"no order of operations on {stuck.key} explains {stuck}; beside it:", *lines]))


# --- transactions over many keys ------------------------------------------------------------------------------------


class Transaction(NamedTuple):
    """One transaction: if every `(key, mod_revision)` of `compare` holds then `then`, else `otherwise`."""

    called: float
    returned: float | None
    then: Branch
    compare: tuple[tuple[str, int], ...] = ()
    otherwise: Branch = ()
    revision: int = 0
    succeeded: bool = True

    @property
    def did(self) -> Branch:
        """The operations that were done, by its answer."""
        return self.then if self.succeeded else self.otherwise


class Read(NamedTuple):
    """What was found at a revision: for each key asked for `(value, mod_revision)`, `(None, 0)` for none.

    `exact` false: it may have been old when it was answered, yet it must be a state that there was.
    """

    called: float
    returned: float
    revision: int
    found: Mapping[str, Item]
    exact: bool = True


class _Changes:
    """Who changed what at which revision, as far as the answers say."""

    def __init__(self, transactions: Sequence[Transaction], reads: Sequence[Read]) -> None:
        self.writers: dict[int, Transaction] = {}
        self.keys: dict[str, list[tuple[int, Any]]] = defaultdict(list)  # (revision, value), in order
        self.open = [one for one in transactions if one.returned is None]
        self.soft: set[int] = set()  # revisions that a transaction of deletes alone seems to be the writer of
        for one in transactions:
            if one.returned is not None and any(value is not None for _, value in one.did):
                self._wrote(one.revision, one, one.did)
        self._find_open(reads)
        self.revisions = sorted(self.writers)
        for row in self.keys.values():
            row.sort(key=lambda pair: pair[0])
        self.may_touch = {key for one in self.open for branch in (one.then, one.otherwise) for key, _ in branch}
        deletes: dict[int, list[Transaction]] = defaultdict(list)
        for one in transactions:
            if one.returned is not None and all(value is None for _, value in one.did):
                deletes[one.revision].append(one)
        for revision in sorted(deletes.keys() - self.writers.keys()):
            self._deleted(revision, sorted(deletes[revision], key=lambda one: one.called))

    def _deleted(self, revision: int, answered: list[Transaction]) -> None:
        """Of transactions of deletes alone with one revision, one is its writer and the others found nothing left."""
        there = {key for one in answered for key, _ in one.did if self.at(key, revision - 1)[1]}
        able = [o for o in answered if any(k in there for k, _ in o.did) and self.fits(o, revision - 1)]
        for one in able:
            gone = {key for key, _ in one.did}
            rest = [other for other in answered if other is not one]
            if all(key in gone or key not in there for other in rest for key, _ in other.did) and all(
                self.fits(other, revision, gone) for other in rest
            ):
                break
        else:
            if not able:
                return
            one = able[0]
        self.soft.add(revision)
        self.writers[revision] = one
        for key, _ in one.did:
            insort(self.keys[key], (revision, None), key=lambda pair: pair[0])

    def _wrote(self, revision: int, one: Transaction, did: Branch) -> None:
        if (other := self.writers.get(revision)) is not None:
            raise NotLinearizable(f"two transactions have revision {revision}: {other} and {one}")
        self.writers[revision] = one
        for key, value in did:
            self.keys[key].append((revision, value))

    def _find_open(self, reads: Sequence[Read]) -> None:
        """A value that was read and that only a transaction without an answer wrote tells when that one happened."""
        by_write: dict[tuple[str, Hashable], list[tuple[Transaction, Branch]]] = defaultdict(list)
        for one in self.open:
            for branch in {one.then, one.otherwise}:
                for key, value in branch:
                    if value is not None:
                        by_write[key, value].append((one, branch))
        for read in reads:
            for key, (value, revision) in read.found.items():
                if not revision or revision in self.writers:
                    continue
                fits = [pair for pair in by_write[key, value] if any(pair[0] is one for one in self.open)]
                if not fits:
                    raise NotLinearizable(f"nobody wrote {value!r} to {key} at revision {revision}: {read}")
                one, branch = fits[0]
                self._wrote(revision, one, branch)
                self.open = [other for other in self.open if other is not one]

    def at(self, key: str, revision: int) -> Item:
        """Return what the key held after `revision`, if those without an answer did nothing more."""
        row = self.keys.get(key, [])
        found = bisect_right(row, revision, key=lambda pair: pair[0])
        if not found or row[found - 1][1] is None:
            return ABSENT
        return row[found - 1][1], row[found - 1][0]

    def doubtful(self, key: str, revision: int) -> bool:
        """May a transaction without an answer have changed the key since what `at` knows of it?"""
        if key not in self.may_touch:
            return False
        row = self.keys.get(key, [])
        known = bisect_right(row, revision, key=lambda pair: pair[0])
        since = row[known - 1][0] if known else 0
        taken = bisect_right(self.revisions, revision) - bisect_right(self.revisions, since)
        return taken < revision - since

    def check_read(self, read: Read) -> None:
        """A read must be the state at the revision that it names."""
        for key, found in read.found.items():
            known = self.at(key, read.revision)
            if found != known and not (found == ABSENT and self.doubtful(key, read.revision)):
                raise NotLinearizable(f"{key} was {known} at revision {read.revision}, and was read as {found}: {read}")

    def fits(self, one: Transaction, revision: int, gone: Container[str] = ()) -> bool:
        """Would its comparisons have come out so after `revision`, and after these keys were deleted?"""
        held, doubt = True, False
        for key, expected in one.compare:
            if key in gone:
                held = held and expected == 0
            elif self.doubtful(key, revision):
                doubt = True
            elif self.at(key, revision)[1] != expected:
                held = False
        return one.succeeded == held or (doubt and not one.succeeded)

    def check_comparison(self, one: Transaction) -> None:
        """A transaction must have succeeded just when its comparisons held in the state before it."""
        own = self.writers.get(one.revision) is one
        if not self.fits(one, one.revision - own):
            raise NotLinearizable(f"its comparisons say otherwise at revision {one.revision - own}: {one}")
        if not own:
            for key, value in one.did:  # deletes that found nothing
                if value is not None or (self.at(key, one.revision) != ABSENT and not self.doubtful(key, one.revision)):
                    raise NotLinearizable(f"it changed nothing, and {key} was there at revision {one.revision}: {one}")


def check_transactions(transactions: Iterable[Transaction], reads: Iterable[Read] = ()) -> int:
    """Check that the order of revisions explains every answer and agrees with real time; return how many were checked.

    Reads of one key, of a prefix and of many keys are all `Read`s; keys that were changed by others than these
    transactions must not stand in them.
    """
    all_of, read = list(transactions), list(reads)
    changes = _Changes(all_of, read)
    for snapshot in read:
        changes.check_read(snapshot)
    for transaction in all_of:
        if transaction.returned is not None:
            changes.check_comparison(transaction)
    placed: list[tuple[float, float | None, int, int, Any]] = []  # called, returned, revision, least step, what
    own = {id(one): revision for revision, one in changes.writers.items()}
    for one in all_of:
        revision = own.get(id(one), one.revision)
        if one.returned is not None or id(one) in own:
            placed.append((one.called, one.returned, revision, id(one) in own and revision not in changes.soft, one))
    placed += [(one.called, one.returned, one.revision, 0, one) for one in read if one.exact]
    _check_real_time(placed)
    return len(all_of) + len(read)


def _check_real_time(placed: list[tuple[float, float | None, int, int, Any]]) -> None:
    """What was answered before another was asked has a lower revision, or the same if the other changed nothing."""
    ends = sorted(
        ((end, revision, what) for _, end, revision, _, what in placed if end is not None), key=lambda e: e[0]
    )
    times = [end for end, _, _ in ends]
    highest: list[int] = []
    for at, (_, revision, _) in enumerate(ends):
        highest.append(at if not highest or revision > ends[highest[-1]][1] else highest[-1])
    for called, _, revision, step, what in placed:
        before = bisect_left(times, called)
        if before and ends[highest[before - 1]][1] + step > revision:
            raise NotLinearizable(f"{what} came after {ends[highest[before - 1]][2]} was answered, and is older")


# --- watches --------------------------------------------------------------------------------------------------------


def check_watch(
    prefix: str, start: int, batches: Iterable[Mapping[str, Any]], changes: Mapping[int, Sequence[tuple[str, Any]]]
) -> int:
    """Check one watcher's batches `{from, to, events}` from revision `start` on; return the last revision it knows.

    Each must begin where the one before ended and hold every change of `changes` (revision -> what it did, value None:
    deleted) below the prefix, in order, once. A batch `{from, compacted}` says that it was sent on to `compacted`.
    """
    following = start
    for batch in batches:
        if batch["from"] != following:
            raise NotLinearizable(f"a watch of {prefix} goes on at {batch['from']}, not at {following}")
        if "compacted" in batch:
            if batch["compacted"] <= following:
                raise NotLinearizable(f"a watch of {prefix} from {following} was sent back to {batch['compacted']}")
            following = batch["compacted"]
            continue
        expected = [
            (revision, key, value)
            for revision in range(following, batch["to"] + 1)
            for key, value in changes.get(revision, ())
            if key.startswith(prefix)
        ]
        found = [(event["revision"], event["key"], event["value"]) for event in batch["events"]]
        if found != expected:
            raise NotLinearizable(f"a watch of {prefix} from {following} got {found}, not {expected}")
        following = batch["to"] + 1
    return following - 1
