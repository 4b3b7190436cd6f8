"""The verbs of `dcm` over networks, subnetworks and node addresses (SPEC 8).

A change is judged against what the registry holds now and written only if that still stands; every node's local copy
follows as its watcher hears of it. Looking is answered from the local copy, so it works offline, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from ...bus.messages import Role
from ...bus.service import Request, verb
from ...errors import AlreadyDefined, CoveyError, NotFound, UsageError
from . import network_changes as changes
from .changing import changed
from .definitions import NetworkTable, NodeDefinition, plain
from .dependencies import Graphs
from .entries import Transaction, modify
from .home import new_id
from .hops import measure
from .lookup import Global, read_global, read_value
from .modifying import ModifyVerbs, adapter
from .network_entries import GUARD, change
from .networks import CORE, DEFAULT, Networks
from .settings import STATUS_TIME

COUNTED = ("messages_out", "messages_in", "bytes_out", "bytes_in")


class NetworkVerbs(ModifyVerbs):
    """Verbs over where system traffic goes."""

    _graphs: Graphs

    # --- networks ---------------------------------------------------------------------------------------------

    @verb()
    def network_ls(self) -> list[dict[str, Any]]:
        """Return the networks, each with the names of its subnetworks and the priorities that are set."""
        now = self._networks()
        inside: dict[str, list[str]] = {}
        for subnet in now.subnets():
            inside.setdefault(subnet.network, []).append(subnet.name)
        return [
            {"name": each.name, "id": each.id, "subnets": inside.get(each.name, []), "priorities": each.priorities}
            for each in now.networks()
        ]

    @verb(Role.ADMIN)
    async def network_define(
        self, request: Request, *, name: str, priorities: dict[str, int] | None = None
    ) -> dict[str, Any]:
        """Define a network, without subnetworks yet; return it."""
        id = new_id()
        wanted = changes.read_priorities(priorities, await self._services()) if priorities else {}
        given = {service: number for service, number in wanted.items() if number is not None}
        table = await self._change_networks(
            request,
            "network_define",
            lambda now: changes.define_network(now, name, id, given),
            network=name,
            priorities=priorities,
        )
        return dict(plain(table.networks[name]))

    @verb(Role.ADMIN)
    async def network_modify(self, request: Request, *, name: str, new_name: str) -> dict[str, Any]:
        """Give a network another name; its subnetworks stay in it. Return it."""
        table = await self._change_networks(
            request,
            "network_modify",
            lambda now: changes.rename_network(now, name, new_name),
            network=name,
            new_name=new_name,
        )
        return dict(plain(table.networks[new_name]))

    @verb(Role.ADMIN)
    async def network_priority(
        self, request: Request, *, name: str, priorities: dict[str, int | None]
    ) -> dict[str, Any]:
        """Set priorities of a network by service: the highest is tried first, 0 is never, null is not set."""
        wanted = changes.read_priorities(priorities, await self._services())
        table = await self._change_networks(
            request,
            "network_priority",
            lambda now: changes.set_priorities(now, name, wanted),
            network=name,
            priorities=priorities,
        )
        return dict(plain(table.networks[name]))

    @verb(Role.ADMIN)
    async def network_undefine(self, request: Request, *, name: str) -> None:
        """Remove a network in which there is no subnetwork any more."""
        await self._change_networks(
            request, "network_undefine", lambda now: changes.undefine_network(now, name), network=name
        )

    @verb()
    async def network_explain(self, *, service: str, number: int | None = None) -> dict[str, Any]:
        """Return in which order a node (this one) tries the addresses of a service, and which it never does and why."""
        here = self._home.here()
        node = here.node.number if number is None else number
        if node not in here.nodes.nodes:
            raise NotFound(f"no node has the number {node}", "`covey node ls` lists the nodes")
        known = await self._services()
        if service not in known:
            raise NotFound(f"there is no service {service!r}", "services: " + ", ".join(sorted(known)))
        now = self._networks()
        served = here.servers.running if service == "registry" else here.nodes.nodes
        chosen, rejected = now.choose(service, node, [place for place in now.places() if place.node in served])
        addresses = [plain(each) for each in chosen]
        refused = [plain(each) for each in rejected]
        return {"service": service, "from": node, "addresses": addresses, "rejected": refused}

    @verb()
    async def network_traffic(self, *, number: int | None = None) -> list[dict[str, Any]]:
        """Return messages and bytes that a node (this one) exchanged with others, by network and service.

        Counted where they pass a socket, since the node's processes began.
        """
        if self._elsewhere(number):
            return list(await self._home.bus.call("dcm", "network_traffic", node=number, timeout=STATUS_TIME))
        parts = await asyncio.gather(*(self._traffic_of(service) for service in ("bus", "registry", "liveness")))
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for each in (row for part in parts for row in part):
            known = found.setdefault((each["network"], each["service"]), {**each, **dict.fromkeys(COUNTED, 0)})
            for name in COUNTED:
                known[name] += each[name]
        return [found[key] for key in sorted(found)]

    async def _traffic_of(self, service: str) -> list[dict[str, Any]]:
        try:
            return list(await self._home.bus.call(service, "traffic", timeout=STATUS_TIME))
        except CoveyError:  # it does not run: this node is offline
            return []

    @verb(Role.OPERATOR)
    async def network_measure(self) -> list[dict[str, Any]]:
        """Return the hops from this node's subnetworks to all others, each measured to one address there.

        `hops` null: neither routers nor the target say. `known` is what counts now; nothing is changed.
        """
        now, own = self._networks(), self._home.here().node.number
        targets: dict[str, str] = {}
        for node, address in now.places():
            if node != own:
                targets.setdefault(now.subnet_of(address).id, address)
        pairs = [
            (mine, target)
            for mine in now.addresses(own)
            for subnet, target in targets.items()
            if subnet != now.subnet_of(mine).id and (":" in mine) == (":" in target)
        ]

        async def one(mine: str, target: str) -> dict[str, Any]:
            source, host = mine.partition("/")[0], target.partition("/")[0]
            try:
                hops = await asyncio.to_thread(measure, source, host)
            except OSError:
                hops = None
            subnet = now.subnet_of(target)
            found = {"from": now.subnet_of(mine).name, "to": subnet.name, "address": host, "hops": hops}
            return {**found, "known": now.hops(own, subnet)}

        return list(await asyncio.gather(*(one(*pair) for pair in pairs)))

    # --- subnetworks ------------------------------------------------------------------------------------------

    @verb()
    def subnet_ls(self) -> list[dict[str, Any]]:
        """Return the subnetworks; `defined` is false for those that follow from an address alone."""
        now = self._networks()
        used = {each.id: 0 for each in now.subnets()}
        for place in now.places():
            used[now.subnet_of(place.address).id] += 1
        return [
            {**plain(each), "addresses": used[each.id], "defined": each.id in now.table.subnets}
            for each in now.subnets()
        ]

    @verb(Role.ADMIN)
    async def subnet_define(
        self, request: Request, *, name: str, prefix: str, network: str = DEFAULT
    ) -> dict[str, Any]:
        """Define a subnetwork PREFIX/BITS of a network; return it."""
        id = new_id()
        table = await self._change_networks(
            request,
            "subnet_define",
            lambda now: changes.define_subnet(now, name, id, prefix, network),
            subnet=name,
            prefix=prefix,
            network=network,
        )
        return dict(plain(table.subnets[id]))

    @verb(Role.ADMIN)
    async def subnet_modify(
        self,
        request: Request,
        *,
        subnet: str,
        name: str | None = None,
        prefix: str | None = None,
        network: str | None = None,
        hops: dict[str, int] | None = None,
    ) -> dict[str, Any]:
        """Change a subnetwork (by name, id or prefix): all its addresses follow. One that nobody defined is by this.

        `hops` says how far other subnetworks are (0: not known). Return it.
        """
        given = {"name": name, "prefix": prefix, "network": network, "hops": hops}
        wanted = {key: value for key, value in given.items() if value is not None}
        if not wanted:
            raise UsageError("nothing to change was named", "name, prefix, network, hops")
        made, id = "", new_id()

        def changed(now: Networks) -> NetworkTable:
            nonlocal made
            old = changes.find_subnet(now, subnet).id
            made = old if old in now.table.subnets else id
            return changes.modify_subnet(now, subnet, id, wanted)

        table = await self._change_networks(request, "subnet_modify", changed, subnet=subnet, **wanted)
        return dict(plain(table.subnets[made]))

    @verb(Role.ADMIN)
    async def subnet_undefine(self, request: Request, *, subnet: str) -> None:
        """Remove a subnetwork that has no addresses, or whose network is `default`, where they stay then."""
        await self._change_networks(
            request, "subnet_undefine", lambda now: changes.undefine_subnet(now, subnet), subnet=subnet
        )

    # --- addresses --------------------------------------------------------------------------------------------

    @verb()
    def address_ls(self) -> list[dict[str, Any]]:
        """Return the addresses of all nodes, each with its subnetwork and network."""
        return [_address(self._networks(), node, each) for node, each in self._networks().places()]

    @verb(Role.ADMIN)
    async def address_define(
        self, request: Request, *, address: str, number: int, subnet: str | None = None
    ) -> dict[str, Any]:
        """Tell the others that a node has an address (ADDRESS/PREFIX), which must lie in `subnet` if that is given.

        Where a node listens is for its own YAML to say.
        """
        wanted = adapter(address)
        return await self._change_addresses(
            request,
            "address_define",
            lambda now: (node := _node(now, number), changes.add_address(now, node, wanted, subnet)),
            wanted,
            address=wanted,
            number=number,
        )

    @verb(Role.ADMIN)
    async def address_modify(self, request: Request, *, address: str, to: str) -> dict[str, Any]:
        """Tell the others that a node has another address, or prefix length, in place of this one; return it."""
        host, wanted = address.partition("/")[0], adapter(to)

        def changed(now: Networks) -> tuple[NodeDefinition, tuple[str, ...]]:
            node, new = _owner(now, host), wanted.partition("/")[0]
            if (other := changes.owner_of(now, new)) and new != host:
                raise AlreadyDefined(f"the address {new} is that of {other.name} ({other.number})", "choose another")
            return node, tuple(wanted if each.partition("/")[0] == host else each for each in node.addresses)

        return await self._change_addresses(request, "address_modify", changed, wanted, address=host, to=wanted)

    @verb(Role.ADMIN)
    async def address_undefine(self, request: Request, *, address: str) -> None:
        """Tell the others that a node has an address no more; its last one cannot go."""
        host = address.partition("/")[0]
        await self._change_addresses(
            request,
            "address_undefine",
            lambda now: (node := _owner(now, host), changes.take_address(node, host)),
            "",
            address=host,
        )

    # --- inside -----------------------------------------------------------------------------------------------

    def _networks(self) -> Networks:
        self._home.here()
        return self._home.networks

    async def _services(self) -> frozenset[str]:
        """Return every service that can send traffic: covey's own, those of components, what is served on this node."""
        status = await self._home.bus.call("bus", "status", timeout=STATUS_TIME)
        served = {service for party in status["parties"] for service in party["services"]}
        return frozenset({*CORE, *self._graphs.offered_by.values(), *served, *self._networks().services()})

    async def _change_networks(
        self, request: Request, what: str, make: Callable[[Networks], NetworkTable], **about: Any
    ) -> NetworkTable:
        """Write the table that `make` wants instead of the one there is; return it when all that ask here know it."""
        async with self._audited(request, what, **about):
            self._must_be_online("change the networks")
            home, cluster_id = self._home, self._home.here().cluster.id

            async def read() -> tuple[Any, int, Global]:
                value, guard = await read_value(home.bus, GUARD, cluster_id)  # before the tables, so it covers them
                return value, guard, await read_global(home.bus, cluster_id)

            def decide(found: tuple[Any, int, Global]) -> tuple[Transaction | None, NetworkTable]:
                value, guard, known = found
                nodes = known.table().nodes
                table = make(Networks(known.networks, nodes))
                changes.check(Networks(table, nodes))
                return None if table == known.networks else change(known.networks, table, guard, value), table

            table: NetworkTable = await changed(home, read, decide, "the networks")
            await self._watcher.seen()
            return table

    async def _change_addresses(
        self,
        request: Request,
        what: str,
        make: Callable[[Networks], tuple[NodeDefinition, tuple[str, ...]]],
        shown: str,
        **about: Any,
    ) -> dict[str, Any]:
        """Give a node the addresses that `make` wants; return the one to be `shown`, if any."""
        async with self._audited(request, what, **about):
            self._must_be_online("change an address")
            home, cluster_id = self._home, self._home.here().cluster.id

            def decide(known: Global) -> tuple[Transaction | None, tuple[Networks, int]]:
                nodes: Mapping[int, NodeDefinition] = known.table().nodes
                node, addresses = make(Networks(known.networks, nodes))
                new = msgspec.structs.replace(node, addresses=addresses)
                after = Networks(known.networks, {**nodes, node.number: new})
                changes.check(after)
                entry = known.entry(node.number)
                assert entry is not None
                return None if new == node else modify(entry, addresses=addresses), (after, node.number)

            after, number = await changed(home, lambda: read_global(home.bus, cluster_id), decide, "the nodes")
            await self._watcher.seen()
            return _address(after, number, shown) if shown else {}


def _node(now: Networks, number: int) -> NodeDefinition:
    node = now.nodes.get(number)
    if node is None:
        raise NotFound(f"no node has the number {number}", "`covey node ls` lists the nodes")
    return node


def _owner(now: Networks, host: str) -> NodeDefinition:
    node = changes.owner_of(now, host)
    if node is None:
        raise NotFound(f"no node has the address {host}", "`covey address ls` lists them")
    return node


def _address(now: Networks, number: int, address: str) -> dict[str, Any]:
    host, _, mask = address.partition("/")
    subnet = now.subnet_of(address)
    found = {"id": host, "address": host, "mask": int(mask), "node": number, "name": now.nodes[number].name}
    return {**found, "subnet": subnet.name, "network": subnet.network}
