"""The states of a registry server, what leads from one to another, and what each means to others. Pure tables."""

from __future__ import annotations

from enum import Enum

from .messages import Phase


class State(Enum):
    """Where this server stands: without a sound copy, not leading, or leading and how far."""

    DAMAGED = "damaged"  # the copy is not what it must be, or was never filled: serves nothing but its status
    FOLLOWER = "follower"  # follows a primary, or waits for one
    CANVASSING = "canvassing"  # misses the primary and asks whether an election could be won (PreVote)
    CANDIDATE = "candidate"  # stands for election
    SETTLING = "settling"  # phase 1: elected; the entry that begins the reign is not committed yet
    READS = "reads"  # phase 1 is over: reads are exact, writes wait for the group
    OPENING = "opening"  # phase 2: the entry that opens writes is not committed yet
    WRITES = "writes"  # all is open
    FULL = "full"  # a lone server's disk had no room: reads are exact, writes open with the first entry that it takes


FOLLOWING = (State.FOLLOWER, State.CANVASSING, State.CANDIDATE)

EXACT = (State.READS, State.OPENING, State.WRITES, State.FULL)

LEADING = (State.SETTLING, *EXACT)

RETRIED = (State.SETTLING, State.OPENING, State.FULL)  # leave by an entry of their own, so it must get to the disk

PHASE: dict[State, Phase] = {
    State.DAMAGED: "offline",
    State.FOLLOWER: "stale",
    State.CANVASSING: "stale",
    State.CANDIDATE: "stale",
    State.SETTLING: "stale",
    State.READS: "reads",
    State.OPENING: "reads",
    State.WRITES: "writes",
    State.FULL: "reads",
}

WHY_CLOSED = {
    State.DAMAGED: "this server's copy is damaged",
    State.FOLLOWER: "no primary registry server is known here",
    State.CANVASSING: "no primary registry server is known here, and a majority of the servers does not answer",
    State.CANDIDATE: "a new primary registry server is being elected",
    State.SETTLING: "phase 1 is not over: the newest copy is still being settled",
    State.READS: "phase 2 is not over: the group sys.registry is not formed yet",
    State.OPENING: "phase 2 is not over: the entry that opens writes is not committed yet",
    State.WRITES: "",
    State.FULL: "the disk is full",
}

_ROWS: dict[tuple[State, ...], dict[str, State]] = {
    FOLLOWING: {
        "missed the primary": State.CANVASSING,
        "stands": State.CANDIDATE,
        "follows": State.FOLLOWER,
        "no room": State.FOLLOWER,
    },
    LEADING: {"follows": State.FOLLOWER},
    (*FOLLOWING, *LEADING): {"damaged": State.DAMAGED},
}

TABLE: dict[tuple[State, str], State] = {
    **{(state, event): to for states, row in _ROWS.items() for state in states for event, to in row.items()},
    (State.DAMAGED, "follows"): State.DAMAGED,
    (State.DAMAGED, "damaged"): State.DAMAGED,
    (State.DAMAGED, "no room"): State.DAMAGED,
    (State.DAMAGED, "refilled"): State.FOLLOWER,
    (State.CANDIDATE, "elected"): State.SETTLING,
    (State.SETTLING, "reign settled"): State.READS,
    (State.READS, "group formed"): State.OPENING,
    (State.OPENING, "writes opened"): State.WRITES,
    (State.WRITES, "no room"): State.FULL,
    (State.FULL, "writes opened"): State.WRITES,
    # a lone primary without room stays, and tries again
    (State.SETTLING, "no room"): State.SETTLING,
    (State.READS, "no room"): State.READS,
    (State.OPENING, "no room"): State.OPENING,
    (State.FULL, "no room"): State.FULL,
    # the group may be told again, and early: then it is remembered until reads are open
    **{(state, "group formed"): state for state in State if state is not State.READS},
}
