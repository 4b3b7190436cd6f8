"""Being defined: the new node's side of SPEC 6.1, one machine for all defines this node takes part in.

Knows no bus and no disk: it orders `Keep`, `CommitLocal` and `Drop` (local storage) and `Ask` (any member), and is told
when they are done. Between `Prepared` and the end the node is *in doubt*, and has written so: whatever crashes, it asks
the cluster until it knows, and the cluster's answer is a decision in the registry's log, never a guess (`entries.py`).

Whether a member may define this node at all is `doorkeeper.py`: in mode curve only with a join token, which is used up
by the very write that commits the define.

Invariants: 1. `Prepared` is answered only after the pending record is on the disk. 2. Local storage is committed only
for a pending define, after the member's word that the registry has it, or the cluster's. 3. A transaction ends once:
whatever comes for it afterwards is answered as it ended. 4. Nothing is written, and nothing of this node said, to a
member that has not proved the secret of a token, if one is needed; two defines under way never have one token.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from ...bus.machine import Message
from .definitions import NodeDefinition, PendingDefine, Replica
from .doorkeeper import Door, Doorkeeper, Refusal
from .messages import Abort, Aborted, Commit, Committed, Declined, Knock, Prepare, Prepared
from .settings import ASK_AGAIN, DOUBT, IMPATIENT, MOST_PENDING, REMEMBERED

State = Literal["keeping", "ready", "asking", "committing", "dropping"]

NO_ENTRY = ("dcm.token_refused", "the new node does not accept this define", "`covey node prepare` makes a new token")
"""The answer to whoever is not let in, whatever the reason."""


class Self(msgspec.Struct, frozen=True):
    """What this node says of itself, and what it knows of the cluster in question.

    `definition` is its local definition of that cluster, `online` whether it is online in it just now.
    """

    id: str | None
    name: str
    addresses: tuple[str, ...]
    port: int
    key: str = ""
    definition: NodeDefinition | None = None
    online: bool = False
    why: str = ""
    door: Door = Door()


# --- inputs ---------------------------------------------------------------------------------------------------


class Heard(msgspec.Struct, frozen=True):
    """The member sent a message; `asker` is to be named in the `Answer`.

    `by` is the key that its connection proved (empty: mode open), `nonce` is new and random, for a `Knock`.
    """

    asker: int
    message: Message
    myself: Self
    by: str = ""
    nonce: bytes = b""


class Restarted(msgspec.Struct, frozen=True):
    """The daemon started and found these defines pending."""

    pending: tuple[PendingDefine, ...]


class Kept(msgspec.Struct, frozen=True):
    """The pending record is on the disk."""

    transaction: str


class CommittedLocal(msgspec.Struct, frozen=True):
    """Local storage holds the definition, and the pending record is gone, in one write."""

    transaction: str


class Dropped(msgspec.Struct, frozen=True):
    """The pending record is gone, with whatever was made for it."""

    transaction: str


class LocalFailed(msgspec.Struct, frozen=True):
    """The disk refused what was ordered last for this transaction."""

    transaction: str
    reason: str


class Answered(msgspec.Struct, frozen=True):
    """The cluster said how it ended: with this replica, or (None) with nothing."""

    transaction: str
    replica: Replica | None


class Unanswered(msgspec.Struct, frozen=True):
    """No member could be asked, or none could tell."""

    transaction: str


class Forgotten(msgspec.Struct, frozen=True):
    """A person says that this cluster is gone: nobody will ever tell how its defines ended."""

    cluster_id: str


Input = Heard | Restarted | Kept | CommittedLocal | Dropped | LocalFailed | Answered | Unanswered | Forgotten

# --- effects --------------------------------------------------------------------------------------------------


class Answer(msgspec.Struct, frozen=True):
    """Answer the member's message."""

    asker: int
    message: Message


class Keep(msgspec.Struct, frozen=True):
    """Write the pending record: `Kept`."""

    pending: PendingDefine


