"""What the DCMs of two nodes say to each other while one is being defined (SPEC 6.1, the steps d1 to d14).

All are keyed by a transaction id made by the member, so a message that comes twice is answered twice and done once.
None is lost for good: the side that waits asks again, and a new node that hears nothing more asks the cluster
(`Resolve`).
"""

from __future__ import annotations

from ...bus.machine import Message
from .definitions import ClusterDefinition, NodeDefinition, Replica


class Prepare(Message, frozen=True):
    """Member to the new node (d2): "may I define you?" Lost: sent again. Double: the same answer.

    `ask` are endpoints of members that know how it ended; `id` is the id the requester expects, as a check.
    """

    transaction: str
    cluster: ClusterDefinition
    definition_id: str
    ask: tuple[str, ...]
    id: str | None = None


class Prepared(Message, frozen=True):
    """New node to the member (d3), after it wrote down that it is in doubt: its id, what it is called and where.

    `local` is an old definition to this very cluster. Lost: comes again with the next Prepare.
    """

    transaction: str
    id: str
    name: str
    addresses: tuple[str, ...]
    port: int
    key: str = ""
    local: NodeDefinition | None = None


class Commit(Message, frozen=True):
    """Member to the new node (d11), when the registry has it: write it down. Lost: sent again. Double: harmless."""

    transaction: str
    replica: Replica


class Committed(Message, frozen=True):
    """New node to the member (d12), after its local storage is synced. Lost: comes again with the next Commit."""

    transaction: str


class Abort(Message, frozen=True):
    """Member to the new node: it comes to nothing, forget it. Lost: the new node finds out by `Resolve`."""

    transaction: str


class Aborted(Message, frozen=True):
    """New node to the member: it is forgotten (or was never known)."""

    transaction: str


class Declined(Message, frozen=True):
    """New node to the member: it will not. An error in the three parts in which errors travel."""

    transaction: str
    code: str
    message: str
    hint: str = ""


class Resolve(Message, frozen=True):
    """New node in doubt to any member: how did it end? Asking ends it: what is not decided yet becomes aborted."""

    transaction: str
    cluster_id: str
    definition_id: str


class Resolved(Message, frozen=True):
    """Member to the new node, after a decision in the registry: what to write down, or None: nothing came of it."""

    transaction: str
    replica: Replica | None = None


Define = Prepare | Prepared | Commit | Committed | Abort | Aborted | Declined | Resolve | Resolved
