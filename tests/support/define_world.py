"""Define a node in virtual time: a member, a new node and a registry, with lost, doubled and late messages and crashes.

Whatever happens, in the end the registry lists the new node if and only if the new node's own disk does (INV-28), and
nothing is pending: `World.check`. With a token, it was used if and only if the node is defined.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from typing import Any

import msgspec
from covey.components.dcm import define as member
from covey.components.dcm import entries, newcomer
from covey.components.dcm.checks import Finding
from covey.components.dcm.decision import Looked, Request
from covey.components.dcm.definitions import (
    ClusterDefinition,
    KeptToken,
    NodeDefinition,
    NodeTable,
    PendingDefine,
    Replica,
    ServerList,
)
from covey.components.dcm.doorkeeper import Door
from covey.components.dcm.entries import NodeEntry
from covey.components.dcm.token import Token, spend
from covey.errors import Timeout

CLUSTER = ClusterDefinition("lab", "c" * 32)
ADDRESS = "127.1.0.2:7400"
MEMBER_KEY, NODE_KEY, STRANGER_KEY = "a" * 64, "b" * 64, "e" * 64
EPOCH = 1_800_000_000.0
"""What the new node's clock says at the beginning."""


def node(number: int, **changes: Any) -> NodeDefinition:
    made = NodeDefinition(number, f"n{number}", f"machine-{number}", f"{number:032}", (f"127.1.0.{number}/16",), 7400)
    return msgspec.structs.replace(made, **changes)


class Registry:
    """Transactions over a dict, each request id applied once."""

    def __init__(self, *nodes: NodeDefinition) -> None:
        self.data: dict[str, tuple[Any, int]] = {}
        self.revision = 0
        self.answers: dict[str, tuple[bool, int]] = {}
        for each in nodes:
            self.txn(entries.define(each))

    def txn(self, transaction: Any, request_id: str = "") -> tuple[bool, int]:
        if request_id in self.answers:
            return self.answers[request_id]
        done = all(self.data.get(c["key"], (None, 0))[1] == c["mod_revision"] for c in transaction["compare"])
        if done:
            self.revision += 1
            for operation in transaction["then"]:
                if operation["op"] == "put":
                    self.data[operation["key"]] = (operation["value"], self.revision)
                else:
                    self.data.pop(operation["key"], None)
        if request_id:
            self.answers[request_id] = (done, self.revision)
        return done, self.revision

    def nodes(self) -> tuple[NodeEntry, ...]:
        found = (entries.entry_from(k, *v) for k, v in sorted(self.data.items()) if k.startswith(entries.NODES))
        return tuple(entry for entry in found if entry)

    def entry(self, definition_id: str) -> NodeEntry | None:
        return next((entry for entry in self.nodes() if entry.definition.definition_id == definition_id), None)

    def resolve(self, definition_id: str) -> Replica | None:
        """What `Definer.resolve` does, in one step."""
        found = self.entry(definition_id)
        if found:
            return Replica(CLUSTER, found.definition, ServerList((1,), 1), NodeTable({}))
        self.drop(definition_id)
        return None

    def drop(self, definition_id: str) -> None:
        value, revision = self.data.get(entries.decision_key(definition_id), (None, 0))
        if entries.standing(value) == "begun":
            self.txn(entries.drop(definition_id, revision))

    def undo(self, definition_id: str, token: str = "") -> None:
        found = self.entry(definition_id)
        if found:
            self.txn(entries.undefine(found, token))
        else:
            self.drop(definition_id)

    def standing(self, definition_id: str) -> str:
        return entries.standing(self.data.get(entries.decision_key(definition_id), (None, 0))[0])

    def check(self) -> None:
        """Every node has exactly its index keys, and no index key is without its node."""
        listed = [entry.definition for entry in self.nodes()]
        wanted = {key for each in listed for key in entries.index_keys(each)}
        apart = ("/index/definition/", "/index/token/")
        assert {
            key for key in self.data if key.startswith(("/index/", "/addresses/")) and not key.startswith(apart)
        } == wanted
        for what in ("name", "id", "number"):
            assert len({getattr(each, what) for each in listed}) == len(listed)
        for each in listed:
            assert self.data[entries.decision_key(each.definition_id)][0] == {"number": each.number}


