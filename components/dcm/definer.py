"""Run the define machines on the real bus, registry and disk: the member's side and the new node's side.

`define` is the member (one `DefineMember` a request). `heard` takes what other DCMs send: as the new node it feeds
`DefineNewcomer`; a `Resolve` goes to the judge.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from ...bus.driver import Background
from ...bus.trust import Refusals
from ...errors import (
    BadArguments,
    Busy,
    CompareFailed,
    CoveyError,
    Denied,
    InternalError,
    NoQuorum,
    ReadOnly,
    Refused,
    TokenNeeded,
    UsageError,
    from_wire,
)
from . import checks, entries, facts, newcomer
from . import define as member
from .crash import crash_at
from .daemon import Daemon
from .decision import Looked, Request
from .definitions import Clusters, NodeDefinition, PendingDefine
from .doorkeeper import Door
from .home import Home, new_id
from .judge import Judge
from .lookup import ask_dcm, ask_outcome, decode, online_members, read_global, read_value
from .messages import Prepared, Resolve
from .places import join_place, join_places, who_knows
from .settings import ASKED, WRITE_TIME
from .token import NONCE_BYTES

log = logging.getLogger(__name__)

ROUNDS = 5
# after these the registry certainly did nothing
_SURE = (ReadOnly, Refused, UsageError)


class Definer:
    """Defines nodes, and lets this node be defined."""

    def __init__(self, home: Home, daemon: Daemon) -> None:
        self._home = home
        self._daemon = daemon
        self.judge = Judge(home)
        self.counters: Counter[str] = Counter()
        self._refusals = Refusals(self.counters)
        self._newcomer = newcomer.DefineNewcomer()
        self._background = Background()
        self._orders: asyncio.Queue[newcomer.Effect | asyncio.Event] = asyncio.Queue()
        self._askers: dict[int, asyncio.Future[bytes]] = {}
        self._numbers = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._now = asyncio.get_running_loop().time
        self._defining: set[str] = set()

    # --- the member -------------------------------------------------------------------------------------------

    async def define(self, request: Request) -> tuple[NodeDefinition, tuple[checks.Finding, ...]]:
        """Define the node at an address, and say what is doubtful about it; raises why it could not be, and then
        nothing of it is left."""
        if self._home.curve and (request.token is None or not request.token.key):
            raise TokenNeeded(
                f"to define the node at {request.address} its join token is needed, since this cluster is encrypted",
                f"run `covey node prepare` there, then here: covey node define {request.address} --token …",
            )
        if request.address in self._defining:
            raise Busy(f"the node at {request.address} is being defined already", "wait for its end")
        self._defining.add(request.address)
        try:
            return await self._define(request)
        finally:
            self._defining.discard(request.address)

    async def _define(self, request: Request) -> tuple[NodeDefinition, tuple[checks.Finding, ...]]:
        here = self._home.here()
        ask = [*join_places(here.node), *who_knows(here.node, here.servers, here.nodes)]
        machine = member.DefineMember(
            request,
            transaction=new_id(),
            definition_id=new_id(),
            cluster=here.cluster,
            ask=tuple(ask[:ASKED]),
            key=self._home.key,
            nonce=os.urandom(NONCE_BYTES),
        )
        inputs: asyncio.Queue[member.Input] = asyncio.Queue()
        background = Background()
        effects = machine.step(self._now(), member.Begun())
        try:
            while True:
                for effect in effects:
                    if isinstance(effect, member.Finish):
                        return _finished(effect), effect.findings
                    if isinstance(effect, member.At):
                        log.info("define %s: step %s", request.address, effect.step)
                        crash_at(effect.step, self._home)
                    else:
                        background.start(self._carry_out(machine, effect, inputs), type(effect).__name__)
                effects = machine.step(self._now(), await _next(inputs, machine.deadline, self._now()))
        finally:
            await asyncio.sleep(0)  # a last message to the new node is on its way
            await background.close()

    async def _carry_out(
        self, machine: member.DefineMember, effect: member.Effect, inputs: asyncio.Queue[member.Input]
    ) -> None:
        try:
            if isinstance(effect, member.Tell):
                where = machine.request.address
                if self._home.curve and machine.request.token is not None:
                    where = join_place(where, machine.request.token.key)
                asked = time.time()
                answer = await ask_dcm(self._home.bus, where, effect.message)
                skew = facts.skew(answer.here.clock, asked, time.time()) if isinstance(answer, Prepared) else 0.0
                inputs.put_nowait(member.Heard(answer, skew))
            elif isinstance(effect, member.Begin):
                inputs.put_nowait(await self._begin(machine.transaction, effect))
            elif isinstance(effect, member.Look):
                inputs.put_nowait(await self._look(machine.request.address, effect))
            elif isinstance(effect, member.Write):
                inputs.put_nowait(await self._write(machine.transaction, effect))
            elif isinstance(effect, member.Undo):
                await self.undo(effect.definition_id, effect.token)
                inputs.put_nowait(member.Undone())
        except CoveyError as why:
            if isinstance(effect, member.Tell):
                inputs.put_nowait(member.PeerFailed(_in_plain_words(why, machine.request.address)))
            else:
                sure = isinstance(why, _SURE) and not isinstance(why, NoQuorum)
                inputs.put_nowait(member.RegistryFailed(why, sure))

    async def _begin(self, transaction: str, effect: member.Begin) -> member.Began:
        done = await self._home.bus.call(
            "registry",
            "txn",
            **entries.begin(effect.definition_id, effect.key),
            request_id=f"{transaction}-begin",
            timeout=WRITE_TIME,
        )
        if not done["succeeded"]:
            raise CompareFailed("the registry knows this define already", "ask again")
        return member.Began(int(done["revision"]))

    async def _look(self, address: str, effect: member.Look) -> Looked:
        bus, prepared = self._home.bus, effect.prepared
        ways = facts.to_newcomer(bus, address, prepared, self._home.here().cluster.id, effect.definition_id)
        found, here = await asyncio.gather(read_global(bus, self._home.here().cluster.id), facts.here(ways))
        decision, _ = await read_value(bus, entries.decision_key(effect.definition_id))
        online = frozenset(await online_members(bus))
        away = [entry.definition for entry in found.entries if entry.definition.number not in online]
        used = (await read_value(bus, entries.token_key(effect.token)))[0] if effect.token else None
        ours = isinstance(used, dict) and used.get("definition_id") == effect.definition_id
        return Looked(
            found.entries,
            online,
            found.servers,
            used=used is not None and not ours,
            begun=entries.standing(decision) in ("begun", "defined"),
            findings=checks.preflight(
                checks.Visit(
                    address,
                    here,
                    facts.without(prepared.here, away),
                    effect.skew,
                    prepared.addresses,
                    tuple(each for entry in found.entries for each in entry.definition.addresses),
                )
            ),
        )

    async def _write(self, transaction: str, effect: member.Write) -> member.Wrote:
        done = await self._home.bus.call(
            "registry",
            "txn",
            **entries.define(effect.node, effect.erase, effect.begun, effect.token),
            request_id=f"{transaction}-{effect.attempt}",
            timeout=WRITE_TIME,
        )
        return member.Wrote(bool(done["succeeded"]), int(done["revision"]))

    async def undo(self, definition_id: str, token: str = "") -> None:
        """Decide against a define, or take its entry out again; raises when the registry cannot say that it did."""
        for _ in range(ROUNDS):
            found = await read_global(self._home.bus, self._home.here().cluster.id)
            entry = next((each for each in found.entries if each.definition.definition_id == definition_id), None)
            value, revision = await read_value(self._home.bus, entries.decision_key(definition_id))
            if entry is not None:
                wanted = entries.undefine(entry, token)
            elif entries.standing(value) == "begun":
                wanted = entries.drop(definition_id, revision)
            else:
                return
            if (await self._home.bus.call("registry", "txn", **wanted, timeout=WRITE_TIME))["succeeded"]:
                return
        raise Busy("the cluster's nodes change too fast to undo a define", "ask again")

    # --- the new node -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take up the defines that were pending when the daemon ended, and perform orders until cancelled."""
        self._feed(newcomer.Restarted(tuple(value for _, value in sorted(self._home.clusters.pending.items()))))
        while True:
            effect = await self._orders.get()
            if isinstance(effect, asyncio.Event):
                effect.set()
                continue
            if isinstance(effect, newcomer.Ask):
                self._background.start(self._ask(effect.pending), "ask how a define ended")
                continue
            try:
                await self._perform(effect)
            except (OSError, CoveyError) as why:
                log.exception("%s failed", type(effect).__name__)
                transaction = _transaction(effect)
                self._feed(newcomer.LocalFailed(transaction, str(why)))

    async def forget(self, cluster_id: str) -> None:
        """Give up the defines to a cluster whose outcome nobody is left to tell."""
        self._feed(newcomer.Forgotten(cluster_id))
        done = asyncio.Event()
        self._orders.put_nowait(done)  # behind what was just ordered
        await done.wait()

    async def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        await self._background.close()

    async def heard(self, body: bytes, by: str) -> bytes:
        """Take a message of another DCM, whose connection proved the key `by`; return the answer."""
        try:
            message = decode(body)
            if isinstance(message, Resolve):
                return msgspec.msgpack.encode(await self.judge.resolve(message, by))
        except BadArguments:
            await self.refused("malformed", by)
            raise
        except Denied:
            await self.refused("not_yours", by)
            raise
        myself = await asyncio.to_thread(self._myself, message)
        asker = next(self._numbers)
        future = self._askers[asker] = asyncio.get_running_loop().create_future()
        try:
            # as of now, after the last write: a token that another define used up meanwhile must be seen as used
            door = Door(self._home.key, self._home.curve, time.time(), self._home.clusters.tokens)
            myself = msgspec.structs.replace(myself, door=door)
            self._feed(newcomer.Heard(asker, message, myself, by, os.urandom(NONCE_BYTES)))
            answer: bytes = await future
            return answer
        finally:
            del self._askers[asker]

    def _myself(self, message: Any) -> newcomer.Self:
        home = self._home
        cluster = getattr(message, "cluster", None) or getattr(getattr(message, "replica", None), "cluster", None)
        if home.original is None:
            home.read_original()
        definition = home.definition_in(cluster.id) if cluster else None
        current = cluster is not None and home.replica is not None and home.replica.cluster.id == cluster.id
        busy = self._daemon.machine.state not in ("undefined", "offline", "failed")
        me = home.prepared("")
        return newcomer.Self(
            id=home.original,
            name=me.name,
            addresses=me.addresses,
            port=me.port,
            key=me.key,
            definition=definition,
            online=current and busy,
            why=home.original_problem,
        )

    def _feed(self, input: newcomer.Input | None = None) -> None:
        for effect in self._newcomer.step(self._now(), input):
            self._orders.put_nowait(effect)
        if self._timer:
            self._timer.cancel()
            self._timer = None
        deadline = self._newcomer.deadline
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_at(max(deadline, self._now()), self._feed)

    async def _perform(self, effect: newcomer.Effect) -> None:
        home = self._home
        if isinstance(effect, newcomer.At):
            log.info("being defined: step %s", effect.step)
            crash_at(effect.step, home)
        elif isinstance(effect, newcomer.Answer):
            self._background.start(self._answer(effect), "answer a member")
        elif isinstance(effect, newcomer.Keep):
            home.clusters = await asyncio.to_thread(home.store.change, _with(effect.pending))
            self._feed(newcomer.Kept(effect.pending.transaction))
        elif isinstance(effect, newcomer.CommitLocal):
            await asyncio.to_thread(self._commit, effect)
            about: dict[str, Any] = {"cluster": effect.replica.cluster.id, "node": effect.replica.node.number}
            await home.audit("dcm", "defined", "done", **about, token=effect.token or None)
            self._feed(newcomer.CommittedLocal(effect.transaction))
        elif isinstance(effect, newcomer.Drop):
            await asyncio.to_thread(self._drop, effect.transaction, effect.cluster_id)
            self._feed(newcomer.Dropped(effect.transaction))
        elif isinstance(effect, newcomer.Refused):
            await self.refused(f"token_{effect.refusal.reason}", effect.by, effect.refusal.token)
        elif isinstance(effect, newcomer.JoinNow):
            await self._daemon.defined(effect.cluster_id)

    async def _answer(self, effect: newcomer.Answer) -> None:
        """Answer a member; before it may define this node, it is told which of the members this node reaches."""
        message = effect.message
        pending = self._home.clusters.pending.get(getattr(message, "transaction", ""))
        if isinstance(message, Prepared) and pending is not None:
            ways = facts.to_members(self._home.bus, pending)
            message = msgspec.structs.replace(message, here=await facts.here(ways))
        future = self._askers.get(effect.asker)
        if future is not None and not future.done():
            future.set_result(msgspec.msgpack.encode(message))

    async def refused(self, reason: str, by: str, token: str = "") -> None:
        """Write down who was not let in; what comes too often is counted, and written when there is time for it."""
        now = self._now()
        for told in [*self._refusals.note(now, reason, key=by), *self._refusals.due(now)]:
            log.warning("not let in: %s (token %r, key %s)", told.reason, token[:16], told.key or "unknown")
            about: dict[str, Any] = {"key": told.key or None, "count": told.count}
            await self._home.audit("dcm", "join_refused", told.reason, token=token[:16] or None, **about)

    def _commit(self, effect: newcomer.CommitLocal) -> None:
        store, replica = self._home.store, effect.replica
        if replica.cluster.id in store.clusters().clusters:
            store.erase_cluster(replica.cluster.id)
        store.make_cluster(replica.cluster)
        store.commit_replica(replica)
        self._home.clusters = store.commit_cluster(
            replica.cluster, finished=effect.transaction, point=False, used=effect.token
        )

    def _drop(self, transaction: str, cluster_id: str) -> None:
        store = self._home.store
        now = store.clusters()
        if cluster_id in now.clusters and now.clusters[cluster_id].state == "making":
            store.erase_cluster(cluster_id)
        self._home.clusters = store.change(_without(transaction))

    async def _ask(self, pending: PendingDefine) -> None:
        question = Resolve(pending.transaction, pending.cluster.id, pending.definition_id)
        answer = await ask_outcome(self._home.bus, pending.ask, question)
        if answer is None:
            self._feed(newcomer.Unanswered(pending.transaction))
        else:
            self._feed(newcomer.Answered(pending.transaction, answer.replica))


