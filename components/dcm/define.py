"""Define a node: the member's side of SPEC 6.1, one machine for one request (steps d1 to d14).

Knows no bus and no registry: it orders `Tell` (to the new node), `Begin`, `Look`, `Write` and `Undo` (in the registry),
and is told what came of them. The decision over the whole is one entry of the registry's log (`entries.py`), so however
this side ends, the new node finds out by asking any member (`newcomer.py`), and what was not decided is dropped. With a
join token both sides prove its secret first (SPEC 6.3); its use is part of what the registry decides.

Invariants: 1. `Commit` is told only after the registry has the entry. 2. `Finish` is the last effect and comes once.
3. A failure after `Write` was ordered is finished only after `Undo` was ordered. 4. With a token, nothing of the
cluster is told before the new node has proved the secret.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from ...bus.machine import ImpossibleTransition, Message
from ...errors import CompareFailed, CoveyError, Refused, Timeout, TokenRefused, from_wire
from .checks import Finding
from .decision import Decision, Looked, Request, decide
from .definitions import ClusterDefinition, NodeDefinition, NodeTable, Replica
from .entries import NodeEntry
from .messages import Abort, Aborted, Admitted, Commit, Committed, Declined, Knock, Prepare, Prepared
from .settings import COMMIT_ADDRESSES, COMMIT_BYTES, DEFINE_ROUNDS, PATIENCE, TELL_AGAIN
from .token import Transcript, prove, proved

State = Literal["new", "knocking", "beginning", "asking", "looking", "writing", "committing", "undoing", "done"]


# --- inputs ---------------------------------------------------------------------------------------------------


class Begun(msgspec.Struct, frozen=True):
    """The request came in (d1)."""


class Heard(msgspec.Struct, frozen=True):
    """The new node answered; `skew`: so many seconds its clock is ahead of this node's, as far as that can be told."""

    message: Message
    skew: float = 0.0


class PeerFailed(msgspec.Struct, frozen=True):
    """The last message did not get through, or its answer did not."""

    error: CoveyError


class Began(msgspec.Struct, frozen=True):
    """The registry knows that this define is under way, as of `revision`."""

    revision: int


class Wrote(msgspec.Struct, frozen=True):
    """The registry decided over the entry (d9, d10): written at `revision`, or something in it was taken."""

    succeeded: bool
    revision: int = 0


class Undone(msgspec.Struct, frozen=True):
    """The registry holds nothing of this define any more, and never will."""


class RegistryFailed(msgspec.Struct, frozen=True):
    """The registry did not do it; `sure` when it certainly was not done."""

    error: CoveyError
    sure: bool = False


Input = Begun | Heard | PeerFailed | Began | Looked | Wrote | Undone | RegistryFailed

# --- effects --------------------------------------------------------------------------------------------------


class Tell(msgspec.Struct, frozen=True):
    """Send to the new node and feed its answer: `Heard`, or `PeerFailed`."""

    message: Message


class Begin(msgspec.Struct, frozen=True):
    """Write that the define of the node with this key is under way: `Began`, or `RegistryFailed`."""

    definition_id: str
    key: str


class Look(msgspec.Struct, frozen=True):
    """Read all nodes from the registry, current, how the define stands and whether `token` was used, and see what is
    to be said of the new node before it is one: `Looked`, or `RegistryFailed`."""

    definition_id: str
    prepared: Prepared
    token: str = ""
    skew: float = 0.0


class Write(msgspec.Struct, frozen=True):
    """Write this node, erasing the old ones: `Wrote`, or `RegistryFailed`. The same `attempt` is the same request."""

    node: NodeDefinition
    erase: tuple[NodeEntry, ...]
    attempt: int
    begun: int = 0
    token: str = ""


class Undo(msgspec.Struct, frozen=True):
    """Decide against this define, and remove its entry if it was written: `Undone`, or `RegistryFailed`."""

    definition_id: str
    token: str = ""


class At(msgspec.Struct, frozen=True):
    """A step of the protocol was reached."""

    step: str