class CommitLocal(msgspec.Struct, frozen=True):
    """Write the local definition, erasing an older one of this cluster first: `CommittedLocal`.

    The same write uses up the join token of that id, if there is one.
    """

    transaction: str
    replica: Replica
    token: str = ""


class Drop(msgspec.Struct, frozen=True):
    """Remove the pending record, and the cluster's folder if it is only half made: `Dropped`."""

    transaction: str
    cluster_id: str


class Ask(msgspec.Struct, frozen=True):
    """Ask any member how this define ended: `Answered`, or `Unanswered`."""

    pending: PendingDefine


class JoinNow(msgspec.Struct, frozen=True):
    """The node is defined: it may join by itself."""

    cluster_id: str


class At(msgspec.Struct, frozen=True):
    """A step of the protocol was reached."""

    step: str


class Refused(msgspec.Struct, frozen=True):
    """Somebody was not let in: count it and write it down. The other side is told nothing but that."""

    refusal: Refusal
    by: str


Effect = Answer | Keep | CommitLocal | Drop | Ask | JoinNow | At | Refused


class _Define:
    """One define under way."""

    def __init__(self, pending: PendingDefine, state: State) -> None:
        self.pending = pending
        self.state: State = state
        self.prepared: Prepared | None = None
        self.waiting: list[int] = []  # who asked and was not answered yet
        self.doubt: float | None = None
        self.pause = ASK_AGAIN[0]


