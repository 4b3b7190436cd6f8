"""The file of `covey cluster balance`: pools of nodes, how many each cluster wants of them, and when. Read strictly.

Goes through `config.document`, so that every mistake is told at once with its place; the codes begin with `balance.`.
Odd: pydantic is imported here, so that only the command that reads such a file pays for it.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from ...config.document import load
from ...config.findings import quoted
from ...config.walker import Problem
from ...config.wording import refusal, suggestion
from .balance import DAYS, Hours, fits

_TIME = r"([01]\d|2[0-3]):([0-5]\d)"


def _days(text: str) -> str:
    days_of(text)
    return text


def days_of(text: str) -> frozenset[int]:
    """Return the days that `mon-fri` or `sat,sun` means, Monday as 0; raises a finding for anything else."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        for word in (first, last or first):
            if word not in DAYS:
                raise refusal("bad_value", f"{quoted(word)} is no day", suggestion(word, DAYS))
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found |= {(begin + step) % 7 for step in range((end - begin) % 7 + 1)}
    return frozenset(found)


def _hours(text: str) -> str:
    hours_of(text)
    return text


def hours_of(text: str) -> Hours:
    """Return what `08:00-18:00` means; raises a finding for anything else."""
    found = re.fullmatch(f"{_TIME}-{_TIME}", text)
    if found is None:
        raise refusal(
            "bad_value", f"{quoted(text)} are no hours", "write them as 08:00-18:00, or over midnight 18:00-08:00"
        )
    hours = Hours(int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4]))
    if hours.begin == hours.end:
        raise refusal("bad_value", f"{quoted(text)} is no time at all", "leave 'hours' out for the whole day")
    return hours


Wanted = Annotated[dict[str, Annotated[int, Field(ge=0)]], Field(min_length=1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class WhenSection(_Section):
    """At these times a cluster wants so many; the first one of the list that fits holds."""

    days: Annotated[str, AfterValidator(_days)] = Field(default="mon-sun", description="`mon-fri`, `sat,sun`.")
    hours: Annotated[str, AfterValidator(_hours)] | None = Field(
        default=None,
        description="`08:00-18:00` in the local time of the machine; over midnight the day is that of the evening.",
    )
    clusters: Wanted


class PoolSection(_Section):
    """Nodes that go to and fro, and how many of them each cluster wants at least."""

    nodes: Annotated[tuple[str | int, ...], Field(min_length=1)] = Field(
        description="By name or number in the cluster of the node that is asked; all defined to all clusters below."
    )
    clusters: Wanted
    schedule: tuple[WhenSection, ...] = ()


class BalanceFile(_Section):
    """The whole file."""

    covey: Literal[1]
    pools: Annotated[dict[str, PoolSection], Field(min_length=1)]


def load_balance(path: str | os.PathLike[str]) -> BalanceFile:
    """Return what a file wants. Raises InvalidFile that shows all findings."""
    return load(path, BalanceFile, env={}, prefix="balance.", check=_check)


def wanted_now(pool: PoolSection, now: datetime.datetime) -> tuple[dict[str, int], str]:
    """Return how many each cluster of a pool wants at a moment (local time), and the words of the file that say so."""
    for when in pool.schedule:
        hours = None if when.hours is None else hours_of(when.hours)
        if fits(now, days_of(when.days), hours):
            # clusters that are not named then want none of them, and may keep what nobody else wants
            return {**dict.fromkeys(pool.clusters, 0), **when.clusters}, f"{when.days} {when.hours or ''}".strip()
    return dict(pool.clusters), "always" if not pool.schedule else "at all other times"


def _check(data: Any, _: Mapping[str, Any]) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    pools = data.get("pools") if isinstance(data, Mapping) else None
    for name, pool in pools.items() if isinstance(pools, Mapping) else ():
        if not isinstance(pool, Mapping):
            continue
        nodes: list[Any] = found if isinstance(found := pool.get("nodes"), list) else []
        for position, node in enumerate(nodes):
            if str(node) in seen:
                text = f"the node {quoted(str(node))} stands in the pool {quoted(seen[str(node)])} already"
                yield Problem(("pools", name, "nodes", position), "duplicate_node", text, "a node is in one pool, once")
            seen[str(node)] = name
        named: Mapping[str, Any] = found if isinstance(found := pool.get("clusters"), Mapping) else {}
        yield from _sum(("pools", name, "clusters"), named, len(nodes))
        schedule: list[Any] = found if isinstance(found := pool.get("schedule"), list) else []
        for position, when in enumerate(schedule):
            at = ("pools", name, "schedule", position, "clusters")
            clusters = when.get("clusters") if isinstance(when, Mapping) else None
            yield from _sum(at, clusters, len(nodes))
            for cluster in clusters if isinstance(clusters, Mapping) and named else ():
                if cluster not in named:
                    text = f"{quoted(cluster)} is not one of the pool's clusters"
                    yield Problem((*at, cluster), "unknown_cluster", text, suggestion(cluster, named), at_key=True)


def _sum(at: tuple[str | int, ...], clusters: Any, nodes: int) -> Iterator[Problem]:
    if isinstance(clusters, Mapping) and all(type(number) is int for number in clusters.values()):
        total = sum(clusters.values())
        if total > nodes:
            text = f"{total} nodes are wanted together, and the pool has {nodes}"
            yield Problem(at, "too_many", text, "want fewer, or add nodes to the pool")