class Finish(msgspec.Struct, frozen=True):
    """It is over: the node that is now defined, or why not (d14)."""

    node: NodeDefinition | None
    error: CoveyError | None = None
    findings: tuple[Finding, ...] = ()


Effect = Tell | Begin | Look | Write | Undo | At | Finish

# --- the machine ----------------------------------------------------------------------------------------------


class DefineMember:
    """One define, seen from the member. Give it `Begun`, perform its effects, stop at `Finish`.

    `ask` are places of members that know how it ended, `key` is this node's public key, `nonce` new and random.
    """

    def __init__(
        self,
        request: Request,
        *,
        transaction: str,
        definition_id: str,
        cluster: ClusterDefinition,
        ask: tuple[str, ...],
        key: str = "",
        nonce: bytes = b"",
    ) -> None:
        self.state: State = "new"
        self.request = request
        self.transaction = transaction
        self.definition_id = definition_id
        self._cluster = cluster
        self._prepare = Prepare(transaction, cluster, definition_id, ask, request.id)
        self._token = request.token.id if request.token else ""
        self._knock: Knock | None = None
        if request.token is not None:
            self._said = Transcript(transaction, cluster.id, request.token.id, key, request.token.key, nonce)
            proof = prove(request.token.secret, "knock", self._said)
            self._knock = Knock(transaction, request.token.id, cluster.id, key, nonce, proof)
        self._begun = 0
        self._prepared: Prepared | None = None
        self._skew = 0.0
        self._looked: Looked | None = None
        self._decision: Decision | None = None
        self._commit: Commit | None = None
        self._error: CoveyError | None = None
        self._attempt = 0
        self._in_flight = False  # whether a write may be in the registry that nobody told us of
        self._again: float | None = None
        self._limit: float = 0.0
        self._story: list[str] = []

    @property
    def deadline(self) -> float | None:
        """When to call `step` without an input."""
        return None if self._again is None else min(self._again, self._limit)

    def step(self, now: float, input: Input | None = None) -> list[Effect]:
        """Take one input (None: the deadline came) and return what must be done, in order."""
        if input is None:
            return self._tick(now) if self.deadline is not None and now >= self.deadline else []
        key: type[Any] = type(input.message) if isinstance(input, Heard) else type(input)
        self._story.append(f"{self.state} + {key.__name__}")
        if isinstance(input, Heard) and getattr(input.message, "transaction", None) != self.transaction:
            return []
        if isinstance(input, Heard):
            self._skew = input.skew
        if (self.state, key) in _LATE:
            return []
        found = _TABLE.get((self.state, key))
        if found is None:
            raise ImpossibleTransition(f"define {self.transaction}: " + ", ".join(self._story))
        return found(self, now, input.message if isinstance(input, Heard) else input)

    # what each pair of the table does

    def _start(self, now: float, _input: Begun) -> list[Effect]:
        if self._knock is None:
            return [At("d1"), *self._begin(now)]
        self._enter("knocking", now)
        return [At("d1"), Tell(self._knock)]

    def _admitted(self, now: float, message: Admitted) -> list[Effect]:
        assert self.request.token is not None
        secret = self.request.token.secret
        both = msgspec.structs.replace(self._said, node_nonce=message.nonce)
        if not proved(message.proof, secret, "node", both):
            # whoever answers does not know the secret: tell it nothing more
            at = self.request.address
            return self._over(TokenRefused(f"the node at {at} cannot prove that it made the join token"))
        self._prepare = msgspec.structs.replace(self._prepare, proof=prove(secret, "member", both))
        return self._begin(now)

    def _begin(self, now: float) -> list[Effect]:
        self._enter("beginning", now)
        return [self._beginning()]

    def _ask(self, now: float, input: Began) -> list[Effect]:
        self._begun = input.revision
        self._enter("asking", now)
        return [At("d2"), Tell(self._prepare)]

    def _prepared_heard(self, now: float, message: Prepared) -> list[Effect]:
        self._prepared = message
        self._enter("looking", now)
        return [At("d4"), At("d5"), self._look()]

    def _looked_heard(self, now: float, looked: Looked) -> list[Effect]:
        assert self._prepared is not None
        self._looked = looked
        try:
            self._decision = decide(self.request, self._prepared, looked, self.definition_id)
        except CoveyError as why:
            return [At("d6"), At("d7"), *self._undo(now, why)]
        if self._decision.written:
            return [At("d6"), At("d7"), *self._wrote(now, Wrote(True, looked.servers.revision))]
        self._attempt += 1
        self._enter("writing", now)
        return [At("d6"), At("d7"), At("d8"), self._write()]

    def _wrote(self, now: float, input: Wrote) -> list[Effect]:
        assert self._decision is not None and self._looked is not None
        if not input.succeeded:
            if self._attempt >= DEFINE_ROUNDS:
                return self._undo(now, CompareFailed("the cluster's nodes change too fast to define one", "try again"))
            self._enter("looking", now)  # somebody was faster: look what is free now, and say what is not
            return [At("d9"), At("d10"), self._look()]
        node = self._decision.node
        gone = {entry.definition.number for entry in self._decision.erase}
        kept = {entry.definition.number: entry.definition for entry in self._looked.nodes}
        table = NodeTable({**{n: kept[n] for n in sorted(kept) if n not in gone}, node.number: node}, input.revision)
        replica = fitting(Replica(self._cluster, node, self._looked.servers, table))
        self._commit = Commit(self.transaction, replica)
        self._enter("committing", now)
        return [At("d9"), At("d10"), At("d11"), Tell(self._commit)]

    def _committed(self, _now: float, _message: Committed) -> list[Effect]:
        assert self._decision is not None
        self._leave()
        return [At("d13"), At("d14"), Finish(self._decision.node, None, self._decision.findings)]

    def _declined(self, now: float, message: Declined) -> list[Effect]:
        why = from_wire(message.code, message.message, message.hint)
        if isinstance(why, TokenRefused):
            hint = "it was used, has expired or is another node's: `covey node prepare` there makes a new one"
            why = TokenRefused(f"the node at {self.request.address} does not accept the join token", hint)
        return self._over(why) if self.state == "knocking" else self._undo(now, why)

    def _aborted(self, now: float, _message: Aborted) -> list[Effect]:
        return self._undo(now, Refused("the new node gave the define up before it was decided", "ask again"))

    def _remember(self, _now: float, input: PeerFailed | RegistryFailed) -> list[Effect]:
        self._error = input.error  # the same is tried again until the time is up
        return []

    def _registry_failed(self, now: float, input: RegistryFailed) -> list[Effect]:
        self._error = input.error
        if not input.sure:
            self._in_flight = self._in_flight or self.state == "writing"
            return []
        return self._undo(now, input.error) if self._in_flight else self._over(input.error)

    def _undone(self, _now: float, _input: Undone) -> list[Effect]:
        return self._over(self._error)

    # helpers

    def _tick(self, now: float) -> list[Effect]:
        if now < self._limit:
            self._again = now + TELL_AGAIN
            return [self._repeat()]
        told = self.state in ("knocking", "asking", "committing")
        at = f"the new node at {self.request.address}" if told else "the registry"
        why = self._error or Timeout(f"{at} did not answer within {PATIENCE:g} s", "nothing was defined")
        if self.state in ("knocking", "beginning", "looking"):
            return self._over(why)  # the registry is away: what was begun is dropped when the new node asks
        if self.state == "undoing":
            return self._over(Timeout(f"{why.message}; and the registry does not answer to undo it", "ask again later"))
        return self._undo(now, why)

    def _repeat(self) -> Effect:
        if self.state == "knocking":
            assert self._knock is not None
            return Tell(self._knock)
        if self.state == "beginning":
            return self._beginning()
        if self.state == "asking":
            return Tell(self._prepare)
        if self.state == "committing":
            assert self._commit is not None
            return Tell(self._commit)
        if self.state == "writing":
            self._in_flight = True
            return self._write()
        return self._look() if self.state == "looking" else Undo(self.definition_id, self._token)

    def _beginning(self) -> Begin:
        return Begin(self.definition_id, self.request.token.key if self.request.token else "")

    def _look(self) -> Look:
        assert self._prepared is not None
        return Look(self.definition_id, self._prepared, self._token, self._skew)

    def _write(self) -> Write:
        assert self._decision is not None
        return Write(self._decision.node, self._decision.erase, self._attempt, self._begun, self._token)

    def _undo(self, now: float, why: CoveyError) -> list[Effect]:
        self._enter("undoing", now)
        self._error = why
        return [Undo(self.definition_id, self._token)]

    def _over(self, why: CoveyError | None) -> list[Effect]:
        told = self.state not in ("knocking", "beginning")
        self._leave()
        return [*([Tell(Abort(self.transaction))] if told else []), Finish(None, why)]

    def _enter(self, state: State, now: float) -> None:
        self.state = state
        self._again = now + TELL_AGAIN
        self._limit = now + PATIENCE
        self._error = None

    def _leave(self) -> None:
        self.state = "done"
        self._again = None


