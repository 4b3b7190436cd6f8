"""Clients that write, read and watch the registry of real nodes, and remember what they asked and were told.

A thread of its own with a loop; each client is a task on the bus of one node, and finds its way back when that node's
daemon dies. `judge` ends all, reads everything once more, and holds what was told against the judges of histories in
`bus/linearizability.py`. Knows nothing of what is done to the nodes meanwhile.

A call that failed is taken at its word: after an error of `DONE_OR_NOT` it may have been carried out at any later
time, after any other it was not.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, suppress
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from covey.bus.client import Client, connect
from covey.bus.linearizability import (
    NotLinearizable,
    Read,
    Register,
    Transaction,
    check_registers,
    check_transactions,
    check_watch,
)
from covey.errors import CoveyError
from covey.testing import Cluster, Node

DONE_OR_NOT = ("core.timeout", "bus.connection_lost", "bus.service_died", "bus.unreachable", "registry.request_expired")
"""Errors after which nobody knows whether a write was carried out."""

CURED = (*DONE_OR_NOT, "registry.read_only", "registry.no_quorum", "registry.not_primary", "bus.no_service")
"""Errors that clients may see while servers come and go; `bus.no_daemon` besides, while their own node is down."""

BUDGET = 8.0
"""Seconds for one try of a call."""

PAUSE = 0.05
"""Seconds between two calls of a client."""

AWAY = 0.1
"""Seconds until a daemon that is away is looked for again."""


class Load(threading.Thread):
    """Writers, readers and a watcher on each of some nodes, given by their state folders."""

    def __init__(self, states: Iterable[Path], prefix: str = "/app/load/", seed: int = 0, keys: int = 6) -> None:
        super().__init__(daemon=True)
        self.states, self.prefix, self.seed = list(states), prefix, seed
        self.keys = [f"{prefix}{number}" for number in range(keys)]
        self.transactions: list[Transaction] = []
        self.reads: list[Read] = []
        self.registers: list[Register] = []
        self.watches: list[list[dict[str, Any]]] = []
        self.errors: Counter[str] = Counter()
        self.acknowledged: list[tuple[float, float, int]] = []  # of writes: asked, answered, number of the client
        self.problems: list[BaseException] = []
        self._start = 0
        self._ended = threading.Event()
        self._news = threading.Condition()
        self._ready = threading.Event()

    # --- for the thread that does things to the nodes ---

    def more(self, count: int = 20, seconds: float = 30.0) -> float:
        """Wait until so many writes that were asked from now on are acknowledged; return how many seconds it took."""
        began = time.monotonic()

        def enough() -> bool:
            return sum(asked >= began for asked, _, _ in self.acknowledged[-count * 20 :]) >= count

        with self._news:
            done = self._news.wait_for(lambda: enough() or bool(self.problems), seconds)
        if self.problems:
            raise self.problems[0]
        assert done, f"no {count} writes within {seconds} s; errors: {self.errors}"
        return time.monotonic() - began

    def gap(self, since: float) -> float:
        """Return the longest time since a moment in which no write was acknowledged."""
        ends = sorted([since, *(end for _, end, _ in self.acknowledged if end >= since)])
        return max((after - before for before, after in pairwise(ends)), default=0.0)

    def begin(self) -> None:
        """Start, and wait until writes are acknowledged."""
        self.start()
        assert self._ready.wait(30), self.problems or self.errors
        self.more()

    def judge(self, seconds: float = 60.0) -> dict[str, int]:
        """End the clients and judge what they were told; return how much there was of what."""
        self._ended.set()
        self.join(seconds + 30)
        assert not self.is_alive(), "the clients do not end"
        if self.problems:
            raise self.problems[0]
        wrong = set(self.errors) - {*CURED, "bus.no_daemon"}
        assert not wrong, f"errors that no retry cures: {self.errors}"
        return {
            "registers": check_registers(self.registers),
            "transactions": check_transactions(self.transactions, self.reads),
            "watched": self._check_watches(),
            **{f"error {code}": count for code, count in sorted(self.errors.items())},
        }

    # --- the clients ---

    def run(self) -> None:
        """Run them all until `judge`."""
        try:
            asyncio.run(self._run())
        except BaseException as problem:
            self.problems.append(problem)
        with self._news:
            self._news.notify_all()

    async def _run(self) -> None:
        found = await self._call(0, "get", key="/cluster/definition")
        self._start = found["revision"] + 1
        self._ready.set()
        tasks = []
        for number in range(len(self.states)):
            for work in (self._write, self._transact, self._read, self._read_stale):
                tasks.append(asyncio.create_task(work(number, Random(f"{self.seed}{number}{work.__name__}"))))
        following = [asyncio.create_task(self._watch(number)) for number in range(len(self.states))]
        while not self._ended.is_set():
            await asyncio.sleep(0.05)
            for task in (*tasks, *following):
                if task.done():
                    task.result()
        await asyncio.gather(*tasks)
        last = await self._read_all()
        async with asyncio.timeout(60):
            while any(self._known(number) < last for number in range(len(self.states))):
                for task in following:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)
        for task in following:
            task.cancel()
        await asyncio.gather(*following, return_exceptions=True)

    async def _write(self, number: int, random: Random) -> None:
        """Put, compare and set, delete; half of the writes are tried until their outcome is known."""
        async with _Bus(self.states[number]) as bus:
            count = 0
            while not self._ended.is_set():
                count += 1
                key, value, kind = (
                    random.choice(self.keys),
                    f"{number}w{count}",
                    random.choice(("put", "put", "cas", "delete")),
                )
                expected: int | None = None
                if kind == "cas":
                    found = await self._get(bus, number, key, "linear")
                    if found is None:
                        continue
                    expected = found[1]
                value = value if kind != "delete" else None
                given: dict[str, Any] = {"key": key} if kind == "delete" else {"key": key, "value": value}
                if expected is not None:
                    given["if_revision"] = expected
                verb = "delete" if kind == "delete" else "put"
                called = time.monotonic()
                done = await self._try(
                    bus, verb, f"{self.seed}{self.prefix}{number}w{count}", random.random() < 0.5, given
                )
                await asyncio.sleep(PAUSE)
                if isinstance(done, str) and done not in DONE_OR_NOT:
                    continue
                returned = None if isinstance(done, str) else time.monotonic()
                revision, succeeded = (0, True) if isinstance(done, str) else (done["revision"], done["succeeded"])
                self._wrote(called, returned, number)
                self.registers.append(
                    Register(key, kind, called, returned, value, revision, expected or 0, succeeded, f"{number}")  # type: ignore[arg-type]
                )
                compare = () if expected is None else ((key, expected),)
                self.transactions.append(
                    Transaction(called, returned, ((key, value),), compare, (), revision, succeeded)
                )

    async def _transact(self, number: int, random: Random) -> None:
        """Change two keys in one transaction, which must never be seen apart."""
        async with _Bus(self.states[number]) as bus:
            count = 0
            while not self._ended.is_set():
                count += 1
                keys = [f"{self.prefix}pair{random.randrange(3)}/{side}" for side in "ab"]
                value = f"{number}t{count}"
                called = time.monotonic()
                then = [{"op": "put", "key": key, "value": value} for key in keys]
                done = await self._try(
                    bus, "txn", f"{self.seed}{self.prefix}{number}t{count}", random.random() < 0.5, {"then": then}
                )
                await asyncio.sleep(PAUSE)
                if isinstance(done, str) and done not in DONE_OR_NOT:
                    continue
                returned = None if isinstance(done, str) else time.monotonic()
                revision = 0 if isinstance(done, str) else done["revision"]
                self._wrote(called, returned, number)
                self.transactions.append(
                    Transaction(called, returned, tuple((key, value) for key in keys), (), (), revision)
                )

    def _wrote(self, called: float, returned: float | None, number: int) -> None:
        if returned is not None:
            with self._news:
                self.acknowledged.append((called, returned, number))
                self._news.notify_all()

    async def _try(self, bus: _Bus, verb: str, id: str, again: bool, given: dict[str, Any]) -> Any:
        """Return the answer, or the code of the error; `again`: under the same id until the outcome is known."""
        unknown = ""
        until = time.monotonic() + 60
        while True:
            try:
                return await bus.call(verb, request_id=id, **given)
            except CoveyError as problem:
                self.errors[problem.code] += 1
                if problem.code in DONE_OR_NOT:
                    unknown = problem.code
                if not again or (self._ended.is_set() and time.monotonic() > until):
                    return unknown or problem.code
                await asyncio.sleep(PAUSE)

    async def _read(self, number: int, random: Random) -> None:
        """Exact reads of one key and of all."""
        async with _Bus(self.states[number]) as bus:
            while not self._ended.is_set():
                if random.random() < 0.8:
                    await self._get(bus, number, random.choice(self.keys), "linear")
                else:
                    await self._list(bus, "linear")
                await asyncio.sleep(PAUSE)

    async def _read_stale(self, number: int, random: Random) -> None:
        """Reads of what may be old: states that there were all the same."""
        async with _Bus(self.states[number]) as bus:
            while not self._ended.is_set():
                if random.random() < 0.8:
                    await self._get(bus, number, random.choice(self.keys), "stale")
                else:
                    await self._list(bus, "stale")
                await asyncio.sleep(4 * PAUSE)

    async def _get(self, bus: _Bus, number: int, key: str, consistency: str) -> tuple[Any, int] | None:
        called = time.monotonic()
        try:
            found = await bus.call("get", key=key, consistency=consistency)
        except CoveyError as problem:
            if problem.code != "registry.not_found":
                self.errors[problem.code] += 1
                await asyncio.sleep(PAUSE)
                return None
            found = {
                "value": None,
                "mod_revision": 0,
                "revision": problem.details["revision"],
                "consistency": consistency,
            }
        returned = time.monotonic()
        assert found["consistency"] == consistency, found
        item = (found["value"], found["mod_revision"])
        exact = consistency == "linear"
        if exact:
            self.registers.append(Register(key, "get", called, returned, *item, client=f"{number}"))
        self.reads.append(Read(called, returned, found["revision"], {key: item}, exact))
        return item

    async def _list(self, bus: _Bus, consistency: str) -> int:
        called = time.monotonic()
        try:
            found = await bus.call("ls", prefix=self.prefix, consistency=consistency)
        except CoveyError as problem:
            self.errors[problem.code] += 1
            await asyncio.sleep(PAUSE)
            return 0
        assert found["consistency"] == consistency and not found["more"]
        there = {item["key"]: (item["value"], item["mod_revision"]) for item in found["items"]}
        pairs = [f"{self.prefix}pair{one}/{side}" for one in range(3) for side in "ab"]
        everything = {key: there.get(key, (None, 0)) for key in (*self.keys, *pairs)}
        self.reads.append(Read(called, time.monotonic(), found["revision"], everything, consistency == "linear"))
        return int(found["revision"])

    async def _read_all(self) -> int:
        """Read everything once more, on every node: exactly, and as soon as its copy is as new."""
        newest = 0
        async with asyncio.timeout(60):
            for state in self.states:
                async with _Bus(state) as bus:
                    while not (revision := await self._list(bus, "linear")):
                        pass
                    newest = max(newest, revision)
            for state in self.states:
                async with _Bus(state) as bus:
                    while await self._list(bus, "stale") < newest:
                        pass
        return newest

    # --- watchers ---

    def _known(self, number: int) -> int:
        batches = self.watches[number] if number < len(self.watches) else []
        return int(batches[-1].get("to", 0)) if batches else 0

    async def _watch(self, number: int) -> None:
        """Follow the changes below the prefix; after `compacted` go on where it says."""
        batches: list[dict[str, Any]] = []
        self.watches.append(batches)
        following = self._start
        async with _Bus(self.states[number]) as bus:
            while True:
                try:
                    batch = await bus.call("watch", prefix=self.prefix, from_revision=following, wait=2.0)
                except CoveyError as problem:
                    if problem.code == "registry.compacted":
                        batches.append({"from": following, "compacted": problem.details["compacted"]})
                        following = problem.details["compacted"]
                        continue
                    self.errors[problem.code] += 1
                    await asyncio.sleep(PAUSE)
                    continue
                batches.append(batch)
                following = batch["to"] + 1

    def _check_watches(self) -> int:
        """Each watcher against what all of them heard, and that against what writers were told."""
        changes: dict[int, list[tuple[str, Any]]] = {}
        for batches in self.watches:
            heard: dict[int, list[tuple[str, Any]]] = {}
            for batch in batches:
                for event in batch.get("events", ()):
                    heard.setdefault(event["revision"], []).append((event["key"], event["value"]))
            for revision, row in heard.items():
                if changes.setdefault(revision, row) != row:
                    raise NotLinearizable(f"watchers heard {row} and {changes[revision]} of revision {revision}")
        skipped = [
            range(batch["from"], batch["compacted"])
            for batches in self.watches[:1]
            for batch in batches
            if "compacted" in batch
        ]
        for one in self.transactions:
            wrote = one.returned is not None and any(value is not None for _, value in one.did)
            if wrote and not any(one.revision in gap for gap in skipped) and changes.get(one.revision) != list(one.did):
                raise NotLinearizable(f"no watcher heard of {one}, but of {changes.get(one.revision)}")
        for batches in self.watches:
            check_watch(self.prefix, self._start, batches, changes)
        return len(changes)

    async def _call(self, number: int, verb: str, **given: Any) -> Any:
        async with _Bus(self.states[number]) as bus:
            return await bus.call(verb, **given)


class _Bus:
    """A connection to the bus of a node, made anew when that node's daemon was gone."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._way: AbstractAsyncContextManager[Client] | None = None
        self._client: Client | None = None

    async def __aenter__(self) -> _Bus:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self._drop()

    async def call(self, verb: str, **given: Any) -> Any:
        """Call a verb of the registry."""
        if self._client is None:
            way = connect(self._state)
            try:
                self._client = await way.__aenter__()
            except CoveyError:
                await asyncio.sleep(AWAY)
                raise
            self._way = way
        try:
            return await self._client.call("registry", verb, timeout=BUDGET, **given)
        except CoveyError as problem:
            if problem.code == "bus.connection_lost":
                await self._drop()
            raise

    async def _drop(self) -> None:
        way, self._way, self._client = self._way, None, None
        if way is not None:
            with suppress(CoveyError):
                await way.__aexit__(None, None, None)


# --- the cluster that is under load ---


def status(node: Node) -> Any:
    """Return how the registry stands, as a node sees it."""
    return node.call("registry", "status")


def whole(three: Cluster, seconds: float = 60.0) -> None:
    """Wait until all three nodes are online and their registry servers vote."""
    three.wait_online(seconds)
    three.wait_voting(1, 2, 3, seconds=seconds)


def roles(three: Cluster) -> tuple[Node, Node, Node]:
    """Return the primary and the two others."""
    primary = three[status(three[1])["primary"]]
    one, two = (node for node in three if node is not primary)
    return primary, one, two


def settled(three: Cluster, clients: Load) -> None:
    """Wait until all is well again, let the clients go on for a while, and judge what they were told."""
    whole(three)
    clients.more()
    judged = clients.judge()
    assert judged["transactions"] > 100 and judged["watched"] > 50, judged
