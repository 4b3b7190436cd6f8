"""The registry transactions by which a node's definition comes and goes. Pure: definitions in, operations out.

A node has `/nodes/<number>`, `/addresses/<address>` for each of its addresses, and one index key for each other thing
that must be unique: its name, its id, its public key, its definition id. All are written and removed together, in one
transaction, so of two requests for the same number, name, id or address exactly one wins, whatever each had read
before.

`/index/definition/<definition id>` is the decision over one define: first that it was begun, for the node with which
key; then the node's number; at the end that it was undefined, which is the proof on which that node erases its own data
(SPEC 5.7). What was begun and came to nothing is removed again: a define is written only at the revision at which it
was begun, so one that was removed cannot be written later (SPEC 6.1). Nobody but a member begins one, so questions from
outside change nothing of what was never begun.

`/index/token/<token id>` holds which definition a join token was used for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Literal, TypedDict
from urllib.parse import quote

import msgspec

from .definitions import NodeDefinition, plain

NODES = "/nodes/"
ADDRESSES = "/addresses/"
Standing = Literal["unknown", "begun", "defined", "gone"]


class Transaction(TypedDict):
    """The arguments of `registry.txn`."""

    compare: list[dict[str, Any]]
    then: list[dict[str, Any]]


class NodeEntry(msgspec.Struct, frozen=True):
    """A node's definition as it was read, with the revision that a change of it must compare."""

    definition: NodeDefinition
    mod_revision: int


def node_key(number: int) -> str:
    return f"{NODES}{number}"


def decision_key(definition_id: str) -> str:
    return f"/index/definition/{definition_id}"


def token_key(token: str) -> str:
    return f"/index/token/{token}"


def standing(decision: Any) -> Standing:
    """Return what a decision key's value (None: there is none) says of its definition."""
    if not isinstance(decision, dict):
        return "unknown"
    if decision.get("undefined"):
        return "gone"
    return "begun" if decision.get("begun") else "defined"


def index_keys(node: NodeDefinition) -> list[str]:
    """Return the keys that make this node's name, id, public key and addresses unique."""
    return list(index(node))


def index(node: NodeDefinition) -> dict[str, dict[str, Any]]:
    """Return the keys that make this node's name, id, public key and addresses unique, with their values."""
    names = [
        f"/index/node-name/{_part(node.name)}",
        f"/index/node-id/{_part(node.id)}",
        *([f"/index/node-key/{_part(node.key)}"] if node.key else []),
    ]
    return {**{key: {"number": node.number} for key in names}, **address_objects(node)}


def address_objects(node: NodeDefinition) -> dict[str, dict[str, Any]]:
    """Return the node address objects of SPEC 8.1: an address is unique, so it is its own id."""
    hosts = zip(node.hosts(), node.addresses, strict=True)
    return {f"{ADDRESSES}{host}": {"id": host, "address": address, "node": node.number} for host, address in hosts}


def entry_from(key: str, value: Any, mod_revision: int) -> NodeEntry | None:
    """Return a node's entry from what the registry holds at a key below /nodes/; None when it is no node."""
    if not key.removeprefix(NODES).isdigit() or not isinstance(value, dict):
        return None
    return NodeEntry(msgspec.convert(value, NodeDefinition, strict=False), mod_revision)


def begin(definition_id: str, key: str) -> Transaction:
    """Return the transaction that begins a define of the node with this public key (empty: mode open)."""
    decision = decision_key(definition_id)
    return {
        "compare": [{"key": decision, "mod_revision": 0}],
        "then": [{"op": "put", "key": decision, "value": {"begun": True, "key": key}}],
    }


def drop(definition_id: str, begun: int) -> Transaction:
    """Return the transaction that ends a define before it is written; `begun` is its decision key's revision."""
    decision = decision_key(definition_id)
    return {
        "compare": [{"key": decision, "mod_revision": begun}],
        "then": [{"op": "delete", "key": decision}],
    }


def define(node: NodeDefinition, erased: Iterable[NodeEntry] = (), begun: int = 0, token: str = "") -> Transaction:
    """Return the transaction that writes a node, erasing older definitions of the same machine with it.

    `begun` is the revision at which the define was begun, `token` the id of the join token that it uses up.
    """
    decision = decision_key(node.definition_id)
    wanted = [node_key(node.number), *index_keys(node)]
    compare: list[dict[str, Any]] = [{"key": decision, "mod_revision": begun}]
    then: list[dict[str, Any]] = []
    freed: set[str] = set()
    for old in erased:
        key = node_key(old.definition.number)
        compare.append({"key": key, "mod_revision": old.mod_revision})
        # a node's index keys change only together with its entry, so comparing the entry is enough for them
        freed |= {key, *index_keys(old.definition)}
        then.append(_tombstone(old.definition))
    compare += [{"key": key, "mod_revision": 0} for key in wanted if key not in freed]
    then += [{"op": "delete", "key": key} for key in sorted(freed - set(wanted))]
    then.append({"op": "put", "key": wanted[0], "value": plain(node)})
    then += [{"op": "put", "key": key, "value": value} for key, value in index(node).items()]
    then.append({"op": "put", "key": decision, "value": {"number": node.number}})
    if token:
        compare.append({"key": token_key(token), "mod_revision": 0})
        then.append({"op": "put", "key": token_key(token), "value": {"definition_id": node.definition_id}})
    return {"compare": compare, "then": then}


def undefine(entry: NodeEntry, token: str = "") -> Transaction:
    """Return the transaction that removes a node; its decision key stays and proves that the definition is over.

    `token`: the define is undone, and this token of it was not used after all.
    """
    node = entry.definition
    gone = [node_key(node.number), *index_keys(node), *([token_key(token)] if token else [])]
    return {
        "compare": [{"key": node_key(node.number), "mod_revision": entry.mod_revision}],
        "then": [*({"op": "delete", "key": key} for key in gone), _tombstone(node)],
    }


def modify(entry: NodeEntry, **changes: Any) -> Transaction:
    """Return the transaction that changes a node's definition: compare-and-set on the entry, index and all."""
    old = entry.definition
    node = msgspec.structs.replace(old, **changes)
    before, after = set(index_keys(old)), set(index_keys(node))
    return {
        "compare": [
            {"key": node_key(old.number), "mod_revision": entry.mod_revision},
            *({"key": key, "mod_revision": 0} for key in sorted(after - before)),
        ],
        "then": [
            *({"op": "delete", "key": key} for key in sorted(before - after)),
            {"op": "put", "key": node_key(old.number), "value": plain(node)},
            *({"op": "put", "key": key, "value": value} for key, value in sorted(index(node).items())),
        ],
    }


def _tombstone(node: NodeDefinition) -> dict[str, Any]:
    value = {"undefined": True, "number": node.number, "key": node.key}
    return {"op": "put", "key": decision_key(node.definition_id), "value": value}


def _part(text: str) -> str:
    """Return text as one part of a key: a slash in it would be another level, and a key has a longest length."""
    part = quote(text, safe=":@[]")
    return part if len(part) <= 160 else "blake2b:" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
