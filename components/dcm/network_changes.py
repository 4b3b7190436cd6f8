"""What may be changed of networks, subnetworks and node addresses (SPEC 8.1): from one table to the next. Pure.

Each function takes the tables as they are, ready for questions, and returns the table that is wanted, or raises what is
wrong with the wish; `check` then judges the whole. Nothing here writes.
"""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from ...errors import AlreadyDefined, Ambiguous, NotFound, Refused, UsageError
from .definitions import NetworkDefinition, NetworkTable, NodeDefinition, SubnetDefinition, check_name
from .networks import CORE, DEFAULT, Networks

MOST = 1_000_000
"""The largest priority and the most hops: numbers that a person types."""


# --- networks -------------------------------------------------------------------------------------------------


def define_network(now: Networks, name: str, id: str, priorities: Mapping[str, int]) -> NetworkTable:
    """Add a network without subnetworks."""
    check_name(name, "network name")
    _free_network(now, name)
    return _with_network(now.table, NetworkDefinition(name, id, dict(priorities)))


def rename_network(now: Networks, name: str, new: str) -> NetworkTable:
    """Give a network another name; its subnetworks stay in it."""
    network = find_network(now, name)
    check_name(new, "network name")
    if name == DEFAULT:
        raise Refused("the network `default` keeps its name", "it is where subnetworks are that nobody put elsewhere")
    if new == name:
        return now.table
    _free_network(now, new)
    networks = {key: each for key, each in now.table.networks.items() if key != name}
    networks[new] = msgspec.structs.replace(network, name=new)
    subnets = {
        key: msgspec.structs.replace(each, network=new) if each.network == name else each
        for key, each in now.table.subnets.items()
    }
    return msgspec.structs.replace(now.table, networks=networks, subnets=subnets)


def set_priorities(now: Networks, name: str, wanted: Mapping[str, int | None]) -> NetworkTable:
    """Set priorities of a network, or with None leave them to hops and balance again."""
    network = find_network(now, name)
    priorities = {**network.priorities, **wanted}
    kept = {service: number for service, number in sorted(priorities.items()) if number is not None}
    return _with_network(now.table, msgspec.structs.replace(network, priorities=kept))


def undefine_network(now: Networks, name: str) -> NetworkTable:
    """Remove a network in which there is no subnetwork any more."""
    find_network(now, name)
    if name == DEFAULT:
        raise Refused("the network `default` cannot go", "it is where subnetworks are that nobody put elsewhere")
    if inside := [each.name for each in now.subnets() if each.network == name]:
        which = ", ".join(inside)
        raise Refused(f"the network {name} is in use by the subnetwork {which}", f"`covey subnet modify {inside[0]} …`")
    networks = {key: each for key, each in now.table.networks.items() if key != name}
    return msgspec.structs.replace(now.table, networks=networks)


def find_network(now: Networks, name: str) -> NetworkDefinition:
    """Return a network by name or id."""
    for network in now.networks():
        if name in (network.name, network.id):
            return network
    raise NotFound(f"there is no network {name!r}", _known("networks", (each.name for each in now.networks()), name))


# --- subnetworks ----------------------------------------------------------------------------------------------


def define_subnet(now: Networks, name: str, id: str, prefix: str, network: str) -> NetworkTable:
    """Add a subnetwork to a network."""
    check_name(name, "subnetwork name")
    made = SubnetDefinition(id, name, read_prefix(prefix), find_network(now, network).name)
    return _with_subnet(now.table, made)


