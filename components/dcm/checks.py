"""What is wrong or doubtful with a node or its cluster, from facts: the checks of `covey doctor` and before a define.

Pure: facts in, findings out; `facts.py` gathers them. A check is a function of one argument that yields findings;
`DOCTOR` and `PREFLIGHT` are the lists, and another check is one more function in one of them. Codes begin with
`doctor.`; what each means stands in `config/codes.py`, for `covey explain`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import msgspec

from ...bus.traffic import host_of
from ...errors import Preflight
from .life import State
from .messages import Here, Way

Severity = Literal["error", "warning"]

CLOCKS = (2.0, 300.0)
"""Seconds between two clocks: from the first on logs of two nodes are hard to read side by side, from the second on
neither the expiry of a join token nor the order of two audit logs means anything."""

ROOM = (64 * 2**20, 512 * 2**20)
"""Bytes free where the state folder lies: below the first a registry may stop any moment, below the second soon."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong (error) or doubtful (warning); `node` is its number, None for the cluster or no node."""

    code: str
    severity: Severity
    node: int | None
    message: str
    hint: str = ""


class Health(msgspec.Struct, frozen=True):
    """How one node is, by its own DCM. `skew`: seconds by which its clock is ahead of the asker's, filled in there.

    `mtus`: the largest packet of the adapter that carries each of its addresses, where there is such an adapter.
    """

    number: int
    name: str
    here: Here
    state: State
    reason: str = ""
    operator: bool = False
    problem: str = ""
    identity: str = ""
    addresses: tuple[str, ...] = ()
    port: int = 0
    defined: tuple[str, ...] = ()
    listens: tuple[str, ...] = ()
    free: int = 0
    crashed: dict[str, str] = {}
    plugins: tuple[tuple[str, str], ...] = ()
    skew: float = 0.0
    mtus: dict[str, int] = {}


class Survey(msgspec.Struct, frozen=True):
    """The whole cluster, as one node could gather it: `status` is `cluster status` there, `names` all defined nodes.

    `silent` are the nodes that did not answer, with why, `elsewhere` those that are in another of their clusters.
    `networks` and `subnets` name those of each address.
    """

    own: int
    names: dict[int, str]
    health: tuple[Health, ...]
    silent: dict[int, str]
    status: dict[str, Any]
    elsewhere: frozenset[int] = frozenset()
    networks: dict[str, str] = {}
    subnets: dict[str, str] = {}


class Visit(msgspec.Struct, frozen=True):
    """A member and a node that is to be defined, as they found each other. Addresses are ADDRESS/PREFIX."""

    address: str
    member: Here
    newcomer: Here
    skew: float
    addresses: tuple[str, ...]
    others: tuple[str, ...]


# --- checks that both use -------------------------------------------------------------------------------------


def _version(node: int | None, who: str, its: Here, own: Here) -> Iterator[Finding]:
    if its.protocol != own.protocol:
        yield Finding(
            "doctor.protocol",
            "error",
            node,
            f"{who} speaks version {its.protocol} of the protocol between nodes, this node {own.protocol}",
            "install the same covey on both",
        )
    elif its.version != own.version:
        hint = "nodes may differ while a cluster is being updated; bring them to one version"
        yield Finding("doctor.version", "warning", node, f"{who} runs covey {its.version}, not {own.version}", hint)


def _clock(node: int | None, who: str, skew: float) -> Iterator[Finding]:
    if abs(skew) >= CLOCKS[0]:
        severity: Severity = "error" if abs(skew) >= CLOCKS[1] else "warning"
        way = "ahead of" if skew > 0 else "behind"
        hint = "let the machines' clocks follow one time server (chrony, systemd-timesyncd)"
        yield Finding(
            "doctor.clock", severity, node, f"the clock of {who} is {abs(skew):.0f} s {way} this node's", hint
        )


def _reach(node: int | None, who: str, ways: Iterable[Way], name: Callable[[int], str]) -> Iterator[Finding]:
    """Of each node whom it tried: an error when no endpoint was reached, a warning when some were not."""
    by_node: dict[int, list[Way]] = {}
    for way in ways:
        by_node.setdefault(way.node, []).append(way)
    for other, tried in sorted(by_node.items()):
        lost = [way for way in tried if way.problem]
        if not lost:
            continue
        where = ", ".join(way.endpoint for way in lost)
        severity: Severity = "error" if len(lost) == len(tried) else "warning"
        what = "at none of its addresses" if severity == "error" else f"at {len(lost)} of its {len(tried)} addresses"
        yield Finding(
            "doctor.unreachable",
            severity,
            node,
            f"{who} cannot reach {name(other)} {what}: {where}: {lost[0].problem}",
            "a firewall must let TCP and UDP through to the nodes' port, and TCP to the join port, the next one; "
            "else the address or its route is wrong",
        )


# --- before a define ------------------------------------------------------------------------------------------


def _reach_both_ways(visit: Visit) -> Iterator[Finding]:
    yield from _reach(None, "this node", visit.member.ways, lambda _: "the new node")
    yield from _reach(None, "the new node", visit.newcomer.ways, lambda _: "the cluster")


