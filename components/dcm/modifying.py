"""Change what is defined (SPEC 4): a node's name, addresses and port, and a cluster's name.

One transaction over the global definition, compared with what was read; every node's local copy follows as its watcher
hears of it, or at its next join (SPEC 5.3).
"""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic_core import PydanticCustomError

from ...bus.messages import Role
from ...bus.service import Request, verb
from ...config.values import adapter_address
from ...errors import AlreadyDefined, NotFound, NotOnline, UsageError
from .changing import changed
from .definitions import NodeDefinition, check_name, plain
from .entries import Transaction, modify
from .lookup import Global, read_global, read_value
from .servers import ServerVerbs
from .watching import Watcher

DEFINITION = "/cluster/definition"


class ModifyVerbs(ServerVerbs):
    """Verbs that change definitions."""

    _watcher: Watcher

    @verb(Role.ADMIN)
    async def node_modify(
        self,
        request: Request,
        *,
        number: int,
        name: str | None = None,
        addresses: list[str] | None = None,
        port: int | None = None,
    ) -> dict[str, Any]:
        """Change a node's name, or where it listens (`addresses` as ADDRESS/PREFIX, `port`); return its definition.

        Where it listens is for its own YAML to say: this tells the others, when that was changed.
        """
        given: dict[str, Any] = {"name": name, "addresses": addresses, "port": port}
        changes = {key: value for key, value in given.items() if value is not None}
        async with self._audited(request, "node_modify", number=number, **changes):
            if not changes:
                raise UsageError("nothing to change was named", "name, addresses, port")
            if name is not None:
                check_name(name)
            if addresses is not None:
                changes["addresses"] = _addresses(addresses)
            if port is not None and not 0 < port < 65535:
                raise UsageError(f"{port} is no port of a node", "1 to 65534: the join port is the next one")
            self._must_be_online("change a definition")
            found = await self._modify(number, changes)
            await self._watcher.seen()
            return dict(plain(found))

    async def _modify(self, number: int, changes: dict[str, Any]) -> NodeDefinition:
        home = self._home
        found: NodeDefinition = await changed(
            home,
            lambda: read_global(home.bus, home.here().cluster.id),
            lambda known: modified(known, number, changes),
            f"the definition of node {number}",
        )
        return found

    @verb(Role.ADMIN)
    async def cluster_modify(self, request: Request, *, name: str) -> dict[str, Any]:
        """Give the cluster another name; its id stays. Return `{name, id}`."""
        async with self._audited(request, "cluster_modify", name=name):
            check_name(name, "cluster name")
            self._must_be_online("rename the cluster")
            cluster = self._home.here().cluster

            def decide(read: tuple[Any, int]) -> tuple[Transaction | None, dict[str, Any]]:
                value, revision = read
                compare = [{"key": DEFINITION, "mod_revision": revision}]
                then = [{"op": "put", "key": DEFINITION, "value": {**value, "name": name}}]
                same = value["name"] == name
                return None if same else {"compare": compare, "then": then}, {"name": name, "id": cluster.id}

            renamed = await changed(
                self._home,
                lambda: read_value(self._home.bus, DEFINITION, cluster.id),
                decide,
                "the cluster's definition",
            )
            await self._watcher.seen()
            return dict(renamed)

    def _must_be_online(self, what: str) -> None:
        self._home.here()
        if self._daemon.machine.state != "online":
            raise NotOnline(f"this node is {self._daemon.machine.state}, and only an online node can {what}")


def modified(known: Global, number: int, changes: dict[str, Any]) -> tuple[Transaction | None, NodeDefinition]:
    """Return what to write to change a node's definition (None: it is so already), and what it is then. Pure."""
    entry = known.entry(number)
    if entry is None:
        raise NotFound(f"no node has the number {number}", "`covey node ls` lists the nodes")
    wanted = msgspec.structs.replace(entry.definition, **changes)
    others = [each.definition for each in known.entries if each.definition.number != number]
    for other in others:
        if other.name == wanted.name:
            raise AlreadyDefined(f"node {other.number} is named {wanted.name!r}", "choose another name")
        if both := sorted(set(other.hosts()) & set(wanted.hosts())):
            raise AlreadyDefined(f"{both[0]} is an address of node {other.number}", "choose another address")
    return None if wanted == entry.definition else modify(entry, **changes), wanted


def _addresses(given: list[str]) -> tuple[str, ...]:
    """Return addresses as definitions have them; UsageError names one that is none."""
    if not given:
        raise UsageError("a node has one address at least", "as ADDRESS/PREFIX")
    return tuple(adapter(text) for text in given)


def adapter(text: str) -> str:
    """Return an ADDRESS/PREFIX as definitions have it; UsageError says what is wrong with it."""
    try:
        return adapter_address(text)
    except PydanticCustomError as why:
        raise UsageError(f"{why.message()}: no address of a node", (why.context or {})["hint"]) from None
