"""Step d7 of a define: what the new node says of itself against what the registry holds (SPEC 6.1). Pure."""

from __future__ import annotations

import msgspec

from ...errors import AlreadyDefined, IdentityClone, IdentityConflict, Refused, TokenRefused
from .checks import Finding, refuse
from .definitions import NodeDefinition, ServerList, check_name
from .entries import NodeEntry
from .messages import Prepared
from .token import Token


class Request(msgspec.Struct, frozen=True):
    """What was asked for (d1): the new node's endpoint, what it shall be or, for the id, must be, and its token."""

    address: str
    number: int | None = None
    name: str | None = None
    id: str | None = None
    token: Token | None = None


class Looked(msgspec.Struct, frozen=True):
    """What the registry holds now (d6): all nodes, who is online, the servers; and what was found of the new node.

    `used`: the token was used in this cluster before. `begun`: this define may still be written.
    """

    nodes: tuple[NodeEntry, ...]
    online: frozenset[int]
    servers: ServerList
    used: bool = False
    begun: bool = True
    findings: tuple[Finding, ...] = ()


class Decision(msgspec.Struct, frozen=True):
    """What to write: the new definition, and the old ones of the same machine that go with it."""

    node: NodeDefinition
    erase: tuple[NodeEntry, ...] = ()
    written: bool = False
    findings: tuple[Finding, ...] = ()


def decide(request: Request, prepared: Prepared, looked: Looked, definition_id: str) -> Decision:
    """Compare what the new node says with what the registry holds (d7). Pure; raises why it must not be."""
    if request.id is not None and request.id != prepared.id:
        raise IdentityConflict(
            f"the node at {request.address} has the id {prepared.id!r}, not {request.id!r}",
            "another machine answers at that address, or the id was mistyped",
        )
    found = [entry for entry in looked.nodes if entry.definition.id == prepared.id]
    for entry in found:
        old = entry.definition
        if old.definition_id == definition_id:
            return Decision(old, written=True, findings=looked.findings)
        if prepared.local == old or (prepared.local and prepared.local.definition_id == old.definition_id):
            raise AlreadyDefined(f"the node at {request.address} is defined already, as {old.name} ({old.number})")
        if old.number in looked.online:
            raise IdentityClone(
                f"the id {prepared.id!r} of the node at {request.address} is that of {old.name} ({old.number}), "
                f"which is online at {', '.join(old.endpoints())}",
                "give one of the two machines an identity of its own: `node: {identity: generated}`",
            )
        if old.number in looked.servers.all:
            raise Refused(
                f"the id {prepared.id!r} is that of {old.name} ({old.number}), a registry server",
                f"take it off the server list with `covey registry undefine-server {old.number}` first",
            )
    others = [entry.definition for entry in looked.nodes if entry not in found]
    _trust(request, prepared, looked, others)
    number = _number(request, others)
    node = NodeDefinition(
        number=number,
        name=_name(request, prepared, number, {other.name for other in others}),
        id=prepared.id,
        definition_id=definition_id,
        addresses=prepared.addresses,
        port=prepared.port,
        key=prepared.key,
    )
    taken = {host: other for other in others for host in other.hosts()}
    for host in node.hosts():
        if host in taken:
            raise AlreadyDefined(f"the address {host} is that of {taken[host].name} ({taken[host].number})")
    refuse(request.address, looked.findings)
    replaced = [
        Finding(
            "doctor.redefined",
            "warning",
            None,
            f"the older definition of this machine, {entry.definition.name} ({entry.definition.number}), was erased",
            "it was offline; if it is another machine with the same id, give that one an identity of its own",
        )
        for entry in found
    ]
    return Decision(node, tuple(found), findings=(*looked.findings, *replaced))


def _trust(request: Request, prepared: Prepared, looked: Looked, others: list[NodeDefinition]) -> None:
    if not looked.begun:
        raise Refused("the new node asked how this define ends before it was written, and gave it up", "ask again")
    token = request.token
    if token is not None and token.key != prepared.key:
        raise TokenRefused(f"the node at {request.address} has another key than the join token names")
    if looked.used:
        raise TokenRefused(
            "a node was defined to this cluster with that join token already", "make another: `covey node prepare`"
        )
    for other in others:
        if prepared.key and other.key == prepared.key:
            raise IdentityClone(
                f"the key of the node at {request.address} is that of {other.name} ({other.number}): one of the two "
                "machines is a copy of the other",
                "give it a key of its own (remove the copy, then `covey node init`), or undefine the other first",
            )


def _number(request: Request, others: list[NodeDefinition]) -> int:
    taken = {other.number: other.name for other in others}
    if request.number is None:
        return next(number for number in range(1, len(taken) + 2) if number not in taken)
    if not 1 <= request.number <= 1_000_000:
        raise Refused(f"{request.number} is no node number", "use a number from 1 to 1000000")
    if request.number in taken:
        raise AlreadyDefined(f"the number {request.number} is that of {taken[request.number]}")
    return request.number


def _name(request: Request, prepared: Prepared, number: int, taken: set[str]) -> str:
    if request.name is not None:
        if check_name(request.name) in taken:
            raise AlreadyDefined(f"there is a node named {request.name} already")
        return request.name
    wanted = prepared.name or f"n{number}"
    return wanted if wanted not in taken else f"{wanted}-{number}"