def modify_subnet(now: Networks, which: str, id: str, changes: Mapping[str, Any]) -> NetworkTable:
    """Change name, prefix, network or hops of a subnetwork; one that nobody defined is defined by it, with this id.

    `hops` are by any word for the other subnetwork; 0 leaves them unsaid again.
    """
    old = find_subnet(now, which)
    given = dict(changes)
    if "name" in given:
        check_name(given["name"], "subnetwork name")
    if "network" in given:
        given["network"] = find_network(now, given["network"]).name
    if "prefix" in given:
        given["prefix"] = read_prefix(given["prefix"])
        out = [each for each in now.in_subnet(old.id) if not _holds(given["prefix"], each.address)]
        if out:
            where = f"{out[0].address} of node {out[0].node}"
            raise Refused(f"the address {where} would be outside its subnetwork {old.name}", "choose a wider prefix")
    if "hops" in given:
        hops = dict(old.hops)
        for word, count in given["hops"].items():
            other = find_subnet(now, word)
            if other.id == old.id:
                raise UsageError(f"{word} is the subnetwork itself: that is one hop", "name another one")
            if not 0 <= count <= MOST:
                raise UsageError(f"{count} is no number of hops", f"1 to {MOST}, or 0 for: not known")
            hops[other.prefix] = count
        given["hops"] = {prefix: count for prefix, count in sorted(hops.items()) if count}
    kept_id = old.id if old.id in now.table.subnets else id
    new = msgspec.structs.replace(old, id=kept_id, **given)
    table = _with_subnet(now.table, new)
    if new.prefix == old.prefix:
        return table
    subnets = {key: _renamed_hops(each, old.prefix, new.prefix) for key, each in table.subnets.items()}
    return msgspec.structs.replace(table, subnets=subnets)


def undefine_subnet(now: Networks, which: str) -> NetworkTable:
    """Remove a subnetwork. Its addresses go to the network `default`, so one with addresses must be there already."""
    old = find_subnet(now, which)
    if old.id not in now.table.subnets:
        raise Refused(f"nobody defined the subnetwork {old.name}", "it goes with the last address in it")
    used = now.in_subnet(old.id)
    if used and old.network != DEFAULT:
        where = f"{used[0].address} of node {used[0].node}"
        raise Refused(
            f"the subnetwork {old.name} is in use: {len(used)} addresses are in it, {where} among them",
            f"`covey subnet modify {old.name} --network default` first: then nothing changes its path when it goes",
        )
    subnets = {key: each for key, each in now.table.subnets.items() if key != old.id}
    return msgspec.structs.replace(now.table, subnets=subnets)


def find_subnet(now: Networks, word: str) -> SubnetDefinition:
    """Return a subnetwork by its name, id or prefix."""
    every = now.subnets()
    found = [each for each in every if word in (each.name, each.id, each.prefix)]
    if not found:
        known = _known("subnetworks", (each.name for each in every), word)
        raise NotFound(f"there is no subnetwork {word!r}", known)
    if len(found) > 1:
        raise Ambiguous(f"{word!r} names several subnetworks: {', '.join(each.id for each in found)}", "use the id")
    return found[0]


def read_prefix(text: str) -> str:
    """Return a prefix, as 10.1.0.0/16 or fd00::/64, in its usual spelling; UsageError says what is wrong with it."""
    try:
        found = ipaddress.ip_network(text)
    except ValueError as why:
        hint = "write PREFIX/BITS, for example 10.1.0.0/16"
        if "has host bits set" in str(why):
            hint = f"did you mean {ipaddress.ip_interface(text).network}?"
        raise UsageError(f"{text!r} is no prefix of a subnetwork", hint) from None
    if "/" not in text or not found.prefixlen:
        raise UsageError(f"{text!r} has no prefix length", "for example 10.1.0.0/16; at least one bit")
    if found.is_multicast:
        raise UsageError(f"{found} is for multicast: no adapter has such an address")
    return str(found)


# --- addresses ------------------------------------------------------------------------------------------------


def add_address(now: Networks, node: NodeDefinition, address: str, subnet: str | None = None) -> tuple[str, ...]:
    """Return a node's addresses with one more (ADDRESS/PREFIX); `subnet`: the one in which it is meant to be."""
    host = address.partition("/")[0]
    if owner := owner_of(now, host):
        raise AlreadyDefined(f"the address {host} is that of {owner.name} ({owner.number})", "an address is unique")
    if subnet is not None:
        wanted = find_subnet(now, subnet)
        if not _holds(wanted.prefix, address):
            raise Refused(f"{host} is outside the subnetwork {wanted.name} ({wanted.prefix})", "nothing was changed")
    return (*node.addresses, address)


