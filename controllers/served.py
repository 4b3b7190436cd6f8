"""One controller as a service of the bus: `controller.<name>`.

Holds the controller to its description and turns whatever it does into an answer or into an error that names the line
at fault. Nothing of the author's code runs on the loop of the bus (`caller.py`). A controller that could not be loaded
is served too: every verb answers with the reason, so that whoever asks learns it without a search.
Sensitive values do not leave this process. Odd: only one discovery runs at a time; a second one waits for the first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ..bus.messages import Role
from ..bus.service import Request, verb
from ..errors import CoveyError, PluginError, ResourceNotFound, Unsupported
from ..plugins.blame import Home, tail
from .binding import Bound
from .caller import Caller
from .classes import ClassDescription, resource_id, to_wire
from .conformance import (
    Misfit,
    check_key,
    check_reported,
    check_result,
    checked_arguments,
    checked_changes,
    checked_definition,
    checked_key,
    no_action,
    redacted,
)
from .contract import Controller, Found, Resource
from .values import shown

log = logging.getLogger(__name__)

DISCOVER_DEADLINE = 10.0
"""Seconds a discovery may take (SPEC 6.4)."""

CALL_DEADLINE = 10.0
"""Seconds a read or a set may take."""

MARGIN = 0.2
"""Seconds before the caller's own deadline at which we give up, so that our reason, with the line, still arrives."""


