"""Classes and resources of the whole cluster, put together for one caller.

Persistent attributes come from the registry, dynamic ones from each node's own Resource Manager, all asked at once and
each with a deadline: a node that does not answer costs its dynamic attributes and a warning, never the list. With a
selection each node is asked for its own resources that match, and answers with those alone; the registry's copy stands
in for a node that does not answer. A change is handed to the node that has the resource. Without a
quorum the registry's copy of this node is listed, and a warning says so. Resources of a node that is no longer defined
are left out of lists at once, and swept from the registry when a Resource Manager starts. Knows no controller.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from ...bus.client import Client
from ...config.predicate import Predicate
from ...controllers.classes import from_wire
from ...controllers.selection import selection
from ...errors import BadExpression, CoveyError, NoQuorum, ResourceNotFound
from ..registry.client import NODES, read_all
from ..registry.messages import Consistency
from .listing import add_values, ordered, pick, stored_rows
from .messages import PREFIX, SERVICE, DescribeClass, ListClasses, ReadLocal, SelectLocal
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
        """Return `{items: [{class, version, controller, nodes}], warnings, told: nodes that have said theirs}`."""
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

    async def select(self, cls: str, select: str, of_node: int | None, fresh: bool) -> dict[str, Any]:
        """Return `{items: rows, warnings}` of those resources for which an expression holds.

        Raises BadExpression for one that makes no sense over the class as this node (or one that has it) knows it.
        """
        described = await self.describe(cls)
        chosen = selection(from_wire(described), select)
        (listed,), warnings = await self._current(NODES)
        defined = sorted(int(node["key"].removeprefix(NODES)) for node in listed)
        without = set((await self.classes())["told"]) - set(described["nodes"])
        asked = [node for node in defined if node not in without and of_node in (None, node)]
        answers = await asyncio.gather(*(self._selected(node, cls, select, fresh) for node in asked))
        rows: list[dict[str, Any]] = []
        silent = {node for node in defined if node not in asked and of_node in (None, node)}
        for node, found in zip(asked, answers, strict=True):
            if isinstance(found, BadExpression):
                warnings.append(f"node {node} is left out, its {cls} is another one: {_first_line(found)}")
            elif isinstance(found, ResourceNotFound):
                silent.add(node)
            elif isinstance(found, CoveyError):
                warnings.append(f"node {node}: persistent attributes only: {found.message}")
                silent.add(node)
            else:
                rows += found["items"]
                warnings += [f"node {node}: {reason}" for reason in found["reasons"]]
        if silent:
            rows += await self._judged(cls, chosen, silent, warnings)
        return {"items": ordered(rows), "warnings": warnings}

    async def show(self, cls: str, key: str, of_node: int | None, fresh: bool) -> dict[str, Any]:
        """Return the one row that `key` names, with `warnings`."""
        items, warnings = await self._stored(cls)
        if not items:
            await self._nodes_of(cls)
        row = pick(stored_rows(items, of_node, gone=True), cls, key)
        warnings += await self._add_dynamic(cls, [row], fresh, (row["id"],))
        return {**row, "warnings": warnings}

    async def owner(self, cls: str, key: str, of_node: int | None) -> dict[str, Any]:
        """Return the row, without dynamic attributes, of the one resource that `key` names and that is there.

        Raises NoQuorum where only an old copy could tell: nothing is changed on such ground.
        """
        items = _of_defined(*await self._read("linear", f"{PREFIX}{cls}/", NODES))
        if not items:
            await self._nodes_of(cls)
        row = pick(stored_rows(items, of_node, gone=True), cls, key)
        if row.get("gone"):
            raise ResourceNotFound(f"{cls} '{key}' is gone since {row.get('since')}", "nothing was done")
        return row

    async def watch(self, cls: str, from_revision: int | None, wait: float, select: str = "") -> dict[str, Any]:
        """Return one batch of changes of a class's resources, or of all; raises Compacted, and BadExpression."""
        chosen = selection(from_wire(await self.describe(cls)), select) if select else None
        if from_revision is None:
            now = await self._bus.call("registry", "watch", prefix=PREFIX, from_revision=0)
            from_revision = now["to"] + 1
        wait = min(max(wait, 0.0), LONGEST_WAIT)
        prefix = f"{PREFIX}{cls}/" if cls else PREFIX
        batch = await self._bus.call(
            "registry", "watch", timeout=wait + 5.0, prefix=prefix, from_revision=from_revision, wait=wait
        )
        events = [_event(event) for event in batch["events"]]
        if chosen is not None:
            events = [event for event in events if chosen({**event["key"], **event["attributes"]})]
        return {"from": batch["from"], "to": batch["to"], "events": events}

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

    async def _judged(self, cls: str, chosen: Predicate, nodes: set[int], warnings: list[str]) -> list[dict[str, Any]]:
        """Return the rows of nodes that cannot be asked, by what the registry has of them."""
        items, _ = await self._stored(cls)
        rows = [row for row in stored_rows(items) if row["node"] in nodes]
        verdicts = [chosen(row["attributes"]) for row in rows]
        for node in sorted({row["node"] for row, verdict in zip(rows, verdicts, strict=True) if verdict is None}):
            warnings.append(
                f"node {node}: some of its resources may match too: their changing attributes are not known"
            )
        return [row for row, verdict in zip(rows, verdicts, strict=True) if verdict]

    async def _selected(self, node: int, cls: str, select: str, fresh: bool) -> dict[str, Any] | CoveyError:
        wait = self._settings.read_deadline if fresh else 0.0
        try:
            found: dict[str, Any]
            if node == self._node:
                found = await self._orders.ask(SelectLocal(cls, select, fresh, wait))
            else:
                timeout = wait + self._settings.peer_deadline
                found = await self._bus.call(
                    SERVICE, "select_local", node=node, timeout=timeout, cls=cls, select=select, fresh=fresh, wait=wait
                )
            return found
        except CoveyError as problem:
            return problem

    async def _stored(self, cls: str) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the stored resources of a class on defined nodes, and a warning if they may be old."""
        (listed, nodes), warnings = await self._current(f"{PREFIX}{cls}/", NODES)
        return _of_defined(listed, nodes), warnings

    async def _current(self, *prefixes: str) -> tuple[list[list[dict[str, Any]]], list[str]]:
        """Return what is stored below prefixes, and a warning if it may be old."""
        try:
            return await self._read("linear", *prefixes), []
        except NoQuorum as problem:
            return await self._read("stale", *prefixes), [f"the list may be old: {problem.message}"]

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


def _of_defined(items: Iterable[dict[str, Any]], nodes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the stored resources without those whose node is not among the defined ones."""
    items = list(items)
    stale = {item["key"] for item in _of_undefined(items, nodes)}
    return [item for item in items if item["key"] not in stale]


def _of_undefined(items: Iterable[dict[str, Any]], nodes: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the stored resources whose node is not among the defined ones."""
    defined = {node["key"].removeprefix(NODES) for node in nodes}
    return [item for item in items if isinstance(item["value"], dict) and str(item["value"].get("node")) not in defined]


def _first_line(problem: CoveyError) -> str:
    return problem.message.partition("\n")[0]


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