class World:
    """A member, a new node and a registry in virtual time; `faults` may crash, lose, delay or double."""

    def __init__(self, seed: int = 0, loss: float = 0.0, double: float = 0.0, late: float = 0.0) -> None:
        self.random = random.Random(seed)
        self.loss, self.double, self.late = loss, double, late
        self.now = 0.0
        self.agenda: list[tuple[float, int, Callable[[], None]]] = []
        self.order = itertools.count()
        self.registry = Registry(node(1))
        self.online = frozenset({1})
        self.servers = ServerList((1,), 1)
        self.registry_up = True
        self.steps: list[str] = []
        self.count = 0
        self.crash_at: dict[int, str] = {}
        self.messages = 0
        self.lose: set[int] = set()
        self.twice: set[int] = set()
        self.cut_until = 0.0  # before then nothing gets through
        self.on_step: dict[str, Callable[[], None]] = {}
        self.findings: tuple[Finding, ...] = ()
        # the new node: its disk and its process
        self.disk: dict[str, PendingDefine] = {}
        self.local: NodeDefinition | None = None
        self.id = "machine-2"
        self.curve = False
        self.tokens: dict[str, KeptToken] = {}
        self.refused: list[str] = []
        self.written: list[Any] = []
        self.newcomer: newcomer.DefineNewcomer | None = newcomer.DefineNewcomer()
        self.askers: dict[int, Callable[[Any], None]] = {}
        self.asker_numbers = itertools.count(1)
        # the member: one machine for each request
        self.members: list[member.DefineMember | None] = []
        self.ended: dict[int, member.Finish] = {}

    # --- time and faults ----------------------------------------------------------------------------------------

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self.agenda, (self.now + seconds, next(self.order), do))

    def send(self, do: Callable[[], None]) -> None:
        """Carry a message: it may be lost, late, or come twice."""
        self.messages += 1
        if self.messages in self.lose or self.now < self.cut_until:
            return
        for _ in range(1 + (self.messages in self.twice or self.random.random() < self.double)):
            if self.random.random() >= self.loss:
                self.after(0.01 + self.random.random() * self.late, do)

    def work(self, doer: str) -> bool:
        """Count one piece of work, of either side; say whether its doer lives to do it."""
        self.count += 1
        who = self.crash_at.get(self.count)
        if who == "member":
            self.members = [None for _ in self.members]
        if who == "newcomer":
            self.newcomer = None
            self.askers.clear()
            self.after(1.0, self.restart)
        return who != doer

    def run(self, until: float = 400.0) -> World:
        while self.agenda and self.agenda[0][0] <= until:
            self.now, _, do = heapq.heappop(self.agenda)
            do()
        return self

    # --- the member ---------------------------------------------------------------------------------------------

    def prepare(self, number: int = 1, life: float = 3600.0, curve: bool = True) -> Token:
        """Let the new node hand out a join token."""
        self.curve = self.curve or curve
        key = NODE_KEY if self.curve else ""
        token = Token(f"{number:016x}", bytes([number]) * 16, key, int(EPOCH + self.now + life))
        self.tokens[token.id] = KeptToken(token.secret, key, EPOCH + self.now, float(token.expires))
        return token

    def request(self, **wanted: Any) -> int:
        number = len(self.members)
        machine = member.DefineMember(
            Request(ADDRESS, **wanted),
            transaction=f"t{number}",
            definition_id=f"{number:0>31}d",
            cluster=CLUSTER,
            ask=("127.1.0.1:7400",),
            key=MEMBER_KEY if self.curve else "",
            nonce=bytes([number]) * 16,
        )
        self.members.append(machine)
        self.to_member(number, member.Begun())
        return number

    def to_member(self, number: int, input: Any) -> None:
        machine = self.members[number]
        if machine is None or number in self.ended:
            return
        for effect in machine.step(self.now, input):
            if self.members[number] is None:
                return
            self.member_does(number, effect)
        deadline = machine.deadline
        if deadline is not None:
            self.after(max(0.0, deadline - self.now), lambda: self.tick_member(number, deadline))

    def tick_member(self, number: int, deadline: float) -> None:
        machine = self.members[number]
        if machine is not None and machine.deadline == deadline:
            self.to_member(number, None)

    def member_does(self, number: int, effect: Any) -> None:
        machine = self.members[number]
        assert machine is not None
        if isinstance(effect, member.At):
            self.at(effect.step)
        elif isinstance(effect, member.Finish):
            self.ended[number] = effect
        elif not self.work("member"):
            return
        elif isinstance(effect, member.Tell):
            message = effect.message
            back = lambda answer: self.to_member(number, member.Heard(answer))  # noqa: E731
            self.send(lambda: self.to_newcomer(message, back))
        else:
            self.send(lambda: self.ask_registry(number, machine, effect))

    def at(self, step: str) -> None:
        self.steps.append(step)
        if step in self.on_step:
            self.on_step.pop(step)()

    def ask_registry(self, number: int, machine: member.DefineMember, effect: Any) -> None:
        answer: Any
        if not self.registry_up:
            answer = member.RegistryFailed(Timeout("the registry did not answer"))
        elif isinstance(effect, member.Begin):
            done, revision = self.registry.txn(
                entries.begin(effect.definition_id, effect.key), f"{machine.transaction}-begin"
            )
            assert done
            answer = member.Began(revision)
        elif isinstance(effect, member.Look):
            used = self.registry.data.get(entries.token_key(effect.token), (None, 0))[0] if effect.token else None
            answer = Looked(
                self.registry.nodes(),
                self.online,
                self.servers,
                used is not None and used["definition_id"] != effect.definition_id,
                self.registry.standing(effect.definition_id) in ("begun", "defined"),
                self.findings,
            )
        elif isinstance(effect, member.Write):
            wanted = entries.define(effect.node, effect.erase, effect.begun, effect.token)
            answer = member.Wrote(*self.registry.txn(wanted, f"{machine.transaction}-{effect.attempt}"))
        else:
            self.registry.undo(effect.definition_id, effect.token)
            answer = member.Undone()
        self.send(lambda: self.to_member(number, answer))

    # --- the new node -------------------------------------------------------------------------------------------

    def myself(self) -> newcomer.Self:
        key = NODE_KEY if self.curve else ""
        door = Door(key, self.curve, EPOCH + self.now, dict(self.tokens))
        return newcomer.Self(self.id, "n2", ("127.1.0.2/16",), 7400, key, self.local, door=door)

    def to_newcomer(self, message: Any, back: Callable[[Any], None], by: str | None = None) -> None:
        """Let a message arrive over a connection that proved the key `by` (None: the member's)."""
        if self.newcomer is None:
            return
        asker = next(self.asker_numbers)
        self.askers[asker] = back
        proved = (MEMBER_KEY if self.curve else "") if by is None else by
        nonce = self.random.randbytes(16)
        self.feed_newcomer(newcomer.Heard(asker, message, self.myself(), proved, nonce))

    def feed_newcomer(self, input: Any) -> None:
        machine = self.newcomer
        if machine is None:
            return
        effects = machine.step(self.now, input)
        for effect in effects:
            if self.newcomer is not machine:
                return
            self.newcomer_does(effect)
        deadline = machine.deadline
        if deadline is not None:
            self.after(max(0.0, deadline - self.now), lambda: self.tick_newcomer(machine, deadline))

    def tick_newcomer(self, machine: newcomer.DefineNewcomer, deadline: float) -> None:
        if self.newcomer is machine and machine.deadline == deadline:
            self.feed_newcomer(None)

    def newcomer_does(self, effect: Any) -> None:
        if isinstance(effect, newcomer.At):
            self.at(effect.step)
            return
        if isinstance(effect, newcomer.Refused):
            self.refused.append(effect.refusal.reason)
            return
        if not self.work("newcomer"):
            return
        if not isinstance(effect, newcomer.Answer):
            self.written.append(effect)
        if isinstance(effect, newcomer.Answer):
            back = self.askers.pop(effect.asker, None)
            if back is not None:
                self.send(lambda: back(effect.message))
        elif isinstance(effect, newcomer.Keep):
            self.disk[effect.pending.transaction] = effect.pending
            self.later(newcomer.Kept(effect.pending.transaction))
        elif isinstance(effect, newcomer.CommitLocal):
            self.local = effect.replica.node  # one write, with the pending record and the token
            self.disk.pop(effect.transaction, None)
            if effect.token:
                self.tokens[effect.token] = spend(self.tokens[effect.token])
            self.later(newcomer.CommittedLocal(effect.transaction))
        elif isinstance(effect, newcomer.Drop):
            self.disk.pop(effect.transaction, None)
            self.later(newcomer.Dropped(effect.transaction))
        elif isinstance(effect, newcomer.Ask):
            self.send(lambda: self.answer_doubt(effect.pending))
            self.after(5.0, lambda: self.feed_newcomer(newcomer.Unanswered(effect.pending.transaction)))
        else:
            self.after(0.5, self.join)

    def later(self, input: Any) -> None:
        machine = self.newcomer
        self.after(0.005, lambda: self.feed_newcomer(input) if self.newcomer is machine else None)

    def answer_doubt(self, pending: PendingDefine) -> None:
        if self.registry_up:
            replica = self.registry.resolve(pending.definition_id)
            self.send(lambda: self.feed_newcomer(newcomer.Answered(pending.transaction, replica)))

    def join(self) -> None:
        """The check of each join: scenario 2 completes a deletion (SPEC 5.2)."""
        if self.local is not None and self.registry_up:
            found = self.registry.entry(self.local.definition_id)
            if found is None or found.definition.number != self.local.number:
                assert self.registry.standing(self.local.definition_id) == "gone", "nothing is erased without proof"
                self.local = None

    def restart(self) -> None:
        self.newcomer = newcomer.DefineNewcomer()
        self.feed_newcomer(newcomer.Restarted(tuple(self.disk.values())))
        self.after(0.5, self.join)

    # --- what must hold -----------------------------------------------------------------------------------------

    def check(self) -> None:
        """All or none, on both sides, and nothing left in doubt."""
        self.join()
        self.registry.check()
        listed = [entry.definition for entry in self.registry.nodes() if entry.definition.id == self.id]
        assert listed == ([self.local] if self.local else [])
        assert self.disk == {}
        assert self.newcomer is not None
        assert not self.newcomer.open
        used = {key.rpartition("/")[2]: value[0] for key, value in self.registry.data.items() if "/token/" in key}
        assert all(self.registry.standing(value["definition_id"]) in ("defined", "gone") for value in used.values())
        assert {token for token in used if not self.tokens[token].used} == set()
        for key, (value, _) in self.registry.data.items():
            if key.startswith("/index/definition/") and entries.standing(value) == "begun":
                assert key.rpartition("/")[2] not in {pending.definition_id for pending in self.disk.values()}