class ServedController:
    """The verbs of one controller. Without `bound` it is one that could not be loaded, for `reason`."""

    def __init__(
        self,
        name: str,
        node: Callable[[], int],
        *,
        home: Home | None = None,
        bound: Bound | None = None,
        controller: Controller | None = None,
        caller: Caller | None = None,
        reason: str = "",
        why: str = "",
    ) -> None:
        self.name = name
        self.reason = reason
        self.why = why
        self._node = node
        self._home = home or Home(name)
        self._bound = bound
        self._controller = controller
        self._caller = caller
        self._discovering = asyncio.Lock()
        self._known: dict[tuple[str, str], dict[str, Any]] = {}

    # --- verbs ----------------------------------------------------------------------------------------------

    @verb()
    async def status(self) -> dict[str, Any]:
        """Tell whether the controller runs, its classes, and if it failed: the reason, and all that is known of it."""
        classes = [one.name for one in self._bound.classes] if self._bound else []
        state = "failed" if self.reason else "running"
        return {"name": self.name, "state": state, "reason": self.reason, "why": self.why, "classes": classes}

    @verb()
    async def classes(self) -> list[dict[str, Any]]:
        """Return the descriptions of its classes, as `controllers.classes.from_wire` reads them."""
        return [to_wire(one) for one in self._parts()[0].classes]

    @verb(role=Role.COMPONENT)
    async def discover(self, request: Request) -> dict[str, Any]:
        """Return `found`: what there is now, as `{class, id, key, attributes}`; `findings`: what was left out and why.

        A resource without a good key is left out; of one with a bad attribute only that attribute is.
        """
        bound, controller, caller = self._parts()
        none: list[Misfit] = []  # why there can be nothing on this machine
        async with self._discovering:
            try:
                result = await caller.call(controller.discover, deadline=_deadline(DISCOVER_DEADLINE, request))
                if not isinstance(result, (list, tuple, set, frozenset)):
                    raise PluginError(f"discover: returned {shown(result)}, not resources", _bug(self.name))
            except Unsupported as error:
                result, none = [], [Misfit(error.code, error.message, error.hint)]
            except CoveyError as error:
                self._note(error)
                raise
        self.reason = self.why = ""
        found, misfits = self._checked(bound, list(result))
        misfits += none
        for misfit in misfits:
            log.warning("controller %s: %s: %s (%s)", self.name, misfit.code, misfit.message, misfit.hint)
        return {"found": found, "findings": [misfit.as_dict() for misfit in misfits]}

    @verb()
    async def read(self, request: Request, *, cls: str, key: dict[str, Any]) -> dict[str, Any]:
        """Return the `attributes` of one resource as they are now, and `findings` on what was left out."""
        bound, controller, caller = self._parts()
        one = self._class(bound, cls)
        resource = self._resource(one, key)
        result = await self._call(caller, controller.read, resource, deadline=_deadline(CALL_DEADLINE, request))
        good, misfits = check_reported(one, {} if result is None else result)
        return {"attributes": redacted(one, good), "findings": [misfit.as_dict() for misfit in misfits]}

    @verb(role=Role.COMPONENT)
    async def set(self, request: Request, *, cls: str, key: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        """Change writable attributes; return the `attributes` that the controller says hold now, and `findings`."""
        bound, controller, _ = self._parts()
        one = self._class(bound, cls)
        return await self._changed(request, controller.set, one, key, checked_changes(one, values))

    @verb(role=Role.COMPONENT)
    async def define(
        self, request: Request, *, cls: str, key: dict[str, Any], values: dict[str, Any]
    ) -> dict[str, Any]:
        """Make a resource; return the `attributes` that the controller says hold now, and `findings`."""
        bound, controller, _ = self._parts()
        one = self._class(bound, cls)
        key, checked = checked_definition(one, {**values, **key})
        return await self._changed(request, controller.define, one, key, checked)

    @verb(role=Role.COMPONENT)
    async def undefine(self, request: Request, *, cls: str, key: dict[str, Any]) -> dict[str, Any]:
        """Remove a resource; return no `attributes` and no `findings`."""
        bound, controller, caller = self._parts()
        resource = self._resource(self._class(bound, cls), key)
        await self._call(caller, controller.undefine, resource, deadline=_deadline(CALL_DEADLINE, request))
        self._known.pop((cls, resource.id), None)
        return {"attributes": {}, "findings": []}

    @verb(role=Role.COMPONENT)
    async def action(
        self, request: Request, *, cls: str, key: dict[str, Any], name: str, arguments: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run an action on one resource; return its `result`, and `findings` on what of it was left out."""
        bound, controller, caller = self._parts()
        one = self._class(bound, cls)
        declared = one.action(name)
        if declared is None:
            raise no_action(one, name)
        resource = self._resource(one, key)
        checked = checked_arguments(one, declared, arguments or {})
        deadline = _deadline(declared.deadline, request)
        if bound.describes:
            result = await self._call(caller, controller.run, resource, name, checked, deadline=deadline)
        else:
            method = getattr(controller, bound.actions[cls, name])
            result = await self._call(caller, method, resource, deadline=deadline, **checked)
        good, misfits = check_result(one, declared, result)
        return {"result": good, "findings": [misfit.as_dict() for misfit in misfits]}

    async def spun(self) -> str:
        """Wait until the controller eats a processor without end; return where. Never, for one that is not loaded."""
        if self._caller is None:
            await asyncio.Event().wait()
            raise AssertionError("an event that nobody sets")
        return await self._caller.spun()

    # --- inside ---------------------------------------------------------------------------------------------

    def _parts(self) -> tuple[Bound, Controller, Caller]:
        if self._bound is None or self._controller is None or self._caller is None:
            raise PluginError(self.reason, f"`covey plugin why {self.name}` tells more")
        return self._bound, self._controller, self._caller

    def _class(self, bound: Bound, name: str) -> ClassDescription:
        found = bound.description.get(name)
        if found is None:
            known = ", ".join(one.name for one in bound.classes)
            raise ResourceNotFound(f"the controller {self.name} has no class {name!r}", f"it has: {known}")
        return found

    def _resource(self, one: ClassDescription, key: dict[str, Any]) -> Resource:
        good = checked_key(one, key)
        identity = resource_id(self._node(), good)
        return Resource(one.name, good, identity, self._known.get((one.name, identity), {}))

    async def _changed(
        self,
        request: Request,
        method: Callable[..., Any],
        one: ClassDescription,
        key: dict[str, Any],
        values: dict[str, Any],
    ) -> dict[str, Any]:
        resource = self._resource(one, key)
        deadline = _deadline(CALL_DEADLINE, request)
        result = await self._call(self._parts()[2], method, resource, values, deadline=deadline)
        good, misfits = check_reported(one, {} if result is None else result)
        now = {name: value for name, value in (values | good).items() if _is_persistent(one, name)}
        self._known[one.name, resource.id] = {**self._known.get((one.name, resource.id), {}), **now}
        return {"attributes": redacted(one, good), "findings": [misfit.as_dict() for misfit in misfits]}

    async def _call(self, caller: Caller, method: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        try:
            return await caller.call(method, *arguments, **more)
        except PluginError as error:
            log.warning("controller %s: %s\n%s", self.name, error.message, self._tail(error))
            raise

    def _checked(self, bound: Bound, items: list[Any]) -> tuple[list[dict[str, Any]], list[Misfit]]:
        found: dict[tuple[str, str], dict[str, Any]] = {}
        known: dict[tuple[str, str], dict[str, Any]] = {}
        misfits: list[Misfit] = []
        for item in items:
            if not isinstance(item, Found):
                misfits.append(Misfit("plugin.bad_value", f"discover gave {shown(item)}, not a covey.Found"))
                continue
            one = bound.description.get(str(item.class_name))
            if one is None:
                hint = f"declared: {', '.join(declared.name for declared in bound.classes)}"
                text = f"discover gave a {shown(item.class_name)}, a class its description does not declare"
                misfits.append(Misfit("plugin.unknown_class", text, hint))
                continue
            key, wrong = check_key(one, item.key)
            misfits += wrong
            if key is None:
                continue
            good, wrong = check_reported(one, item.attributes)
            misfits += wrong
            identity = resource_id(self._node(), key)
            if (one.name, identity) in found:
                text = f"discover gave {one.name} {key} twice; the first one counts"
                misfits.append(Misfit("plugin.duplicate_resource", text, "", one.name))
                continue
            attributes = redacted(one, good)
            found[one.name, identity] = {"class": one.name, "id": identity, "key": key, "attributes": attributes}
            known[one.name, identity] = {name: good[name] for name in good if _is_persistent(one, name)}
        self._known = known
        return list(found.values()), misfits

    def _note(self, error: CoveyError) -> None:
        """Remember why discovery failed; the author finds it in `covey plugin why`."""
        self.reason = error.message if error.message.startswith("discover") else f"discover: {error.message}"
        self.why = self._tail(error)
        log.warning("controller %s: %s\n%s", self.name, self.reason, self.why)

    def _tail(self, error: CoveyError) -> str:
        return tail(error.__cause__ or error, self._home)


def _deadline(most: float, request: Request) -> float:
    """Our own limit, or the caller's if that is shorter."""
    return min(most, max(request.budget - MARGIN, request.budget / 2)) if request.budget > 0 else most


def _is_persistent(one: ClassDescription, name: str) -> bool:
    declared = one.attribute(name)
    return declared is not None and declared.kind == "persistent"


def _bug(name: str) -> str:
    return f"this is a bug of the controller {name}"