def _same_version(visit: Visit) -> Iterator[Finding]:
    if visit.newcomer.protocol:  # a covey from before there were these checks says nothing of itself
        yield from _version(None, "the new node", visit.newcomer, visit.member)
        yield from _clock(None, "the new node", visit.skew)


def _subnets(visit: Visit) -> Iterator[Finding]:
    new = [ipaddress.ip_interface(each) for each in visit.addresses]
    old = [ipaddress.ip_interface(each) for each in visit.others]
    apart = all(one.ip.is_loopback for one in new) != all(one.ip.is_loopback for one in old)
    if new and old and apart:
        yield Finding(
            "doctor.loopback",
            "error",
            None,
            f"one side has loopback addresses alone: the new node {_listed(new)}, the cluster {_listed(old)}",
            "give the node an address that the others can reach: `node: {adapters: …}` in its YAML",
        )
        return
    for one in new:
        for other in old:
            if one.version != other.version or not one.network.overlaps(other.network):
                continue
            if one.network != other.network:
                yield Finding(
                    "doctor.prefix",
                    "warning",
                    None,
                    f"{one} of the new node and {other} of the cluster lie in one another's subnetwork, and their "
                    "prefix lengths differ",
                    "one of the two is mistyped: correct `node: {adapters: …}` there",
                )
                break
    if new and old and not any(_together(one, other) for one in new for other in old):
        yield Finding(
            "doctor.apart",
            "warning",
            None,
            f"the new node ({_listed(new)}) shares no subnetwork with any node of the cluster",
            "fine when they are routed; each hop more is one more that can fail",
        )


_Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


def _together(one: _Interface, other: _Interface) -> bool:
    return one.version == other.version and one.network.overlaps(other.network)


def _listed(addresses: list[_Interface]) -> str:
    return ", ".join(map(str, addresses[:4])) + (", …" if len(addresses) > 4 else "")


PREFLIGHT: tuple[Callable[[Visit], Iterator[Finding]], ...] = (_reach_both_ways, _same_version, _subnets)


def preflight(visit: Visit) -> tuple[Finding, ...]:
    """Return what is to be said of a define before it is written; an error refuses it (`refuse`)."""
    return tuple(found for check in PREFLIGHT for found in check(visit))


def refuse(address: str, findings: Iterable[Finding]) -> None:
    """Raise Preflight when one of the findings is an error."""
    errors = [found for found in findings if found.severity == "error"]
    if errors:
        told = "; ".join(f"[{found.code}] {found.message}" for found in errors)
        raise Preflight(f"the node at {address} is not fit to be defined: {told}", errors[0].hint)


# --- the doctor's own -----------------------------------------------------------------------------------------


def _silent(survey: Survey) -> Iterator[Finding]:
    for number, why in sorted(survey.silent.items()):
        hint = f"is its daemon running, and the network between? `covey node show {number}`"
        message = f"{survey.names.get(number, number)} does not answer: {why}"
        yield Finding("doctor.silent", "error", number, message, hint)


def _states(survey: Survey) -> Iterator[Finding]:
    for one in survey.health:
        if one.problem:
            hint = "put the file back from a copy, or `covey node forget` and define the node again"
            yield Finding("doctor.damaged_file", "error", one.number, one.problem, hint)
        elif one.state == "failed":
            hint = "see `covey node verdict` and `covey node boot-log` there"
            code = "doctor.identity" if one.identity else "doctor.failed"
            yield Finding(code, "error", one.number, f"{one.name} gave up: {one.reason}", hint)
        elif one.state == "undefined" and one.number == 0:
            hint = "`covey cluster define` makes one, `covey node define` on a member takes this node in"
            yield Finding("doctor.no_cluster", "warning", None, f"{one.name} is in no cluster", hint)
        elif one.state == "offline":
            why = "an operator put it offline" if one.operator else one.reason or "it left"
            hint = f"`covey node online {one.number}`"
            yield Finding("doctor.offline", "warning", one.number, f"{one.name} is offline: {why}", hint)
        elif one.state != "online":
            why = one.reason or "it is on its way"
            hint = "`covey node boot-log` there says what it waits for"
            yield Finding("doctor.pending", "warning", one.number, f"{one.name} is {one.state}: {why}", hint)


def _cluster(survey: Survey) -> Iterator[Finding]:
    status = survey.status
    if survey.own == 0 or status.get("node_state") in ("offline", "failed", "undefined"):
        return  # it does not speak with the cluster, so it knows nothing of it
    registry = status["registry"]
    if not status["quorate"]:
        hint = "bring back enough registry servers; `covey registry status`"
        yield Finding("doctor.no_quorum", "error", None, "this side of the cluster has no quorum", hint)
    elif not registry["writable"]:
        why = registry.get("closed_because") or f"it is in phase {registry['phase']}"
        yield Finding(
            "doctor.read_only", "error", None, f"the registry takes no writes: {why}", "`covey registry status`"
        )
    for server in registry["servers"]:
        number, state = server["number"], server["state"]
        if state == "damaged" or (state == "offline" and status["quorate"]):
            severity: Severity = "error" if state == "damaged" else "warning"
            hint = (
                "it is refilled by itself"
                if state == "damaged"
                else f"bring its node back, or `covey registry online {number}`"
            )
            yield Finding("doctor.server", severity, number, f"the registry server of node {number} is {state}", hint)
    if registry.get("tolerates") == 0 and len(survey.names) >= 3:
        hint = "`covey registry define-server` two more nodes: three servers tolerate one loss"
        yield Finding("doctor.no_spare", "warning", None, "the registry survives the loss of no server", hint)


