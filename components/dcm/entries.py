"""The registry transactions by which a node's definition comes and goes. Pure: definitions in, operations out.

A node has `/nodes/<number>` and one index key for each thing that must be unique: its name, its id, each of its
endpoints, its definition id. All are written and removed together, in one transaction, so of two requests for the same
number, name, id or address exactly one wins, whatever each had read before.

`/index/definition/<definition id>` is the decision over one define: it holds the node's number, or that it was aborted.
Whoever writes it first decides; a define that is aborted can therefore not be committed later (SPEC 6.1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, TypedDict
from urllib.parse import quote

import msgspec

from .definitions import NodeDefinition, plain

NODES = "/nodes/"
ABORTED = {"aborted": True}


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


def index_keys(node: NodeDefinition) -> list[str]:
    """Return the keys that make this node's name, id and endpoints unique."""
    return [
        f"/index/node-name/{_part(node.name)}",
        f"/index/node-id/{_part(node.id)}",
        *(f"/index/node-address/{_part(found)}" for found in node.endpoints()),
    ]


def entry_from(key: str, value: Any, mod_revision: int) -> NodeEntry | None:
    """Return a node's entry from what the registry holds at a key below /nodes/; None when it is no node."""
    if not key.removeprefix(NODES).isdigit() or not isinstance(value, dict):
        return None
    return NodeEntry(msgspec.convert(value, NodeDefinition, strict=False), mod_revision)


def define(node: NodeDefinition, erased: Iterable[NodeEntry] = ()) -> Transaction:
    """Return the transaction that writes a node, erasing older definitions of the same machine with it."""
    wanted = [node_key(node.number), *index_keys(node), decision_key(node.definition_id)]
    compare: list[dict[str, Any]] = []
    then: list[dict[str, Any]] = []
    freed: set[str] = set()
    for old in erased:
        key = node_key(old.definition.number)
        compare.append({"key": key, "mod_revision": old.mod_revision})
        # a node's index keys change only together with its entry, so comparing the entry is enough for them
        freed |= {key, *index_keys(old.definition)}
        then += _gone(decision_key(old.definition.definition_id))
    compare += [{"key": key, "mod_revision": 0} for key in wanted if key not in freed]
    then += [{"op": "delete", "key": key} for key in sorted(freed - set(wanted))]
    then.append({"op": "put", "key": wanted[0], "value": plain(node)})
    then += [{"op": "put", "key": key, "value": {"number": node.number}} for key in wanted[1:]]
    return {"compare": compare, "then": then}


def abort(definition_id: str) -> Transaction:
    """Return the transaction that decides against a define, if nothing is decided yet."""
    key = decision_key(definition_id)
    return {
        "compare": [{"key": key, "mod_revision": 0}],
        "then": [{"op": "put", "key": key, "value": ABORTED}],
    }


def undefine(entry: NodeEntry) -> Transaction:
    """Return the transaction that removes a node; its decision key stays and says that the definition is over."""
    node = entry.definition
    return {
        "compare": [{"key": node_key(node.number), "mod_revision": entry.mod_revision}],
        "then": [
            *({"op": "delete", "key": key} for key in (node_key(node.number), *index_keys(node))),
            *_gone(decision_key(node.definition_id)),
        ],
    }


def rename_id(entry: NodeEntry, new: str) -> Transaction:
    """Return the transaction that gives a node another id: compare-and-set on the entry, index and all (SPEC 5.4)."""
    old = entry.definition
    node = msgspec.structs.replace(old, id=new)
    before, after = set(index_keys(old)), set(index_keys(node))
    return {
        "compare": [
            {"key": node_key(old.number), "mod_revision": entry.mod_revision},
            *({"key": key, "mod_revision": 0} for key in sorted(after - before)),
        ],
        "then": [
            *({"op": "delete", "key": key} for key in sorted(before - after)),
            {"op": "put", "key": node_key(old.number), "value": plain(node)},
            *({"op": "put", "key": key, "value": {"number": old.number}} for key in sorted(after)),
        ],
    }


def _gone(key: str) -> list[dict[str, Any]]:
    return [{"op": "put", "key": key, "value": ABORTED}]


def _part(text: str) -> str:
    """Return text as one part of a key: a slash in it would be another level, and a key has a longest length."""
    part = quote(text, safe=":@[]")
    return part if len(part) <= 160 else "blake2b:" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