def _transaction(effect: newcomer.Effect) -> str:
    return effect.pending.transaction if isinstance(effect, newcomer.Keep) else str(getattr(effect, "transaction", ""))


def _with(pending: PendingDefine) -> Callable[[Clusters], Clusters]:
    return lambda now: msgspec.structs.replace(now, pending={**now.pending, pending.transaction: pending})


def _without(transaction: str) -> Callable[[Clusters], Clusters]:
    def changed(now: Clusters) -> Clusters:
        kept = {key: value for key, value in now.pending.items() if key != transaction}
        return msgspec.structs.replace(now, pending=kept)

    return changed


def _in_plain_words(why: CoveyError, address: str) -> CoveyError:
    """Return an error with the new node named as the person did, not by join port and key."""
    host = re.escape(address.rpartition(":")[0])
    said = re.sub(rf"dcm@{host}:\d+(#[0-9a-f]*)?", f"the new node at {address}", why.message)
    return from_wire(why.code, said, why.hint, why.details)


def _finished(effect: member.Finish) -> NodeDefinition:
    if effect.node is None:
        raise effect.error or InternalError("the define ended without a reason")
    return effect.node


async def _next(inputs: asyncio.Queue[member.Input], deadline: float | None, now: float) -> member.Input | None:
    """Return the next input; None when the deadline comes first."""
    try:
        async with asyncio.timeout(None if deadline is None else max(0.0, deadline - now)):
            return await inputs.get()
    except TimeoutError:
        return None
