"""Two rows of bench/bus.py that compare covey with itself: what taps cost, and what a broker costs that nobody asks."""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bus_systems import running, started

KINDS = ("none", "no match", "stuck")


def taps(said: argparse.Namespace, note: Any) -> dict[str, Any]:
    """Measure pipelined requests without a tap, with one that matches nothing, and with one that nobody reads.

    One broker, one client: the three take turns within a round, so their ratio is of neighbours in time.
    """
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    exact = True
    with running("covey", Path(said.folder) / "taps", said.uvloop) as (_, system), ExitStack() as stack:
        started(stack, system.script, "service", system.said("service"))
        client = started(stack, system.script, "client", system.said("client"))
        tapper = started(stack, system.script, "tapper", system.said("tapper"))
        for number in range(said.rounds * 2):
            order = KINDS if number % 2 else KINDS[::-1]
            for kind in order:
                tapper.ask(tap=kind)
                rate = client.ask(do="pipelined", seconds=said.seconds / 2, in_flight=said.in_flight)["rate"]
                counters = tapper.ask(tap="none")
                rates[kind].append(rate)
                if kind == "stuck":
                    kept = counters["fetched"] + counters["dropped"] + counters["waiting"]
                    exact &= counters["matched"] == kept and counters["passed"] == counters["matched"] > 0
            note(f"taps, round {number + 1}: " + ", ".join(f"{kind} {rates[kind][-1]:,.0f}" for kind in KINDS))
    ratio = {
        kind: [one / none for one, none in zip(rates[kind], rates["none"], strict=True)]
        for kind in KINDS
        if kind != "none"
    }
    words = {"no match": "attached, nothing matches, read", "stuck": "attached, all matches, never read"}
    lines = [
        f"{words[kind]:<36}{statistics.median(values):>6.3f} ({min(values):.2f}-{max(values):.2f})"
        for kind, values in ratio.items()
    ]
    lines.append(f"matched = fetched + dropped + waiting: {'always' if exact else 'NOT SO'}")
    return {"rates": rates, "ratios": ratio, "exact": exact, "lines": lines}


def idle(said: argparse.Namespace, note: Any) -> dict[str, Any]:
    """Measure the CPU time of a broker whose four parties say nothing."""
    with running("covey", Path(said.folder) / "idle", said.uvloop) as (_, system), ExitStack() as stack:
        broker = system.servers[0]
        for _ in range(2):
            started(stack, system.script, "idler", system.said("client"))
        started(stack, system.script, "service", system.said("service"))
        started(stack, system.script, "subscriber", system.said("subscriber"))
        time.sleep(min(1.0, said.idle_seconds))
        before, began = broker.ask(do="cpu")["cpu"], time.monotonic()
        time.sleep(said.idle_seconds)
        share = (broker.ask(do="cpu")["cpu"] - before) / (time.monotonic() - began)
    line = f"{share:.3%} over {said.idle_seconds:g} s, all threads, four parties connected"
    note(f"idle: {line}")
    return {"share": share, "seconds": said.idle_seconds, "lines": [line]}
