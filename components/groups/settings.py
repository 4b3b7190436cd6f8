"""The numbers of Group Services, each with its unit, range and reason. Not yet in the node's YAML."""

from __future__ import annotations

import re

import msgspec

NAME = re.compile(r"[a-z0-9._-]{1,64}")
SYSTEM_PREFIX = "sys."


class Settings(msgspec.Struct, frozen=True):
    """How long groups wait and how much they hold. Seconds, bytes, or counts."""

    beat: float = 2.0
    """Between two `Beat`s of the coordinator, 0.1 to 2 s: two fit into `freeze_after`. A lost last announcement is
    noticed this late."""
    repeat: float = 0.5
    """Before an unanswered message is sent again, 0.1 to 5 s: longer than a slow commit, shorter than patience."""
    freeze_after: float = 5.0
    """Without word from a coordinator, then groups are frozen. Longer than an election, within SPEC 10's 8 s."""
    decide_within: float = 6.0
    """An undecided proposal is then withdrawn. With `withdraw_within` below the 10 s a call waits by default."""
    withdraw_within: float = 2.0
    """A withdrawal not confirmed in this time is answered with a timeout: it may still happen."""
    report_within: float = 10.0
    """So long a new coordinator waits for what a node has of fast messages, then the node's members in groups with such
    messages have failed: its groups process hangs. Longer than its restart takes, and than a dead node is in the view.
    """
    wait_at_most: float = 60.0
    """The longest long poll."""

    phases: int = 5
    """Rounds of one vote at most."""
    deadline_at_most: float = 60.0
    """Of one round; all that waits behind a vote waits for it."""
    fast_messages: int = 1024
    """Fast messages of one group that each node holds, for its pollers and for nodes that lag; and that wait."""
    fast_bytes: int = 512 * 1024
    """Of their bodies."""
    fast_views: int = 4
    """Views of a group whose fast messages are held."""
    tallies: int = 64
    """Votes of each group that each node remembers for its transcript."""

    body_bytes: int = 64 * 1024
    """Of one message or state value. Groups agree on things; they do not carry files."""
    window: int = 64
    """Proposals of one node in one group that are under way at once; and events in one decision."""
    batch_bytes: int = 256 * 1024
    """Of the bodies in one message between nodes or one entry of the log (the registry takes 1 MiB)."""
    queue: int = 1024
    """Proposals that one node holds for one group, and that the coordinator holds for one group."""
    waiters: int = 4096
    """Long polls under way on one node."""
    groups: int = 4096
    """Groups ever made in a cluster, those that are empty by now included."""
    members: int = 2000
    """Members of one group."""
    appends: int = 64
    """Decisions of different groups on their way to the log at once."""
    keep: int = 64
    """Decisions of each group that the log keeps, for nodes that lag when a new coordinator comes."""
    recent: int = 256
    """Decisions of each group that each node holds for its pollers and for nodes that lag."""
    recent_bytes: int = 512 * 1024
    """Of these decisions, roughly."""
