"""What the registry's machines send one another, what clients ask them, and what they hear of their own node.

Any component may import this module. It knows only the shape of a message. `Leading` is also the body of the
event `registry.leading`, so every machine of a node hears it as `Received(Address("registry", node), Leading(…))`.
Odd: the index counts log entries, the revision counts user transactions that changed something; an epoch names one
reign of one primary.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ...bus.machine import Message

Phase = Literal["offline", "stale", "reads", "writes"]
Consistency = Literal["linear", "stale"]
Change = Literal["define", "undefine", "start", "stop"]
SERVICE = "registry"
LEADING_TOPIC = "registry.leading"
PHASE_TOPIC = "registry.phase"


# --- who is the primary ------------------------------------------------------------------------------------


class Leading(Message, frozen=True):
    """Who leads the core log, as far as the sender knows; `primary` 0: nobody that it knows of.

    Sent by a registry server in answer to `FindPrimary`, and unasked to those who asked lately; published on
    `registry.leading` by the server and by the agent of a client node, on every change. A loss is mended by the
    next question; a duplicate changes nothing. One with a lower epoch than a hearer knows is old and must be
    ignored, except `primary` 0 from the hearer's own node, which says that contact was lost.
    """

    epoch: int
    primary: int
    phase: Phase
    writable: bool
    index: int = 0  # how far the log was committed when this was said; no change of its own, only `Transact.since`


class FindPrimary(Message, frozen=True):
    """Ask a registry server who leads. Agent to server; answered by `Leading`; repeated until answered."""


# --- system entries: what liveness and groups commit -------------------------------------------------------


class AppendSystem(Message, frozen=True):
    """Commit one entry of a component to the core log, if `epoch` is still the reign of the primary.

    Component to the registry of its own node, sent only where `Leading.primary` is that node. Answered by
    `SystemAppended` after the entry is durable, or by `SystemRefused`. After a loss the sender repeats it with the
    same `id`: the entry is applied once and the answer is the same. Of each `(kind, slot)` the last `keep` are
    kept; `keep` 0 empties the slot.
    """

    id: str
    epoch: int
    kind: str
    slot: str
    body: bytes
    keep: int = 1


class SystemAppended(Message, frozen=True):
    """The entry of `AppendSystem` with this `id` is durable at `index`. A duplicate says the same."""

    id: str
    index: int
    epoch: int


class SystemRefused(Message, frozen=True):
    """`AppendSystem` or `ReadSystem` with this `id` was refused; `epoch` reigns now (0: none does).

    Nothing was appended under that id. `reason` is for people.
    """

    id: str
    epoch: int
    reason: str


class ReadSystem(Message, frozen=True):
    """Ask for the kept entries of one kind. Component to the registry of its own node.

    Answered by `SystemRead` or `SystemRefused`; after a loss it is asked again, a duplicate is answered again.
    """

    id: str
    kind: str


class SystemRead(Message, frozen=True):
    """The kept entries `(slot, index, epoch, body)` of the kind asked for, by rising index; all are durable.

    `epoch` is the reign in which they were read.
    """

    id: str
    entries: tuple[tuple[str, int, int, bytes], ...]
    epoch: int = 0


AnyMessage = Leading | FindPrimary | AppendSystem | SystemAppended | SystemRefused | ReadSystem | SystemRead


# --- what happened on this node: inputs of the machines ----------------------------------------------------


class GroupFormed(msgspec.Struct, frozen=True):
    """The group `sys.registry` has this server as a member: phase 2 may end (SPEC 2.3 step 15)."""


class PeerDown(msgspec.Struct, frozen=True):
    """This node's broker lost its link to the node with this number."""

    node: int


class AgentAsked(msgspec.Struct, frozen=True):
    """The agent of that node asked who leads, and was answered on the way of its question."""

    node: int


class SnapshotWritten(msgspec.Struct, frozen=True):
    """The snapshot at `index` that the machine made is durable, and the log was trimmed behind it."""

    index: int


class SnapshotFailed(msgspec.Struct, frozen=True):
    """The snapshot at `index` could not be written; the log is whole, so nothing is lost but room."""

    index: int
    reason: str


class NoRoom(msgspec.Struct, frozen=True):
    """The disk is full: all that was ordered and is not persisted was not written, and never will be."""

    reason: str


class Leaving(msgspec.Struct, frozen=True):
    """This server is about to stop in order: if it is the primary, it hands over to the best of the others."""


class ServersChanged(msgspec.Struct, frozen=True):
    """The local configuration lists other registry servers now (the agent asks these)."""

    servers: tuple[int, ...]


# --- what clients ask: `Asked(request, question)` ----------------------------------------------------------


class Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One change of a transaction. `value` is any JSON value; it means nothing for a delete."""

    op: Literal["put", "delete"]
    key: str
    value: object = None


class Comparison(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """True when the key was last changed at `mod_revision`; 0: when the key does not exist."""

    key: str
    mod_revision: int


class Transact(msgspec.Struct, frozen=True):
    """Do `then` if every comparison holds, else `otherwise`; all of it at one revision, or nothing.

    Answered with `{revision, succeeded}` when durable. The same `id` again is not applied again and gets the same
    answer; an empty id is no id. With `system` it is a component's own and needs a primary only, not open writes
    (SPEC 5.4: a lone server with a new identity must be able to boot). `since` is an index that was committed before
    the id was first used, 0: not known. When answers to ids younger than that were forgotten meanwhile, a retry is
    refused with `registry.request_expired` rather than perhaps applied twice.
    """

    id: str
    compare: tuple[Comparison, ...] = ()
    then: tuple[Operation, ...] = ()
    otherwise: tuple[Operation, ...] = ()
    system: bool = False
    since: int = 0


class Get(msgspec.Struct, frozen=True):
    """Read one key."""

    key: str
    consistency: Consistency = "linear"


class List(msgspec.Struct, frozen=True):
    """Read every key that begins with `prefix`, in order: those behind `after`, at most `limit` (0: all)."""

    prefix: str
    consistency: Consistency = "linear"
    after: str = ""
    limit: int = 0


class Watch(msgspec.Struct, frozen=True):
    """Wait for changes below `prefix` from `from_revision` on, at most `wait` seconds.

    Answered with one contiguous batch `{from, to, events}`; the next question starts at `to + 1`. At the end of
    `wait` the batch is empty, and still says how far the watcher has come. From revision 0 means from now on: the
    answer is an empty batch at once, which says where that is.
    """

    prefix: str
    from_revision: int
    wait: float


class ListSystem(msgspec.Struct, frozen=True):
    """Read the kept system entries of one kind with an index above `since_index`."""

    kind: str
    since_index: int = 0


class Status(msgspec.Struct, frozen=True):
    """How this copy stands: phase, incarnation, revision, primary, servers, damage."""


class ChangeServers(msgspec.Struct, frozen=True):
    """Change the registry servers by one: `define` a defined node as server, `undefine` one, `start` or `stop` one.

    Answered with `{index, servers, learners, stopped}` when the first entry of the change is committed; a server that
    was defined is a learner until its copy is level, then a voter, by itself. What is so already is answered at once.
    """

    id: str
    change: Change
    server: int
    forced: bool = False


class HandOver(msgspec.Struct, frozen=True):
    """Make another server the primary; `to` 0: the best of them. Answered with `{primary, epoch}` when it reigns."""

    to: int = 0


class Backup(msgspec.Struct, frozen=True):
    """The whole state as the record of a snapshot, made by the primary now. Answered with its bytes."""


Question = Transact | AppendSystem | Get | List | Watch | ListSystem | Status | ChangeServers | HandOver | Backup
