"""The registry on the bus: its verbs on every node, and its part of the boot.

The verbs are answered by the node's own copy or by the primary's (`forward.py`), and nobody who calls can tell. Whether
this node has a copy may change at any moment (`roles.py`). This is where a call enters covey, so the roles are judged
here: behind it, a forwarded call speaks with the role of a component. Whether the caller believes in the right cluster
is checked before a verb runs (`bus/service.py`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from ...bus.context import ComponentContext
from ...bus.messages import Role
from ...bus.service import Request, Seconds, verb
from ...errors import Denied, ReservedKey
from . import messages
from .calls import MARGIN
from .engine import Engine
from .forward import ForwardEngine
from .keys import check_key, check_users
from .messages import SERVICE, Change, Comparison, Consistency, Operation
from .parts import Parts
from .roles import GROUP, Roles


class RegistryService:
    """The verbs of `registry`."""

    def __init__(self, engine: Engine, node: int = 0) -> None:
        self._engine = engine
        self._node = node
        self._parts = Parts()

    @verb()
    def get(self, request: Request, *, key: str, consistency: Consistency = "linear") -> Any:
        """Read one key: value, revision, mod_revision."""
        return self._engine.ask(messages.Get(key, consistency), request)

    @verb()
    def ls(
        self, request: Request, *, prefix: str, consistency: Consistency = "linear", after: str = "", limit: int = 0
    ) -> Any:
        """Read the keys that begin with a prefix, in order; those behind `after`, at most `limit` (0: all)."""
        return self._engine.ask(messages.List(prefix, consistency, after, limit), request)

    @verb()
    def watch(self, request: Request, *, prefix: str, from_revision: int = 0, wait: Seconds = 0.0) -> Any:
        """Wait for changes below a prefix: one contiguous batch; go on at its `to` + 1."""
        if request.budget:  # an empty batch in time, not a timeout
            wait = min(wait, max(request.budget - MARGIN, 0.0))
        return self._engine.ask(messages.Watch(prefix, from_revision, wait), request)

    @verb()
    def status(self, request: Request) -> Any:
        """Phase, primary, incarnation and lag of each server, why writes are closed, what is damaged."""
        return self._engine.ask(messages.Status(), request)

    @verb()
    def system(self, request: Request, *, kind: str, since_index: int = 0) -> Any:
        """The kept system entries of a kind, by rising index."""
        return self._engine.ask(messages.ListSystem(kind, since_index), request)

    @verb()
    def traffic(self) -> list[dict[str, Any]]:
        """What passed over the direct links to other registry servers, by network; `bus.traffic` has all else."""
        return self._engine.traffic()

    @verb(Role.OPERATOR)
    def put(self, request: Request, *, key: str, value: Any, if_revision: int | None = None) -> Any:
        """Write one key; with `if_revision` only if that is its mod_revision (0: it does not exist)."""
        return self._write(request, key, Operation("put", key, value), if_revision)

    @verb(Role.OPERATOR)
    def delete(self, request: Request, *, key: str, if_revision: int | None = None) -> Any:
        """Delete one key; with `if_revision` only if that is its mod_revision."""
        return self._write(request, key, Operation("delete", key), if_revision)

    @verb(Role.OPERATOR)
    def txn(
        self,
        request: Request,
        *,
        compare: tuple[Comparison, ...] = (),
        then: tuple[Operation, ...] = (),
        otherwise: tuple[Operation, ...] = (),
        system: bool = False,
        since: int = 0,
    ) -> Any:
        """If all comparisons hold do `then`, else `otherwise`, at one revision. `system`: before writes are open.

        `since`: an index that was committed before the request id was first used, from the registry of another node.
        """
        if (system or since) and request.role < Role.COMPONENT:
            raise ReservedKey("a transaction with system=True or since= belongs to covey's components")
        keys = [operation.key for operation in (*then, *otherwise)]
        return self._transact(
            request, messages.Transact(request.request_id, compare, then, otherwise, system, since), keys
        )

    def _write(self, request: Request, key: str, operation: Operation, if_revision: int | None) -> Any:
        compare = () if if_revision is None else (Comparison(key, if_revision),)
        return self._transact(request, messages.Transact(request.request_id, compare, (operation,)), [key])

    def _transact(self, request: Request, question: messages.Transact, keys: list[str]) -> Any:
        if request.role < Role.COMPONENT:
            check_users(check_key(key) for key in keys)
        return self._engine.ask(question, request)

    @verb(Role.OPERATOR)
    async def backup(self, request: Request, *, token: str = "", part: int = 0) -> Any:
        """Take the whole state, asked where the primary is: at first a token and its size, then with that its parts.

        The answer names this node, which holds the state for the asker, whoever leads meanwhile.
        """
        if token:
            return self._parts.give(token, part)
        self._parts.check_free()
        held = await self._engine.ask(messages.Backup(), request)
        if isinstance(held, dict):  # the primary's node holds it, and has answered this very question
            return held
        return {"node": self._node, **self._parts.begin(held)}

    @verb(Role.COMPONENT)
    def append_system(
        self, request: Request, *, epoch: int, kind: str, body: bytes, slot: str = "", keep: int = 1
    ) -> Any:
        """Commit a component's entry if `epoch` still reigns; only where the primary is."""
        question = messages.AppendSystem(request.request_id, epoch, kind, slot, body, keep)
        return self._engine.ask(question, request)

    # --- the servers ---

    @verb(Role.ADMIN)
    def define_server(self, request: Request, *, server: int) -> Any:
        """Make a node a registry server: it is filled, and votes as soon as its copy is level."""
        return self._change(request, "define", server)

    @verb(Role.ADMIN)
    def undefine_server(self, request: Request, *, server: int, forced: bool = False) -> Any:
        """Make a registry server a client again; the primary hands over first. The last one cannot go."""
        return self._change(request, "undefine", server, forced)

    @verb(Role.ADMIN)
    def server_online(self, request: Request, *, server: int) -> Any:
        """Start the registry server of a node, which was put offline."""
        return self._change(request, "start", server)

    @verb(Role.ADMIN)
    def server_offline(self, request: Request, *, server: int, forced: bool = False) -> Any:
        """Stop the registry server of a node; refused when the quorum would be lost, unless forced."""
        return self._change(request, "stop", server, forced)

    @verb(Role.ADMIN)
    def hand_over(self, request: Request, *, to: int = 0) -> Any:
        """Make another server the primary; 0: the best of them."""
        return self._engine.ask(messages.HandOver(to), request)

    def _change(self, request: Request, change: Change, server: int, forced: bool = False) -> Any:
        return self._engine.ask(messages.ChangeServers(request.request_id, change, server, forced), request)

    # --- between the registries of nodes ---

    @verb(Role.COMPONENT)
    def change_servers(self, request: Request, *, change: Change, server: int, forced: bool = False) -> Any:
        """A change of the servers that another node's registry hands on."""
        return self._change(request, change, server, forced)

    @verb(Role.COMPONENT)
    def message(self, request: Request, *, body: bytes) -> bytes | None:
        """A message of another node's registry; whoever asks for the primary is answered."""
        if request.service != SERVICE:
            raise Denied(f"'{request.source}' is not the registry of a node, and only that may speak here")
        return self._engine.hear(body, request)


