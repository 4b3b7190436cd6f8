"""The registry on the bus: its verbs on every node, and its part of the boot.

On a registry server's node the verbs are answered by the node's own copy (`server.py`), elsewhere by the primary's
(`forward.py`), and nobody who calls can tell. This is where a call enters covey, so the roles are judged here: behind
it, a forwarded call speaks with the role of a component. Whether the caller believes in the right cluster is checked
before a verb runs (`bus/service.py`).
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from ...bus.context import ComponentContext
from ...bus.messages import PARTY_TOPIC, Role
from ...bus.service import Request, verb
from ...errors import CoveyError, Denied, ReservedKey
from . import messages
from .disk import folder_of
from .engine import Engine
from .forward import ForwardEngine
from .keys import check_key, check_users
from .messages import SERVICE, Comparison, Consistency, Operation
from .parts import Parts
from .server import ServerEngine

log = logging.getLogger(__name__)

GROUP = "sys.registry"
RETRY = 0.2
"""Seconds between two tries to join the group; Group Services are there by then, so it is rarely needed."""

MARGIN = 0.25
"""Seconds of a caller's time that a watch leaves for the way back."""

LOOK_AGAIN = 5.0
"""Seconds between two looks at the local configuration for other servers, while none answers."""


class RegistryService:
    """The verbs of `registry`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._parts = Parts()

    @verb()
    async def get(self, request: Request, *, key: str, consistency: Consistency = "linear") -> Any:
        """Read one key: value, revision, mod_revision."""
        return await self._engine.ask(messages.Get(key, consistency), request)

    @verb()
    async def ls(
        self, request: Request, *, prefix: str, consistency: Consistency = "linear", after: str = "", limit: int = 0
    ) -> Any:
        """Read the keys that begin with a prefix, in order; those behind `after`, at most `limit` (0: all)."""
        return await self._engine.ask(messages.List(prefix, consistency, after, limit), request)

    @verb()
    async def watch(self, request: Request, *, prefix: str, from_revision: int = 0, wait: float = 0.0) -> Any:
        """Wait for changes below a prefix: one contiguous batch; go on at its `to` + 1."""
        if request.budget:  # an empty batch in time, not a timeout
            wait = min(wait, max(request.budget - MARGIN, 0.0))
        return await self._engine.ask(messages.Watch(prefix, from_revision, wait), request)

    @verb()
    async def status(self, request: Request) -> Any:
        """Phase, primary, incarnation and lag of each server, why writes are closed, what is damaged."""
        return await self._engine.ask(messages.Status(), request)

    @verb()
    async def system(self, request: Request, *, kind: str, since_index: int = 0) -> Any:
        """The kept system entries of a kind, by rising index."""
        return await self._engine.ask(messages.ListSystem(kind, since_index), request)

    @verb(Role.OPERATOR)
    async def put(self, request: Request, *, key: str, value: Any, if_revision: int | None = None) -> Any:
        """Write one key; with `if_revision` only if that is its mod_revision (0: it does not exist)."""
        return await self._write(request, key, Operation("put", key, value), if_revision)

    @verb(Role.OPERATOR)
    async def delete(self, request: Request, *, key: str, if_revision: int | None = None) -> Any:
        """Delete one key; with `if_revision` only if that is its mod_revision."""
        return await self._write(request, key, Operation("delete", key), if_revision)

    @verb(Role.OPERATOR)
    async def txn(
        self,
        request: Request,
        *,
        compare: tuple[Comparison, ...] = (),
        then: tuple[Operation, ...] = (),
        otherwise: tuple[Operation, ...] = (),
        system: bool = False,
    ) -> Any:
        """If all comparisons hold do `then`, else `otherwise`, at one revision. `system`: before writes are open."""
        if system and request.role < Role.COMPONENT:
            raise ReservedKey("a transaction with system=True belongs to covey's components")
        keys = [operation.key for operation in (*then, *otherwise)]
        return await self._transact(
            request, messages.Transact(request.request_id, compare, then, otherwise, system), keys
        )

    async def _write(self, request: Request, key: str, operation: Operation, if_revision: int | None) -> Any:
        compare = () if if_revision is None else (Comparison(key, if_revision),)
        return await self._transact(request, messages.Transact(request.request_id, compare, (operation,)), [key])

    async def _transact(self, request: Request, question: messages.Transact, keys: list[str]) -> Any:
        if request.role < Role.COMPONENT:
            check_users(check_key(key) for key in keys)
        return await self._engine.ask(question, request)

    @verb(Role.OPERATOR)
    async def backup(self, request: Request, *, token: str = "", part: int = 0) -> Any:
        """Take the whole state where the primary is: at first its size and a token, then with that part after part."""
        if token:
            return self._parts.give(token, part)
        self._parts.check_free()
        return self._parts.begin(await self._engine.ask(messages.Backup(), request))

    @verb(Role.COMPONENT)
    async def append_system(
        self, request: Request, *, epoch: int, kind: str, body: bytes, slot: str = "", keep: int = 1
    ) -> Any:
        """Commit a component's entry if `epoch` still reigns; only where the primary is."""
        question = messages.AppendSystem(request.request_id, epoch, kind, slot, body, keep)
        return await self._engine.ask(question, request)

    @verb(Role.COMPONENT)
    async def message(self, request: Request, *, body: bytes) -> bytes | None:
        """A message of another node's registry; whoever asks for the primary is answered."""
        if request.service != SERVICE:
            raise Denied(f"'{request.source}' is not the registry of a node, and only that may speak here")
        return await self._engine.hear(body, request)


