"""The verbs behind `covey cluster balance` (SPEC 7.3): where the nodes of a pool are, and one of them sent on its way.

A node is defined to the cluster of the one who asks, wherever it is just now, so both know each other's key: it is
asked on its join port, and answers to any node of a cluster that it is defined to. Who wanted it elsewhere is in its
own audit log.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from ...bus.messages import Role
from ...bus.service import Request, verb
from ...errors import CoveyError, Denied, NotFound
from .balance import Place
from .definitions import NodeDefinition
from .lookup import online_members
from .mover import Mover
from .places import join_places
from .settings import TELL_TIME
from .trusting import TrustVerbs


class BalanceVerbs(TrustVerbs):
    """Verbs over nodes that may be in another cluster just now."""

    _mover: Mover

    # --- asked of this node, wherever it is ---------------------------------------------------------------------

    @verb()
    async def whereabouts(self, request: Request, *, cluster_id: str) -> dict[str, Any]:
        """Tell a node of a cluster to which this one is defined where it is.

        Returns `{cluster, cluster_id, state, server, move}`; `move` as of `node_moving`.
        """
        await self._must_share(request, cluster_id)
        return self._whereabouts()

    @verb()
    async def called(self, request: Request, *, cluster_id: str, to: str) -> dict[str, Any]:
        """Begin to move to a cluster, on the word of a node of a cluster to which this one is defined."""
        await self._must_share(request, cluster_id)
        async with self._audited(request, "called", to=to, by=request.key[:16] or None, cluster=cluster_id):
            target, _ = self._defined_to(to)
            return await self._mover.take_to(target, False, False)

    def _whereabouts(self) -> dict[str, Any]:
        home, machine = self._home, self._daemon.machine
        cluster = home.replica.cluster if home.replica is not None else None
        known = {"cluster": cluster.name if cluster else None, "cluster_id": cluster.id if cluster else None}
        return {**known, "state": machine.state, "server": home.server, "move": self._mover.progress()}

    async def _must_share(self, request: Request, cluster_id: str) -> None:
        """Raise Denied unless the asker is a node of that cluster and this node is defined to it."""
        if cluster_id in self._home.clusters.defined():
            table = await asyncio.to_thread(self._home.store.nodes, cluster_id)
            if self._home.curve:
                if any(request.key == node.key for node in table.nodes.values()):
                    return
            elif request.role >= Role.COMPONENT:
                return
        raise Denied("that is for nodes of a cluster to which this one is defined")

    # --- asked of a member -------------------------------------------------------------------------------------

    @verb()
    async def cluster_places(self, *, numbers: list[int]) -> list[dict[str, Any]]:
        """Return where nodes of this cluster are, in whichever: `balance.Place`, with `move` as of `node_moving`."""
        here = self._home.here()
        unknown = [number for number in numbers if number not in here.nodes.nodes]
        if unknown:
            raise NotFound(f"no node has the number {unknown[0]}", "`covey node ls` lists the nodes")
        members = await online_members(self._home.bus)
        return list(await asyncio.gather(*(self._place(here.nodes.nodes[number], members) for number in numbers)))

    async def _place(self, node: NodeDefinition, members: dict[int, dict[str, Any]]) -> dict[str, Any]:
        here = self._home.here()
        own = node.number == here.node.number
        problem = ""
        if own:
            said = self._whereabouts()
        elif node.number in members:
            server = node.number in here.servers.running
            state = str(members[node.number]["state"])
            said = {"cluster": here.cluster.name, "state": state, "server": server, "move": None}
        else:
            try:
                said = await self._ask_at(node, "whereabouts")
            except CoveyError as why:
                said, problem = {"cluster": None, "state": "", "server": False, "move": None}, why.message
        place = Place(node.number, node.name, said["cluster"], said["state"], bool(said["server"]), problem)
        return {**msgspec.to_builtins(place), "move": said["move"]}

    @verb(Role.ADMIN)
    async def node_send(self, request: Request, *, number: int, to: str) -> dict[str, Any]:
        """Begin to move a node of this cluster, wherever it is, to another of its clusters."""
        async with self._audited(request, "node_send", number=number, to=to):
            here = self._home.here()
            node = here.nodes.nodes.get(number)
            if node is None:
                raise NotFound(f"no node has the number {number}", "`covey node ls` lists the nodes")
            if number == here.node.number:
                return await self._mover.take_to(self._defined_to(to)[0], False, False)
            return await self._ask_at(node, "called", to=to)

    async def _in_another(self, number: int) -> str:
        here = self._home.here()
        try:
            said = await self._ask_at(here.nodes.nodes[number], "whereabouts")
        except CoveyError:
            return ""
        return str(said["cluster"]) if said["cluster_id"] not in (None, here.cluster.id) else ""

    async def _ask_at(self, node: NodeDefinition, what: str, **arguments: Any) -> dict[str, Any]:
        """Ask a node at the place where it listens for those that are in another cluster; the last error is raised."""
        cluster_id = self._home.here().cluster.id
        problem: CoveyError = NotFound(f"{node.name} has no address")
        for place in join_places(node):
            try:
                found = await self._home.bus.call(
                    "dcm", what, node=place, cluster_id=cluster_id, timeout=TELL_TIME, **arguments
                )
                return dict(found)
            except CoveyError as why:
                problem = why
        raise problem
