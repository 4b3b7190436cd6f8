"""Undefine a node (SPEC 4): offline in order, one transaction over the global definition, then the node's own files.

The node erases nothing on somebody's word. Told that it was undefined, it asks a node of its list how its definition
stands, and the answer comes from a current read of the registry; a node that is away learns it at its next join.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any

from ...bus.driver import Background
from ...errors import CoveyError, NodeOnline, NotFound, Refused, Unreachable
from . import change, life
from .changing import perform, written
from .crash import crash_at
from .daemon import Daemon
from .entries import undefine
from .home import Home
from .lookup import Verdict, ask_verdict, online_members, read_global
from .places import peer_places, who_knows
from .settings import ANSWER_FIRST, LEFT_TIME, SERVERS_TIME, WRITE_TIME

log = logging.getLogger(__name__)

IDLE: tuple[life.State, ...] = ("undefined", "offline", "failed")


class Undefiner:
    """Takes definitions away, here and elsewhere."""

    def __init__(self, home: Home, daemon: Daemon) -> None:
        self._home = home
        self._daemon = daemon
        self._background = Background()

    async def undefine(self, number: int) -> dict[str, Any]:
        """Remove a node from this cluster; return its last definition and whether its own files are gone already."""
        machine = change.UndefineMember(number, self._home.here().node.number)
        return dict(await perform(machine, self._do, self._home))

    async def _do(self, effect: change.Effect) -> change.Input:
        """Carry out one order of an undefine."""
        home = self._home
        cluster_id = home.here().cluster.id
        if isinstance(effect, change.Look):
            found, online = await asyncio.gather(read_global(home.bus, cluster_id), online_members(home.bus))
            return change.Read(change.Standing(found.entry(effect.number), effect.number in online, found.servers))
        if isinstance(effect, change.PutOffline):
            # not by an operator's word: if this comes to nothing, the node's next start joins, and completes it
            number, time = effect.number, LEFT_TIME + 5
            with suppress(Unreachable):  # it has just died: then the view lets it go by itself
                await home.bus.call("dcm", "node_offline", node=number, wait=True, operator=False, timeout=time)
            await self._left(number)
            return change.Went()
        if isinstance(effect, change.Tell):
            return change.Told(await self._tell(peer_places(effect.node), cluster_id))
        assert isinstance(effect, change.Write)
        return await written(home, effect)

    async def undefine_cluster(self, force: bool) -> dict[str, Any]:
        """Undefine every node of this cluster, this one last; raises when another is online, unless `force`.

        At first this node becomes the only registry server, so that it can prove to each of the others that its
        definition is over until they have erased theirs. What was begun can be asked for again.
        """
        home = self._home
        here = home.here()
        own, cluster = here.node.number, here.cluster
        online = sorted(set(await online_members(home.bus)) - {own})
        if online and not force:
            raise NodeOnline(
                f"{len(online)} other nodes of {cluster.name} are online: {', '.join(map(str, online[:10]))}",
                "put them offline first, or --force, which does that; nothing was changed",
            )
        for number in here.servers.all:
            if number != own:
                await home.bus.call("registry", "undefine_server", server=number, forced=True, timeout=SERVERS_TIME)
        report = []
        for entry in (await read_global(home.bus, cluster.id)).entries:
            number, name = entry.definition.number, entry.definition.name
            if number == own:
                continue
            said: dict[str, Any] = {"number": number, "name": name, "erased": False, "error": None}
            try:
                said["erased"] = (await self.undefine(number))["erased"]
            except NotFound:
                pass  # somebody else was quicker
            report.append(said)
        proof = await self._over(own, cluster.id)
        self._daemon.feed(life.OfflineAsked("its cluster is undefined", operator=False))
        await self._daemon.settled(IDLE)
        if home.definition_in(cluster.id) is not None:  # else its own join found the proof, just before
            await self.erase(cluster.id, proof, "the cluster was undefined")
        report.append({"number": own, "name": here.node.name, "erased": True, "error": None})
        return {"name": cluster.name, "id": cluster.id, "nodes": sorted(report, key=lambda one: int(one["number"]))}

    async def _over(self, own: int, cluster_id: str) -> Verdict:
        """Take this node's own definition out, the last one; return the proof."""
        for _ in range(change.ROUNDS):
            found = await read_global(self._home.bus, cluster_id)
            entry = found.entry(own)
            if entry is None or len(found.entries) > 1:
                raise Refused("a node was defined to this cluster meanwhile", "look at it, and ask again")
            done = await self._home.bus.call("registry", "txn", **undefine(entry), timeout=WRITE_TIME)
            if done["succeeded"]:
                return Verdict("gone", entry.definition.definition_id, entry.definition.key, int(done["revision"]))
        raise Refused("this node's definition changes too fast to remove it", "ask again")

    async def _left(self, number: int) -> None:
        """Wait until the view does not list the node."""
        try:
            async with asyncio.timeout(LEFT_TIME):
                while number in await online_members(self._home.bus):  # noqa: ASYNC110  (the view is another process's)
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise NodeOnline(f"node {number} does not leave the view", "look at it with `covey node show`") from None

    async def _tell(self, places: list[str], cluster_id: str) -> bool:
        """Tell the node, which trusts us still, though we do not trust it any more."""
        for place in places:
            try:
                answer = await self._home.bus.call(
                    "dcm", "definition_gone", node=place, cluster_id=cluster_id, timeout=5.0
                )
            except CoveyError as why:
                log.info("%s cannot be told that it was undefined: %s", place.partition("#")[0], why)
                continue
            return bool(answer["erased"])
        return False

    async def definition_gone(self, cluster_id: str) -> bool:
        """Ask the cluster whether this node's definition is gone; if so, complete the deletion here."""
        home = self._home
        current = home.replica is not None and home.replica.cluster.id == cluster_id
        node = await asyncio.to_thread(home.definition_in, cluster_id)
        if node is None:
            return True
        if current and self._daemon.machine.state not in IDLE:
            raise NodeOnline("this node is not offline; its next join will tell", "put it offline first")
        table = await asyncio.to_thread(home.store.nodes, cluster_id)
        servers = await asyncio.to_thread(home.store.servers, cluster_id)
        verdict = await ask_verdict(home.bus, who_knows(node, servers, table), cluster_id, node)
        if verdict is None or verdict.standing != "gone":
            return False
        crash_at("u4", home)
        await self._erase(cluster_id, verdict, "undefined")
        crash_at("u5", home)
        self._background.start(self._erased_soon(current), "an undefined node's broker is told")
        return True

    async def erase(self, cluster_id: str, verdict: Verdict | None, reason: str) -> None:
        """Erase this node's data of a cluster that it is not online in; `verdict` is the proof, if there is one."""
        current = self._home.clusters.current == cluster_id
        await self._erase(cluster_id, verdict, reason)
        await self._erased(current)

    async def _erase(self, cluster_id: str, verdict: Verdict | None, reason: str) -> None:
        home = self._home
        await asyncio.to_thread(home.store.erase_cluster, cluster_id)
        proof = verdict.proof() if verdict else None
        await home.audit("dcm", "local_erased", "done", cluster=cluster_id, reason=reason, proof=proof)

    async def _erased(self, current: bool) -> None:
        await self._home.reload()
        if current and self._home.replica is None and self._daemon.machine.state in IDLE:
            self._daemon.feed(life.Undefined())

    async def _erased_soon(self, current: bool) -> None:
        """Let the answer go first: as soon as the broker knows, it cuts off the member that asked."""
        await asyncio.sleep(ANSWER_FIRST)
        await self._erased(current)