async def main(context: ComponentContext) -> None:
    """Serve until cancelled: as a server where the local configuration lists this node, else as an agent."""
    local = context.local
    if local.node in local.servers:
        await _main_server(context)
    else:
        await _main_agent(context)


# --- a registry server ------------------------------------------------------------------------------------------------


async def _main_server(context: ComponentContext) -> None:
    local = context.local
    engine = await ServerEngine.open(context.bus, folder_of(Path(local.folder)), local.cluster_id, local.node)
    try:
        async with context.bus.serve(SERVICE, RegistryService(engine)) as service, asyncio.TaskGroup() as tasks:
            service.cluster_id = local.cluster_id
            tasks.create_task(engine.run())
            tasks.create_task(_boot_server(context, engine))
    finally:
        await engine.close()


async def _boot_server(context: ComponentContext, engine: ServerEngine) -> None:
    if engine.machine.damaged:
        await context.step(5, engine.machine.closed_because, "failed")
        return
    await engine.reach("reads", "writes")
    await context.step(5, f"phase 1 is over: reads are open in epoch {engine.machine.epoch}")
    await context.ready("registry.log", "registry.reads")
    async with context.bus.subscribe(PARTY_TOPIC) as parties:
        await _join(context)
        await context.step(15, f"the group {GROUP} is formed, copies are level")
        engine.group_formed()
        await engine.reach("writes")
        await context.step(16, "writes are open")
        await context.ready("registry.writes")
        async for event in parties:
            if event.body["party"] == "groups" and event.body["state"] == "joined" and not event.welcome:
                await _join(context)  # Group Services were restarted and have forgotten us


async def _join(context: ComponentContext) -> None:
    while True:
        await context.need("groups")
        try:
            await context.bus.call("groups", "join", group=GROUP)
            return
        except CoveyError as problem:
            log.info("the group %s cannot be joined yet: %s", GROUP, problem)
            await asyncio.sleep(RETRY)


# --- an agent ---------------------------------------------------------------------------------------------------------


async def _main_agent(context: ComponentContext) -> None:
    local = context.local
    engine = ForwardEngine(context.bus, local.node, local.servers, local.cluster_id)
    async with context.bus.serve(SERVICE, RegistryService(engine)) as service, asyncio.TaskGroup() as tasks:
        service.cluster_id = local.cluster_id
        tasks.create_task(engine.run())
        tasks.create_task(_boot_agent(context, engine))
        tasks.create_task(_look_for_servers(context, engine))


async def _boot_agent(context: ComponentContext, engine: ForwardEngine) -> None:
    await engine.reach("reads", "writes")
    await context.step(5, f"reads are open at node {engine.machine.known.primary}", "remote")
    await context.ready("registry.log", "registry.reads")
    await engine.reach("writes")
    await context.need("groups")  # the order of SPEC 2.3 holds on every node: 14 before 15
    await context.step(15, f"copies are level, says node {engine.machine.known.primary}", "remote")
    await context.step(16, f"writes are open at node {engine.machine.known.primary}", "remote")
    await context.ready("registry.writes")


async def _look_for_servers(context: ComponentContext, engine: ForwardEngine) -> None:
    while True:
        await asyncio.sleep(LOOK_AGAIN)
        if not engine.machine.following:
            try:
                engine.listed((await context.refresh()).servers)
            except CoveyError as problem:
                log.debug("the local configuration cannot be read: %s", problem)
