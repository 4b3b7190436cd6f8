"""Define a node: the member's side of SPEC 6.1, one machine for one request (steps d1 to d14).

Knows no bus and no registry: it orders `Tell` (to the new node), `Look`, `Write` and `Undo` (in the registry), and is
told what came of them. The decision over the whole is one entry of the registry's log (`entries.py`), so however this
side ends, the new node finds out by asking any member (`newcomer.py`), and what was not decided becomes aborted.

Invariants: 1. `Commit` is told only after the registry has the entry. 2. `Finish` is the last effect and comes once.
3. A failure after `Write` was ordered is finished only after `Undo` was ordered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from ...bus.machine import ImpossibleTransition, Message
from ...errors import (
    AlreadyDefined,
    CompareFailed,
    CoveyError,
    IdentityClone,
    IdentityConflict,
    Refused,
    Timeout,
    from_wire,
)
from .definitions import ClusterDefinition, NodeDefinition, NodeTable, Replica, ServerList, check_name
from .entries import NodeEntry
from .messages import Abort, Aborted, Commit, Committed, Declined, Prepare, Prepared
from .settings import DEFINE_ROUNDS, PATIENCE, TELL_AGAIN

State = Literal["new", "asking", "looking", "writing", "committing", "undoing", "done"]


class Request(msgspec.Struct, frozen=True):
    """What was asked for (d1): the new node's endpoint, and what it shall be or, for the id, must be."""

    address: str
    number: int | None = None
    name: str | None = None
    id: str | None = None


# --- inputs ---------------------------------------------------------------------------------------------------


class Begun(msgspec.Struct, frozen=True):
    """The request came in (d1)."""


class Heard(msgspec.Struct, frozen=True):
    """The new node answered."""

    message: Message


class PeerFailed(msgspec.Struct, frozen=True):
    """The last message did not get through, or its answer did not."""

    error: CoveyError


class Looked(msgspec.Struct, frozen=True):
    """What the registry holds now (d6): all nodes, who is online, the servers."""

    nodes: tuple[NodeEntry, ...]
    online: frozenset[int]
    servers: ServerList


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


Input = Begun | Heard | PeerFailed | Looked | Wrote | Undone | RegistryFailed

# --- effects --------------------------------------------------------------------------------------------------


class Tell(msgspec.Struct, frozen=True):
    """Send to the new node and feed its answer: `Heard`, or `PeerFailed`."""

    message: Message


class Look(msgspec.Struct, frozen=True):
    """Read all nodes from the registry, current: `Looked`, or `RegistryFailed`."""


class Write(msgspec.Struct, frozen=True):
    """Write this node, erasing the old ones: `Wrote`, or `RegistryFailed`. The same `attempt` is the same request."""

    node: NodeDefinition
    erase: tuple[NodeEntry, ...]
    attempt: int


class Undo(msgspec.Struct, frozen=True):
    """Decide against this define, and remove its entry if it was written: `Undone`, or `RegistryFailed`."""

    definition_id: str


class At(msgspec.Struct, frozen=True):
    """A step of the protocol was reached."""

    step: str


class Finish(msgspec.Struct, frozen=True):
    """It is over: the node that is now defined, or why not (d14)."""

    node: NodeDefinition | None
    error: CoveyError | None = None


Effect = Tell | Look | Write | Undo | At | Finish

# --- the decision of step d7 ----------------------------------------------------------------------------------


class Decision(msgspec.Struct, frozen=True):
    """What to write: the new definition, and the old ones of the same machine that go with it."""

    node: NodeDefinition
    erase: tuple[NodeEntry, ...] = ()
    written: bool = False


def decide(request: Request, prepared: Prepared, looked: Looked, definition_id: str) -> Decision:
    """Compare what the new node says with what the registry holds (d7). Pure; raises why it must not be."""
    if request.id is not None and request.id != prepared.id:
        raise IdentityConflict(
            f"the node at {request.address} has the id {prepared.id!r}, not {request.id!r}",
            "another machine answers at that address, or the id was mistyped",
        )
    found = [entry for entry in looked.nodes if entry.definition.id == prepared.id]
    for entry in found:
        old = entry.definition
        if old.definition_id == definition_id:
            return Decision(old, written=True)
        if prepared.local == old or (prepared.local and prepared.local.definition_id == old.definition_id):
            raise AlreadyDefined(f"the node at {request.address} is defined already, as {old.name} ({old.number})")
        if old.number in looked.online:
            raise IdentityClone(
                f"the id {prepared.id!r} of the node at {request.address} is that of {old.name} ({old.number}), "
                f"which is online at {', '.join(old.endpoints())}",
                "give one of the two machines an identity of its own: `node: {identity: generated}`",
            )
        if old.number in looked.servers.servers:
            raise Refused(
                f"the id {prepared.id!r} is that of {old.name} ({old.number}), a registry server",
                "take it off the server list with `covey registry undefine-server` first",
            )
    others = [entry.definition for entry in looked.nodes if entry not in found]
    number = _number(request, others)
    node = NodeDefinition(
        number=number,
        name=_name(request, prepared, number, {other.name for other in others}),
        id=prepared.id,
        definition_id=definition_id,
        addresses=prepared.addresses,
        port=prepared.port,
        key=prepared.key,
    )
    taken = {endpoint: other for other in others for endpoint in other.endpoints()}
    for endpoint in node.endpoints():
        if endpoint in taken:
            raise AlreadyDefined(f"the address {endpoint} is that of {taken[endpoint].name} ({taken[endpoint].number})")
    return Decision(node, tuple(found))


