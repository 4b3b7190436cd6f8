"""The verbs of `dcm` that concern whole clusters: define one, list them, put all nodes online or offline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from ...bus.messages import Role
from ...bus.service import Request, verb
from ...errors import (
    AlreadyDefined,
    Busy,
    CoveyError,
    IdentityUnreadable,
    NodeOnline,
    NotFound,
    NotOnline,
    Refused,
    Unreachable,
)
from ..registry.founding import create
from . import life
from .daemon import Daemon
from .definitions import ClusterDefinition, NodeDefinition, NodeTable, Replica, ServerList, check_name, plain
from .entries import index
from .home import Home, new_id
from .settings import CONTROL_TIME, STATUS_TIME
from .undefining import Undefiner


class ClusterVerbs:
    """Verbs over clusters, and what all verbs share."""

    def __init__(self, home: Home, daemon: Daemon) -> None:
        self._home = home
        self._daemon = daemon
        self._undefiner = Undefiner(home, daemon)
        self._defining = asyncio.Lock()

    @verb()
    def cluster_ls(self) -> list[dict[str, Any]]:
        """Return the clusters this node is defined to, with both pointers."""
        clusters = self._home.clusters
        return [
            {
                "name": known.name,
                "id": cluster,
                "current": cluster == clusters.current,
                "target": cluster == clusters.target,
            }
            for cluster, known in clusters.defined().items()
        ]

    @verb(Role.ADMIN)
    async def cluster_define(self, request: Request, *, name: str) -> dict[str, Any]:
        """Create a cluster with this node as its first node and registry server; it joins by itself."""
        check_name(name, "cluster name")
        async with self._audited(request, "cluster_define", name=name):
            if self._defining.locked():
                raise Busy("a cluster is being defined on this node already", "wait for its end")
            async with self._defining:
                return await self._define(name)

    async def _define(self, name: str) -> dict[str, Any]:
        home, state = self._home, self._daemon.machine.state
        if state not in ("undefined", "offline", "failed"):
            raise NodeOnline(f"this node is {state} in {home.here().cluster.name}", "`covey node offline` first")
        for cluster_id, known in home.clusters.defined().items():
            if known.name == name:
                raise AlreadyDefined(f"this node is defined to a cluster named {name} already: {cluster_id}")
        original = await asyncio.to_thread(home.read_original)
        if original is None:
            raise IdentityUnreadable(home.original_problem, "see `node: {identity: …}` in this node's YAML")
        cluster = ClusterDefinition(name, new_id())
        node = NodeDefinition(1, home.name, original, new_id(), home.addresses(), home.port, home.key)
        replica = Replica(cluster, node, ServerList((1,), 1), NodeTable({1: node}))
        home.clusters = await asyncio.to_thread(self._found, replica)
        await home.reload()
        self._daemon.feed(life.OnlineAsked(home.server, new_id()))
        return {"name": name, "id": cluster.id, "node": plain(node)}

    def _found(self, replica: Replica) -> Any:
        """Registry first and synced, then the local files, then the pointer: the last write makes it a cluster."""
        store, cluster = self._home.store, replica.cluster
        store.make_cluster(cluster)
        try:
            create(
                self._home.layout.cluster(cluster.id).folder,
                cluster_id=cluster.id,
                cluster_name=cluster.name,
                node=plain(replica.node),
                servers=list(replica.servers.servers),
                others=index(replica.node),
            )
            store.commit_replica(replica)
        except BaseException:
            store.erase_cluster(cluster.id)
            raise
        return store.commit_cluster(cluster)

    @verb(Role.ADMIN)
    async def cluster_undefine(self, request: Request, *, which: str, force: bool = False) -> dict[str, Any]:
        """Remove this cluster from all its nodes; return `{name, id, nodes}`, with what became of each.

        `which` is its name or id. Refused while other nodes are online, unless `force`, which puts them offline.
        """
        async with self._audited(request, "cluster_undefine", cluster=which, force=force or None):
            here = self._home.here()
            if which not in (here.cluster.name, here.cluster.id):
                raise NotFound(
                    f"this node is in {here.cluster.name}, not in {which!r}", "ask on a node of that cluster"
                )
            if self._daemon.machine.state != "online":
                raise NotOnline(
                    f"this node is {self._daemon.machine.state}, so it cannot take the cluster out of the registry",
                    "`covey cluster online` first; `covey node forget` where no registry server is left",
                )
            if not self._home.server:
                server = here.servers.running[0]
                raise Refused("this node runs no registry server", f"ask on node {server}, which does")
            return await self._undefiner.undefine_cluster(force)

    @verb(Role.OPERATOR)
    async def cluster_online(self, request: Request) -> list[dict[str, Any]]:
        """Ask every defined node to go online; return what each said."""
        async with self._audited(request, "cluster_online"):
            numbers = sorted(self._home.here().nodes.nodes)
            return await self._control("node_online", numbers)

    @verb(Role.OPERATOR)
    async def cluster_offline(self, request: Request) -> list[dict[str, Any]]:
        """Ask every defined node to go offline; return what each said. The registry servers go last, one by one.

        A node leaves in order while the registry takes its leaving; so the primary goes last but for this node.
        """
        async with self._audited(request, "cluster_offline"):
            here = self._home.here()
            own, primary = here.node.number, await self._primary()
            others = [number for number in here.servers.all if number not in (own, primary)]
            servers = [*others, *([primary] if primary not in (0, own) else [])]
            first = [number for number in sorted(here.nodes.nodes) if number not in (*servers, own)]
            said = await self._control("node_offline", first, wait=True)
            for number in servers:
                if number in here.nodes.nodes:
                    said += await self._control("node_offline", [number], wait=True)
            return said + await self._control("node_offline", [own])

    async def _primary(self) -> int:
        """Return the node of the primary registry server, 0 when nobody can say."""
        try:
            return int((await self._home.bus.call("registry", "status", timeout=STATUS_TIME))["primary"] or 0)
        except CoveyError:
            return 0

    async def _control(self, what: str, numbers: Iterable[int], **arguments: Any) -> list[dict[str, Any]]:
        async def one(number: int) -> dict[str, Any]:
            said = {"number": number, "name": self._home.here().nodes.nodes[number].name}
            try:
                answer = await self._order(what, number, **arguments)
            except CoveyError as why:
                other = await self._in_another(number) if isinstance(why, Unreachable) else ""
                if other and what == "node_offline":
                    return said | {"state": f"in {other}", "error": None}  # so it is not online in this one
                if other:
                    why = NodeOnline(f"it is in the cluster {other}", "on it: `covey node move --to` this one")
                return said | {"state": None, "error": {"code": why.code, "message": why.message, "hint": why.hint}}
            return said | {"state": answer["state"], "error": None}

        return list(await asyncio.gather(*(one(number) for number in numbers)))

    async def _in_another(self, number: int) -> str:
        """Return the name of the other cluster in which a node of this one is just now, "" when nobody knows."""
        return ""

    async def _order(self, what: str, number: int, **arguments: Any) -> dict[str, Any]:
        """Have a node's DCM do what may be done twice; asked again when the link had been one to a former daemon."""

        async def ask() -> dict[str, Any]:
            where = number if self._elsewhere(number) else None
            return dict(await self._home.bus.call("dcm", what, node=where, timeout=CONTROL_TIME, **arguments))

        try:
            return await ask()
        except Unreachable:
            return await ask()

    # --- what all verbs share ---------------------------------------------------------------------------------

    def _elsewhere(self, number: int | None) -> bool:
        """Whether a verb concerns another node than this one."""
        return number is not None and number != self._home.here().node.number

    def _own_state(self) -> dict[str, Any]:
        here = self._home.here()
        state = self._daemon.machine.state
        return {
            "number": here.node.number,
            "name": here.node.name,
            "state": state,
            "reason": self._daemon.machine.reason,
        }

    @asynccontextmanager
    async def _audited(self, request: Request, what: str, **particulars: Any) -> AsyncIterator[dict[str, Any]]:
        """Write an audit line for what is done within, however it ends; what is put into the dict is in it, too."""
        given = {key: value for key, value in particulars.items() if value is not None}
        given |= {"role": request.role.name.lower(), "uid": request.uid if request.uid >= 0 else None}
        try:
            yield given
        except BaseException as why:
            code = why.code if isinstance(why, CoveyError) else type(why).__name__
            await self._home.audit(request.source, what, code, **given)
            raise
        await self._home.audit(request.source, what, "done", **given)
