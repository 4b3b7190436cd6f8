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


EXACT = (State.READS, State.OPENING, State.WRITES)

PHASE: dict[State, Phase] = {
    State.DAMAGED: "offline",
    State.LOADED: "stale",
    State.SETTLING: "stale",
    State.READS: "reads",
    State.OPENING: "reads",
    State.WRITES: "writes",
}

WHY_CLOSED = {
    State.DAMAGED: "this server's copy is damaged",
    State.LOADED: "the server has just been started",
    State.SETTLING: "phase 1 is not over: the newest copy is still being settled",
    State.READS: "phase 2 is not over: the group sys.registry is not formed yet",
    State.OPENING: "phase 2 is not over: the entry that opens writes is not durable yet",
    State.WRITES: "",
}

TABLE: dict[tuple[State, str], State] = {
    (State.LOADED, "started"): State.SETTLING,
    (State.DAMAGED, "started"): State.DAMAGED,
    (State.SETTLING, "reign settled"): State.READS,
    (State.READS, "group formed"): State.OPENING,
    (State.OPENING, "writes opened"): State.WRITES,
    # the group may be told again, and early: then it is remembered until reads are open
    (State.DAMAGED, "group formed"): State.DAMAGED,
    (State.SETTLING, "group formed"): State.SETTLING,
    (State.OPENING, "group formed"): State.OPENING,
    (State.WRITES, "group formed"): State.WRITES,
}
