"""How fast the bus is beside the limit that libzmq's C loops set, and beside other brokers, in one run on this machine.

Every party is a process of its own. Systems take turns, round after round; a ratio is taken within a round and the
median of the rounds is shown with its spread, so that what else the machine does falls on all alike. See README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bus_extra import idle, taps
from bus_systems import COMPARED, SYSTEMS, Failed, events, requests, running
from rounds import busy, goals_text, judged, listed, look_around, machine_text, others, ratios, spread

ROWS = {
    "round_trip": "round trip, one request at a time, microseconds (less is better)",
    "pipelined": "requests per second, {in_flight} on their way",
    "events": "events per second, delivered to one subscriber, decoded and iterated",
    "taps": "requests per second with a tap, as part of those without",
    "idle": "CPU of a broker that nobody asks, as part of one CPU",
}
FIGURE = {"round_trip": "p50", "pipelined": "rate", "events": "rate"}

GOALS = [
    ("round_trip", "covey", "limit", "<=", 1.4),
    ("round_trip", "covey", "nats", "<=", 0.7),
    ("pipelined", "covey", "limit", ">=", 2.0),
    ("pipelined", "covey", "nats", ">=", 5.0),
    ("events", "covey", "limit", ">=", 1.0),
    ("events", "covey", "nats", ">=", 3.0),
    ("round_trip", "covey-2-curve", "covey-2", "<=", 1 / 0.7),
    ("pipelined", "covey-2-curve", "covey-2", ">=", 0.7),
    ("events", "covey-2-curve", "covey-2", ">=", 0.7),
]
"""Of the medians of ratios: row, system, against which, and the least or the most."""


Results = dict[str, dict[str, list[dict[str, float]]]]


def compare(names: list[str], said: argparse.Namespace, failed: dict[str, str], note: Any) -> Results:
    """Run the rows that compare; return for each row and system one result a round.

    What fails once is left out in all rounds and explained in `failed`.
    """
    rows = [row for row in COMPARED if row in said.only]
    results: Results = {row: {name: [] for name in names if row in SYSTEMS[name].rows} for row in rows}
    for number in range(1, said.rounds + 1):
        for name in names if number % 2 else names[::-1]:
            began, since = time.monotonic(), busy()
            done: dict[str, dict[str, float]] = {}
            with running(name, Path(said.folder) / f"{name}-{number}", said.uvloop) as (_, system):
                asked = [row for row in rows if row != "events" and name in results[row]]
                for wanted in (asked, ["events"] if name in results.get("events", {}) else []):
                    try:
                        if wanted == ["events"]:
                            done["events"] = events(system, said.seconds)
                        elif wanted:
                            done |= requests(system, wanted, said.seconds, said.in_flight)
                    except Failed as problem:
                        for row in wanted:
                            del results[row][name]
                            failed[f"{SYSTEMS[name].words}: {row}"] = str(problem)
            taken = others(since, time.monotonic() - began)
            for row, result in done.items():
                results[row][name].append({**result, "others": round(taken, 3)})
            shown = ", ".join(f"{row} {done[row][FIGURE[row]]:,.0f}" for row in done)
            lost = done.get("events", {}).get("lost", 0)
            shown += f", {lost:.0f} events lost" if lost else ""
            note(f"round {number} {name}: {shown or 'nothing'} (others {taken:.0%} of CPU)")
    return results


def summed(results: Results) -> dict[str, Any]:
    """Return medians and ratios of all rows, and which goals are met."""
    found: dict[str, Any] = {}
    for row, systems in results.items():
        figure = FIGURE[row]
        found[row] = {
            "systems": {
                name: {key: spread([one[key] for one in rounds]) for key in rounds[0]} | {"rounds": rounds}
                for name, rounds in systems.items()
            },
            "ratios": {
                against: ratios(systems, figure, against)
                for against in ("limit", "bare", "nats", "redis", "mosquitto", "covey-2")
                if systems.get(against)
            },
        }
    return {"rows": found, "goals": judged(GOALS, found)}


def text(found: dict[str, Any], said: argparse.Namespace) -> str:
    """Return the tables."""
    lines = []
    for row, result in found["rows"].items():
        if row not in COMPARED:
            continue
        against = [name for name in ("limit", "bare", "nats", "redis", "mosquitto") if name in result["ratios"]]
        lines += ["", ROWS[row].format(in_flight=said.in_flight)]
        figures = ("p50", "p99") if row == "round_trip" else ("rate",)
        lines.append(
            f"  {'':<26}{''.join(f'{figure:>11}' for figure in figures)}{'spread':>20}"
            + "".join(f"{'/ ' + name:>13}" for name in against)
        )
        for name, values in result["systems"].items():
            spread_of = values[figures[0]]
            line = f"  {SYSTEMS[name].words:<26}" + "".join(f"{values[figure]['median']:>11,.0f}" for figure in figures)
            line += f"{spread_of['min']:>11,.0f}-{spread_of['max']:<8,.0f}"
            for other in against:
                ratio = result["ratios"][other].get(name)
                line += f"{ratio['median']:>13.2f}" if ratio else f"{'':>13}"
            if values.get("lost", {}).get("max"):
                line += f"  lost {values['lost']['max']:.0f}"
            lines.append(line)
    for row in ("taps", "idle"):
        if row in found["rows"]:
            lines += ["", ROWS[row], *(f"  {line}" for line in found["rows"][row]["lines"])]
    if found["not_measured"]:
        lines += ["", "not measured", *(f"  {what}: {why}" for what, why in found["not_measured"].items())]
    lines += goals_text(found["goals"])
    loop = "uvloop" if said.uvloop else "the loop of asyncio"
    lines += machine_text(found, f"libzmq {found['machine']['libzmq']}, {loop}")
    return "\n".join(lines)


def measure(said: argparse.Namespace, note: Any) -> dict[str, Any]:
    """Run it all."""
    machine = look_around()
    wanted = {name: SYSTEMS[name].missing() for name in said.systems}
    names = [name for name, why in wanted.items() if not why]
    failed = {SYSTEMS[name].words: why for name, why in wanted.items() if why}
    results = compare(names, said, failed, note) if any(row in said.only for row in COMPARED) else {}
    found = summed(results)
    if "taps" in said.only:
        found["rows"]["taps"] = taps(said, note)
    if "idle" in said.only:
        found["rows"]["idle"] = idle(said, note)
    taken = [one["others"] for systems in results.values() for rounds in systems.values() for one in rounds]
    in_the_way = statistics.median(taken) if taken else machine["busy"]
    return {
        "schema": "covey/bench.bus/1",
        "machine": machine,
        "loop": "uvloop" if said.uvloop else "asyncio",
        "payload": 256,
        "in_flight": said.in_flight,
        "seconds": said.seconds,
        "rounds": said.rounds,
        "others": round(in_the_way, 3),
        "quiet": machine["busy"] < 0.1 and in_the_way < 0.1,
        "not_measured": failed,
        **found,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure the bus beside the limit and beside other brokers.")
    parser.add_argument("--rounds", type=int, default=5, help="how often each system has its turn (default 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement (default 1)")
    parser.add_argument("--in-flight", type=int, default=200, help="requests on their way at once (default 200)")
    parser.add_argument("--idle-seconds", type=float, default=30.0, help="for the idle broker (default 30)")
    parser.add_argument("--only", type=listed(list(ROWS)), default=list(ROWS), help=f"rows: {','.join(ROWS)}")
    parser.add_argument("--systems", type=listed(list(SYSTEMS)), default=list(SYSTEMS), help=f"of {','.join(SYSTEMS)}")
    parser.add_argument("--uvloop", action="store_true", help="all asyncio parties, peers' too, use uvloop")
    parser.add_argument("--json", action="store_true", help="one object; progress goes to standard error")
    said = parser.parse_args(arguments)
    if said.rounds < 1 or said.seconds <= 0 or said.in_flight < 1:
        parser.error("it takes one round, some time and one request at least")
    if said.uvloop and find_spec("uvloop") is None:
        parser.error("uvloop is not installed")

    def note(line: str) -> None:
        print(line, file=sys.stderr if said.json else sys.stdout, flush=True)

    with tempfile.TemporaryDirectory(prefix="covey-bench-") as folder:
        said.folder = folder
        try:
            found = measure(said, note)
        except Failed as problem:
            sys.exit(f"bench/bus.py: {problem}")
    print(json.dumps(found) if said.json else text(found, said))


if __name__ == "__main__":
    main()