def take_address(node: NodeDefinition, host: str) -> tuple[str, ...]:
    """Return a node's addresses without one; its last cannot go."""
    left = tuple(each for each in node.addresses if each.partition("/")[0] != host)
    if not left:
        raise Refused(
            f"{host} is the last address of {node.name} ({node.number})",
            "define another one first, or undefine the node",
        )
    return left


def owner_of(now: Networks, host: str) -> NodeDefinition | None:
    """Return the node that has an address."""
    return next((node for node in now.nodes.values() if host in node.hosts()), None)


# --- the whole ------------------------------------------------------------------------------------------------


def read_priorities(given: Mapping[str, int | None], known: Collection[str]) -> dict[str, int | None]:
    """Return priorities by service; UsageError names a service that nobody has, or a number that is none."""
    if not given:
        raise UsageError("no service was named", "for example registry=3; 0 means never")
    for service, priority in given.items():
        if service not in known:
            raise UsageError(f"there is no service {service!r}", _known("services", known, service))
        if priority is not None and not 0 <= priority <= MOST:
            raise UsageError(f"{priority} is no priority", f"0 (never) to {MOST}; the highest is tried first")
    return dict(given)


def check(new: Networks) -> None:
    """Raise when these tables cannot be: names or prefixes that clash, a core service that cannot reach a node."""
    by_prefix: dict[tuple[int, int, int], SubnetDefinition] = {}
    names: dict[str, SubnetDefinition] = {}
    for subnet in sorted(new.table.subnets.values(), key=lambda each: each.prefix):
        if other := names.get(subnet.name):
            raise AlreadyDefined(f"there is a subnetwork {subnet.name} already: {other.prefix}", "choose another name")
        names[subnet.name] = subnet
        _no_overlap(by_prefix, subnet)
    for service in CORE:
        for number, node in sorted(new.nodes.items()):
            networks = {new.network_of(address) for address in node.addresses}
            if networks and all(new.priority(service, network) == 0 for network in networks):
                where = f"{node.name} ({number})"
                raise Refused(
                    f"{service} could not reach {where}: every network that it is on would have priority 0 for it",
                    "leave one of them: " + ", ".join(sorted(networks)),
                )


def _no_overlap(known: dict[tuple[int, int, int], SubnetDefinition], subnet: SubnetDefinition) -> None:
    prefix = ipaddress.ip_network(subnet.prefix)
    number, bits = int(prefix.network_address), prefix.max_prefixlen
    for (version, length, start), other in known.items():
        shorter = bits - min(length, prefix.prefixlen)
        if version == prefix.version and number >> shorter == start >> shorter:
            raise AlreadyDefined(
                f"the prefix {prefix} overlaps that of the subnetwork {other.name}, {other.prefix}",
                "an address must be in one subnetwork",
            )
    known[prefix.version, prefix.prefixlen, number] = subnet


def _holds(prefix: str, address: str) -> bool:
    return ipaddress.ip_interface(address).ip in ipaddress.ip_network(prefix)


def _free_network(now: Networks, name: str) -> None:
    if any(name in (each.name, each.id) for each in now.networks()):
        raise AlreadyDefined(f"there is a network {name} already", "`covey network priority` and `modify` change it")


def _with_network(table: NetworkTable, network: NetworkDefinition) -> NetworkTable:
    return msgspec.structs.replace(table, networks={**table.networks, network.name: network})


def _with_subnet(table: NetworkTable, subnet: SubnetDefinition) -> NetworkTable:
    return msgspec.structs.replace(table, subnets={**table.subnets, subnet.id: subnet})


def _renamed_hops(subnet: SubnetDefinition, old: str, new: str) -> SubnetDefinition:
    return msgspec.structs.replace(subnet, hops={new if key == old else key: far for key, far in subnet.hops.items()})


def _known(what: str, names: Any, word: str) -> str:
    there = sorted(set(names))
    near = difflib.get_close_matches(word, there, n=2)
    return f"did you mean {' or '.join(near)}?" if near else f"{what}: {', '.join(there) or 'none'}"