class DefineNewcomer:
    """Every define this node is the object of."""

    def __init__(self) -> None:
        self.open: dict[str, _Define] = {}
        self.keeper = Doorkeeper()
        self._ended: dict[str, Message] = {}

    @property
    def deadline(self) -> float | None:
        """When to call `step` without an input."""
        return min((define.doubt for define in self.open.values() if define.doubt is not None), default=None)

    def step(self, now: float, input: Input | None = None) -> list[Effect]:
        """Take one input (None: a deadline came) and return what must be done, in order."""
        if input is None:
            due = [define for define in self.open.values() if define.doubt is not None and define.doubt <= now]
            return [effect for define in due for effect in self._ask(define)]
        if isinstance(input, Restarted):
            opened = [_Define(pending, "asking") for pending in input.pending]
            self.open.update({define.pending.transaction: define for define in opened})
            return [effect for define in opened for effect in self._ask(define)]
        if isinstance(input, Heard):
            return self._heard(now, input)
        if isinstance(input, Forgotten):
            doubtful = [define for define in self.open.values() if define.state in ("ready", "asking")]
            gone = [define for define in doubtful if define.pending.cluster.id == input.cluster_id]
            return [effect for define in gone for effect in self._drop(define)]
        define = self.open.get(input.transaction)
        if define is None:
            return []  # an answer to a question that no longer stands
        found = _TABLE.get((define.state, type(input)))
        return found(self, define, now, input) if found else []

    # --- what the member says ---------------------------------------------------------------------------------

    def _heard(self, now: float, heard: Heard) -> list[Effect]:
        message = heard.message
        transaction: str = getattr(message, "transaction", "")
        if isinstance(message, Knock):
            return self._knock(message, heard)
        if transaction in self._ended:
            return [Answer(heard.asker, self._ended[transaction])]
        define = self.open.get(transaction)
        if define is not None and heard.myself.door.curve and heard.by != define.pending.key:
            return self._no_entry(heard, Refusal("key", define.pending.token))
        if define is None and (done := _done_already(message, heard.myself)):
            return [Answer(heard.asker, done)]
        if isinstance(message, Prepare):
            return self._again(define, heard.asker) if define else self._prepare(now, message, heard)
        if define is None:
            if isinstance(message, Abort):
                return [Answer(heard.asker, Aborted(transaction))]
            return [
                self._decline(heard.asker, transaction, "dcm.not_defined", "this define is not known here (any more)")
            ]
        if isinstance(message, Commit):
            return self._commit(define, message, heard)
        if isinstance(message, Abort):
            define.waiting.append(heard.asker)
            return self._drop(define) if define.state in ("keeping", "ready", "asking") else []
        return []

    def _knock(self, message: Knock, heard: Heard) -> list[Effect]:
        found = self.keeper.knock(message, heard.myself.door, heard.by, heard.nonce)
        if isinstance(found, Refusal):
            return self._no_entry(heard, found)
        return [Answer(heard.asker, found)]

    def _prepare(self, now: float, message: Prepare, heard: Heard) -> list[Effect]:
        taken = [define.pending.token for define in self.open.values()]
        visit = self.keeper.prepare(message, heard.myself.door, heard.by, taken)
        if isinstance(visit, Refusal):
            return self._no_entry(heard, visit)
        refusal = self._refusal(now, message, heard.myself)
        if refusal:
            return [At("d3"), self._decline(heard.asker, message.transaction, *refusal)]
        me = heard.myself
        assert me.id is not None
        token = visit.knock.token if visit else ""
        pending = PendingDefine(
            message.transaction, message.cluster, message.definition_id, message.ask, token, heard.by
        )
        define = _Define(pending, "keeping")
        define.prepared = Prepared(message.transaction, me.id, me.name, me.addresses, me.port, me.key, me.definition)
        define.waiting.append(heard.asker)
        self.open[message.transaction] = define
        return [At("d3"), Keep(pending)]

    def _no_entry(self, heard: Heard, refusal: Refusal) -> list[Effect]:
        transaction: str = getattr(heard.message, "transaction", "")
        return [Refused(refusal, heard.by), self._decline(heard.asker, transaction, *NO_ENTRY)]

    def _refusal(self, now: float, message: Prepare, me: Self) -> tuple[str, str, str] | None:
        if me.id is None:
            return ("identity.unreadable", f"the new node cannot read its own id: {me.why}", "")
        if message.id is not None and message.id != me.id:
            return (
                "identity.conflict",
                f"this node's id is {me.id!r}, not {message.id!r}",
                "check the address and the id",
            )
        same = [define for define in self.open.values() if define.pending.cluster.id == message.cluster.id]
        for define in same:
            if define.doubt is not None:
                define.doubt = min(define.doubt, now + IMPATIENT)
        if same:
            return (
                "dcm.busy",
                "another define of this node to this cluster is under way",
                "wait for its end, ask again",
            )
        if len(self.open) >= MOST_PENDING:
            return (
                "dcm.busy",
                f"{MOST_PENDING} defines of this node wait for their clusters",
                "bring one of them up first",
            )
        return None

    def _again(self, define: _Define, asker: int) -> list[Effect]:
        if define.state in ("ready", "asking") and define.prepared is not None:
            return [Answer(asker, define.prepared)]
        if define.prepared is None:  # prepared before a restart: the cluster decides now, not this member
            return [
                self._decline(
                    asker, define.pending.transaction, "dcm.busy", "this define is in doubt", "ask again soon"
                )
            ]
        define.waiting.append(asker)
        return []

    def _commit(self, define: _Define, message: Commit, heard: Heard) -> list[Effect]:
        replica = message.replica
        if (replica.cluster.id, replica.node.definition_id, replica.node.key) != (
            define.pending.cluster.id,
            define.pending.definition_id,
            heard.myself.key,
        ):
            why = "the commit is for another cluster, definition or key than was prepared"
            return [self._decline(heard.asker, message.transaction, "dcm.not_defined", why)]
        if heard.myself.online:
            why = "this node is online in that cluster under an older definition"
            return [self._decline(heard.asker, message.transaction, "dcm.node_online", why, "put it offline first")]
        define.waiting.append(heard.asker)
        if define.state in ("ready", "asking"):
            return self._write(define, replica)
        return []

    # --- what the disk and the cluster say --------------------------------------------------------------------

    def _kept(self, define: _Define, now: float, _input: Kept) -> list[Effect]:
        assert define.prepared is not None
        define.state = "ready"
        define.doubt = now + DOUBT
        return self._answer(define, define.prepared)

    def _committed(self, define: _Define, _now: float, _input: CommittedLocal) -> list[Effect]:
        ended = Committed(define.pending.transaction)
        return [*self._end(define, ended), JoinNow(define.pending.cluster.id)]

    def _dropped(self, define: _Define, _now: float, _input: Dropped) -> list[Effect]:
        return self._end(define, Aborted(define.pending.transaction))

    def _disk_failed(self, define: _Define, now: float, input: LocalFailed) -> list[Effect]:
        """The disk refuses: tell the member, who undoes it; what is pending is resolved later by asking."""
        kept = define.state != "keeping"
        define.state = "ready"
        define.doubt = now + ASK_AGAIN[0]
        transaction = define.pending.transaction
        if not kept:
            del self.open[transaction]
        why = f"the new node cannot write its local storage: {input.reason}"
        askers, define.waiting = define.waiting, []
        return [self._decline(asker, transaction, "core.error", why) for asker in askers]

    def _answered(self, define: _Define, _now: float, input: Answered) -> list[Effect]:
        return self._drop(define) if input.replica is None else self._write(define, input.replica)

    def _unanswered(self, define: _Define, now: float, _input: Unanswered) -> list[Effect]:
        define.state = "ready"
        define.doubt = now + define.pause
        define.pause = min(define.pause * 2, ASK_AGAIN[1])
        return []

    # --- helpers ----------------------------------------------------------------------------------------------

    def _ask(self, define: _Define) -> list[Effect]:
        define.state = "asking"
        define.doubt = None
        return [Ask(define.pending)]

    def _write(self, define: _Define, replica: Replica) -> list[Effect]:
        define.state = "committing"
        define.doubt = None
        return [At("d12"), CommitLocal(define.pending.transaction, replica, define.pending.token)]

    def _drop(self, define: _Define) -> list[Effect]:
        define.state = "dropping"
        define.doubt = None
        return [Drop(define.pending.transaction, define.pending.cluster.id)]

    def _end(self, define: _Define, ended: Message) -> list[Effect]:
        transaction = define.pending.transaction
        del self.open[transaction]
        self._ended[transaction] = ended
        while len(self._ended) > REMEMBERED:
            del self._ended[next(iter(self._ended))]
        return self._answer(define, ended)

    @staticmethod
    def _answer(define: _Define, message: Message) -> list[Effect]:
        askers, define.waiting = define.waiting, []
        return [Answer(asker, message) for asker in askers]

    @staticmethod
    def _decline(asker: int, transaction: str, code: str, message: str, hint: str = "") -> Answer:
        return Answer(asker, Declined(transaction, code, message, hint))


