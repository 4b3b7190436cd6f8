"""Classes and resources of the whole cluster, put together for one caller.

Persistent attributes come from the registry, dynamic ones from each node's own Resource Manager, all asked at once and
each with a deadline: a node that does not answer costs its dynamic attributes and a warning, never the list. Without a
quorum the registry's copy of this node is listed, and a warning says so. Resources of a node that is no longer defined
are left out of lists at once, and swept from the registry when a Resource Manager starts. Knows no controller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from ...bus.client import Client
from ...errors import CoveyError, NoQuorum, ResourceNotFound
from ..registry.client import NODES, read_all
from ..registry.messages import Consistency
from .listing import add_values, pick, stored_rows
from .messages import PREFIX, SERVICE, DescribeClass, ListClasses, ReadLocal
from .orders import Orders
from .settings import Settings

LONGEST_WAIT = 30.0
"""Seconds of one long poll."""


class Cluster:
    """Asks the registry and the nodes."""

    def __init__(self, bus: Client, node: int, orders: Orders, settings: Settings) -> None:
        self._bus = bus
        self._node = node
        self._orders = orders
        self._settings = settings

    async def classes(self) -> dict[str, Any]:
        """Return `{items: [{class, version, controller, nodes}], warnings}`."""
        found: dict[str, Any] = await self._orders.ask(ListClasses())
        return found

    async def describe(self, cls: str) -> dict[str, Any]:
        """Return a class's description with its `nodes`, from this node or from one that has it."""
        nodes = await self._nodes_of(cls)
        problem: CoveyError | None = None
        for node in sorted(nodes, key=lambda number: number != self._node):
            try:
                if node == self._node:
                    description = await self._orders.ask(DescribeClass(cls))
                else:
                    description = await self._bus.call(
                        SERVICE, "class", node=node, timeout=self._settings.peer_deadline, cls=cls, here=True
                    )
                return {**description, "nodes": nodes}
            except CoveyError as found:
                problem = found
        raise problem or ResourceNotFound(f"there is no class '{cls}'")

    async def ls(self, cls: str, of_node: int | None, fresh: bool, gone: bool) -> dict[str, Any]:
        """Return `{items: rows, warnings}` of a class."""
        items, warnings = await self._stored(cls)
        rows = stored_rows(items, of_node, gone)
        if not items:
            await self._nodes_of(cls)
        warnings += await self._add_dynamic(cls, rows, fresh, ())
        return {"items": rows, "warnings": warnings}

    async def show(self, cls: str, key: str, of_node: int | None, fresh: bool) -> dict[str, Any]:
        """Return the one row that `key` names, with `warnings`."""
        items, warnings = await self._stored(cls)
        if not items:
            await self._nodes_of(cls)
        row = pick(stored_rows(items, of_node, gone=True), cls, key)
        warnings += await self._add_dynamic(cls, [row], fresh, (row["id"],))
        return {**row, "warnings": warnings}

    async def watch(self, cls: str, from_revision: int | None, wait: float) -> dict[str, Any]:
        """Return one batch of changes of a class's resources, or of all; raises Compacted."""
        if from_revision is None:
            now = await self._bus.call("registry", "watch", prefix=PREFIX, from_revision=0)
            from_revision = now["to"] + 1
        wait = min(max(wait, 0.0), LONGEST_WAIT)
        prefix = f"{PREFIX}{cls}/" if cls else PREFIX
        batch = await self._bus.call(
            "registry", "watch", timeout=wait + 5.0, prefix=prefix, from_revision=from_revision, wait=wait
        )
        return {"from": batch["from"], "to": batch["to"], "events": [_event(event) for event in batch["events"]]}

    async def sweep(self) -> int:
        """Delete what the registry holds of nodes that are no longer defined; return how many resources that were.

        Resources are read before nodes, so a node that is defined meanwhile is never taken for an undefined one; of
        several sweepers one wins, and nothing is deleted that changed since it was read.
        """
        listed = await read_all(self._bus, PREFIX)
        stale = _of_undefined(listed, await read_all(self._bus, NODES))
        if stale:
            compare = [{"key": item["key"], "mod_revision": item["mod_revision"]} for item in stale]
            then = [{"op": "delete", "key": item["key"]} for item in stale]
            await self._bus.call("registry", "txn", compare=compare, then=then)
        return len(stale)

    # --- inside ---------------------------------------------------------------------------------------------

    async def _stored(self, cls: str) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the stored resources of a class on defined nodes, and a warning if they may be old."""
        prefix = f"{PREFIX}{cls}/"
        warnings = []
        try:
            listed, nodes = await self._read("linear", prefix, NODES)
        except NoQuorum as problem:
            listed, nodes = await self._read("stale", prefix, NODES)
            warnings.append(f"the list may be old: {problem.message}")
        stale = {item["key"] for item in _of_undefined(listed, nodes)}
        return [item for item in listed if item["key"] not in stale], warnings

    async def _read(self, consistency: Consistency, *prefixes: str) -> list[list[dict[str, Any]]]:
        return await asyncio.gather(*(read_all(self._bus, prefix, consistency) for prefix in prefixes))

    async def _add_dynamic(self, cls: str, rows: list[dict[str, Any]], fresh: bool, ids: tuple[str, ...]) -> list[str]:
        """Put the dynamic attributes into the rows; return a warning for each node that gave none."""
        nodes = sorted({row["node"] for row in rows if not row.get("gone")})
        answers = await asyncio.gather(*(self._values(node, cls, fresh, ids) for node in nodes))
        warnings = []
        for node, answer in zip(nodes, answers, strict=True):
            if isinstance(answer, CoveyError):
                warnings.append(f"node {node}: persistent attributes only: {answer.message}")
            else:
                add_values(rows, node, answer)
                warnings += [f"node {node}: {reason}" for reason in _reasons(answer)]
        return warnings

    async def _values(
        self, node: int, cls: str, fresh: bool, ids: tuple[str, ...]
    ) -> list[dict[str, Any]] | CoveyError:
        wait = self._settings.read_deadline if fresh else 0.0
        try:
            answer: list[dict[str, Any]]
            if node == self._node:
                answer = await self._orders.ask(ReadLocal(cls, ids, fresh, wait))
            else:
                answer = await self._bus.call(
                    SERVICE,
                    "read_local",
                    node=node,
                    timeout=wait + self._settings.peer_deadline,
                    cls=cls,
                    ids=ids,
                    fresh=fresh,
                    wait=wait,
                )
            return answer
        except CoveyError as problem:
            return problem

    async def _nodes_of(self, cls: str) -> list[int]:
        """Return the nodes that have a class; raises ResourceNotFound when none has."""
        items = (await self.classes())["items"]
        nodes = sorted({node for item in items if item["class"] == cls for node in item["nodes"]})
        if not nodes:
            known = sorted({item["class"] for item in items})
            near = get_close_matches(cls, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known) or 'none yet'}"
            raise ResourceNotFound(f"no node has a class '{cls}'", hint)
        return nodes


def _of_undefined(items: Iterable[dict[str, Any]], nodes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the stored resources whose node is not among the defined ones."""
    defined = {node["key"].removeprefix(NODES) for node in nodes}
    return [item for item in items if isinstance(item["value"], dict) and str(item["value"].get("node")) not in defined]


def _reasons(answer: Iterable[dict[str, Any]]) -> list[str]:
    return sorted({row["reason"] for row in answer if row.get("reason")})


def _event(event: dict[str, Any]) -> dict[str, Any]:
    """Turn a change of the registry into one of a resource."""
    value = event.get("value")
    cls, _, identity = event["key"].removeprefix(PREFIX).partition("/")
    if event["type"] == "delete" or not isinstance(value, dict):
        node = identity.partition("-")[0]
        number = int(node) if node.isdigit() else 0
        found = {"type": "deleted", "class": cls, "id": identity, "key": {}, "node": number, "attributes": {}}
    else:
        found = {
            "type": "gone" if value.get("gone") else "changed",
            "class": cls,
            "id": identity,
            "key": value["key"],
            "node": value["node"],
            "attributes": value["attributes"],
        }
    return {**found, "revision": event.get("revision")}
