"""What the DCMs of two nodes say to each other while one is being defined (SPEC 6.1, the steps d1 to d14).

All are keyed by a transaction id made by the member, so a message that comes twice is answered twice and done once.
None is lost for good: the side that waits asks again, and a new node that hears nothing more asks the cluster
(`Resolve`).
"""

from __future__ import annotations

import msgspec

from ...bus.machine import Message
from .definitions import ClusterDefinition, NodeDefinition, Replica


class Way(msgspec.Struct, frozen=True):
    """One endpoint of another node that was tried; `problem`: why it was not reached. `node` 0: any of the cluster."""

    node: int
    endpoint: str
    problem: str = ""


class Here(msgspec.Struct, frozen=True):
    """What a node says of itself to another that wants to work with it. Small: it goes over the join port.

    `clock` is seconds since 1970; `ways` are the endpoints it tried, as many as fit.
    """

    version: str = ""
    protocol: int = 0
    clock: float = 0.0
    ways: tuple[Way, ...] = ()


class Knock(Message, frozen=True):
    """Member to the new node, before anything else, when there is a join token: "I know its secret" (SPEC 6.3).

    `key` is the member's public key, `proof` that of `token.prove(…, "knock", …)`. Lost: sent again. Double: the same
    answer. Without a right proof the answer is `Declined`, the same for every reason.
    """

    transaction: str
    token: str
    cluster_id: str
    key: str
    nonce: bytes
    proof: bytes


class Admitted(Message, frozen=True):
    """New node to the member: "so do I". It has changed nothing yet. Lost: comes again with the next Knock."""

    transaction: str
    nonce: bytes
    proof: bytes


class Prepare(Message, frozen=True):
    """Member to the new node (d2): "may I define you?" Lost: sent again. Double: the same answer.

    `ask` are places of members that know how it ended; `id` is the id the requester expects, as a check. `proof` is the
    member's over both nonces, when there is a token.
    """

    transaction: str
    cluster: ClusterDefinition
    definition_id: str
    ask: tuple[str, ...]
    id: str | None = None
    proof: bytes = b""


class Prepared(Message, frozen=True):
    """New node to the member (d3), after it wrote down that it is in doubt: its id, what it is called and where.

    `local` is an old definition to this very cluster; `here` says which members it reaches.
    Lost: comes again with the next Prepare.
    """

    transaction: str
    id: str
    name: str
    addresses: tuple[str, ...]
    port: int
    key: str = ""
    local: NodeDefinition | None = None
    here: Here = Here()


class Commit(Message, frozen=True):
    """Member to the new node (d11), when the registry has it: write it down. Lost: sent again. Double: harmless.

    Of the other nodes it holds the registry servers, and as many more as fit the join port's small messages; the rest
    follows at the join.
    """

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
    """New node in doubt to any member: how did it end? Asking ends it: what was begun and not written is dropped."""

    transaction: str
    cluster_id: str
    definition_id: str


class Resolved(Message, frozen=True):
    """Member to the new node, after a decision in the registry: what to write down, or None: nothing came of it."""

    transaction: str
    replica: Replica | None = None


Define = Knock | Admitted | Prepare | Prepared | Commit | Committed | Abort | Aborted | Declined | Resolve | Resolved
