"""The Resource Manager on the bus: its verbs, and the process's main.

The machine decides about this node's controllers, `cluster` puts together what concerns several nodes, `desk` takes
changes to where they belong, `boot` goes through the steps. Odd: the filter by node is called `of_node`,
because `node` is the bus's own word for where a call goes.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import msgspec

from ...bus.context import ComponentContext
from ...bus.driver import Background
from ...bus.machine import Address, Received
from ...bus.messages import Role
from ...bus.service import Request, Seconds, verb
from ...errors import Denied, UsageError
from .boot import Boot
from .cluster import LONGEST_WAIT, Cluster
from .desk import Desk
from .machine import ResourcesMachine
from .messages import (
    SERVICE,
    AskVersions,
    ChangeOne,
    ClassVersions,
    DescribeClass,
    DiscoverAll,
    ReadLocal,
    SelectLocal,
    Standing,
    WatchLocal,
)
from .orders import Orders
from .settings import Settings, from_local

_decoder = msgspec.msgpack.Decoder(AskVersions | ClassVersions)


class ResourcesService:
    """The verbs of `resources`."""

    def __init__(self, orders: Orders, cluster: Cluster, changes: Desk, settings: Settings) -> None:
        self._orders = orders
        self._cluster = cluster
        self._changes = changes
        self._settings = settings

    # --- looking --------------------------------------------------------------------------------------------

    @verb()
    async def classes(self) -> dict[str, Any]:
        """List the classes of the cluster: `items` of `{class, version, controller, nodes}`, and `warnings`."""
        return await self._cluster.classes()

    async def describe_class(self, *, cls: str, here: bool = False) -> dict[str, Any]:
        """Return what a class declares, and on which `nodes` it is; `here`: only if this node has it."""
        if here:
            description: dict[str, Any] = await self._orders.ask(DescribeClass(cls))
            return description
        return await self._cluster.describe(cls)

    @verb()
    async def ls(
        self, *, cls: str, of_node: int | None = None, fresh: bool = False, select: str = "", gone: bool = False
    ) -> dict[str, Any]:
        """List a class over all nodes: `items` of `{class, id, key, node, attributes, age_s}`, and `warnings`.

        `fresh` reads the dynamic attributes now instead of showing the last ones; `gone` lists what is gone too;
        `select` is an expression over the class's attributes, judged at each node.
        """
        if select:
            if gone:
                raise UsageError("what is gone cannot be selected by an expression", "leave one of the two out")
            return await self._cluster.select(cls, select, of_node, fresh)
        return await self._cluster.ls(cls, of_node, fresh, gone)

    @verb()
    async def show(self, *, cls: str, key: str, of_node: int | None = None, fresh: bool = False) -> dict[str, Any]:
        """Return one resource: by its key's text (several parts: comma-separated, or NAME=VALUE,…) or by its id."""
        return await self._cluster.show(cls, key, of_node, fresh)

    @verb()
    async def watch(
        self, *, cls: str = "", from_revision: int | None = None, wait: Seconds = 10.0, select: str = ""
    ) -> dict[str, Any]:
        """Wait for changes of a class (of all, if none is named): `{from, to, events}`; go on from `to + 1`.

        An event is `{type: changed|gone|deleted, class, id, key, node, attributes, revision}`.
        """
        return await self._cluster.watch(cls, from_revision, wait, select)

    @verb()
    async def controllers(self) -> list[dict[str, Any]]:
        """Tell how each controller of this node stands: `{name, state, reason, classes, resources}`."""
        standing: list[dict[str, Any]] = await self._orders.ask(Standing())
        return standing

    # --- doing ----------------------------------------------------------------------------------------------

    @verb(Role.OPERATOR)
    async def refresh(self, request: Request, *, wait: Seconds = 0.0) -> list[dict[str, Any]]:
        """Discover again on this node and wait for it: a list of `{name, state: done|failed|late, reason}`."""
        longest = self._settings.discover_deadline + 1.0
        return await self._discover(DiscoverAll(min(wait or longest, longest), again=True), request)

    @verb(Role.COMPONENT)
    async def discover(self, request: Request, *, wait: Seconds | None = None) -> list[dict[str, Any]]:
        """Wait until what the controllers found at this join is written, at most `wait` seconds; called by the DCM.

        Answers with a list of `{name, state: done|failed|late, reason}`; what is late is written when it comes.
        """
        return await self._discover(DiscoverAll(self._settings.join_wait if wait is None else wait), request)

    @verb(Role.OPERATOR)
    async def set(
        self,
        request: Request,
        *,
        cls: str,
        key: str,
        values: dict[str, Any],
        of_node: int | None = None,
        as_text: bool = False,
    ) -> dict[str, Any]:
        """Change writable attributes of a resource; return its row, and `warnings` about the controller's answer.

        `as_text`: the values are as a person types them, each read by its attribute's type. Done when the registry has
        what is persistent.
        """
        found = await self._cluster.owner(cls, key, of_node)
        return await self._changes.hand_on(
            request, found["node"], ChangeOne("set", cls, found["id"], values, "", as_text)
        )

    @verb(Role.OPERATOR)
    async def define(
        self,
        request: Request,
        *,
        cls: str,
        values: dict[str, Any],
        of_node: int | None = None,
        as_text: bool = False,
    ) -> dict[str, Any]:
        """Define a resource on a node (this one, if none is named) from its key and attributes; return its row."""
        return await self._changes.hand_on(request, of_node, ChangeOne("define", cls, "", values, "", as_text))

    @verb(Role.OPERATOR)
    async def undefine(self, request: Request, *, cls: str, key: str, of_node: int | None = None) -> dict[str, Any]:
        """Remove a resource; return its last row."""
        found = await self._cluster.owner(cls, key, of_node)
        return await self._changes.hand_on(request, found["node"], ChangeOne("undefine", cls, found["id"]))

    @verb(Role.OPERATOR)
    async def run(
        self,
        request: Request,
        *,
        cls: str,
        key: str,
        action: str,
        arguments: dict[str, Any] = {},  # noqa: B006
        of_node: int | None = None,
        as_text: bool = False,
    ) -> dict[str, Any]:
        """Run an action of a resource: `{class, id, key, node, action, result, warnings}`."""
        found = await self._cluster.owner(cls, key, of_node)
        change = ChangeOne("run", cls, found["id"], arguments, action, as_text)
        return await self._changes.hand_on(request, found["node"], change)

    # --- between nodes --------------------------------------------------------------------------------------

    @verb()
    async def read_local(
        self, *, cls: str, ids: tuple[str, ...] = (), fresh: bool = False, wait: Seconds = 2.0
    ) -> list[dict[str, Any]]:
        """Return the dynamic attributes of this node's resources of a class: `{id, attributes, age_s, reason}`."""
        rows: list[dict[str, Any]] = await self._orders.ask(ReadLocal(cls, ids, fresh, wait))
        return rows

    @verb()
    async def select_local(self, *, cls: str, select: str, fresh: bool = False, wait: Seconds = 2.0) -> dict[str, Any]:
        """Return this node's resources for which an expression holds: `{items, reasons}`."""
        found: dict[str, Any] = await self._orders.ask(SelectLocal(cls, select, fresh, wait))
        return found

    @verb()
    async def watch_local(
        self, *, cls: str, select: str = "", token: str = "", since: int = 0, wait: Seconds = 10.0
    ) -> dict[str, Any]:
        """Wait for changes of this node's resources of a class, dynamic attributes too: `{token, to, missed, events}`.

        Go on with that `token` and `since=to`. An event is `{type: appeared|changed|gone, class, id, key, node,
        attributes, changed: names}`; `select` is judged over the attributes after the change.
        """
        question = WatchLocal(cls, select, token, since, min(wait, LONGEST_WAIT))
        found: dict[str, Any] = await self._orders.ask(question)
        return found

    @verb(Role.COMPONENT)
    async def change_local(self, request: Request, *, change: ChangeOne, who: str, uid: int) -> dict[str, Any]:
        """Change a resource of this node for somebody who asked another node's Resource Manager."""
        self._only_peers(request)
        return await self._changes.carry_out(change, who, uid, request.cause)

    @verb(Role.COMPONENT)
    async def message(self, request: Request, *, body: bytes) -> None:
        """Take a message of another node's Resource Manager."""
        self._only_peers(request)
        self._orders.feed(Received(Address(SERVICE, request.node), _decoder.decode(body)))

    def _only_peers(self, request: Request) -> None:
        if request.service != SERVICE:
            raise Denied(f"'{request.source}' is no node's Resource Manager, and only that may speak here")

    async def _discover(self, question: DiscoverAll, request: Request) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = await self._orders.ask(question, request.cause)
        return result


# What people type is `class`, which Python does not let a method be called.
setattr(ResourcesService, "class", verb()(ResourcesService.describe_class))


async def main(context: ComponentContext) -> None:
    """Serve `resources` on this node until cancelled."""
    settings = from_local(context.local.settings)
    background = Background()
    machine = ResourcesMachine(context.local.node, secrets.token_hex(8), settings)
    orders = Orders(context.bus, machine, background, context.kept)
    cluster = Cluster(context.bus, context.local.node, orders, settings)
    desk = Desk(context.bus, context.local.node, orders)
    boot = Boot(context, machine, orders, cluster, background)
    try:
        async with (
            context.bus.serve(context.name, ResourcesService(orders, cluster, desk, settings)) as service,
            asyncio.TaskGroup() as tasks,
        ):
            service.cluster_id = context.local.cluster_id
            tasks.create_task(orders.driver.failed())
            tasks.create_task(boot.run())
    finally:
        orders.driver.stop()
        await background.close()
