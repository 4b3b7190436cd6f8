"""The states of a registry server, what leads from one to another, and what each means to others. Pure tables."""

from __future__ import annotations

from enum import Enum

from .messages import Phase


class State(Enum):
    """Where this copy stands."""

    DAMAGED = "damaged"  # a file is not what it must be: serves nothing but its status
    LOADED = "loaded"  # nothing was done yet
    SETTLING = "settling"  # phase 1: the entry that begins the reign is on its way to the disk
    READS = "reads"  # phase 1 is over: reads are exact, writes wait for the group
    OPENING = "opening"  # phase 2: the entry that opens writes is on its way to the disk
    WRITES = "writes"  # all is open
    FULL = "full"  # the disk had no room: reads are exact, writes open again with the first entry that it takes


EXACT = (State.READS, State.OPENING, State.WRITES, State.FULL)

RETRIED = (State.SETTLING, State.OPENING, State.FULL)  # leave by an entry of their own, so it must get to the disk

PHASE: dict[State, Phase] = {
    State.DAMAGED: "offline",
    State.LOADED: "stale",
    State.SETTLING: "stale",
    State.READS: "reads",
    State.OPENING: "reads",
    State.WRITES: "writes",
    State.FULL: "reads",
}

WHY_CLOSED = {
    State.DAMAGED: "this server's copy is damaged",
    State.LOADED: "the server has just been started",
    State.SETTLING: "phase 1 is not over: the newest copy is still being settled",
    State.READS: "phase 2 is not over: the group sys.registry is not formed yet",
    State.OPENING: "phase 2 is not over: the entry that opens writes is not durable yet",
    State.WRITES: "",
    State.FULL: "the disk is full",
}

TABLE: dict[tuple[State, str], State] = {
    (State.LOADED, "started"): State.SETTLING,
    (State.DAMAGED, "started"): State.DAMAGED,
    (State.SETTLING, "reign settled"): State.READS,
    (State.READS, "group formed"): State.OPENING,
    (State.OPENING, "writes opened"): State.WRITES,
    (State.WRITES, "no room"): State.FULL,
    (State.FULL, "writes opened"): State.WRITES,
    # without room the others stay, and try again
    (State.SETTLING, "no room"): State.SETTLING,
    (State.READS, "no room"): State.READS,
    (State.OPENING, "no room"): State.OPENING,
    (State.FULL, "no room"): State.FULL,
    # the group may be told again, and early: then it is remembered until reads are open
    (State.DAMAGED, "group formed"): State.DAMAGED,
    (State.SETTLING, "group formed"): State.SETTLING,
    (State.OPENING, "group formed"): State.OPENING,
    (State.WRITES, "group formed"): State.WRITES,
    (State.FULL, "group formed"): State.FULL,
}
