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

from typing import Literal

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
    """Every member to every other member, once an interval, and faster to one that fell silent.

    Says: boot `boot_id` has just done its liveness tasks and holds view `view`. `leads` is the epoch that the
    sender leads (0: it does not), which is what members know as word from the leader. `beat` counts at the
    sender, the answer repeats it. One lost says nothing, a duplicate is answered twice.
    """

    boot_id: str
    view: ViewId
    beat: int
    leads: int = 0


class HeartbeatAck(Message, frozen=True):
    """The answer to a `Heartbeat`: the same fields and the same `beat`. Loss and duplicates as there.

    `leads` is the word of the leader and given to members of its view only, so that one that was removed does
    not take itself for quorate before it is told.
    """

    boot_id: str
    view: ViewId
    beat: int
    leads: int = 0


class Alert(Message, frozen=True):
    """A member to the leader: of the members of view `view` I cannot reach these. The list is complete.

    Sent when the list changes and repeated once an interval while somebody is on it; the leader forgets one
    that is not repeated, and one about another view.
    """

    boot_id: str
    view: ViewId
    suspects: tuple[int, ...]


class Join(Message, frozen=True):
    """A node that is in no view to the leader: take me in. Repeated until the node sees itself in a view."""

    boot_id: str
    name: str
    view: ViewId = NO_VIEW


class JoinRefused(Message, frozen=True):
    """The leader to a node that asked to join. `clone`: its number is in use by another, living boot id."""

    boot_id: str
    reason: Literal["clone"]


class Configured(Message, frozen=True):
    """A member to the leader: I am configured, call me online. Repeated until the view says so."""

    boot_id: str


class Leave(Message, frozen=True):
    """A member to the leader: I go offline in order. Repeated until the leader says `Removed`."""

    boot_id: str


class Removed(Message, frozen=True):
    """The leader to a node that acts as a member and is none: your boot id was removed and will not return.

    Sent once with the view that removes it, and as the answer to whatever the removed boot sends later.
    """

    boot_id: str
    view: ViewId


class ViewsAnnounced(Message, frozen=True):
    """The leader to a member or joiner: committed views in order, the first following what it holds.

    Sent with each new view, and again when a heartbeat shows that the hearer lags. Views already held are
    skipped. `whole`: these are all views there are, so one that lags behind the first of them starts anew
    there.
    """

    views: tuple[View, ...]
    whole: bool = False


LivenessMessage = Heartbeat | HeartbeatAck | Alert | Join | JoinRefused | Configured | Leave | Removed | ViewsAnnounced


# --- asked by clients ---------------------------------------------------------------------------------------


class Status(msgspec.Struct, frozen=True):
    """What this node holds: the view, whether it is quorate, who leads, whom it suspects."""


class Views(msgspec.Struct, frozen=True):
    """The last `last` views this node knows, oldest first."""

    last: int = 10


class ConfiguredQ(msgspec.Struct, frozen=True):
    """The DCM of this node: everything is configured. Answered when the view calls this node online."""


class LeaveQ(msgspec.Struct, frozen=True):
    """The DCM of this node: take this node out of the view in order. Answered when it is out."""


# --- local facts --------------------------------------------------------------------------------------------


class PeerDown(msgspec.Struct, frozen=True):
    """The bus lost its link to a node: a reason to look at once, not yet to accuse."""

    node: int


class TasksChecked(msgspec.Struct, frozen=True):
    """The liveness tasks of this node were tried; `failed` names those that did not work (none: all well)."""

    failed: tuple[str, ...] = ()


class ClockRead(msgspec.Struct, frozen=True):
    """`offset` is the time of day minus the machine's own time, in seconds: for the dates that people see."""

    offset: float
