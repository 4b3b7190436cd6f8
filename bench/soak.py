"""Millions of messages through one broker: does its memory stay flat, and is every message delivered or reported?

Requests, their replies, and events of two publishers, all parties processes of their own. One of three readers is
stopped for a part of the time, twice. Who loses events, for whatever reason, must learn how many. Exit code 1 when an
account does not add up or, in a run long enough to tell, the broker's memory grew.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bus_common import Shared
from bus_systems import Failed, Party, started

COUNT = 10_000_000
SERVICES = ["echo-1", "echo-2"]
TOPICS = ["soak.a", "soak.b"]
IN_FLIGHT = 100
SLOTS = {"one": {"soak.a": 0}, "both": {"soak.a": 1, "soak.b": 2}, "slow": {}}
"""Of each reader: where it writes how far it is, for the publishers."""

STOPS = [(0.05, 0.15), (0.4, 0.6)]
"""When the slow reader is stopped, as parts of all messages."""

SETTLED = 0.25
"""Part of all messages after which memory must stay as it is: everything has happened once by then."""

TELLING = 900_000
"""Messages from which on memory is judged: in fewer, not even the slow reader's window is full."""

GROWTH = 8.0
"""Megabytes that the broker's memory may go above what it was until then: the heap is never quite still."""


def memory(pid: int) -> tuple[float, float]:
    """Return a process's proportional and its resident memory in megabytes."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(lines["Pss"].split()[0]) / 1024, int(lines["Rss"].split()[0]) / 1024


class Soak:
    """The parties, and the books."""

    def __init__(self, stack: ExitStack, folder: Path, size: int, note: Any) -> None:
        self._note = note
        self.samples: list[tuple[float, float]] = []  # part of all messages, megabytes
        self.problems: list[str] = []
        self.calls: Counter[str] = Counter()
        self.asked = 0
        self.sent: dict[str, int] = {}
        shared = folder / "shared"
        Shared(shared)
        said = {"state": str(folder), "shared": str(shared)}

        def start(role: str, script: str = "soak_parties.py", **more: Any) -> Party:
            return started(stack, script, role, {**said, **more})

        self.broker = start("broker", "bus_covey.py")
        for name in SERVICES:
            start("service", "bus_covey.py", name=name)
        self.callers = [start("caller", services=SERVICES) for _ in range(2)]
        self.readers = {
            name: start(
                "reader", name=f"reader-{name}", slots=slots, subscription="soak.a" if name == "one" else "soak.*"
            )
            for name, slots in SLOTS.items()
        }
        waited_for = {topic: [slots[topic] for slots in SLOTS.values() if topic in slots] for topic in TOPICS}
        self.publishers = [start("publisher", topic=topic, slots=waited_for[topic], size=size) for topic in TOPICS]
        self.watcher = start("watcher")

    def run(self, count: int) -> None:
        """Send it all in steps: a fifth requests of each caller, so many replies, the rest events."""
        steps = max(10, min(100, count // 20_000))
        calls = count // steps * 3 // 10 // len(self.callers)
        events = count // steps * 4 // 10 // len(self.publishers)
        began = time.monotonic()
        stopped = False
        for step in range(steps):
            part = step / steps
            wanted = any(first <= part < last for first, last in STOPS)
            if wanted != stopped:
                stopped = wanted
                (self.readers["slow"].pause if stopped else self.readers["slow"].go_on)()
            for caller in self.callers:
                caller.say(count=calls, in_flight=IN_FLIGHT)
            for publisher in self.publishers:
                publisher.say(count=events)
            for caller in self.callers:
                self.asked += calls
                self.calls.update(caller.hear(300))
            for topic, publisher in zip(TOPICS, self.publishers, strict=True):
                self.sent[topic] = publisher.hear(300)["sent"]
            pss, rss = memory(self.broker.pid)
            self.samples.append((part, pss))
            if step % max(1, steps // 20) == 0 or step == steps - 1:
                passed = 2 * self.asked + sum(self.sent.values())
                rate = passed / (time.monotonic() - began)
                state = ", the slow reader is stopped" if stopped else ""
                self._note(
                    f"{passed:>12,} messages, {rate:>8,.0f} a second, broker {pss:.1f} MB (resident {rss:.1f}){state}"
                )

    def close_books(self) -> dict[str, Any]:
        """Wait until all is read, then compare the accounts; returns them."""
        readers = {}
        for name, party in self.readers.items():
            topics = TOPICS[:1] if name == "one" else TOPICS
            readers[name] = party.ask(until={topic: self.sent[topic] for topic in topics})
            for topic in topics:
                got, lost = readers[name]["received"].get(topic, 0), readers[name]["missed"].get(topic, 0)
                self._check(
                    got + lost == self.sent[topic],
                    f"reader '{name}' got {got} and missed {lost} of {self.sent[topic]} events of {topic}",
                )
            self._check(
                not readers[name]["wrong"], f"reader '{name}' was told wrong numbers {readers[name]['wrong']} times"
            )
        self._check(
            self.asked == sum(self.calls.values()),
            f"{self.asked} requests, {sum(self.calls.values())} ended: {self.calls}",
        )
        failed = {code: number for code, number in self.calls.items() if code != "answered"}
        self._check(not failed, f"requests failed: {failed}")
        counters = self.watcher.ask()
        due = 3 * self.sent["soak.a"] + 2 * self.sent["soak.b"]
        given, dropped = counters.get("events_delivered", 0), counters.get("events_dropped", 0)
        self._check(given + dropped == due, f"the broker delivered {given} events and dropped {dropped}, of {due}")
        missed = sum(sum(reader["missed"].values()) for reader in readers.values())
        told = dropped - counters.get("events_told_again", 0)
        self._check(missed >= told, f"the broker dropped {dropped} events, but the readers miss only {missed}")
        self._check_memory()
        return {"readers": readers, "calls": dict(self.calls), "published": self.sent, "counters": counters}

    def _check_memory(self) -> None:
        if sum(self.sent.values()) + 2 * self.asked < TELLING:
            return
        settled = [size for part, size in self.samples if part < SETTLED]
        after = [size for part, size in self.samples if part >= SETTLED]
        self._check(
            max(after) <= max(settled) + GROWTH,
            f"the broker's memory grew from {max(settled):.1f} MB to {max(after):.1f} MB",
        )

    def _check(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.problems.append(otherwise)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Send millions of messages through a broker and check the accounts.")
    parser.add_argument("--count", type=int, default=COUNT, help=f"messages in all (default {COUNT:,})")
    parser.add_argument("--size", type=int, default=256, help="bytes of an event (default 256)")
    parser.add_argument("--json", action="store_true", help="one object; progress goes to standard error")
    said = parser.parse_args(arguments)
    if said.count < 1000:
        parser.error("it takes a thousand messages at least")

    def note(line: str) -> None:
        print(line, file=sys.stderr if said.json else sys.stdout, flush=True)

    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="covey-soak-") as folder, ExitStack() as stack:
        try:
            soak = Soak(stack, Path(folder), said.size, note)
            soak.run(said.count)
            found = soak.close_books()
        except Failed as problem:
            note(f"bench/soak.py: {problem}")
            return 1
    seconds = time.monotonic() - began
    slow = found["readers"]["slow"]
    if said.json:
        shown = {"schema": "covey/bench.soak/1", "seconds": seconds, "problems": soak.problems, **found}
        print(json.dumps({**shown, "memory": soak.samples}))
    note(f"{soak.asked:,} requests, {soak.calls['answered']:,} answered; {sum(soak.sent.values()):,} events published")
    note(
        f"the slow reader got {sum(slow['received'].values()):,} events and was told that "
        f"{sum(slow['missed'].values()):,} are lost; {slow['known']} were told again"
    )
    note(f"counters: {', '.join(f'{name} {number:,}' for name, number in sorted(found['counters'].items()))}")
    for problem in soak.problems:
        note(f"WRONG: {problem}")
    note(f"{'everything adds up' if not soak.problems else 'it does not add up'}, {seconds:.0f} s")
    return 1 if soak.problems else 0


if __name__ == "__main__":
    sys.exit(main())
