"""Run the define machines on the real bus, registry and disk: the member's side, the new node's side, and the judge.

`define` is the member (one `DefineMember` a request). `heard` takes what other DCMs send: as the new node it feeds
`DefineNewcomer`; a `Resolve` is answered from the registry, where asking decides what was undecided.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from ...bus.driver import Background
from ...errors import (
    Busy,
    CoveyError,
    InternalError,
    NoQuorum,
    ReadOnly,
    Refused,
    UsageError,
)
from . import define as member
from . import entries, newcomer
from .daemon import Daemon
from .definitions import Clusters, NodeDefinition, PendingDefine, Replica
from .home import Home, new_id
from .lookup import ask_dcm, ask_outcome, decode, online_members, read_global, read_value, who_knows
from .messages import Resolve, Resolved
from .settings import ASKED, WRITE_TIME

log = logging.getLogger(__name__)

ROUNDS = 5
# after these the registry certainly did nothing
_SURE = (ReadOnly, Refused, UsageError)


class Definer:
    """Defines nodes, and lets this node be defined."""

    def __init__(self, home: Home, daemon: Daemon) -> None:
        self._home = home
        self._daemon = daemon
        self._newcomer = newcomer.DefineNewcomer()
        self._background = Background()
        self._orders: asyncio.Queue[newcomer.Effect] = asyncio.Queue()
        self._askers: dict[int, asyncio.Future[bytes]] = {}
        self._numbers = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._now = asyncio.get_running_loop().time
        self._defining: set[str] = set()

    # --- the member -------------------------------------------------------------------------------------------

    async def define(self, request: member.Request) -> NodeDefinition:
        """Define the node at an address; raises why it could not be, and then nothing of it is left."""
        if request.address in self._defining:
            raise Busy(f"the node at {request.address} is being defined already", "wait for its end")
        self._defining.add(request.address)
        try:
            return await self._define(request)
        finally:
            self._defining.discard(request.address)

    async def _define(self, request: member.Request) -> NodeDefinition:
        here = self._home.here()
        ask = [*here.node.endpoints(), *who_knows(here.node, here.servers, here.nodes)]
        machine = member.DefineMember(
            request,
            transaction=new_id(),
            definition_id=new_id(),
            cluster=here.cluster,
            ask=tuple(ask[:ASKED]),
        )
        inputs: asyncio.Queue[member.Input] = asyncio.Queue()
        background = Background()
        effects = machine.step(self._now(), member.Begun())
        try:
            while True:
                for effect in effects:
                    if isinstance(effect, member.Finish):
                        return _finished(effect)
                    if isinstance(effect, member.At):
                        log.info("define %s: step %s", request.address, effect.step)
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
                inputs.put_nowait(member.Heard(await ask_dcm(self._home.bus, machine.request.address, effect.message)))
            elif isinstance(effect, member.Look):
                inputs.put_nowait(await self._look())
            elif isinstance(effect, member.Write):
                inputs.put_nowait(await self._write(machine.transaction, effect))
            elif isinstance(effect, member.Undo):
                await self.undo(effect.definition_id)
                inputs.put_nowait(member.Undone())
        except CoveyError as why:
            if isinstance(effect, member.Tell):
                inputs.put_nowait(member.PeerFailed(why))
            else:
                sure = isinstance(why, _SURE) and not isinstance(why, NoQuorum)
                inputs.put_nowait(member.RegistryFailed(why, sure))

    async def _look(self) -> member.Looked:
        found = await read_global(self._home.bus, self._home.here().cluster.id)
        return member.Looked(found.entries, frozenset(await online_members(self._home.bus)), found.servers)

    async def _write(self, transaction: str, effect: member.Write) -> member.Wrote:
        done = await self._home.bus.call(
            "registry",
            "txn",
            **entries.define(effect.node, effect.erase),
            request_id=f"{transaction}-{effect.attempt}",
            timeout=WRITE_TIME,
        )
        return member.Wrote(bool(done["succeeded"]), int(done["revision"]))

    async def undo(self, definition_id: str) -> None:
        """Decide against a define, or take its entry out again; raises when the registry cannot say that it did."""
        for _ in range(ROUNDS):
            found = await read_global(self._home.bus, self._home.here().cluster.id)
            entry = next((each for each in found.entries if each.definition.definition_id == definition_id), None)
            if entry is not None:
                wanted = entries.undefine(entry)
            elif (await read_value(self._home.bus, entries.decision_key(definition_id)))[0] is None:
                wanted = entries.abort(definition_id)
            else:
                return
            if (await self._home.bus.call("registry", "txn", **wanted, timeout=WRITE_TIME))["succeeded"]:
                return
        raise Busy("the cluster's nodes change too fast to undo a define", "ask again")

    # --- the judge --------------------------------------------------------------------------------------------

    async def resolve(self, message: Resolve) -> Resolved:
        """Say how a define ended, from the registry; what is undecided is decided against, for good."""
        bus = self._home.bus
        for _ in range(ROUNDS):
            found = await read_global(bus, message.cluster_id)
            entry = next((e for e in found.entries if e.definition.definition_id == message.definition_id), None)
            if entry is not None:
                return Resolved(message.transaction, found.replica_for(entry.definition))
            value, _revision = await read_value(bus, entries.decision_key(message.definition_id))
            if value is not None and "number" not in value:
                return Resolved(message.transaction, None)
            if value is None:
                done = await bus.call("registry", "txn", **entries.abort(message.definition_id), timeout=WRITE_TIME)
                if done["succeeded"]:
                    return Resolved(message.transaction, None)
        raise Busy("the cluster's nodes change too fast to tell", "ask again")

    # --- the new node -----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Take up the defines that were pending when the daemon ended, and perform orders until cancelled."""
        self._feed(newcomer.Restarted(tuple(value for _, value in sorted(self._home.clusters.pending.items()))))
        while True:
            effect = await self._orders.get()
            if isinstance(effect, newcomer.Ask):
                self._background.start(self._ask(effect.pending), "ask how a define ended")
                continue
            try:
                await self._perform(effect)
            except (OSError, CoveyError) as why:
                log.exception("%s failed", type(effect).__name__)
                transaction = _transaction(effect)
                self._feed(newcomer.LocalFailed(transaction, str(why)))

    async def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        await self._background.close()

    async def heard(self, body: bytes) -> bytes:
        """Take a message of another DCM; return the answer."""
        message = decode(body)
        if isinstance(message, Resolve):
            return msgspec.msgpack.encode(await self.resolve(message))
        myself = await asyncio.to_thread(self._myself, message)
        asker = next(self._numbers)
        future = self._askers[asker] = asyncio.get_running_loop().create_future()
        try:
            self._feed(newcomer.Heard(asker, message, myself))
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
        elif isinstance(effect, newcomer.Answer):
            future = self._askers.get(effect.asker)
            if future is not None and not future.done():
                future.set_result(msgspec.msgpack.encode(effect.message))
        elif isinstance(effect, newcomer.Keep):
            await asyncio.to_thread(home.store.change, _with(effect.pending))
            self._feed(newcomer.Kept(effect.pending.transaction))
        elif isinstance(effect, newcomer.CommitLocal):
            await asyncio.to_thread(self._commit, effect.transaction, effect.replica)
            await home.audit(
                "dcm", "defined", "done", cluster=effect.replica.cluster.id, node=effect.replica.node.number
            )
            self._feed(newcomer.CommittedLocal(effect.transaction))
        elif isinstance(effect, newcomer.Drop):
            await asyncio.to_thread(self._drop, effect.transaction, effect.cluster_id)
            self._feed(newcomer.Dropped(effect.transaction))
        elif isinstance(effect, newcomer.JoinNow):
            await self._daemon.defined(effect.cluster_id)

    def _commit(self, transaction: str, replica: Replica) -> None:
        store = self._home.store
        if replica.cluster.id in store.clusters().clusters:
            store.erase_cluster(replica.cluster.id)
        store.make_cluster(replica.cluster)
        store.commit_replica(replica)
        self._home.clusters = store.commit_cluster(replica.cluster, finished=transaction, point=False)

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
