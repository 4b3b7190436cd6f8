"""What clients ask a groups machine. Knows only the words of `messages.py`; bodies are bytes here, too.

`outside`: the party speaks without being a member, as an operator's command does; the group must have members.
"""

from __future__ import annotations

import msgspec

from .messages import Op, Terms, Vote


class JoinGroup(msgspec.Struct, frozen=True):
    """Make `party` a member. Joining twice is joining once.

    If the group is empty, `state` becomes its value, and it puts to the vote what `voted` says.
    """

    group: str
    party: str
    state: bytes = b""
    component: bool = False
    voted: tuple[Op, ...] = ()


class LeaveGroup(msgspec.Struct, frozen=True):
    """End the membership of `party`."""

    group: str
    party: str


class Broadcast(msgspec.Struct, frozen=True):
    """Send `body` to all members, durably and in the same order for all; `fast`: past the log, within the view."""

    group: str
    party: str
    body: bytes
    outside: bool = False
    fast: bool = False


class SetState(msgspec.Struct, frozen=True):
    """Change the group's state value."""

    group: str
    party: str
    value: bytes
    outside: bool = False


class ProposeVote(msgspec.Struct, frozen=True):
    """Put `body` to the vote of all members."""

    group: str
    party: str
    body: bytes
    terms: Terms
    outside: bool = False


class Expel(msgspec.Struct, frozen=True):
    """Put `target` (`PARTY`, or `PARTY@NODE` where several nodes have one of that name) out of the group."""

    group: str
    party: str
    target: str
    reason: bytes = b""
    outside: bool = False


class AwaitVote(msgspec.Struct, frozen=True):
    """Wait at most `wait` seconds for something that `party` has to vote on. Who asks once is expected to vote."""

    group: str
    party: str
    wait: float


class CastVote(msgspec.Struct, frozen=True):
    """How `party` votes in this phase of this vote. No vote: it has none, and the default counts."""

    group: str
    party: str
    protocol: int
    phase: int
    vote: Vote | None
    why: str = ""


class Poll(msgspec.Struct, frozen=True):
    """Wait for events after `since` (None: from now on), at most `wait` seconds.

    `frozen` is what the asker believes; if the node knows otherwise it answers at once with that event (None: the
    asker wants to hear of a change only while it waits). `fast`: up to where the asker
    has the fast messages, as the last answer said (None: from now on).
    """

    group: str
    since: int | None
    wait: float
    frozen: bool | None = None
    fast: tuple[int, int, int] | None = None


class Show(msgspec.Struct, frozen=True):
    """One group as this node knows it."""

    group: str


class ListGroups(msgspec.Struct, frozen=True):
    """All groups that have members."""


class Transcript(msgspec.Struct, frozen=True):
    """The latest votes of a group."""

    group: str


Wish = JoinGroup | LeaveGroup | Broadcast | SetState | ProposeVote | Expel
"""What becomes a proposal."""
