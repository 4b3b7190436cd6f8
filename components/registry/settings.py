"""The registry's numbers, each with its unit, its range and the reason for its default.

Knows nothing but numbers. One frozen `Settings` is handed to the machine, the store, the disk and the agent; tests
hand over small ones. Numbers that decide what an entry does to the state (those of the store) must be the same on
all servers, so they are not for operators to change.
"""

from __future__ import annotations

import msgspec

KIB = 1024
MIB = 1024 * KIB

KEY_BYTES = 512  # UTF-8 bytes of a key; more than any path of ours, few enough to keep 100,000 keys in memory
VALUE_BYTES = 1 * MIB  # packed bytes of one value (INTERFACES: at most 1 MiB); larger things belong on a disk
VALUE_DEPTH = 64  # levels of lists and objects in a value; deeper ones are a mistake or an attack
OPERATIONS = 4_096  # comparisons, and operations of one branch, in one transaction: all resources of a big node
TRANSACTION_BYTES = 4 * MIB  # packed bytes of one transaction: one entry must never stall the log for long


class Settings(msgspec.Struct, frozen=True):
    """All that may differ between a test and a real server."""

    # --- the store: the same on all servers ---
    history_seconds: float = 600.0  # seconds of log time that changes are kept for watchers (SPEC 9.6); > 0
    history_bytes: int = 64 * MIB  # bytes of changes kept, whichever bound is reached first (SPEC 9.6); > 0
    history_changes: int = 100_000  # revisions kept; bounds the memory of very small changes; > 0
    requests_kept: int = 16_384  # request ids remembered: minutes of retries at full speed, 3 MB of memory; > 0

    # --- the machine ---
    proposals: int = 4_096  # entries under way to the disk before `bus.overloaded` is answered; > 0
    proposal_bytes: int = 32 * MIB  # bytes of these entries; one such heap takes a slow disk about a second
    watches: int = 4_096  # watchers waiting at once; more get `bus.overloaded`; > 0
    watch_wait: float = 60.0  # seconds a watcher may wait at most; it asks again, so longer brings nothing
    watch_bytes: int = 1 * MIB  # bytes of changes in one batch; at least one revision is always whole
    list_bytes: int = 8 * MIB  # bytes of one answer to `ls`; more must be read in parts (`after`, `limit`)
    snapshot_bytes: int = 16 * MIB  # bytes of log that make a snapshot worth while, and at least half the last one
    askers: int = 16_384  # nodes that asked for the primary and are told of a change; more than nodes there are
    room_seconds: float = 1.0  # seconds until a full disk is tried again: costs it one small write and one sync
    asker_seconds: float = 15.0  # seconds after its last question that a node is told of changes unasked

    # --- several servers ---
    beat: float = 0.2  # seconds between two heartbeats of the primary; five fit into the shortest election timeout
    election_low: float = 1.0  # seconds without the primary after which a server stands for election: at least …
    election_high: float = 2.0  # … and less than; drawn anew each time, so that two seldom stand at once
    down_low: float = 0.02  # the same when the link to the primary was seen to close: its process is dead, so hurry
    down_high: float = 0.15
    canvass_low: float = 0.2  # seconds until a server that found no majority asks again, which hurts nobody: at least …
    canvass_high: float = 0.6  # … and less than
    append_bytes: int = 1 * MIB  # bytes of entries in one message to another server; at least one entry
    part_bytes: int = 256 * KIB  # bytes of a snapshot in one message
    learner_lag: int = 100  # entries that a learner may lack to become a voter
    hand_over: float = 2.0  # seconds that a hand-over may take before the primary goes on as before

    # --- the disk ---
    segment_bytes: int = 8 * MIB  # bytes after which a new log file begins; trimming removes whole files

    # --- the agent ---
    find_interval: float = 0.5  # seconds between two questions for the primary; a fail-over takes about a second
    find_misses: int = 4  # questions without answer before the primary counts as lost: 2 s, one lost packet is no loss
    look_interval: float = 5.0  # seconds until one that answered is asked again; calls, links and its word are sooner
