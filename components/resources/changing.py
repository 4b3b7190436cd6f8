"""What callers change: attributes to set, resources to define and remove, actions to run. One life for each.

Knows no bus and no clock. A change waits for the one before it of the same resource, asks the controller, and where
persistent attributes or the resource itself changed it is over when the registry has them. What can be checked against
the class is checked before the controller hears of it, and what the controller answers is checked again. Every change
is answered exactly once; an answer that comes after its deadline changes what is known, and nobody is told twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from ...bus.machine import Address, Effect, ImpossibleTransition, Reply, Send
from ...controllers.classes import ClassDescription, resource_id, resource_path
from ...controllers.conformance import (
    check_result,
    checked_arguments,
    checked_changes,
    checked_definition,
    no_action,
)
from ...errors import CoveyError, PluginError, ResourceExists, ResourceNotFound, Timeout, from_wire
from .checked import checked_answer
from .listing import key_text
from .messages import CallFailed, Change, Changed, ChangeOne
from .settings import Settings
from .stored import Resource
from .supervision import Supervision

State = Literal["waiting", "calling", "writing", "over"]

TRANSITIONS: dict[tuple[State, str], State] = {
    ("waiting", "begun"): "calling",
    ("waiting", "refused"): "over",
    ("calling", "answered"): "writing",
    ("calling", "ran"): "over",
    ("calling", "refused"): "over",
    ("calling", "late"): "over",
    ("writing", "written"): "over",
    ("writing", "late"): "over",
}


class Ongoing(msgspec.Struct):
    """One change. `until` is when its present state is given up, `order` the id of the order to the controller."""

    request: int
    cause: str
    question: ChangeOne
    path: str
    key: dict[str, Any]
    order: str
    until: float
    state: State = "waiting"
    values: dict[str, Any] = {}
    warnings: tuple[str, ...] = ()

    def become(self, event: str) -> None:
        """Go on to the next state."""
        after = TRANSITIONS.get((self.state, event))
        if after is None:
            raise ImpossibleTransition(f"{self.question.what} of {self.path}: '{event}' while {self.state}")
        self.state = after


class Changes:
    """The changes that are under way on this node, in the order in which they were asked for."""

    def __init__(self, node: int, settings: Settings, next_id: Callable[[], str]) -> None:
        self._node = node
        self._settings = settings
        self._next_id = next_id
        self.ongoing: list[Ongoing] = []
        self._late: dict[str, Ongoing] = {}

    @property
    def deadline(self) -> float | None:
        """When `tick` must run next."""
        return min((change.until for change in self.ongoing if change.state != "waiting"), default=None)

    def ask(self, request: int, question: ChangeOne, cause: str, owner: Supervision | None) -> None:
        """Take a change that was asked for; raises the CoveyError that refuses it at once."""
        description = _description(question.cls, owner)
        if question.what == "define":
            key, values = checked_definition(description, question.values, question.as_text)
            path = resource_path(question.cls, resource_id(self._node, key))
        else:
            path, key, values = resource_path(question.cls, question.id), {}, {}
        self.ongoing.append(Ongoing(request, cause, question, path, key, self._next_id(), 0.0, values=values))

    def answered(self, now: float, supervision: Supervision, message: Changed | CallFailed) -> list[Effect] | None:
        """Take a controller's answer to a change; None when it is not one."""
        change = next((one for one in self.ongoing if one.order == message.id and one.state == "calling"), None)
        late = self._late.pop(message.id, None)
        if change is None and late is None:
            return None
        if isinstance(message, CallFailed):
            return [] if change is None else self._refuse(change, from_wire(message.code, message.reason, message.hint))
        done = change or late
        assert done is not None
        known = supervision.classes.get(done.question.cls)
        if known is None:
            problem = PluginError(
                f"the controller no longer has a class {done.question.cls}", "it was done all the same"
            )
            return [] if change is None else self._refuse(change, problem)
        if done.question.what == "run":
            return self._ran(now, done, supervision, message) if change is not None else []
        self._take_over(now, done, supervision, known.description, message)
        if change is not None:
            change.become("answered")
            change.until = now + self._settings.write_deadline
        return []

    def tick(
        self, now: float, owner: Callable[[str], Supervision | None], writing: Callable[[str], bool]
    ) -> list[Effect]:
        """Begin what need not wait any more, end what is written or late. `writing`: of that controller, by name."""
        effects: list[Effect] = []
        busy: set[str] = set()
        for change in list(self.ongoing):
            supervision = owner(change.question.cls)
            if change.state == "waiting" and change.path not in busy:
                effects += self._begin(now, change, supervision)
            elif change.state == "writing" and (supervision is None or not writing(supervision.name)):
                change.become("written")
                effects += self._end(change, self._row(now, change, supervision))
            elif change.state in ("calling", "writing") and change.until <= now:
                effects += self._give_up(change)
            if change.state != "over":
                busy.add(change.path)
        return effects

    # --- inside -------------------------------------------------------------------------------------------------

    def _begin(self, now: float, change: Ongoing, supervision: Supervision | None) -> list[Effect]:
        try:
            description = _description(change.question.cls, supervision)
            assert supervision is not None
            order = self._order(change, description, supervision)
        except CoveyError as problem:
            return self._refuse(change, problem)
        change.become("begun")
        change.until = now + order.deadline + self._settings.change_margin
        return [Send(Address(f"controller.{supervision.name}"), order, change.cause)]

    def _order(self, change: Ongoing, description: ClassDescription, supervision: Supervision) -> Change:
        """Check what is asked for against what is there now; raises CoveyError."""
        question = change.question
        polled = supervision.poller.resources.get(change.path)
        deadline = self._settings.change_deadline
        if question.what == "define":
            if polled is not None:
                raise ResourceExists(f"{question.cls} '{key_text(change.key)}' is there already", "nothing was defined")
            arguments = {"cls": question.cls, "key": change.key, "values": change.values}
            return Change(change.order, "define", deadline, arguments)
        if polled is None:
            raise ResourceNotFound(f"there is no {question.cls} with the id {question.id} (any more)")
        change.key = polled.resource.key
        arguments = {"cls": question.cls, "key": change.key}
        match question.what:
            case "undefine":
                return Change(change.order, "undefine", deadline, arguments)
            case "set":
                change.values = checked_changes(description, question.values, question.as_text)
                return Change(change.order, "set", deadline, {**arguments, "values": change.values})
            case _:
                action = description.action(question.action)
                if action is None:
                    raise no_action(description, question.action)
                given = checked_arguments(description, action, question.values, question.as_text)
                arguments |= {"name": action.name, "arguments": given}
                return Change(change.order, "action", action.deadline, arguments)

    def _take_over(
        self, now: float, change: Ongoing, supervision: Supervision, description: ClassDescription, message: Changed
    ) -> None:
        """Make what is known what the controller says; the writer then brings it into the registry."""
        if change.question.what == "undefine":
            supervision.amend(now, change.path, None, {}, message.at)
            return
        persistent, dynamic, complaints = checked_answer(
            description, message.attributes, message.findings, change.values
        )
        change.warnings = complaints
        polled = supervision.poller.resources.get(change.path)
        before: Mapping[str, Any] = polled.resource.attributes if polled is not None else {}
        identity = change.path.rpartition("/")[2]
        resource = Resource(change.question.cls, identity, change.key, {**before, **persistent}, description.version)
        supervision.amend(now, change.path, resource, dynamic, message.at)

    def _ran(self, now: float, change: Ongoing, supervision: Supervision, message: Changed) -> list[Effect]:
        description = supervision.classes[change.question.cls].description
        action = description.action(change.question.action)
        result: dict[str, Any] = {}
        warnings = [str(found.get("message", found)) for found in message.findings if isinstance(found, Mapping)]
        if action is not None:
            named = {found.get("attribute") for found in message.findings if isinstance(found, Mapping)}
            result, misfits = check_result(description, action, message.result)
            warnings += [misfit.message for misfit in misfits if misfit.attribute not in named]
            supervision.affected(now, change.path, action.effects)
        change.become("ran")
        change.warnings = tuple(warnings)
        return self._end(change, {**self._place(change), "action": change.question.action, "result": result})

    def _place(self, change: Ongoing) -> dict[str, Any]:
        identity = change.path.rpartition("/")[2]
        return {"class": change.question.cls, "id": identity, "key": change.key, "node": self._node}

    def _row(self, now: float, change: Ongoing, supervision: Supervision | None) -> dict[str, Any]:
        polled = supervision.poller.resources.get(change.path) if supervision is not None else None
        row = {**self._place(change), "attributes": dict(change.key), "age_s": None}
        if polled is not None:
            row["attributes"] |= polled.resource.attributes | polled.values
            row["age_s"] = round(polled.age(now), 3)
        return row

    def _give_up(self, change: Ongoing) -> list[Effect]:
        place = f"{change.question.what} of {change.question.cls} '{key_text(change.key)}'"
        if change.state == "calling":
            self._late[change.order] = change
            while len(self._late) > self._settings.late_changes:
                self._late.pop(next(iter(self._late)))
            problem = Timeout(f"{place}: the controller does not answer", "it may still happen")
        else:
            problem = Timeout(f"{place}: done on node {self._node}, and not in the registry yet", "it is tried on")
        change.become("late")
        return self._end(change, problem)

    def _refuse(self, change: Ongoing, problem: CoveyError) -> list[Effect]:
        change.become("refused")
        return self._end(change, problem)

    def _end(self, change: Ongoing, result: Any) -> list[Effect]:
        self.ongoing.remove(change)
        if isinstance(result, dict):
            result["warnings"] = list(change.warnings)
        return [Reply(change.request, result, change.cause)]


def _description(cls: str, owner: Supervision | None) -> ClassDescription:
    if owner is None or cls not in owner.classes:
        raise ResourceNotFound(f"this node has no class '{cls}'", "`covey resource classes` shows which node has which")
    return owner.classes[cls].description