def fitting(replica: Replica) -> Replica:
    """Return a replica that fits into one message: with the servers, the node itself, and as many others as go in.

    One that is cut has revision 0, so that the join's first look at the registry completes it.
    """
    if len(msgspec.msgpack.encode(replica)) <= COMMIT_BYTES:
        return replica
    nodes = {
        number: node
        if node == replica.node
        else msgspec.structs.replace(node, addresses=node.addresses[:COMMIT_ADDRESSES])
        for number, node in replica.nodes.nodes.items()
    }
    needed = dict.fromkeys([*replica.servers.all, replica.node.number])
    room = COMMIT_BYTES - len(msgspec.msgpack.encode(msgspec.structs.replace(replica, nodes=NodeTable({}))))
    kept: dict[int, NodeDefinition] = {}
    for number in [*needed, *(number for number in sorted(nodes) if number not in needed)]:
        room -= len(msgspec.msgpack.encode(nodes[number])) + 5 if number in nodes else 0
        if number not in nodes or (room < 0 and number not in needed):
            continue
        kept[number] = nodes[number]
    return msgspec.structs.replace(replica, nodes=NodeTable(dict(sorted(kept.items())), 0))


_Do = Callable[[DefineMember, float, Any], list[Effect]]
_TABLE: dict[tuple[State, type[Any]], _Do] = {
    ("new", Begun): DefineMember._start,
    ("knocking", Admitted): DefineMember._admitted,
    ("knocking", Declined): DefineMember._declined,
    ("knocking", PeerFailed): DefineMember._remember,
    ("beginning", Began): DefineMember._ask,
    ("beginning", RegistryFailed): DefineMember._registry_failed,
    ("asking", Prepared): DefineMember._prepared_heard,
    ("asking", Declined): DefineMember._declined,
    ("asking", PeerFailed): DefineMember._remember,
    ("looking", Looked): DefineMember._looked_heard,
    ("looking", RegistryFailed): DefineMember._registry_failed,
    ("writing", Wrote): DefineMember._wrote,
    ("writing", RegistryFailed): DefineMember._registry_failed,
    ("committing", Committed): DefineMember._committed,
    ("committing", Declined): DefineMember._declined,
    ("committing", Aborted): DefineMember._aborted,
    ("committing", PeerFailed): DefineMember._remember,
    ("undoing", Undone): DefineMember._undone,
    ("undoing", RegistryFailed): DefineMember._remember,
}
# what may still come when its time is past: an answer sent twice, or after its question was given up
_ANSWERS: tuple[type[Any], ...] = (
    Admitted,
    Prepared,
    Committed,
    Aborted,
    Declined,
    PeerFailed,
    Began,
    Looked,
    Wrote,
    Undone,
    RegistryFailed,
)
_LATE: frozenset[tuple[State, type[Any]]] = frozenset(
    (state, answer)
    for state in ("knocking", "beginning", "asking", "looking", "writing", "committing", "undoing", "done")
    for answer in _ANSWERS
    if (state, answer) not in _TABLE
)
