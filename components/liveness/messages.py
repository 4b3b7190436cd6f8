"""What liveness machines say to one another, what they publish, and what they are asked and told.

Knows no component; every other component may import this file. A *view* is the agreed list of members; its id
is `(epoch, n)`: the epoch of the registry primary that committed it and a counter that never goes back or
repeats. A *boot id* names one life of a node in the cluster and is new at every join, so a node is always
told from its former self.

Odd: no message carries the number of its sender. The bus says who sent it (`Received.source`), and the bus
can prove it. Losing any of these messages is harmless: each is either repeated until its effect is seen, or a
mere heartbeat.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from ...bus.machine import Message

ViewId = tuple[int, int]
NO_VIEW: ViewId = (0, 0)
VIEW_TOPIC = "liveness.view"

State = Literal["pending online", "online", "pending offline"]


class Member(msgspec.Struct, frozen=True, order=True):
    """One node in a view. `name` is for people only."""

    number: int
    boot_id: str
    state: State = "pending online"
    name: str = ""


class View(msgspec.Struct, frozen=True):
    """One agreed list of members: a link of the chain that every node holds the same way.

    `hash` covers everything else in the view, `previous_hash` is the hash of the view before (empty for the
    first). `members` are sorted by number, which is unique. `at` is the time of day in seconds at the leader,
    for people only.
    """

    id: ViewId
    previous: ViewId
    previous_hash: str
    members: tuple[Member, ...]
    at: float
    hash: str


class Step(msgspec.Struct, frozen=True):
    """A view, told by what it changes: `put` are new or changed members, `gone` the numbers of those who left.

    `whole`: `put` is the whole list, so nothing needs to be known before. `accused`, in the log alone: who left because
    they were accused. The other fields are those of the view.
    """

    id: ViewId
    previous: ViewId
    previous_hash: str
    at: float
    hash: str
    put: tuple[Member, ...] = ()
    gone: tuple[int, ...] = ()
    whole: bool = False
    accused: tuple[int, ...] = ()


class Waited(msgspec.Struct, frozen=True):
    """A system entry: a node was removed while it ran, under this boot id, so many times by now; it has to wait.

    `at` is the time of day in seconds at the leader, 0 if it did not know it.
    """

    number: int
    boot_id: str
    times: int
    at: float


class Suspect(NamedTuple):
    """A node that cannot be reached on a network."""

    number: int
    network: str = ""


# --- published on this node's bus ---------------------------------------------------------------------------


class ViewChanged(Message, frozen=True):
    """Topic `liveness.view`: this node now holds this view, or its contact to the quorum came or went.

    Sent by liveness to every party of its own node, first when this node is in a view. Views come in order
    and each once; `joined` and `left` are the difference to the view published before (a node that came back
    under a new boot id is in both). `quorate=False` means: no word from the leader, so the list is frozen and
    possibly old; then, and when word comes again, the same view is published anew with nobody joined or left.
    A reader that missed one asks the service `liveness` for `status`.
    """

    id: ViewId
    members: tuple[Member, ...]
    joined: tuple[Member, ...] = ()
    left: tuple[Member, ...] = ()
    quorate: bool = True
    hash: str = ""
    at: float = 0.0


# --- between nodes ------------------------------------------------------------------------------------------


class Heartbeat(Message, frozen=True):
    """A probe: a member to those whom it observes, by each network once an interval, faster to one that fell silent.

    Says: boot `boot_id` has just done its liveness tasks and holds view `view`. `leads` is the epoch that the
    sender leads (0: it does not). `beat` counts at the sender, the answer repeats it. By a `network` with a name it
    goes as a datagram from adapter to adapter (`probes.py`), else over the bus. One lost says nothing, a duplicate is
    answered twice over the bus and dropped as a datagram.
    """

    boot_id: str
    view: ViewId
    beat: int
    leads: int = 0
    network: str = ""


class HeartbeatAck(Message, frozen=True):
    """The answer to a `Heartbeat`, by the same way: the same fields and the same `beat`. Loss and duplicates as there.

    `epoch` and `age` pass on the word of the leader: how many seconds ago, as far as the sender can prove, the leader
    of that epoch answered somebody (0 and 0.0 from the leader itself; epoch 0: the sender has no word). It is given to
    members of the sender's view only, so that one that was removed does not take itself for quorate before it is told.
    """

    boot_id: str
    view: ViewId
    beat: int
    leads: int = 0
    network: str = ""
    epoch: int = 0
    age: float = 0.0


class ProbeKey(Message, frozen=True):
    """A node to one that it will probe, over the bus, which proves who says it: my probes are signed with this key.

    Your answers to them shall be, too. Said again while no answer comes, and twice a minute. Between services, not
    machines. Lost: the probes are not understood until it is said again.
    """

    key: bytes


class Alert(Message, frozen=True):
    """A member to the leader: of those whom I observe in view `view` I cannot reach these. The list is complete.

    So a name on it is an accusation, and one missing takes it back. Sent when the list changes and repeated once an
    interval while somebody is on it; the leader forgets one that is not repeated, and one about another view.
    `unsure`: the sender did not run for a while, or hears of most others nothing, so it may well be its own fault.
    """

    boot_id: str
    view: ViewId
    suspects: tuple[Suspect, ...]
    unsure: bool = False


class Look(Message, frozen=True):
    """The leader to the observers of a member in doubt: look at it now, and say what you find. Lost: one vote less."""

    view: ViewId
    number: int


class Join(Message, frozen=True):
    """A node that is in no view to the leader: take me in. Repeated until the node sees itself in a view."""

    boot_id: str
    name: str
    view: ViewId = NO_VIEW


class JoinRefused(Message, frozen=True):
    """The leader to a node that asked to join. `clone`: its number is in use by another, living boot id."""

    boot_id: str
    reason: Literal["clone"]


class JoinDelayed(Message, frozen=True):
    """The leader to a node that asked to join: not for so many seconds yet, for you were removed while you ran."""

    boot_id: str
    seconds: float


class Configured(Message, frozen=True):
    """A member to the leader: I am configured, call me online. Repeated until the view says so."""

    boot_id: str


class Leave(Message, frozen=True):
    """A member to the leader: I go offline in order. Repeated until the leader says `Removed`.

    From a boot that was just told `Removed`, once: I am none any more, and I run.
    """

    boot_id: str


class Removed(Message, frozen=True):
    """To a node that acts as a member and is none: your boot id was removed and will not return.

    Sent by the leader once with the view that removes it, and by whomever the removed boot talks to later.
    """

    boot_id: str
    view: ViewId


class ViewsAnnounced(Message, frozen=True):
    """Committed views in order, the first following what the hearer holds.

    Sent by the leader with each new view, passed on down the tree of `relay.py` if `relay`, and sent by anybody to
    whom a heartbeat shows that the other one lags. Views already held are skipped. `whole`: the first of them is the
    whole list and the oldest there is, so one that lags behind it starts anew there.
    """

    views: tuple[Step, ...]
    whole: bool = False
    relay: bool = False


LivenessMessage = (
    Heartbeat
    | HeartbeatAck
    | ProbeKey
    | Alert
    | Look
    | Join
    | JoinRefused
    | JoinDelayed
    | Configured
    | Leave
    | Removed
    | ViewsAnnounced
)


# --- asked by clients ---------------------------------------------------------------------------------------


class Status(msgspec.Struct, frozen=True):
    """What this node holds: the view, whether it is quorate, who leads, whom it suspects."""


class Views(msgspec.Struct, frozen=True):
    """The last `last` views this node knows, oldest first."""

    last: int = 10


class Seen(msgspec.Struct, frozen=True):
    """Which paths this node sees, to those whom it observes and from those who observe it."""


class ConfiguredQ(msgspec.Struct, frozen=True):
    """The DCM of this node: everything is configured. Answered when the view calls this node online."""


class LeaveQ(msgspec.Struct, frozen=True):
    """The DCM of this node: take this node out of the view in order. Answered when it is out."""


# --- local facts --------------------------------------------------------------------------------------------


class PeerDown(msgspec.Struct, frozen=True):
    """The bus lost its link to a node: a reason to look at once, not yet to accuse."""

    node: int


class Adapters(msgspec.Struct, frozen=True):
    """The adapters of the cluster's nodes: for each its number and ADDRESS/PREFIX of each (no nodes: not known)."""

    nodes: tuple[tuple[int, tuple[str, ...]], ...]


class TasksChecked(msgspec.Struct, frozen=True):
    """The liveness tasks of this node were tried; `failed` names those that did not work (none: all well)."""

    failed: tuple[str, ...] = ()


class ClockRead(msgspec.Struct, frozen=True):
    """`offset` is the time of day minus the machine's own time, in seconds: for the dates that people see."""

    offset: float
