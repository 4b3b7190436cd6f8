"""The verbs behind `covey doctor`: how this node is, and what is wrong in its whole cluster. They change nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ...bus.messages import Role
from ...bus.service import verb
from ...errors import CoveyError
from . import checks, facts
from .balancing import BalanceVerbs
from .places import peer_places
from .plugin_list import PluginList
from .settings import HEALTH_TIME, NEIGHBOURS


class DoctorVerbs(BalanceVerbs):
    """Verbs that look for what is wrong."""

    _plugins: PluginList
    cluster_status: Callable[[], Awaitable[dict[str, Any]]]

    @verb(Role.COMPONENT)
    async def health(self) -> dict[str, Any]:
        """Return how this node is (`checks.Health`), with the ways to its next neighbours by number tried."""
        found: dict[str, Any] = msgspec.to_builtins(await self._health())
        return found

    @verb()
    async def doctor(self) -> list[dict[str, Any]]:
        """Return all findings over this node and its cluster: `{code, severity, node, message, hint}`, errors first."""
        found: list[dict[str, Any]] = msgspec.to_builtins(checks.doctor(await self._survey()))
        return found

    async def _survey(self) -> checks.Survey:
        replica = self._home.replica
        names = {number: node.name for number, node in sorted(replica.nodes.nodes.items())} if replica else {}
        own = replica.node.number if replica else 0
        own_health, status, *others = await asyncio.gather(
            self._health(), self.cluster_status(), *(self._ask_health(number) for number in names if number != own)
        )
        health = (own_health, *(one for one in others if isinstance(one, checks.Health)))
        silent = {number: why for one in others if isinstance(one, tuple) for number, why in [one]}
        elsewhere = frozenset(one for one in others if isinstance(one, int))
        networks, subnets = self._places()
        return checks.Survey(own, names, health, silent, status, elsewhere, networks, subnets)

    def _places(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return the network and the subnetwork of each address."""
        if self._home.replica is None:
            return {}, {}
        now = self._home.networks
        found = {address.partition("/")[0]: now.subnet_of(address) for _, address in now.places()}
        return {host: each.network for host, each in found.items()}, {host: each.name for host, each in found.items()}

    async def _ask_health(self, number: int) -> checks.Health | tuple[int, str] | int:
        """Ask another node how it is; return its number and why it does not say, its number when it is elsewhere."""
        asked = time.time()
        try:
            answer = await self._home.bus.call("dcm", "health", node=number, timeout=HEALTH_TIME)
            found = msgspec.convert(answer, checks.Health)
        except CoveyError as why:
            return number if await self._in_another(number) else (number, why.message)
        except msgspec.ValidationError as why:
            return number, f"its answer cannot be read: {why}"
        return msgspec.structs.replace(found, skew=facts.skew(found.here.clock, asked, time.time()))

    async def _health(self) -> checks.Health:
        home, machine = self._home, self._daemon.machine
        replica = home.replica
        ways = []
        if replica is not None:
            others = [node for number, node in sorted(replica.nodes.nodes.items()) if number != replica.node.number]
            after = [node for node in others if node.number > replica.node.number]
            ring = [*after, *(node for node in others if node not in after)][:NEIGHBOURS]
            ways = [facts.tried(home.bus, node.number, place, "local") for node in ring for place in peer_places(node)]
        here = await facts.here(ways)
        verdict = machine.verdict
        plugins = self._plugins.lines(self._daemon.crashed, machine.running)
        return checks.Health(
            number=replica.node.number if replica else 0,
            name=replica.node.name if replica else home.name,
            here=here,
            state=machine.state,
            reason=machine.reason,
            operator=home.clusters.offline,
            problem=home.problem,
            identity=verdict.code if verdict is not None else "",
            addresses=home.addresses(),
            port=home.port,
            defined=tuple(replica.node.endpoints()) if replica else (),
            listens=tuple(home.endpoints()),
            mtus=await asyncio.to_thread(facts.mtus, home.addresses()),
            free=await asyncio.to_thread(facts.free, home.layout.state_dir),
            crashed=dict(self._daemon.crashed),
            plugins=tuple((line["name"], line["reason"]) for line in plugins if line["state"] == "failed"),
        )
