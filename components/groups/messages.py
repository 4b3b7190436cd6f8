"""What groups machines say to one another, what they commit, and what they are asked and told.

Knows no component; every other component may import this file. A *proposal* is one wish of one member, numbered by
its node; a *decision* is what the coordinator made of some proposals at once, and exists only once it is durable in
the core log. Two counters order a group: `version` counts its decisions, `sequence` counts the events its members
see. The *term* of a coordinator is the log index of the entry with which it took over, so a later coordinator always
has a higher one.

Odd: bodies are bytes here; only the service knows what is in them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ...bus.machine import Message

SERVICE = "groups"
KIND = "group"  # of the system entries in the core log; the slot is the group's name
VOTED_TOPIC = "groups.voted"  # published once for each vote that ended, where the coordinator is
TAKEOVER_SLOT = "/coordinator"  # no group can have this name

ViewId = tuple[int, int]
Key = tuple[int, str, str]
Report = dict[str, tuple[tuple[int, int], ...]]  # of each group: views, and how many fast messages of each are known
Op = Literal["join", "leave", "failed", "expel", "message", "state", "propose", "void"]
Kind = Literal["joined", "left", "failed", "expelled", "message", "state", "decided", "rejected", "frozen", "thawed"]
Vote = Literal["approve", "reject", "continue"]
Default = Literal["approve", "reject"]
How = Literal["voted", "abstained", "silent", "gone"]
Outcome = Literal["decided", "rejected", "withdrawn"]

# --- what a group is made of ----------------------------------------------------------------------------------


class Member(msgspec.Struct, frozen=True, array_like=True):
    """One party of one boot of one node, in a group.

    `joined` is the sequence of the event that told of it, `view` the membership view it was let in under: the node's
    absence from a later view proves that the member is gone, its absence from an older one says nothing.
    """

    node: int
    boot_id: str
    party: str
    joined: int = 0
    view: ViewId = (0, 0)

    @property
    def key(self) -> Key:
        """What makes this member one and the same: node, boot id, party."""
        return (self.node, self.boot_id, self.party)


class Event(msgspec.Struct, frozen=True, array_like=True):
    """One thing that happened to a group. All members see the same events in the same order.

    `who`: those that joined, left, failed or were expelled together; else the one that sent or proposed it, which is
    no member (its `joined` is 0) when it spoke from outside. `body`: the message, the value, what was put to the vote,
    or the reason of an expulsion. `number` is that sender's proposal. `frozen` and `thawed` are made by each node for
    itself and count no sequence. `fast`: the message went past the log, and `sequence` counts those of the view.
    """

    kind: Kind
    sequence: int
    view: int
    who: tuple[Member, ...] = ()
    body: bytes = b""
    number: int = 0
    fast: bool = False


class Frontier(msgspec.Struct, frozen=True, array_like=True):
    """How far one node's proposals are settled: all of `session` up to `number`, in order, each once.

    `undone` lists the recent ones among them that came to nothing (withdrawn, or of a party that was no member).
    """

    session: int
    number: int
    undone: tuple[int, ...] = ()


class Settled(msgspec.Struct, frozen=True, array_like=True):
    """What a decision adds to the frontier of one node."""

    node: int
    session: int
    number: int
    undone: tuple[int, ...] = ()


def shown(op: Op) -> str:
    """Return what a proposal is called where people see it: `join`, `expel`, `state` or `message`."""
    return "message" if op == "propose" else op


class Terms(msgspec.Struct, frozen=True, array_like=True):
    """How a proposal is put to the vote: in at most `phases` rounds of at most `deadline` seconds each.

    `default` is the vote of a member that is dead, silent, or has nobody to vote for it.
    """

    phases: int = 1
    default: Default = "reject"
    deadline: float = 5.0


class Cast(msgspec.Struct, frozen=True, array_like=True):
    """What one member's vote was in one round, why, and how it came about: said by the member, or the default."""

    node: int
    party: str
    vote: Vote
    why: str = ""
    how: How = "voted"


