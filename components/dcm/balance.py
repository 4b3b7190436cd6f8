"""Which nodes to move so that each cluster has as many of a pool as it wants (SPEC 7.3). Pure.

A pool is a set of nodes that are defined to several clusters and go to and fro. What is wanted is a least number for
each cluster; a node moves only where one is missing, and only from where one is over, so the plan after a plan that was
carried out is empty. Nodes that are not online, that a registry needs, or that are in a cluster the pool does not name
are left alone, and a note says so.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


class Place(msgspec.Struct, frozen=True):
    """Where a node is: the name of its cluster (None: in none, or nobody knows), and how it stands there.

    `server`: it runs a registry server there. `problem`: why it could not be asked.
    """

    number: int
    name: str
    cluster: str | None
    state: str = ""
    server: bool = False
    problem: str = ""


class Pool(msgspec.Struct, frozen=True):
    """What is wanted now of one pool: a least number for each cluster, and by which words of the file."""

    name: str
    nodes: tuple[int, ...]
    wanted: dict[str, int]
    why: str


class Move(msgspec.Struct, frozen=True):
    """One node is to go from one cluster to another."""

    number: int
    name: str
    source: str = msgspec.field(name="from")
    to: str
    pool: str
    reason: str


class Plan(msgspec.Struct, frozen=True):
    """The moves, in the order in which they are to be made, and what a person should know besides."""

    moves: tuple[Move, ...]
    notes: tuple[str, ...]


class Hours(msgspec.Struct, frozen=True):
    """A time of day in minutes from midnight; `end` before `begin`: over midnight."""

    begin: int
    end: int


def fits(now: datetime.datetime, days: Iterable[int], hours: Hours | None) -> bool:
    """Whether a moment is on one of these days (0: Monday) within these hours; a night belongs to the day it begins."""
    today, minute = now.weekday(), now.hour * 60 + now.minute
    if hours is None:
        return today in days
    if hours.begin < hours.end:
        return today in days and hours.begin <= minute < hours.end
    return (today in days and minute >= hours.begin) or ((today - 1) % 7 in days and minute < hours.end)


def plan(pools: Iterable[Pool], places: Mapping[int, Place], own: int = 0) -> Plan:
    """Return what to do. The node with the number `own` goes last: by it the clusters are asked."""
    moves: list[Move] = []
    notes: list[str] = []
    for pool in pools:
        found, said = _pool(pool, [places[number] for number in pool.nodes], own)
        moves += found
        notes += said
    return Plan(tuple(sorted(moves, key=lambda move: move.number == own)), tuple(notes))


def _pool(pool: Pool, places: list[Place], own: int) -> tuple[list[Move], list[str]]:
    notes = [f"{pool.name}: {why}" for place in places if (why := _left_alone(place, pool.wanted))]
    there = [place for place in places if not _left_alone(place, pool.wanted)]
    have = Counter(place.cluster for place in there)
    moves: list[Move] = []
    gone: set[int] = set()
    for target, wanted in pool.wanted.items():
        while have[target] < wanted:
            over = {source: have[source] - pool.wanted[source] for source in pool.wanted}
            # from where most are over; of those the highest number, and this very node only if there is no other
            spare = [
                place
                for place in there
                if not place.server and place.number not in gone and place.cluster and over[place.cluster] > 0
            ]
            if not spare:
                servers = [place.name for place in there if place.server and place.cluster and over[place.cluster] > 0]
                why = f": {', '.join(servers)} would be over, and is a registry server" if servers else ""
                notes.append(f"{pool.name}: {target} has {have[target]} of {wanted}, and no node is to spare{why}")
                break
            chosen = max(spare, key=lambda one: (one.number != own, over[str(one.cluster)], one.number))
            source = str(chosen.cluster)
            reason = (
                f"{target} has {have[target]} of {wanted}, {source} has {have[source]} and needs "
                f"{pool.wanted[source]} ({pool.why})"
            )
            moves.append(Move(chosen.number, chosen.name, source, target, pool.name, reason))
            have[target] += 1
            have[source] -= 1
            gone.add(chosen.number)
    return moves, notes


def _left_alone(place: Place, wanted: Mapping[str, int]) -> str:
    """Return why a node is neither counted nor moved, "" when it is."""
    if place.problem:
        return f"{place.name} is not counted: {place.problem}"
    if place.cluster is None or place.state != "online":
        where = f" in {place.cluster}" if place.cluster else ""
        return f"{place.name} is not counted: it is {place.state or 'in no cluster'}{where}"
    if place.cluster not in wanted:
        return f"{place.name} is left in {place.cluster}, which this pool does not name"
    return ""
