"""What a member says to those who ask how a definition stands, from a current read of the registry (SPEC 5.7, 6.1).

Two questions come from nodes that the cluster does not trust, or not yet, or no more: how a define ended (`resolve`),
and whether a definition is over (`verdict`). Each is answered only to the holder of the key that the registry has for
it; the key is the one that the asker's connection proved. A question about a define that nobody here began changes
nothing.
"""

from __future__ import annotations

from ...errors import Busy, Denied
from . import entries
from .home import Home
from .lookup import Verdict, read_global, read_value
from .messages import Resolve, Resolved
from .settings import WRITE_TIME

ROUNDS = 5


class Judge:
    """Answers for the cluster. `by` is the key that the asker's connection proved, empty in mode open."""

    def __init__(self, home: Home) -> None:
        self._home = home

    async def resolve(self, message: Resolve, by: str) -> Resolved:
        """Say how a define ended; what was begun and not written is dropped, for good."""
        bus, key = self._home.bus, entries.decision_key(message.definition_id)
        for _ in range(ROUNDS):
            value, revision = await read_value(bus, key, message.cluster_id)
            standing = entries.standing(value)
            if standing in ("unknown", "gone"):
                return Resolved(message.transaction, None)
            if standing == "begun":
                _must_be(by, value.get("key", ""))
                wanted = entries.drop(message.definition_id, revision)
                if (await bus.call("registry", "txn", **wanted, timeout=WRITE_TIME))["succeeded"]:
                    return Resolved(message.transaction, None)
                continue
            found = await read_global(bus, message.cluster_id)
            entry = next((e for e in found.entries if e.definition.definition_id == message.definition_id), None)
            if entry is not None:
                _must_be(by, entry.definition.key)
                return Resolved(message.transaction, found.replica_for(entry.definition))
        raise Busy("the cluster's nodes change too fast to tell", "ask again")

    async def verdict(self, cluster_id: str, definition_id: str, by: str) -> Verdict:
        """Say whether a definition is over. Changes nothing."""
        bus = self._home.bus
        value, revision = await read_value(bus, entries.decision_key(definition_id), cluster_id)
        standing, key = entries.standing(value), ""
        if standing in ("gone", "begun"):
            key = str(value.get("key", ""))
        elif standing == "defined":
            node, revision = await read_value(bus, entries.node_key(int(value["number"])), cluster_id)
            if not isinstance(node, dict) or node.get("definition_id") != definition_id:
                raise Busy("the definition changes just now", "ask again")
            key = str(node.get("key", ""))
        else:
            return Verdict(standing, definition_id)
        _must_be(by, key)
        return Verdict(standing, definition_id, key, revision)


def _must_be(by: str, key: str) -> None:
    if by != key:
        raise Denied("that is told only to the node that it concerns")