async def main(context: ComponentContext) -> None:
    """Serve until cancelled: with a copy of its own while the local configuration lists this node as a server."""
    local = context.local
    engine = ForwardEngine(context.bus, local.node, local.registry_servers, local.cluster_id)
    roles = Roles(context, engine)
    await roles.begin()
    try:
        async with (
            context.bus.serve(SERVICE, RegistryService(engine, local.node)) as service,
            asyncio.TaskGroup() as tasks,
        ):
            service.cluster_id = local.cluster_id
            tasks.create_task(engine.run())
            tasks.create_task(roles.run())
            tasks.create_task(_boot(context, engine, roles))
            try:
                await asyncio.Event().wait()
            finally:  # told to end: a primary hands over first, while the others can reach it
                await roles.leave()
    finally:
        await roles.end()


async def _boot(context: ComponentContext, engine: ForwardEngine, roles: Roles) -> None:
    """Boot steps 5, 15 and 16: on a client they are over when the primary says so."""
    if engine.own is not None and engine.own.machine.damaged:
        await context.step(5, engine.own.machine.closed_because, "failed")
    await engine.reach("reads", "writes")
    how, where = _where(engine)
    await context.step(5, f"phase 1 is over: reads are open {where}", how)
    await context.ready("registry.log", "registry.reads")
    await context.need("groups")  # the order of SPEC 2.3 holds on every node: 14 before 15
    if how == "done":
        await roles.joined()
        await context.step(15, f"the group {GROUP} is formed, copies are level", how)
    else:
        await context.step(15, f"copies are level, says node {engine.known.primary}", how)
    await engine.reach("writes")
    how, where = _where(engine)
    await context.step(16, f"writes are open {where}", how)
    await context.ready("registry.writes")


def _where(engine: ForwardEngine) -> tuple[str, str]:
    """Return how a step of the boot came about on this node, and where the registry is open."""
    at = f"at primary {engine.known.primary} in epoch {engine.known.epoch}"
    return ("remote" if engine.own is None else "done"), at