class Tally(msgspec.Struct, frozen=True, array_like=True):
    """One vote of a group, as its transcript keeps it: what was proposed by whom, each round's votes, the outcome.

    `protocol` is the version of the decision that ended it; `(session, number)` is the proposal of the node of `who`.
    """

    protocol: int
    op: Op
    who: Member
    session: int
    number: int
    body: bytes
    target: Member | None
    terms: Terms
    outcome: Outcome
    rounds: tuple[tuple[Cast, ...], ...]


class Decision(msgspec.Struct, frozen=True, array_like=True):
    """One step of a group, from `version - 1` to `version`: what the members see, and which proposals it settles.

    Durable in the core log before anybody hears of it. `view` is the group's view number after it. `tally`: the vote
    that it is the outcome of. `voted`: what the group puts to the vote from now on, said by the first that joins.
    `fast`: how many fast messages the view had that was present before it, all of them sequenced by then; -1: none
    were ever sent in this group.
    """

    group: str
    version: int
    view: int
    events: tuple[Event, ...] = ()
    settled: tuple[Settled, ...] = ()
    tally: Tally | None = None
    voted: tuple[Op, ...] | None = None
    fast: int = -1

    @property
    def changes_view(self) -> bool:
        """Whether members came or went."""
        return any(event.kind in ("joined", "left", "failed", "expelled") for event in self.events)


class GroupState(msgspec.Struct, frozen=True):
    """A whole group after decision `version`: enough to go on from. Members are in the order in which they joined."""

    name: str
    version: int = 0
    view: int = 0
    sequence: int = 0
    members: tuple[Member, ...] = ()
    state: bytes = b""
    frontiers: tuple[tuple[int, Frontier], ...] = ()  # by node number
    voted: tuple[Op, ...] = ()
    fast: bool = False


class Snapshot(msgspec.Struct, frozen=True):
    """A group for a node that lags too far, with the latest decisions that led to it.

    `instead_of` is the version that the node held: a higher one than is true, after the log was rolled back by force.
    """

    state: GroupState
    recent: tuple[Decision, ...] = ()
    instead_of: int = 0


# --- bodies of the system entries -----------------------------------------------------------------------------


class Entry(msgspec.Struct, frozen=True):
    """Slot: the group. The last entry alone restores the group; those before it tell how it came about.

    Void if a `Takeover` lies in the log between index `term` and the entry: then its coordinator was dead already.
    """

    term: int
    state: GroupState
    decision: Decision


class Takeover(msgspec.Struct, frozen=True):
    """Slot `/coordinator`: from this index on, node `node` coordinates, and entries of lower terms are void.

    It counts only if `(epoch, session, count)` is higher than that of every one before it in the log: a takeover of a
    dead machine may land late, too.
    """

    node: int
    epoch: int
    session: int
    count: int


# --- between nodes --------------------------------------------------------------------------------------------


class Proposal(msgspec.Struct, frozen=True, array_like=True):
    """One wish: `number` counts those of its node in that group and session; `void` fills a withdrawn number.

    `terms`: put it to the vote. `target`: who is to be expelled. `outside`: the party speaks without being a member.
    `voted`, of a join: what the group shall put to the vote if this is its first member.
    """

    number: int
    op: Op
    party: str = ""
    body: bytes = b""
    terms: Terms | None = None
    target: Member | None = None
    outside: bool = False
    voted: tuple[Op, ...] = ()


class Propose(Message, frozen=True):
    """A node to the coordinator: these proposals, by rising number without a gap, await a decision.

    Repeated from the lowest unsettled number until settled; the coordinator takes each number once, so a duplicate
    or a repetition to a new coordinator decides nothing twice. `session` is higher at every start of the sender.
    """

    group: str
    boot_id: str
    session: int
    proposals: tuple[Proposal, ...]


class Outdated(Message, frozen=True):
    """The coordinator to a proposer whose session is older than one it knows of: number anew, above `session`.

    Sent for every such `Propose`, so a loss is mended by the next one.
    """

    group: str
    session: int