def _done_already(message: Message, me: Self) -> Message | None:
    """Answer a message of a define that was committed here before a restart, or that comes once more much later."""
    if me.definition is None or me.id is None:
        return None
    # in mode curve nothing is said of this node without a proof, and a Prepare after its define has none
    open_ = not me.door.curve
    if open_ and isinstance(message, Prepare) and message.definition_id == me.definition.definition_id:
        return Prepared(message.transaction, me.id, me.name, me.addresses, me.port, me.key, me.definition)
    if isinstance(message, Commit) and message.replica.node.definition_id == me.definition.definition_id:
        return Committed(message.transaction)
    return None


_Do = Callable[[DefineNewcomer, _Define, float, Any], list[Effect]]
_TABLE: dict[tuple[State, type[Any]], _Do] = {
    ("keeping", Kept): DefineNewcomer._kept,
    ("keeping", LocalFailed): DefineNewcomer._disk_failed,
    ("asking", Answered): DefineNewcomer._answered,
    ("asking", Unanswered): DefineNewcomer._unanswered,
    ("committing", CommittedLocal): DefineNewcomer._committed,
    ("committing", LocalFailed): DefineNewcomer._disk_failed,
    ("dropping", Dropped): DefineNewcomer._dropped,
    ("dropping", LocalFailed): DefineNewcomer._disk_failed,
}