def _number(request: Request, others: list[NodeDefinition]) -> int:
    taken = {other.number: other.name for other in others}
    if request.number is None:
        return next(number for number in range(1, len(taken) + 2) if number not in taken)
    if not 1 <= request.number <= 1_000_000:
        raise Refused(f"{request.number} is no node number", "use a number from 1 to 1000000")
    if request.number in taken:
        raise AlreadyDefined(f"the number {request.number} is that of {taken[request.number]}")
    return request.number


def _name(request: Request, prepared: Prepared, number: int, taken: set[str]) -> str:
    if request.name is not None:
        if check_name(request.name) in taken:
            raise AlreadyDefined(f"there is a node named {request.name} already")
        return request.name
    wanted = prepared.name or f"n{number}"
    return wanted if wanted not in taken else f"{wanted}-{number}"


# --- the machine ----------------------------------------------------------------------------------------------


class DefineMember:
    """One define, seen from the member. Give it `Begun`, perform its effects, stop at `Finish`."""

    def __init__(
        self,
        request: Request,
        *,
        transaction: str,
        definition_id: str,
        cluster: ClusterDefinition,
        ask: tuple[str, ...],
    ) -> None:
        self.state: State = "new"
        self.request = request
        self.transaction = transaction
        self.definition_id = definition_id
        self._cluster = cluster
        self._prepare = Prepare(transaction, cluster, definition_id, ask, request.id)
        self._prepared: Prepared | None = None
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
        if (self.state, key) in _LATE:
            return []
        found = _TABLE.get((self.state, key))
        if found is None:
            raise ImpossibleTransition(f"define {self.transaction}: " + ", ".join(self._story))
        return found(self, now, input.message if isinstance(input, Heard) else input)

    # what each pair of the table does

    def _ask(self, now: float, _input: Begun) -> list[Effect]:
        self._enter("asking", now)
        return [At("d1"), At("d2"), Tell(self._prepare)]

    def _prepared_heard(self, now: float, message: Prepared) -> list[Effect]:
        self._prepared = message
        self._enter("looking", now)
        return [At("d4"), At("d5"), Look()]

    def _looked_heard(self, now: float, looked: Looked) -> list[Effect]:
        assert self._prepared is not None
        self._looked = looked
        try:
            self._decision = decide(self.request, self._prepared, looked, self.definition_id)
        except CoveyError as why:
            return [At("d7"), *self._over(why)]
        if self._decision.written:
            return [At("d7"), *self._wrote(now, Wrote(True, looked.servers.revision))]
        self._attempt += 1
        self._enter("writing", now)
        return [At("d7"), At("d8"), self._write()]

    def _wrote(self, now: float, input: Wrote) -> list[Effect]:
        assert self._decision is not None and self._looked is not None
        if not input.succeeded:
            if self._attempt >= DEFINE_ROUNDS:
                return self._undo(now, CompareFailed("the cluster's nodes change too fast to define one", "try again"))
            self._enter("looking", now)  # somebody was faster: look what is free now, and say what is not
            return [At("d10"), Look()]
        node = self._decision.node
        gone = {entry.definition.number for entry in self._decision.erase}
        kept = {entry.definition.number: entry.definition for entry in self._looked.nodes}
        table = NodeTable({**{n: kept[n] for n in sorted(kept) if n not in gone}, node.number: node}, input.revision)
        self._commit = Commit(self.transaction, Replica(self._cluster, node, self._looked.servers, table))
        self._enter("committing", now)
        return [At("d10"), At("d11"), Tell(self._commit)]

    def _committed(self, _now: float, _message: Committed) -> list[Effect]:
        assert self._decision is not None
        self._leave()
        return [At("d13"), At("d14"), Finish(self._decision.node)]

    def _declined(self, now: float, message: Declined) -> list[Effect]:
        why = from_wire(message.code, message.message, message.hint)
        return self._over(why) if self.state == "asking" else self._undo(now, why)

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
        at = f"the new node at {self.request.address}" if self.state in ("asking", "committing") else "the registry"
        why = self._error or Timeout(f"{at} did not answer within {PATIENCE:g} s", "nothing was defined")
        if self.state in ("asking", "looking"):
            return self._over(why)
        if self.state == "undoing":
            return self._over(Timeout(f"{why.message}; and the registry does not answer to undo it", "ask again later"))
        return self._undo(now, why)

    def _repeat(self) -> Effect:
        if self.state == "asking":
            return Tell(self._prepare)
        if self.state == "committing":
            assert self._commit is not None
            return Tell(self._commit)
        if self.state == "writing":
            self._in_flight = True
            return self._write()
        return Look() if self.state == "looking" else Undo(self.definition_id)

    def _write(self) -> Write:
        assert self._decision is not None
        return Write(self._decision.node, self._decision.erase, self._attempt)

    def _undo(self, now: float, why: CoveyError) -> list[Effect]:
        self._enter("undoing", now)
        self._error = why
        return [Undo(self.definition_id)]

    def _over(self, why: CoveyError | None) -> list[Effect]:
        self._leave()
        return [Tell(Abort(self.transaction)), Finish(None, why)]

    def _enter(self, state: State, now: float) -> None:
        self.state = state
        self._again = now + TELL_AGAIN
        self._limit = now + PATIENCE
        self._error = None

    def _leave(self) -> None:
        self.state = "done"
        self._again = None


_Do = Callable[[DefineMember, float, Any], list[Effect]]
_TABLE: dict[tuple[State, type[Any]], _Do] = {
    ("new", Begun): DefineMember._ask,
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
    Prepared,
    Committed,
    Aborted,
    Declined,
    PeerFailed,
    Looked,
    Wrote,
    Undone,
    RegistryFailed,
)
_LATE: frozenset[tuple[State, type[Any]]] = frozenset(
    (state, answer)
    for state in ("asking", "looking", "writing", "committing", "undoing", "done")
    for answer in _ANSWERS
    if (state, answer) not in _TABLE
)
