"""What the benches that compare systems have in common: rounds, ratios, goals, and how quiet the machine is.

A ratio is taken within a round, between neighbours in time, and the median of the rounds is what counts: what else the
machine does falls on all alike. Knows nothing of what is measured.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zmq

Goal = tuple[str, str, str, str, float]
"""Of a median of ratios: row, system, against which, `<=` or `>=`, and the number."""

SIGNS = {"<=": "at most", ">=": "at least"}


def busy() -> tuple[float, float]:
    """Return the CPU seconds that the machine has worked, and those that this process and its ended children have."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    ticks = [int(field) for field in fields]
    idle_ticks = ticks[3] + ticks[4]
    own = sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    return (sum(ticks[:8]) - idle_ticks) / os.sysconf("SC_CLK_TCK"), own


def others(since: tuple[float, float], seconds: float) -> float:
    """Return what part of all CPUs others than the bench used since then."""
    machine, own = (now - then for now, then in zip(busy(), since, strict=True))
    return max(0.0, machine - own) / seconds / (os.cpu_count() or 1)


def look_around() -> dict[str, Any]:
    """Return what the machine is, and how much it works before anything is measured."""
    since = busy()
    time.sleep(1)
    return {
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "busy": round(others(since, 1), 3),
        "python": platform.python_version(),
        "pyzmq": zmq.__version__,
        "libzmq": zmq.zmq_version(),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return median, min and max."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(row: dict[str, list[dict[str, float]]], figure: str, against: str) -> dict[str, dict[str, float]]:
    """Return each system's figure as a multiple of another's, taken round by round."""
    return {
        name: spread([one[figure] / other[figure] for one, other in zip(rounds, row[against], strict=True)])
        for name, rounds in row.items()
        if name != against
    }


def judged(wanted: Sequence[Goal], rows: dict[str, Any]) -> list[dict[str, Any]]:
    """Return which goals are met, of those whose two systems were measured."""
    found = []
    for row, name, against, sign, number in wanted:
        ratio = rows.get(row, {}).get("ratios", {}).get(against, {}).get(name)
        if ratio:
            met = ratio["median"] <= number if sign == "<=" else ratio["median"] >= number
            found.append(
                {"row": row, "system": name, "against": against, "sign": sign, "goal": number, "met": met} | ratio
            )
    return found


def goals_text(goals: list[dict[str, Any]]) -> list[str]:
    """Return the lines that say which goals are met."""
    lines = ["", "goals (median of the rounds' ratios, and their spread)"] if goals else []
    for goal in goals:
        lines.append(
            f"  {goal['row']:<11} {goal['system']} / {goal['against']:<8} {SIGNS[goal['sign']]:<9}{goal['goal']:.2f}: "
            f"{goal['median']:.2f} ({goal['min']:.2f}-{goal['max']:.2f}) {'met' if goal['met'] else 'MISSED'}"
        )
    return lines


def machine_text(found: dict[str, Any], more: str) -> list[str]:
    """Return the lines that say what the machine is and whether the figures can be believed."""
    machine = found["machine"]
    lines = [
        "",
        f"{machine['cpus']} CPUs, load {machine['load']} and {machine['busy']:.0%} busy at the start; "
        f"others used {found['others']:.0%} of them in the middle of the runs; Python {machine['python']}, {more}",
    ]
    if not found["quiet"]:
        lines.append("the machine was NOT quiet: look at ratios only, and believe them within their spread")
    return lines


def listed(allowed: Sequence[str]) -> Any:
    """Return a reader of comma-separated names."""

    def read(words: str) -> list[str]:
        names = words.split(",")
        for name in names:
            if name not in allowed:
                raise argparse.ArgumentTypeError(f"'{name}' is none of {', '.join(allowed)}")
        return [name for name in allowed if name in names]

    return read