def _reached(survey: Survey) -> Iterator[Finding]:
    for one in survey.health:
        ways = [way for way in one.here.ways if way.node not in survey.silent and way.node not in survey.elsewhere]
        yield from _reach(one.number, one.name, ways, lambda number: survey.names.get(number, f"node {number}"))


def _networks(survey: Survey) -> Iterator[Finding]:
    """Whether a node reaches nobody on one of its networks, while it reaches others elsewhere."""
    for one in survey.health:
        tried: dict[str, list[bool]] = {}
        for way in one.here.ways:
            network = survey.networks.get(host_of(way.endpoint))
            if network is not None and way.node not in survey.silent and way.node not in survey.elsewhere:
                tried.setdefault(network, []).append(not way.problem)
        for network, reached in sorted(tried.items()):
            if not any(reached) and any(any(others) for others in tried.values()):
                yield Finding(
                    "doctor.network",
                    "error",
                    one.number,
                    f"{one.name} reaches nobody on the network {network}, and does on others",
                    "look at its adapter, cable and switch there; `covey network explain` shows what goes that way",
                )


def _mtus(survey: Survey) -> Iterator[Finding]:
    """Whether the adapters of one subnetwork send packets of one size: larger ones are lost between them."""
    sizes: dict[str, dict[int, list[str]]] = {}
    for one in survey.health:
        for host, mtu in sorted(one.mtus.items()):
            if host in survey.subnets:
                sizes.setdefault(survey.subnets[host], {}).setdefault(mtu, []).append(f"{one.name} ({host})")
    for subnet, found in sorted(sizes.items()):
        if len(found) > 1:
            told = "; ".join(f"{mtu} at {', '.join(who)}" for mtu, who in sorted(found.items()))
            hint = "set one size on all adapters and switches of it: large messages may stall between these nodes"
            message = f"adapters of the subnetwork {subnet} differ in their largest packet: {told}"
            yield Finding("doctor.mtu", "warning", None, message, hint)


def _versions(survey: Survey) -> Iterator[Finding]:
    own = next((one.here for one in survey.health if one.number == survey.own), None)
    for one in survey.health:
        if own is not None and one.number != survey.own:
            yield from _version(one.number, one.name, one.here, own)
            yield from _clock(one.number, one.name, one.skew)


def _places(survey: Survey) -> Iterator[Finding]:
    """Whether each node listens where its definition says."""
    for one in survey.health:
        missing = sorted(set(one.defined) - set(one.listens))
        if missing:
            wanted = " ".join(f"--address {each}" for each in one.addresses)
            yield Finding(
                "doctor.address",
                "error",
                one.number,
                f"{one.name} is defined at {', '.join(missing)} and does not listen there",
                f"correct its YAML, or: covey node modify {one.number} {wanted} --port {one.port}",
            )


def _machine(survey: Survey) -> Iterator[Finding]:
    for one in survey.health:
        yield from disk(one.number or None, one.name, one.free)
        for name, reason in sorted(one.crashed.items()):
            hint = "its log, and the records in `core/` of the cluster's folder, say more"
            yield Finding("doctor.crash", "warning", one.number, f"{name} on {one.name} ended unasked: {reason}", hint)
        for name, reason in one.plugins if one.state == "online" else ():
            hint = f"`covey plugin why {name}` there"
            yield Finding("doctor.plugin", "warning", one.number, f"the plugin {name} on {one.name}: {reason}", hint)


def disk(node: int | None, who: str, free: int) -> Iterator[Finding]:
    """Yield a finding when there is little room where a node's state folder lies; `free` in bytes."""
    if free < ROOM[1]:
        severity: Severity = "error" if free < ROOM[0] else "warning"
        hint = "make room: the registry stops writing when the disk is full"
        yield Finding("doctor.disk", severity, node, f"{who} has {free // 2**20} MiB free for its state folder", hint)


DOCTOR: tuple[Callable[[Survey], Iterator[Finding]], ...] = (
    _silent,
    _states,
    _cluster,
    _reached,
    _networks,
    _mtus,
    _versions,
    _places,
    _machine,
)


def doctor(survey: Survey) -> list[Finding]:
    """Return all there is to say of a cluster, errors first."""
    found = [finding for check in DOCTOR for finding in check(survey)]
    return sorted(found, key=lambda one: (one.severity, one.node or 0, one.code, one.message))