class Announce(Message, frozen=True):
    """The coordinator to every node of the view: announcement `number` of this term is this decision.

    Sent once; a node that lost one sees it by the number of the next, or of the next `Beat`, and fetches.
    """

    term: int
    number: int
    decision: Decision


class Beat(Message, frozen=True):
    """The coordinator to every node of the view, once an interval: I lead, and have announced up to `number`.

    Also the answer to proposals that are settled already. It is what a node knows as contact to the quorum.
    """

    term: int
    number: int


class Fetch(Message, frozen=True):
    """A node to the coordinator: I hold each of these groups at this version; send what is missing.

    Sent at the first word of a new term and after a gap; repeated until a complete `Caught` comes. `session` is the
    sender's: an answer meant for its former life is of no use to it. `fast` says, for each group and view, up to which
    fast message it has them; once `term` is the coordinator's, no former one can make it have more.
    """

    session: int
    have: dict[str, int]
    term: int = 0
    fast: Report = {}


class FastMessage(msgspec.Struct, frozen=True, array_like=True):
    """One fast message: who sent it, and the number that the sender's node gave it in `session`."""

    who: Member
    session: int
    number: int
    body: bytes


class FastSend(Message, frozen=True):
    """A node to the coordinator: sequence these `(number, party, body)`, which follow number `after` (0: none before).

    Repeated from the first that the sender has not seen sequenced; each number is taken once.
    """

    group: str
    boot_id: str
    session: int
    after: int
    messages: tuple[tuple[int, str, bytes], ...]


class FastRefused(Message, frozen=True):
    """The coordinator to a sender: this one came from a party that is no member. If it is lost, the wait just ends."""

    group: str
    session: int
    number: int


class Fast(Message, frozen=True):
    """The coordinator to every node of the view: the fast messages of this view of the group from `first` on.

    `number` is an announcement's, so a lost one is noticed as those are; it is 0 within a `Caught`. `end`: the view is
    over and had so many; -1: it is not said.
    """

    term: int
    number: int
    group: str
    view: int
    first: int
    messages: tuple[FastMessage, ...]
    end: int = -1


class Lend(Message, frozen=True):
    """A new coordinator to a node that has more fast messages: send those after `after`. Repeated until it does."""

    term: int
    group: str
    view: int
    after: int


class Lent(Message, frozen=True):
    """The answer to `Lend`: all from `first` on that the node holds."""

    term: int
    group: str
    view: int
    first: int
    messages: tuple[FastMessage, ...]


class Caught(Message, frozen=True):
    """The coordinator's answer to `Fetch`. If `complete`, the node then holds all up to announcement `number`.

    If not, the node applies it and fetches again. A duplicate adds nothing. `asked` is the term in the `Fetch`: until
    one of the present term is answered, the coordinator may not know which fast messages the node has.
    """

    session: int
    asked: int
    term: int
    number: int
    complete: bool
    decisions: tuple[Decision, ...] = ()
    snapshots: tuple[Snapshot, ...] = ()
    fast: tuple[Fast, ...] = ()


class CallVote(Message, frozen=True):
    """The coordinator to every node of the view: have your members of this group vote, `left` seconds at most.

    Repeated to the nodes whose votes are missing. It is over when decision `protocol` of the group is there, when a
    higher phase is called, or when another coordinator speaks.
    """

    term: int
    group: str
    protocol: int
    phase: int
    terms: Terms
    op: Op
    who: Member
    target: Member | None
    body: bytes
    left: float


class Votes(Message, frozen=True):
    """A node to the coordinator: how these members of its own vote, as `(party, vote, why)`; no vote: the default.

    All that are known are sent again when the call is repeated; the first word of a member counts.
    """

    term: int
    group: str
    protocol: int
    phase: int
    votes: tuple[tuple[str, Vote | None, str], ...]


GroupsMessage = (
    Propose | Outdated | Announce | Beat | Fetch | Caught | CallVote | Votes
    | FastSend | FastRefused | Fast | Lend | Lent
)  # fmt: skip

# --- local facts ----------------------------------------------------------------------------------------------


class PartyGone(msgspec.Struct, frozen=True):
    """A party of this node's bus is dead: its connection went."""

    party: str
