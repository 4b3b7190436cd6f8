"""Questions that cannot be answered at once: a discovery for all, and fresh reads.

Knows no bus and no clock. Each question is answered exactly once: when the last thing it waits for is there, or when
its own time is over, with what is known by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ...bus.machine import Effect, Reply
from ...controllers.catalog import Catalog
from ...controllers.selection import selection
from ...errors import CoveyError
from .listing import ordered
from .messages import DiscoverAll, ReadLocal, SelectLocal
from .supervision import Supervision


class DiscoverWaiter(msgspec.Struct):
    """`attempts`: by controller, the attempt whose outcome is waited for; None: the first one since it came up."""

    request: int
    until: float
    cause: str
    attempts: dict[str, int] | None = None

    def done(self, supervision: Supervision) -> bool:
        """Whether this controller is waited for no longer."""
        if self.attempts is None:
            return supervision.outcome is not None
        return supervision.settled >= self.attempts.get(supervision.name, 0)


class ReadWaiter(msgspec.Struct):
    """A question for fresh values, and the paths of the resources that may still be waited for."""

    request: int
    until: float
    cause: str
    question: ReadLocal | SelectLocal
    left: list[str]

    def done(self, owner: Supervision | None) -> bool:
        """Whether everything was read. Looks only as far as the first that was not: there may be thousands."""
        while self.left and not (owner is not None and owner.poller.waiting(self.left[-1])):
            self.left.pop()
        return not self.left


class Waiters:
    """The questions that wait."""

    def __init__(self, node: int, controllers: Mapping[str, Supervision], catalog: Catalog) -> None:
        self._node = node
        self._controllers = controllers
        self._catalog = catalog
        self.discovers: list[DiscoverWaiter] = []
        self.reads: list[ReadWaiter] = []

    @property
    def deadline(self) -> float | None:
        """When `tick` must run next."""
        times = [waiter.until for waiter in self.discovers]
        return min(times + [waiter.until for waiter in self.reads], default=None)

    def owner(self, cls: str) -> Supervision | None:
        """Return the controller of this node that has a class."""
        return self._controllers.get(self._catalog.owner(cls))

    def discover(self, now: float, request: int, question: DiscoverAll, cause: str) -> None:
        """Wait for every controller's discovery; begin one first if `again`."""
        attempts = None
        if question.again and self._controllers:
            attempts = {name: found.refresh(now) for name, found in sorted(self._controllers.items())}
        self.discovers.append(DiscoverWaiter(request, now + question.wait, cause, attempts))

    def read(self, now: float, request: int, question: ReadLocal | SelectLocal, cause: str) -> None:
        """Begin to read the resources asked for, and wait for them."""
        owner = self.owner(question.cls)
        wanted = [path for path in paths(owner, question) if owner is not None and owner.poller.want(path)]
        self.reads.append(ReadWaiter(request, now + question.wait, cause, question, wanted))

    def tick(self, now: float, listed: bool) -> list[Effect]:
        """Answer what can be answered; `listed`: it is known which controllers there are."""
        effects: list[Effect] = []
        for discover in list(self.discovers):
            late = {name for name, found in self._controllers.items() if not discover.done(found)}
            if (listed and not late) or discover.until <= now:
                self.discovers.remove(discover)
                effects.append(Reply(discover.request, self._outcomes(late), discover.cause))
        for read in list(self.reads):
            owner = self.owner(read.question.cls)
            if read.done(owner) or read.until <= now:
                self.reads.remove(read)
                effects.append(Reply(read.request, answer(now, self._node, owner, read.question), read.cause))
        return effects

    def _outcomes(self, late: set[str]) -> list[dict[str, Any]]:
        return [
            {"name": name, "state": "late" if name in late else found.outcome, "reason": found.reason}
            for name, found in sorted(self._controllers.items())
        ]


def paths(owner: Supervision | None, question: ReadLocal | SelectLocal) -> list[str]:
    """Return the paths of the resources a question is about, in order."""
    if owner is None:
        return []
    return sorted(
        path
        for path, polled in owner.poller.resources.items()
        if polled.resource.cls == question.cls and (not question.ids or polled.resource.id in question.ids)
    )


def answer(now: float, node: int, owner: Supervision | None, question: ReadLocal | SelectLocal) -> Any:
    """Return the answer to a question from what was last read; a CoveyError when its expression makes no sense."""
    if isinstance(question, ReadLocal):
        return [_values(now, owner, path) for path in paths(owner, question)]
    if owner is None or question.cls not in owner.classes:
        return {"items": [], "reasons": []}
    try:
        chosen = selection(owner.classes[question.cls].description, question.select)
    except CoveyError as problem:
        return problem
    items = []
    reasons = set()
    for path in paths(owner, question):
        resource = owner.poller.resources[path].resource
        found = _values(now, owner, path)
        reasons.add(found["reason"])
        attributes = {**resource.key, **resource.attributes, **found["attributes"]}
        if chosen(attributes):
            row = {"class": resource.cls, "id": resource.id, "key": resource.key, "node": node}
            row |= {"attributes": attributes, "age_s": found["age_s"]}
            items.append(row | ({"reason": found["reason"]} if found["reason"] else {}))
    return {"items": ordered(items), "reasons": sorted(reasons - {""})}


def _values(now: float, owner: Supervision | None, path: str) -> dict[str, Any]:
    """Return `{id, attributes, age_s, reason}` of one resource, as last read."""
    assert owner is not None
    polled = owner.poller.resources[path]
    reason = polled.reason or (owner.reason if owner.state == "failed" else "")
    return {
        "id": polled.resource.id,
        "attributes": polled.values,
        "age_s": round(polled.age(now), 3),
        "reason": reason,
    }
